// Places at which a test build of the core can be told to die, one for each step that a neighbour could be left with.
// A released build has none of this: LABHUB_FAILPOINT expands to nothing unless LABHUB_FAILPOINTS is defined.
#pragma once

#ifndef LABHUB_FAILPOINTS
#define LABHUB_FAILPOINT(name)
#else

#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#define LABHUB_FAILPOINT(name) ::labhub::failpoint::pass(::labhub::failpoint::Point::name)

// clang-format off
#define LABHUB_FAILPOINT_LIST(X) \
  X(create_opened) X(create_locked) X(create_allocated) X(create_mapped) X(create_initialised) X(create_finished) \
  X(create_linked) X(create_unlinked) X(sweep_locked) X(sweep_done) \
  X(takeover_locked) X(takeover_accepted) X(leftover_unlinked) X(replace_ended) X(replace_unlinked) \
  X(owner_pid_stored) X(owner_epoch_stored) X(repair_found_complete) X(repair_done) \
  X(claim_found_room) X(claim_odd) X(payload_half_written) X(payload_written) X(commit_fields_stored) \
  X(commit_complete) X(commit_stored) X(commit_word_exchanged) X(commit_woken) X(many_slot_complete) X(hole_left) X(aborted) \
  X(full_waiting_announced) X(full_scanned) X(evict_decided) X(evict_done) \
  X(end_flag_stored) X(end_readers_woken) X(end_producer_woken) X(close_unlinked) X(close_unlocked) \
  X(bury_locked) X(bury_ended) X(bury_unlinked) \
  X(line_locked) X(line_filled) X(register_cursor_stored) X(register_active) X(register_counted) X(register_fenced) \
  X(register_cursor_final) X(register_notified) X(register_placed) \
  X(wait_bit_set) X(read_run_copied) X(read_validated) X(slot_opened) X(cursor_stored) X(cursor_notified) \
  X(notify_exchanged) X(eviction_noticed) X(leave_freed) X(leave_notified)
// clang-format on

namespace labhub::failpoint {

#define LABHUB_FAILPOINT_ENUM(name) name,
enum class Point { LABHUB_FAILPOINT_LIST(LABHUB_FAILPOINT_ENUM) count };
#define LABHUB_FAILPOINT_NAME(name) "failpoint:" #name,
constexpr const char* kNames[] = {LABHUB_FAILPOINT_LIST(LABHUB_FAILPOINT_NAME)};

inline std::uint64_t passed[static_cast<int>(Point::count)];
inline int armed = -1;
inline std::uint64_t fatal_passage = 0;

inline const char* name(int point) { return kNames[point] + sizeof "failpoint:" - 1; }

// Die at the k-th passage of a point (counted from 1); false if there is no such point.
inline bool arm(const char* point, std::uint64_t k) {
  for (int i = 0; i < static_cast<int>(Point::count); ++i)
    if (std::strcmp(point, name(i)) == 0) {
      armed = i;
      fatal_passage = passed[i] + k;
      return true;
    }
  return false;
}

inline void pass(Point point) {
  const int i = static_cast<int>(point);
  if (++passed[i] == fatal_passage && i == armed) ::kill(::getpid(), SIGKILL);
}

}  // namespace labhub::failpoint

#endif
