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
  bool closed() const { return !file_ || file_->get() < 0; }
  bool forked() const { return file_ && file_->forked(); }
  const std::string& path() const { return path_; }
  const Segment& segment() const { return *segment_; }
  Header& header() const { return segment_->header(); }
  std::uint64_t head() const { return header().commit.commit.load(std::memory_order_acquire); }  // pairs with publish

 protected:
  class InUse {  // acquire/release: the next thread sees what the last one left in the private fields
   public:
    explicit InUse(Endpoint& e, bool even_closed = false) : e_(e) {
      // The thread that was inside a call when its process forked is not there in the child.
      if (e.in_use_.exchange(true, std::memory_order_acquire) && !e.forked())
        throw Fault(Code::concurrent, "another thread is inside a call on " + e.path_ + "; give each thread its own "
                                      "consumer, and let one thread write");
      const char* why = e.forked() ? "forked" : e.closed() ? "closed" : nullptr;
      if (why && !even_closed) {
        e.in_use_.store(false, std::memory_order_release);
        if (*why == 'f')
          throw Fault(Code::forked, e.path_ + " was opened by the parent process; open it anew in the child");
        throw Fault(Code::closed, e.path_ + " was closed before this call; open it again to go on");
      }
    }
    ~InUse() { e_.in_use_.store(false, std::memory_order_release); }
    InUse(const InUse&) = delete;

   private:
    Endpoint& e_;
  };

  static void check(Interrupted interrupted) {
    if (interrupted && interrupted()) throw Fault(Code::interrupted, "interrupted by a signal");
  }

  std::string path_;
  std::unique_ptr<Descriptor> file_;
  std::unique_ptr<Segment> segment_;

 private:
  std::atomic<bool> in_use_{false};
};

}  // namespace labhub
