// Sleeping and waking across processes, with a bound on every sleep and a way out for Ctrl-C.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

#include "failpoint.hpp"
#include "layout.hpp"

namespace labhub {

constexpr std::int64_t kSlice = 50'000'000;  // ns; a safety net for what no wake-up can announce: a death
constexpr std::int64_t kPollSlice = 10'000'000;  // ns; while polling, nothing announces a signal either
constexpr int kPolls = 512;  // between two looks at the clock: some 15 us

inline std::int64_t clock_ns(clockid_t id) {
  timespec t{};
  ::clock_gettime(id, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}
inline std::int64_t monotonic_ns() { return clock_ns(CLOCK_MONOTONIC); }

class Deadline {
 public:
  explicit Deadline(std::int64_t timeout_ns)
      : at_(timeout_ns < 0 ? INT64_MAX : sum(timeout_ns == 0 ? 0 : monotonic_ns(), timeout_ns)) {}
  bool passed() const { return at_ != INT64_MAX && monotonic_ns() >= at_; }
  std::int64_t slice() const {
    if (at_ == INT64_MAX) return kSlice;
    return std::max<std::int64_t>(0, std::min(kSlice, at_ - monotonic_ns()));
  }
  std::int64_t slice_end() const { return std::min(at_, monotonic_ns() + kPollSlice); }

 private:
  static std::int64_t sum(std::int64_t now, std::int64_t timeout) {
    return timeout > INT64_MAX - now ? INT64_MAX : now + timeout;
  }
  std::int64_t at_;
};

// Returns when woken, when the word is not `expected`, on a signal, or after the slice; the caller looks again anyway.
// Not PRIVATE: the waker is another process.
inline void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected, std::int64_t slice_ns) {
  const timespec t{static_cast<time_t>(slice_ns / 1'000'000'000), static_cast<long>(slice_ns % 1'000'000'000)};
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT, expected, &t, nullptr, 0);
}
inline void futex_wake(std::atomic<std::uint32_t>& word) {
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

inline void relax_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns as soon as `changed` is true, or after the slice; the caller looks again anyway. Nobody has to wake who waits like
// this, which sets no bit. It costs a core; where that has to be shared after all, the others get their turn.
template <class Changed>
void poll(Changed changed, const Deadline& deadline) {
  const std::int64_t end = deadline.slice_end();
  do {
    for (int k = 0; k < kPolls; ++k) {
      if (changed()) return;
      relax_cpu();
    }
    ::sched_yield();
  } while (monotonic_ns() < end);
}

// Publish the head to sleepers. Exchange (acq_rel): its release side carries the commit or closed flag stored before;
// it pairs with the waiter's compare-and-swap of the same word, so that either the waiter's set bit is seen here, or the
// waiter, coming later in the word's order, sees what was stored before.
inline void wake_readers(Header& h, std::uint64_t commit) {
  const std::uint32_t before = h.data.word.exchange(data_word(commit), std::memory_order_acq_rel);
  LABHUB_FAILPOINT(commit_word_exchanged);
  if (before & 1) futex_wake(h.data.word);
}

inline void wake_producer(Header& h) {
  h.space.word.fetch_add(1, std::memory_order_release);  // pairs with the producer's load before its last scan
  futex_wake(h.space.word);
}

// After a cursor has moved. The fence pairs with the producer's between `producer_waiting = 1` and its scan: either the
// scan sees the cursor, or this load sees that the producer is going to sleep.
inline void notify_producer(Header& h, std::uint64_t cursor, bool always = false) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (h.space.producer_waiting.load(std::memory_order_relaxed) == 0) return;
  if (!always && cursor < h.space.wake_at.load(std::memory_order_relaxed)) return;
  // exchange: of many consumers only one makes the system call
  if (h.space.producer_waiting.exchange(0, std::memory_order_acq_rel)) {
    LABHUB_FAILPOINT(notify_exchanged);
    wake_producer(h);
  }
}

}  // namespace labhub
