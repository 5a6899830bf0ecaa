// Looking at a segment from outside: what it says, who lives, and the removal of what is provably dead.
#pragma once

#include "clock.hpp"
#include "creation.hpp"

namespace labhub {

struct LineReport {
  std::uint32_t line, pid;
  bool lossless, alive, evicted;
  std::uint64_t cursor, lag, lost, received;
};

struct Report {
  std::string path;
  Geometry const* geometry;
  Header const* header;
  std::shared_ptr<MemoryMap> map;  // keeps the two above
  struct stat status {};
  bool alive, closed;
  std::uint64_t head;
  std::int64_t commit_ns;  // timestamp of the newest slot, 0 if there is none
  std::int64_t clock_ahead_ns;  // of the slots' clock, compared with the wall clock now; 0 if its labhub does not say
  std::vector<LineReport> consumers;
};

// A counter since its last reset. A reader that took the line over meanwhile counts from zero again.
inline std::uint64_t since(const std::atomic<std::uint64_t>& now, const std::atomic<std::uint64_t>& before) {
  const std::uint64_t n = now.load(std::memory_order_relaxed), b = before.load(std::memory_order_relaxed);
  return n >= b ? n - b : n;
}

inline Report probe(const std::string& directory, const std::string& name) {
  check_name(name);
  const DirectoryHandle dir(directory, false);
  const OpenFile o = open_file(dir, name);
  Report r;
  r.path = directory + "/" + name;
  r.map = map_checked(o, r.path, PROT_READ, false);
  const Segment segment(r.map);
  const Header& h = segment.header();
  r.header = &h;
  r.geometry = &h.geometry;
  r.status = o.status;
  r.alive = locked_by_other(o.file->get(), kProducerLock, r.path);
  r.closed = h.owner.closed.load(std::memory_order_acquire) != kOpen;
  r.head = h.commit.commit.load(std::memory_order_acquire);
  r.commit_ns = r.head > h.commit.first_seq ? segment.slot(r.head - 1).timestamp_ns.load(std::memory_order_relaxed) : 0;
  const std::int64_t offset = h.owner.clock_offset_ns.load(std::memory_order_relaxed);
  // A damaged header can say anything: the difference wraps around then, as unsigned numbers do.
  const auto ahead = static_cast<std::uint64_t>(offset) - static_cast<std::uint64_t>(clock_offset().ns);
  r.clock_ahead_ns = offset ? static_cast<std::int64_t>(ahead) : 0;
  for (std::uint32_t k = 0; k < kMaxLines; ++k) {
    const CursorLine& l = h.lines[k];
    const std::uint64_t state = l.state.load(std::memory_order_acquire) & 3;
    if (state == kFree) continue;
    const bool alive = locked_by_other(o.file->get(), line_lock(k), r.path);
    if (!alive && k >= kMaxLossless) continue;  // an observer that died leaves nothing that matters
    const std::uint64_t cursor = l.cursor.load(std::memory_order_relaxed);
    r.consumers.push_back({k, l.pid.load(std::memory_order_relaxed), k < kMaxLossless, alive, state == kEvicted, cursor,
                           r.head > cursor ? r.head - cursor : 0, since(l.lost, l.lost_before),
                           since(l.received, l.received_before)});
  }
  return r;
}

// Let the counters begin anew, for tools only: what live users count goes on, and is compared with what it was now.
inline void reset_counters(const std::string& directory, const std::string& name) {
  check_name(name);
  const DirectoryHandle dir(directory, false);
  const OpenFile o = open_file(dir, name);
  const auto map = map_checked(o, directory + "/" + name, PROT_READ | PROT_WRITE, false);
  Header& h = *reinterpret_cast<Header*>(map->base());
  const auto keep = [](std::atomic<std::uint64_t>& before, const std::atomic<std::uint64_t>& now) {
    before.store(now.load(std::memory_order_relaxed), std::memory_order_relaxed);
  };
  for (const Counter& c : kCounters) keep(h.before.*c.member, h.counters.*c.member);
  for (CursorLine& l : h.lines) {
    keep(l.received_before, l.received);
    keep(l.lost_before, l.lost);
  }
}

struct SlotStates {
  std::uint64_t empty = 0, committed = 0, holes = 0, writing = 0, uncommitted = 0;
};

// How the slots of a segment stand: never used, committed, passed over, being written (or left so by a producer that died
// or aborted), complete but not committed yet.
inline SlotStates slot_states(const std::string& directory, const std::string& name) {
  check_name(name);
  const DirectoryHandle dir(directory, false);
  const OpenFile o = open_file(dir, name);
  const Segment segment(map_checked(o, directory + "/" + name, PROT_READ, false));
  SlotStates states;
  for (std::uint64_t k = 0; k < segment.capacity; ++k) {
    const std::uint64_t seq = segment.slot(k).seq.load(std::memory_order_acquire);  // pairs with finish_slot
    const bool published = seq <= 2 * segment.header().commit.commit.load(std::memory_order_acquire);
    if (seq == 0) ++states.empty;
    else if (seq & 1) ++(published ? states.holes : states.writing);
    else ++(published ? states.committed : states.uncommitted);
  }
  return states;
}

// Unlink a segment whose producer is provably dead. Its lock is taken first, so no successor can be taking it over.
inline bool unlink_dead(const std::string& directory, const std::string& name, const std::uint8_t* instance_id) {
  check_name(name);
  try {
    const DirectoryHandle dir(directory, false);
    const OpenFile o = open_file(dir, name);
    if (!take_lock(o.file->get(), kProducerLock, directory + "/" + name) || !still_there(dir, name, o.status)) return false;
    LABHUB_FAILPOINT(bury_locked);
    const auto map = map_checked(o, directory + "/" + name, PROT_READ | PROT_WRITE, false);
    Header& h = *reinterpret_cast<Header*>(map->base());
    if (instance_id && std::memcmp(instance_id, h.identity.instance_id, 16) != 0) return false;
    end_stream(h, kEnded);
    LABHUB_FAILPOINT(bury_ended);
    const bool unlinked = ::unlinkat(dir.fd, name.c_str(), 0) == 0;
    LABHUB_FAILPOINT(bury_unlinked);
    return unlinked;
  } catch (const Fault& f) {
    if (f.code == Code::not_found) return false;
    throw;
  }
}

}  // namespace labhub
