// The one writer of a channel: claim a slot, write it, commit it; wait for lossless consumers, but not for ever.
#pragma once

#include <limits>
#include <optional>
#include <type_traits>

#include "clock.hpp"
#include "creation.hpp"

namespace labhub {

// As the time of a slot: that of its publication. Every other number is a time, 0 (1970) and those before it too.
inline constexpr std::int64_t kNow = std::numeric_limits<std::int64_t>::min();

struct Patience {
  std::int64_t timeout_ns = -1;      // below zero: for ever
  std::int64_t evict_after_ns = -1;  // below zero: never evict a live consumer
};

// The times of slots that are written by one call: slot k of them has `first_ns + k * step_ns`.
struct Span {
  std::int64_t first_ns, step_ns;
};

class Producer : public Endpoint {
 public:
  Producer(const std::string& directory, const std::string& name, const Shape& shape, std::uint64_t first_seq = 0,
           Interrupted interrupted = nullptr)
      : sync_(shape.sync) {
    check_name(name);
    path_ = directory + "/" + name;
    name_ = name;
    dir_ = std::make_unique<DirectoryHandle>(directory, true);
    Claimed c = Creation(*dir_, name, shape, first_seq, looking(interrupted)).run();
    file_ = std::move(c.file);
    status_ = c.status;
    took_over_ = c.took_over;
    segment_ = std::make_unique<Segment>(std::move(c.map));
    begin();
  }
  ~Producer() override { shut(); }

  bool took_over() const { return took_over_; }
  bool claimed() const { return claimed_; }
  std::uint32_t epoch() const { return epoch_; }

  std::uint64_t claim(const Patience& p, Interrupted i) {
    InUse guard(*this);
    return open_slot(p, i);
  }

  // The same if that need not wait; nothing if it would have to.
  std::optional<std::uint64_t> try_claim() {
    InUse guard(*this);
    if (!has_room()) return std::nullopt;
    return open_slot({}, nullptr, true);
  }

  // `planned`: the time is one of `span_of`, and the times that the producer gives from here on do not fall behind it.
  std::uint64_t commit(std::uint64_t nbytes, std::int64_t timestamp_ns = kNow, const std::uint8_t* checksum = nullptr,
                       bool planned = false) {
    InUse guard(*this);
    if (!claimed_) throw Fault(Code::invalid_argument, "no slot of " + path_ + " is open; claim one first");
    if (nbytes > segment_->slot_nbytes) throw too_large(nbytes);
    finish_slot(head_, nbytes, resolved(timestamp_ns), checksum);
    if (planned) clock_.last_ns = std::max(clock_.last_ns, timestamp_ns);
    claimed_ = false;
    publish(head_ + 1);
    return head_ - 1;
  }

  void abort() {
    InUse guard(*this, true);
    if (!claimed_ || forked()) return;
    claimed_ = false;  // the seq stays odd, which nobody can read, and is used again by the next claim
    add(header().counters.aborts, 1);
    LABHUB_FAILPOINT(aborted);
  }

  [[gnu::always_inline]] std::uint64_t write(const std::uint8_t* data, std::uint64_t nbytes, const Patience& p = {},
                      std::int64_t timestamp_ns = kNow, Interrupted i = nullptr) {
    InUse guard(*this);
    return put(data, nbytes, p, timestamp_ns, i);
  }

  std::optional<std::uint64_t> try_write(const std::uint8_t* data, std::uint64_t nbytes,
                                         std::int64_t timestamp_ns = kNow) {
    InUse guard(*this);
    if (!has_room()) return std::nullopt;
    return put(data, nbytes, {}, timestamp_ns, nullptr, true);
  }

  // A record of a plain type, for C++ producers.
  template <class Record>
  std::uint64_t write(const Record& record, const Patience& p = {}, Interrupted i = nullptr,
                      std::int64_t timestamp_ns = kNow) {
    static_assert(std::is_trivially_copyable_v<Record>, "a slot is read by other processes: plain bytes only");
    return write(reinterpret_cast<const std::uint8_t*>(&record), sizeof record, p, timestamp_ns, i);
  }

  // Published in runs, so that 100 million small slots a second do not mean as many exchanges of the futex word. A run is
  // at most a quarter of the ring: a reader that keeps up always has whole runs that are not being overwritten.
  // All slots of a call were measured before it, so the clock is read once, at its beginning.
  void write_many(const std::uint8_t* data, std::uint64_t n, const Patience& p, Interrupted i, std::uint64_t& written,
                  std::int64_t step_ns = 0) {
    InUse guard(*this);
    const std::uint64_t longest = std::max<std::uint64_t>(1, segment_->capacity / 4);
    const Span span = times_of(n, step_ns);
    std::int64_t looked = monotonic_ns();
    while (written < n) {
      open_slot(p, i);
      claimed_ = false;
      std::uint64_t run = std::min({n - written, longest, room()});
      std::int64_t time = span.first_ns + span.step_ns * static_cast<std::int64_t>(written);
      for (std::uint64_t k = 0; k < run; ++k, time += span.step_ns) {
        if (k && newcomer()) {
          run = k;
          break;
        }
        if (k) begin_slot(head_ + k);
        std::memcpy(segment_->payload(head_ + k), data + (written + k) * segment_->slot_nbytes, segment_->slot_nbytes);
        finish_slot(head_ + k, segment_->slot_nbytes, time, nullptr);
        LABHUB_FAILPOINT(many_slot_complete);
      }
      clock_.last_ns = time - span.step_ns;
      publish(head_ + run);
      written += run;
      if (const std::int64_t now = monotonic_ns(); now - looked > kSlice / 5) {
        looked = now;
        check(i);
      }
    }
  }

  // The times of `n` slots, each measured `step_ns` after the one before it, if they are written from now on: the last one
  // gets the time of now. If less time has passed since the last slot of this producer than they took, they share that
  // evenly, so that times do not fall.
  Span span_of(std::uint64_t n, std::int64_t step_ns) {
    InUse guard(*this);
    return times_of(n, step_ns);
  }

  // Slots as another ring has numbered, stamped and sealed them, of which this one is a copy. The seqs that are missing
  // are holes, which nobody writes: readers count them as lost.
  void write_copies(const std::uint8_t* data, const HeaderCopy* headers, std::uint64_t n, const Patience& p, Interrupted i,
                    std::uint64_t& written) {
    InUse guard(*this);
    for (; written < n; ++written) {
      if (closing()) check(nullptr);
      const HeaderCopy& h = headers[written];
      if (h.seq < head_) throw Fault(Code::invalid_argument, "slot " + str(h.seq) + " of " + path_ + " is written already");
      if (h.nbytes > segment_->slot_nbytes) throw too_large(h.nbytes);
      pass_over(h.seq - head_, p, i);
      open_slot(p, i);
      std::memcpy(segment_->payload(head_), data + written * segment_->slot_nbytes, h.nbytes);
      LABHUB_FAILPOINT(payload_written);
      finish_slot(head_, h.nbytes, h.timestamp_ns, h.flags & 1 ? h.checksum : nullptr);
      claimed_ = false;
      publish(head_ + 1);
    }
  }

  // From any thread: a wait of another one ends at once, with Code::closed.
  void close() { close_from_anywhere(header().space.word); }

 private:
  void begin() {
    Header& h = header();
    epoch_ = h.owner.epoch.load(std::memory_order_relaxed) + 1;
    if (took_over_) sign(h.owner);  // else its creator, who is us, has done so
    LABHUB_FAILPOINT(owner_pid_stored);
    clock_.begin();
    h.owner.clock_offset_ns.store(clock_.offset_ns(), std::memory_order_relaxed);
    h.owner.opened_epoch.store(epoch_, std::memory_order_relaxed);
    h.owner.epoch.store(epoch_, std::memory_order_release);  // pairs with the acquire load of probes: pid is ours then
    LABHUB_FAILPOINT(owner_epoch_stored);
    joined_ = h.space.seen.load(std::memory_order_relaxed);
    head_ = h.commit.commit.load(std::memory_order_relaxed);
    if (!took_over_) {
      least_ = head_;
      return;
    }
    // Repair. A complete slot that was not committed yet is as good as any: commit it. An odd one is rewritten by claim.
    while (segment_->slot(head_).seq.load(std::memory_order_acquire) == complete(head_)) {
      LABHUB_FAILPOINT(repair_found_complete);
      ++head_;
    }
    LABHUB_FAILPOINT(repair_done);
    least_ = head_ - segment_->capacity;  // know nothing of cursors: the first claim scans
    h.space.producer_waiting.store(0, std::memory_order_relaxed);
    add(h.counters.takeovers, 1);
    publish(head_);
    futex_wake(h.data.word);  // whatever the bit says: the dead one may have taken it and not come to its wake
  }

  void shut() override {
    if (file_ && file_->get() >= 0 && !forked()) finish();
  }

  void finish() {  // the lock goes last: as long as we hold it, the path cannot lead to a successor's file
    end_stream(header(), kEnded);
    if (still_there(*dir_, name_, status_)) ::unlinkat(dir_->fd, name_.c_str(), 0);
    LABHUB_FAILPOINT(close_unlinked);
    file_->close();
    LABHUB_FAILPOINT(close_unlocked);
    dir_.reset();
  }

  Fault too_large(std::uint64_t nbytes) const {
    return Fault(Code::invalid_argument, str(nbytes) + " bytes do not fit into a slot of " + str(segment_->slot_nbytes));
  }
  static void add(std::atomic<std::uint64_t>& counter, std::uint64_t n) {  // only we write it
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }

  bool lossless() const { return sync_ != kLatestOnly; }
  std::uint64_t room() const {
    if (!lossless()) return segment_->capacity;
    const std::uint64_t used = head_ - least_;
    return used >= segment_->capacity ? 0 : segment_->capacity - used;
  }

  // Whether a lossless consumer wants slots that the last scan, which did not know it, left to be overwritten.
  bool newcomer() const { return header().space.joined.load(std::memory_order_relaxed) != joined_; }

  bool has_room() {
    if (room() != 0 && !newcomer()) return true;
    scan();
    return room() != 0;
  }

  // Leave holes. They take the place of older slots as slots do, so lossless readers must be done with those; once they
  // are done with all, any number can be left at once. Each is a slot that is begun and never finished: readers look for
  // what was overwritten by bisection (Consumer::clobbered), which needs the places to be taken one after the other.
  // Of more holes than there are places, each place is begun for its last one, the oldest place first. The next commit
  // publishes them, so that the newest slot is none; unless they fill the ring, and lossless readers must see them to move
  // on.
  void pass_over(std::uint64_t n, const Patience& p, Interrupted i) {
    if (n && claimed_) throw Fault(Code::concurrent, "a slot of " + path_ + " is open; commit or abort it first");
    while (n) {
      if (!has_room()) wait_for_room(p, i);
      const std::uint64_t step = room() == segment_->capacity ? n : std::min(n, room());
      for (std::uint64_t k = 0; k < std::min(step, segment_->capacity); ++k) {
        begin_slot(head_ + k + (step - 1 - k) / segment_->capacity * segment_->capacity);
        LABHUB_FAILPOINT(hole_left);
      }
      n -= step;
      head_ += step;
      if (room() == 0) publish(head_);
    }
  }

  std::uint64_t open_slot(const Patience& p, Interrupted i, bool room_is_known = false) {
    if (claimed_) throw Fault(Code::concurrent, "a slot of " + path_ + " is already open; commit or abort it first");
    if (!room_is_known && !has_room()) wait_for_room(p, i);
    LABHUB_FAILPOINT(claim_found_room);
    begin_slot(head_);
    LABHUB_FAILPOINT(claim_odd);
    claimed_ = true;
    return head_;
  }

  [[gnu::always_inline]] std::uint64_t put(const std::uint8_t* data, std::uint64_t nbytes, const Patience& p, std::int64_t timestamp_ns,
                    Interrupted i, bool room_is_known = false) {
    if (nbytes > segment_->slot_nbytes) throw too_large(nbytes);
    open_slot(p, i, room_is_known);
    std::memcpy(segment_->payload(head_), data, nbytes);
    LABHUB_FAILPOINT(payload_written);
    finish_slot(head_, nbytes, resolved(timestamp_ns), nullptr);
    claimed_ = false;
    publish(head_ + 1);
    return head_ - 1;
  }

  Span times_of(std::uint64_t n, std::int64_t step_ns) {
    const std::int64_t now = this->now();
    const auto count = static_cast<std::int64_t>(n);
    const std::int64_t step = n ? std::min(step_ns, (now - clock_.last_ns) / count) : 0;
    return {now - step * (count - 1), step};
  }

  // Times of a user's own are not compared with anything, and later ones of the clock are not with them.
  std::int64_t resolved(std::int64_t timestamp_ns) {
    if (timestamp_ns != kNow) return timestamp_ns;
    return clock_.last_ns = now();
  }

  std::int64_t now() {
    const std::int64_t monotonic = monotonic_ns();
    if (__builtin_expect(clock_.due(monotonic), 0)) look_at_clock(monotonic);
    return clock_.at(monotonic);
  }

  // A step of the wall clock begins a new epoch: only there may times fall.
  __attribute__((noinline, cold)) void look_at_clock(std::int64_t monotonic) {
    const bool stepped = clock_.look(monotonic);
    header().owner.clock_offset_ns.store(clock_.offset_ns(), std::memory_order_relaxed);
    if (!stepped) return;
    add(header().counters.clock_steps, 1);
    header().owner.epoch.store(++epoch_, std::memory_order_release);
  }

  void begin_slot(std::uint64_t i) {
    segment_->slot(i).seq.store(writing(i), std::memory_order_relaxed);
    // Pairs with the reader's acquire fence after its copy: who saw a byte of the new payload sees the odd seq.
    std::atomic_thread_fence(std::memory_order_release);
  }

  void finish_slot(std::uint64_t i, std::uint64_t nbytes, std::int64_t timestamp_ns, const std::uint8_t* checksum) {
    SlotHeader& s = segment_->slot(i);
    s.timestamp_ns.store(timestamp_ns, std::memory_order_relaxed);
    s.nbytes.store(nbytes, std::memory_order_relaxed);
    s.flags.store(checksum ? 1 : 0, std::memory_order_relaxed);
    s.epoch.store(epoch_, std::memory_order_relaxed);
    if (checksum) std::memcpy(s.checksum, checksum, sizeof s.checksum);
    LABHUB_FAILPOINT(commit_fields_stored);
    s.seq.store(complete(i), std::memory_order_release);  // pairs with the reader's acquire load of seq
    LABHUB_FAILPOINT(commit_complete);
    add(header().counters.bytes_written, nbytes);
  }

  void publish(std::uint64_t head) {
    Header& h = header();
    h.commit.commit.store(head, std::memory_order_release);  // pairs with every acquire load of commit
    head_ = head;
    LABHUB_FAILPOINT(commit_stored);
    wake_readers(h, head);
    LABHUB_FAILPOINT(commit_woken);
  }

  // The slowest cursor. Each cursor is loaded once: a second load could be newer than the one that was compared.
  __attribute__((noinline)) void scan() {  // apart, so that a claim that need not scan saves no registers for it
    Header& h = header();
    // Before the lines are looked at: who is counted here is seen below. Pairs with the release in enlist.
    const std::uint32_t joined = h.space.joined.load(std::memory_order_acquire);
    // Pairs with the fence of a registering consumer between ACTIVE and its second look at commit: either we see it
    // ACTIVE here, or it sees every commit that we made before.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    std::uint64_t least = head_;
    for (std::uint32_t k = 0; k < kMaxLossless; ++k) {
      if ((h.lines[k].state.load(std::memory_order_acquire) & 3) != kActive) continue;  // pairs with registration
      const std::uint64_t c = h.lines[k].cursor.load(std::memory_order_acquire);        // pairs with advance()
      if (c < least) least = c;
    }
    least_ = least;
    if (joined == joined_) return;
    joined_ = joined;
    h.space.seen.store(joined, std::memory_order_release);  // pairs with acknowledged: every slot begun so far is odd there
  }

  void wait_for_room(const Patience& p, Interrupted interrupted) {
    Header& h = header();
    const Deadline deadline(p.timeout_ns);
    const std::int64_t began = monotonic_ns();
    add(h.counters.blocked, 1);
    struct Leave {  // also when an exception leaves: nobody wakes a producer that does not sleep
      Header& h;
      std::int64_t began;
      ~Leave() {
        h.space.producer_waiting.store(0, std::memory_order_relaxed);
        add(h.counters.blocked_ns, static_cast<std::uint64_t>(monotonic_ns() - began));
      }
    } leave{h, began};
    for (;;) {
      const std::uint32_t word = h.space.word.load(std::memory_order_acquire);  // pairs with wake_producer
      const std::uint64_t quarter = std::max<std::uint64_t>(1, segment_->capacity / 4);
      h.space.wake_at.store(head_ - segment_->capacity + quarter, std::memory_order_relaxed);
      h.space.producer_waiting.store(1, std::memory_order_relaxed);
      LABHUB_FAILPOINT(full_waiting_announced);
      scan();  // its fence comes after producer_waiting and pairs with the one in notify_producer
      LABHUB_FAILPOINT(full_scanned);
      if (room()) return;
      const Blocker b = evict_or_find_blocker(p.evict_after_ns);
      if (b.evicted) continue;
      if (deadline.passed()) {
        add(h.counters.timeouts, 1);
        throw Fault(Code::backpressure, path_ + " is full: lossless consumer in process " + str(b.pid) + " is " +
                    str(b.lag) + " slots behind; stop it, let it read faster, or set evict_after")
            .with("pid", std::int64_t{b.pid}).with("lag", static_cast<std::int64_t>(b.lag));
      }
      futex_wait(h.space.word, word, std::min(deadline.slice(), b.rest_ns));
      check(interrupted);
    }
  }

  struct Blocker {
    bool evicted = false;
    std::uint32_t pid = 0;
    std::uint64_t lag = 0;
    std::int64_t rest_ns = kSlice;  // until one of them is stuck for too long; no wake-up announces that either
  };

  Blocker evict_or_find_blocker(std::int64_t evict_after_ns) {
    Blocker found;
    const std::int64_t now = monotonic_ns();
    for (std::uint32_t k = 0; k < kMaxLossless; ++k) {
      CursorLine& line = header().lines[k];
      std::uint64_t state = line.state.load(std::memory_order_acquire);
      const std::uint64_t cursor = line.cursor.load(std::memory_order_acquire);
      if ((state & 3) != kActive || cursor > head_ || head_ - cursor < segment_->capacity) continue;
      Watch& w = watch_[k];
      if (w.state != state || w.cursor != cursor) w = Watch{state, cursor, now};
      const bool stuck = evict_after_ns >= 0 && now - w.since >= evict_after_ns;
      if (stuck || !maybe_locked_by_other(file_->get(), line_lock(k))) {
        LABHUB_FAILPOINT(evict_decided);
        // The generation in `state` keeps us from evicting a successor on the same line. acq_rel: the victim's acquire
        // fence and second look at its state pair with this store.
        if (line.state.compare_exchange_strong(state, (state & ~std::uint64_t{3}) | kEvicted, std::memory_order_acq_rel)) {
          add(header().counters.evictions, 1);
        }
        LABHUB_FAILPOINT(evict_done);
        found.evicted = true;
        continue;
      }
      if (evict_after_ns >= 0) found.rest_ns = std::min(found.rest_ns, evict_after_ns - (now - w.since));
      if (head_ - cursor >= found.lag) {
        found.pid = line.pid.load(std::memory_order_relaxed);
        found.lag = head_ - cursor;
      }
    }
    if (found.lag == 0) found.evicted = true;  // it moved or left between the scan and here: look again
    return found;
  }

  struct Watch {
    std::uint64_t state = 0, cursor = 0;
    std::int64_t since = 0;
  };

  std::unique_ptr<DirectoryHandle> dir_;
  std::string name_;
  struct stat status_ {};
  std::uint8_t sync_;
  bool took_over_ = false, claimed_ = false;
  std::uint32_t epoch_ = 0, joined_ = 0;
  std::uint64_t head_ = 0;   // our own copy of commit
  std::uint64_t least_ = 0;  // slowest cursor at the last scan; it can only have risen since
  SlotClock clock_;
  Watch watch_[kMaxLossless];
};

}  // namespace labhub
