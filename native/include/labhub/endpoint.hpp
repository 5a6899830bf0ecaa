// What producers and consumers have in common: one thread at a time, not after close, not in a forked child.
#pragma once

#include <sys/random.h>

#include <cstdio>
#include <functional>

#include "segment.hpp"
#include "wait.hpp"

namespace labhub {

struct HeaderCopy {  // a slot header as readers get it: `seq` is the slot's index
  std::uint64_t seq;
  std::int64_t timestamp_ns;
  std::uint64_t nbytes;
  std::uint32_t flags, epoch;
  std::uint8_t checksum[32];
};
static_assert(sizeof(HeaderCopy) == sizeof(SlotHeader));

using Interrupted = bool (*)();  // true: a signal handler asked to stop; looked at once in every slice; may be null

// Field 22 of /proc/<pid>/stat: start of the process in clock ticks since boot. Together with the pid it names a process.
inline std::uint64_t start_time(const std::string& process = "self") {
  unsigned long long ticks = 0;
  if (std::FILE* f = std::fopen(("/proc/" + process + "/stat").c_str(), "re")) {
    char line[1024];
    const std::size_t n = std::fread(line, 1, sizeof line - 1, f);
    std::fclose(f);
    line[n] = 0;
    const char* p = std::strrchr(line, ')');  // the command name may contain blanks and parentheses
    for (int field = 2; p && field < 22; ++field) p = std::strchr(p + 1, ' ');
    if (p) std::sscanf(p, "%llu", &ticks);
  }
  return ticks;
}

inline void sign(OwnerLine& owner) {
  owner.pid.store(static_cast<std::uint32_t>(::getpid()), std::memory_order_relaxed);
  owner.start_time.store(start_time(), std::memory_order_relaxed);
}

class Endpoint {
 public:
  virtual ~Endpoint() = default;
  bool closed() const { return closing() || !file_ || file_->get() < 0; }
  bool closing() const { return closing_.load(std::memory_order_acquire); }  // pairs with close_from_anywhere
  bool closed_here() const { return closing() && ::pthread_equal(closer_.load(), ::pthread_self()); }  // by this thread
  bool forked() const { return file_ && file_->forked(); }
  const std::string& path() const { return path_; }
  const Segment& segment() const { return *segment_; }
  Header& header() const { return segment_->header(); }
  std::uint64_t head() const { return header().commit.commit.load(std::memory_order_acquire); }  // pairs with publish

  // Give the map of a closed end back, to be dropped by the caller; nothing if it is open or somebody is inside a call.
  // Nobody else may look at the header meanwhile.
  std::shared_ptr<MemoryMap> let_go() {
    if (!closed() || forked() || in_use_.exchange(true, std::memory_order_acquire)) return nullptr;
    auto map = segment_->let_go();
    in_use_.store(false, std::memory_order_release);
    return map;
  }

 protected:
  class InUse {  // acquire/release: the next thread sees what the last one left in the private fields
   public:
    explicit InUse(Endpoint& e, bool even_closed = false) : e_(e) {
      if (e.in_use_.exchange(true, std::memory_order_acquire)) e.refuse_second();
      if (!even_closed && (e.closed() || e.forked())) e.refuse_closed();
    }
    ~InUse() { e_.in_use_.store(false, std::memory_order_release); }
    InUse(const InUse&) = delete;

   private:
    Endpoint& e_;
  };

  // Called in the middle of a call that takes long: whether it shall end.
  void check(Interrupted interrupted) {
    bool stop = false;
    if (interrupted) {
      const Asking asking(*this);
      stop = interrupted();
    }
    if (closing()) shut();  // we are inside; a signal handler that closed us could not wait for us
    if (stop) throw Fault(Code::interrupted, "interrupted by a signal");
    if (closing()) throw was_closed();
  }

  // The same for what takes long before there is anything to close; not too often, as it may take the GIL.
  Look looking(Interrupted interrupted) {
    return [this, interrupted, looked = monotonic_ns()]() mutable {
      if (const std::int64_t now = monotonic_ns(); now - looked > kSlice / 5) {
        check(interrupted);
        looked = now;
      }
    };
  }

  // Close it, whoever is inside a call. A wait ends at once, everything else when it next calls check, or returns. `word` is
  // the one that such a wait sleeps on. It is woken over and over, as the sleeper may just have looked at `closing`.
  void close_from_anywhere(std::atomic<std::uint32_t>& word) {
    if (!closing()) closer_.store(::pthread_self());
    closing_.store(true, std::memory_order_release);  // pairs with closing()
    if (Asking::within(*this)) return;                // of a signal handler: the call that it interrupted does it
    timespec nap{0, 20'000};
    while (in_use_.exchange(true, std::memory_order_acquire) && !forked()) {
      futex_wake(word);
      ::nanosleep(&nap, nullptr);
      nap.tv_nsec = std::min(2 * nap.tv_nsec, 2'000'000L);
    }
    shut();
    in_use_.store(false, std::memory_order_release);
  }

  // End it in order, with nobody else inside; any number of times.
  virtual void shut() = 0;

  Fault was_closed() const { return Fault(Code::closed, path_ + " was closed; open it again to go on"); }

  std::string path_;
  std::unique_ptr<Descriptor> file_;
  std::unique_ptr<Segment> segment_;

 private:
  // Out of the way of calls that nothing is wrong with.
  __attribute__((noinline, cold)) void refuse_second() const {
    if (forked()) return;  // the thread that was inside a call when its process forked is not there in the child
    if (closing()) throw was_closed();
    throw Fault(Code::concurrent, "another thread is inside a call on " + path_ + "; give each thread its own consumer, and "
                                  "let one thread write");
  }
  [[noreturn]] __attribute__((noinline, cold)) void refuse_closed() {
    in_use_.store(false, std::memory_order_release);
    if (forked()) throw Fault(Code::forked, path_ + " was opened by the parent process; open it anew in the child");
    throw was_closed();
  }

  class Asking {  // this thread asks whether a call on that end shall go on; what it asks may call us again
   public:
    explicit Asking(const Endpoint& e) : end_(&e), outer_(innermost()) { innermost() = this; }
    ~Asking() { innermost() = outer_; }
    Asking(const Asking&) = delete;
    static bool within(const Endpoint& e) {
      const Asking* a = innermost();
      while (a && a->end_ != &e) a = a->outer_;
      return a;
    }

   private:
    static const Asking*& innermost() {
      static thread_local const Asking* a = nullptr;
      return a;
    }
    const Endpoint* end_;
    const Asking* outer_;
  };

  std::atomic<bool> in_use_{false}, closing_{false};
  std::atomic<pthread_t> closer_{};
};

}  // namespace labhub
