// The clock of the slots: the wall clock as it stands, which in one epoch never falls.
#pragma once

#include <cstdlib>
#include <limits>

#include "wait.hpp"

namespace labhub {

// What takes the machine's monotonic clock to its wall clock, and how far that may be off.
struct ClockOffset {
  std::int64_t ns, error_ns;
};

// Each look at the wall clock is bracketed by two at the monotonic one; of several the tightest counts, so that a process
// that lost its CPU in between does not take the pause for a difference of the clocks.
inline ClockOffset clock_offset() {
  constexpr int kLooks = 16;
  constexpr std::int64_t kTight = 1'000;  // no need to look again
  ClockOffset best{0, std::numeric_limits<std::int64_t>::max()};
  for (int k = 0; k < kLooks && best.error_ns > kTight; ++k) {
    const std::int64_t before = monotonic_ns(), wall = clock_ns(CLOCK_REALTIME), after = monotonic_ns();
    const std::int64_t half = (after - before + 1) / 2;
    if (half < best.error_ns) best = {wall - before - half, half};
  }
  return best;
}

// Both clocks are slewed alike, so their offset moves when the wall clock is set, and when the machine was suspended: the
// monotonic one stands still then. It is looked at once a second at most, and only when a slot wants its time.
class SlotClock {
 public:
  static constexpr std::int64_t kInterval = 1'000'000'000;
  static constexpr std::int64_t kStep = 1'000'000;  // a larger move begins a new epoch; a smaller one is followed

  void begin() {
    offset_ns_ = clock_offset().ns;
    look_at_ = monotonic_ns() + kInterval;
  }

  bool due(std::int64_t monotonic) const { return monotonic >= look_at_; }
  std::int64_t at(std::int64_t monotonic) const { return std::max(last_ns, monotonic + offset_ns_); }
  std::int64_t offset_ns() const { return offset_ns_; }

  std::int64_t last_ns = 0;  // time of the newest slot that has its time from here

  // Whether it was stepped since the last look: then times begin anew.
  bool look(std::int64_t monotonic) {
    look_at_ = monotonic + kInterval;
    const ClockOffset found = clock_offset();
    const std::int64_t moved = std::abs(found.ns - offset_ns_);
    if (moved <= found.error_ns) return false;  // as far as can be told it stands where it stood
    offset_ns_ = found.ns;
    if (moved <= kStep + found.error_ns) return false;
    last_ns = 0;
    return true;
  }

 private:
  std::int64_t offset_ns_ = 0, look_at_ = 0;
};

}  // namespace labhub
