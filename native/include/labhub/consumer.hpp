// A reader of a channel. Lossy: never slows the producer, and knows exactly what it lost. Lossless: the producer waits.
#pragma once

#include <limits>
#include <utility>

#include "endpoint.hpp"

namespace labhub {

constexpr std::int64_t kStartNewest = -1;  // the next slot to be committed
constexpr std::int64_t kStartOldest = -2;  // as far back as the ring holds
constexpr std::int64_t kStartLast = -3;    // the newest committed slot, if there is one
constexpr std::int64_t kStreamEnded = -1;
constexpr std::int64_t kTimedOut = -2;
constexpr std::int64_t kNoticed = 200'000;  // how long a registration for older slots waits to be noticed (in ns)
constexpr std::uint32_t kHole = 1u << 31;  // among the flags of a copied header: nobody has written this slot

// The copy of a slot that the producer may be overwriting. Formally a data race, and so the only function that
// ThreadSanitizer is told to leave alone: what it copied is believed only after the acquire fence and the second look
// at seq, which exclude every torn byte (weak-memory simulation in verification/).
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LABHUB_COPY_BY_BYTES  // its runtime looks into memcpy, whoever calls it
#endif
#endif
__attribute__((noinline, no_sanitize("thread"))) inline void racy_copy(void* to, const void* from, std::size_t n) {
#ifdef LABHUB_COPY_BY_BYTES
  for (std::size_t k = 0; k < n; ++k)
    static_cast<volatile std::uint8_t*>(to)[k] = static_cast<const volatile std::uint8_t*>(from)[k];
#else
  std::memcpy(to, from, n);
#endif
}

struct Got {
  std::uint64_t first, count, lost;
};

class Consumer : public Endpoint {
 public:
  Consumer(const std::string& directory, const std::string& name, bool lossless, std::int64_t start,
           const std::function<void(const Header&)>& accept = {}, bool busy_poll = false, Interrupted interrupted = nullptr)
      : lossless_(lossless), busy_poll_(busy_poll) {
    check_name(name);
    path_ = directory + "/" + name;
    const DirectoryHandle dir(directory, false);
    OpenFile o = open_file(dir, name);
    auto map = map_checked(o, path_, PROT_READ | PROT_WRITE, true, looking(interrupted));
    if (accept) accept(*reinterpret_cast<const Header*>(map->base()));
    segment_ = std::make_unique<Segment>(std::move(map));
    segment_->map()->protect_payload(segment_->payload_offset);
    file_ = std::move(o.file);
    take_line();
    if (lossless_) enlist(start != kStartNewest);
    else cursor_ = head();
    try {
      place(start);
    } catch (...) {  // a start that cannot be: leave no line behind that the producer would have to evict
      leave();
      throw;
    }
    LABHUB_FAILPOINT(register_placed);
  }
  ~Consumer() override { shut(); }

  bool lossless() const { return lossless_; }
  std::uint64_t cursor() const { return cursor_; }
  std::uint64_t lost() const { return lost_; }
  bool ended() const { return header().owner.closed.load(std::memory_order_acquire) != kOpen; }  // pairs with end_stream
  std::uint32_t epoch() const { return header().owner.epoch.load(std::memory_order_acquire); }
  std::uint32_t producer_pid() const { return header().owner.pid.load(std::memory_order_relaxed); }
  bool producer_alive() const { return !closed() && maybe_locked_by_other(file_->get(), kProducerLock); }

  // How many slots are unread (at least min_slots); 0 after the timeout; kStreamEnded.
  std::int64_t wait(std::uint64_t min_slots, std::int64_t timeout_ns, bool until_gone, Interrupted i) {
    InUse guard(*this);
    return wait_unread(min_slots, Deadline(timeout_ns), until_gone, i);
  }

  Got read(std::uint8_t* data, HeaderCopy* headers, std::uint64_t n) {
    InUse guard(*this);
    return last_read_ = copy_unread(data, headers, n);
  }
  const Got& last_read() const { return last_read_; }

  // For a reader that wants the newest slot only: the others count as lost.
  void skip_to_newest() {
    InUse guard(*this);
    if (open_) throw still_open();
    to_newest();
  }

  // History, cursor untouched.
  Got peek(std::uint64_t first, std::uint8_t* data, HeaderCopy* headers, std::uint64_t n) {
    InUse guard(*this);
    const std::uint64_t h = head();
    const std::uint64_t oldest = oldest_held(h);
    const std::uint64_t last = n > h - std::min(first, h) ? h : first + n;
    first = std::max(first, oldest);
    if (first >= last) return {first, 0, 0};
    bool perforated = false;
    const std::uint64_t bad = copy_valid(first, last - first, data, headers, perforated);
    const std::uint64_t valid = last - first - bad;
    if (!perforated) return {first + bad, valid, 0};
    std::uint64_t count = 0;
    for (std::uint64_t k = 0; k < valid;) {
      k += leading(headers + k, valid - k, true);
      const std::uint64_t run = leading(headers + k, valid - k, false);
      keep(k, run, data, headers, count);
      k += run;
      count += run;
    }
    return {count ? headers[0].seq : first + bad, count, 0};
  }

  // The first slot from `first` on whose time is at most span_ns before that of the newest one, and whether one of those
  // before it is older than that. Times may fall. Whoever copies the slots finds out which were overwritten meanwhile.
  std::pair<std::uint64_t, bool> first_within(std::uint64_t first, std::int64_t span_ns) {
    InUse guard(*this);
    const std::uint64_t h = head();
    first = std::max(first, oldest_held(h));
    std::uint64_t newest = h;
    while (newest > first && !intact(newest - 1)) --newest;
    if (newest <= first) return {first, false};
    constexpr std::int64_t kEver = std::numeric_limits<std::int64_t>::min();
    const std::int64_t time = time_of(newest - 1);
    const std::int64_t since = time < kEver + span_ns ? kEver : time - span_ns;
    bool older = false;
    for (; first + 1 < newest; ++first) {
      const bool too_old = time_of(first) < since;
      if (!intact(first)) continue;
      if (!too_old) break;
      older = true;
    }
    return {first, older};
  }
  std::uint64_t first_seq() const { return header().commit.first_seq; }

  std::int64_t acquire(bool newest, std::int64_t timeout_ns, bool until_gone, Interrupted i) {
    InUse guard(*this);
    if (open_) throw still_open();
    return open_slot(newest, Deadline(timeout_ns), until_gone, i);
  }

  // One step of an iteration in place: release the open slot, if there is one, and open the next.
  std::int64_t step(bool newest, std::int64_t timeout_ns, Interrupted i) {
    InUse guard(*this);
    if (open_) release_slot();
    return open_slot(newest, Deadline(timeout_ns), false, i);
  }

  bool valid() {
    InUse guard(*this);
    need_open();
    return intact(cursor_) && (!lossless_ || enlisted());
  }

  HeaderCopy open_header() {
    InUse guard(*this);
    need_open();
    HeaderCopy h;
    copy_header(cursor_, h);
    const bool good = intact(cursor_);
    if (lossless_) check_evicted();  // after the look at seq: who is overwritten was evicted before
    if (!good) throw lapped(cursor_);
    return h;
  }

  void release() {
    InUse guard(*this);
    need_open();
    release_slot();
  }

  // Close the open slot, if there is one, as if it had not been opened: it is the next one again.
  void cancel() {
    InUse guard(*this, true);
    open_ = false;
  }

  // Close the open slot, if there is one, on the way out of an error that is the one to report.
  void abandon() {
    InUse guard(*this, true);
    if (!open_ || closed() || forked()) return;
    try {
      release_slot();
    } catch (const Fault&) {
    }
  }

  void seek(std::int64_t start) {
    InUse guard(*this);
    if (lossless_) throw Fault(Code::invalid_argument, "a lossless consumer cannot seek: it reads every slot; open a lossy one");
    if (open_) throw still_open();
    place(start);
  }

  // From any thread: a wait of another one ends at once, with Code::closed.
  void close() { close_from_anywhere(header().data.word); }

 private:
  void shut() override {
    if (file_ && file_->get() >= 0 && !forked()) leave();
  }

  CursorLine* line() const { return line_ < 0 ? nullptr : &header().lines[line_]; }
  std::int64_t behind(std::uint64_t h) const { return static_cast<std::int64_t>(h - cursor_); }
  std::uint64_t oldest_held(std::uint64_t h) const {
    const std::uint64_t first = header().commit.first_seq;
    return h - first > segment_->capacity ? h - segment_->capacity : first;
  }

  void take_line() {
    const std::uint8_t sync = header().identity.sync;
    if (lossless_ && sync == kLatestOnly)
      throw Fault(Code::invalid_argument, path_ + " never makes its producer wait (LATEST_ONLY); read it with a lossy consumer, "
                                                  "or create it with lossless=True");
    const std::uint32_t from = lossless_ ? 0 : kMaxLossless;
    const std::uint32_t to = !lossless_ ? kMaxLines : sync == kSequential ? 1 : kMaxLossless;
    for (std::uint32_t k = from; k < to; ++k) {
      if (!take_lock(file_->get(), line_lock(k), path_)) continue;
      LABHUB_FAILPOINT(line_locked);
      line_ = static_cast<int>(k);
      CursorLine& l = *line();
      generation_ = (l.state.load(std::memory_order_relaxed) >> 2) + 1;  // a dead owner's state is left; ours differs
      l.pid.store(static_cast<std::uint32_t>(::getpid()), std::memory_order_relaxed);
      l.start_time.store(start_time(), std::memory_order_relaxed);
      l.received.store(0, std::memory_order_relaxed);
      l.lost.store(0, std::memory_order_relaxed);
      l.received_before.store(0, std::memory_order_relaxed);
      l.lost_before.store(0, std::memory_order_relaxed);
      LABHUB_FAILPOINT(line_filled);
      if (!lossless_) l.state.store(line_state(generation_, kActive), std::memory_order_release);  // read by tools
      return;
    }
    if (!lossless_) return;  // one observer too many: it reads like the others, and tools do not see it
    const auto pid = header().lines[from].pid.load(std::memory_order_relaxed);
    throw Fault(Code::busy, path_ + " has no place for one more lossless consumer (" + str(to - from) + " at most, the first "
                            "is process " + str(pid) + "); close one, or read with mode=\"stream\"").with("pid", std::int64_t{pid});
  }

  // Register at the head. Between our first look at commit and ACTIVE the producer may run ahead by a scan that did not
  // know us; only the second look, after the fence, gives a cursor that no such run can reach.
  // For older slots, register as far back as the ring holds and count up `joined`: the producer then scans before it begins
  // another slot, instead of overwriting what its last scan left to it. Once it says that it has, the slots that it had
  // begun before are committed or odd for us, and place() starts behind those that they took the place of. A producer that
  // rests does not say so: only if it was stopped between its look at `joined` and its odd seq can it still begin a slot.
  void enlist(bool older = false) {
    CursorLine& l = *line();
    l.cursor.store(older ? oldest_held(head()) : head(), std::memory_order_relaxed);
    LABHUB_FAILPOINT(register_cursor_stored);
    l.state.store(line_state(generation_, kActive), std::memory_order_release);  // pairs with scan()
    LABHUB_FAILPOINT(register_active);
    if (older) {
      const std::uint32_t mine = header().space.joined.fetch_add(1, std::memory_order_release) + 1;  // pairs with scan()
      LABHUB_FAILPOINT(register_counted);
      await_notice(mine);
    }
    std::atomic_thread_fence(std::memory_order_seq_cst);                         // pairs with the fence in scan()
    LABHUB_FAILPOINT(register_fenced);
    cursor_ = head();
    if (older) return;  // place() says where to begin
    l.cursor.store(cursor_, std::memory_order_release);
    LABHUB_FAILPOINT(register_cursor_final);
    notify_producer(header(), cursor_);
    LABHUB_FAILPOINT(register_notified);
  }

  bool noticed(std::uint32_t mine) const {  // pairs with the release of `seen` in scan()
    return static_cast<std::int32_t>(header().space.seen.load(std::memory_order_acquire) - mine) >= 0;
  }
  void await_notice(std::uint32_t mine) const {
    const std::int64_t end = monotonic_ns() + kNoticed;
    while (!noticed(mine) && !ended() && monotonic_ns() < end) ::sched_yield();
  }

  bool enlisted() const {
    // Pairs with the fence in scan(), which stands between the producer's compare-and-swap to EVICTED and its first odd seq:
    // whoever saw one of our slots overwritten sees the eviction.
    std::atomic_thread_fence(std::memory_order_acquire);
    return line()->state.load(std::memory_order_relaxed) == line_state(generation_, kActive);
  }

  // Called after the look at seq that follows a copy. The producer overwrites nothing of ours before its compare-and-swap
  // to EVICTED, so a lossless reader is never told of a lost slot in any other way.
  void check_evicted() {
    if (enlisted()) return;
    const std::uint64_t old = cursor_;
    open_ = false;
    ++generation_;
    LABHUB_FAILPOINT(eviction_noticed);
    enlist();
    const std::uint64_t lost = cursor_ - old + pending_;
    pending_ = 0;
    lost_ += cursor_ - old;
    show();
    throw Fault(Code::evicted, path_ + ": this lossless consumer held up the producer and was evicted; " + str(lost) +
                               " slots are lost, reading goes on at seq " + str(cursor_))
        .with("lost", static_cast<std::int64_t>(lost));
  }

  void place(std::int64_t start) {
    const std::uint64_t h = lossless_ ? cursor_ : head();  // a lossless one was registered at cursor_
    const std::uint64_t first = header().commit.first_seq;
    switch (start) {
      case kStartNewest: cursor_ = h; break;
      case kStartOldest: cursor_ = oldest_held(h); break;
      case kStartLast: cursor_ = h > first ? h - 1 : h; break;
      default:
        if (start < 0) throw Fault(Code::invalid_argument, "start is a seq, newest or oldest, not " + std::to_string(start));
        cursor_ = std::max(static_cast<std::uint64_t>(start), first);
        if (lossless_ && cursor_ > h)
          throw Fault(Code::invalid_argument, "a lossless consumer cannot start at seq " + str(cursor_) +
                                              ", which is not written yet (the head is " + str(h) + ")");
    }
    if (lossless_ && start == kStartOldest) cursor_ += clobbered(cursor_, h - cursor_);
    // The producer must not see us further behind than a whole ring.
    if (CursorLine* l = line()) l->cursor.store(std::max(cursor_, oldest_held(h)), std::memory_order_release);
    if (lossless_ && start != kStartNewest) notify_producer(header(), cursor_);
  }

  std::int64_t wait_unread(std::uint64_t min_slots, const Deadline& deadline, bool until_gone, Interrupted interrupted) {
    Header& h = header();
    min_slots = std::clamp<std::uint64_t>(min_slots, 1, segment_->capacity);
    const auto unread = [&] {
      const std::int64_t n = behind(head());
      return n <= 0 ? 0 : std::min<std::int64_t>(n, static_cast<std::int64_t>(segment_->capacity));
    };
    for (bool waited = false;; waited = true) {
      if (lossless_) check_evicted();
      // Order: closed before commit. The producer commits before it closes, so whoever sees closed sees every commit.
      const bool over = ended();
      std::int64_t n = unread();
      if (n >= static_cast<std::int64_t>(min_slots)) return n;
      if (over) return n ? n : kStreamEnded;
      if (until_gone && !producer_alive() && !ended()) {
        n = unread();
        if (n) return n;
        throw Fault(Code::producer_gone, "the producer of " + path_ + ", process " + str(producer_pid()) +
                    ", died without closing the channel; start it again, readers go on").with("pid", std::int64_t{producer_pid()});
      }
      if (waited) check(interrupted);  // after the look: to take the GIL for it is a seventh of a polled round trip
      if (deadline.passed()) return 0;
      if (busy_poll_) poll([&] { return unread() != n || ended() || closing(); }, deadline);
      else if (sleep_armed(h, n)) futex_wait(h.data.word, expected_, deadline.slice());
    }
  }

  // Set the waiters bit and look again. False: something changed, do not sleep. A bit, not a counter: a waiter that is
  // killed leaves a bit that costs one needless wake, where a counter would leak.
  bool sleep_armed(Header& h, std::int64_t seen) {
    std::uint32_t w = h.data.word.load(std::memory_order_acquire);  // pairs with wake_readers
    expected_ = w | 1;
    // acq_rel: pairs with the exchange in wake_readers. If ours comes later, we see its commit or closed flag just below;
    // if it comes later, it sees our bit and wakes us.
    if (!(w & 1) && !h.data.word.compare_exchange_strong(w, expected_, std::memory_order_acq_rel)) return false;
    LABHUB_FAILPOINT(wait_bit_set);
    const std::int64_t n = behind(head());
    return (n <= 0 ? 0 : std::min<std::int64_t>(n, static_cast<std::int64_t>(segment_->capacity))) == seen && !ended();
  }

  std::int64_t open_slot(bool newest, const Deadline& deadline, bool until_gone, Interrupted i) {
    for (;;) {
      const std::int64_t unread = wait_unread(1, deadline, until_gone, i);
      if (unread <= 0) return unread == 0 ? kTimedOut : kStreamEnded;
      const std::uint64_t seq = newest ? to_newest() : skip_overwritten(head());
      if (segment_->slot(seq).seq.load(std::memory_order_acquire) == complete(seq)) {  // pairs with finish_slot
        open_ = true;
        LABHUB_FAILPOINT(slot_opened);
        return static_cast<std::int64_t>(seq);
      }
      lose(1);  // overwritten between the two looks
      advance(seq + 1);
    }
  }

  Got copy_unread(std::uint8_t* data, HeaderCopy* headers, std::uint64_t n) {
    if (open_) throw still_open();
    for (int attempt = 0; attempt < 8; ++attempt) {  // a copy that lost every slot is tried again, with half as many
      if (lossless_) check_evicted();
      const std::uint64_t first = skip_overwritten(head());
      const std::uint64_t unread = static_cast<std::uint64_t>(std::max<std::int64_t>(0, behind(head())));
      const std::uint64_t want = std::min({n, unread, segment_->capacity});
      if (want == 0) break;
      bool perforated = false;
      const std::uint64_t bad = copy_valid(first, want, data, headers, perforated);
      if (lossless_) check_evicted();
      LABHUB_FAILPOINT(read_validated);
      std::uint64_t holes = 0, count = want - bad;
      if (perforated) {
        holes = leading(headers, want - bad, true);
        count = leading(headers + holes, want - bad - holes, false);  // the next hole ends a batch
        keep(holes, count, data, headers, 0);
      }
      lose(bad + holes);
      received_ += count;
      advance(first + bad + holes + count);
      if (count) return {first + bad + holes, count, take_pending()};
      n = std::max<std::uint64_t>(1, want / 2);
    }
    return {cursor_, 0, take_pending()};
  }

  void release_slot() {
    open_ = false;
    const bool whole = intact(cursor_);
    if (lossless_) check_evicted();  // after the look at seq: who is overwritten was evicted before
    ++(whole ? received_ : lost_);  // this loss is told here, not with the next batch
    advance(cursor_ + 1);
    if (!whole) throw lapped(cursor_ - 1);
  }

  // A lossy reader more than a ring behind jumps; one that is exactly a ring behind is not late yet: its slot can be read
  // until its seq turns odd, which the seq check finds out.
  std::uint64_t skip_overwritten(std::uint64_t h) {
    if (behind(h) > static_cast<std::int64_t>(segment_->capacity)) {
      const std::uint64_t oldest = h - segment_->capacity;
      lose(oldest - cursor_);
      advance(oldest);
    }
    return cursor_;
  }

  std::uint64_t to_newest() {
    const std::int64_t older = behind(head()) - 1;
    if (older > 0) {
      lose(static_cast<std::uint64_t>(older));
      advance(cursor_ + static_cast<std::uint64_t>(older));
    }
    return cursor_;
  }

  std::int64_t time_of(std::uint64_t i) const { return segment_->slot(i).timestamp_ns.load(std::memory_order_relaxed); }

  bool intact(std::uint64_t i) const {
    // Pairs with the release fence in begin_slot: if any byte that we used was a new one, this load sees the odd seq.
    std::atomic_thread_fence(std::memory_order_acquire);
    return segment_->slot(i).seq.load(std::memory_order_relaxed) == complete(i);
  }

  // A hole (Producer::write_copies) is not: its seq is that of a slot that was begun and never finished.
  bool overwritten(std::uint64_t i) const {
    std::atomic_thread_fence(std::memory_order_acquire);  // pairs as the one in intact
    return segment_->slot(i).seq.load(std::memory_order_relaxed) > complete(i);
  }

  // How many of the slots first .. first + n are overwritten. The producer overwrites in order, also where it leaves holes,
  // so they are a prefix.
  std::uint64_t clobbered(std::uint64_t first, std::uint64_t n) const {
    std::uint64_t low = 0, high = n;
    while (low < high) {
      const std::uint64_t middle = low + (high - low) / 2;
      if (overwritten(first + middle)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  // Copy, validate, move the valid ones to the front; how many were clobbered. Whether there are holes among them.
  std::uint64_t copy_valid(std::uint64_t first, std::uint64_t n, std::uint8_t* data, HeaderCopy* headers,
                           bool& perforated) const {
    const std::uint64_t size = segment_->slot_nbytes;
    const std::uint64_t early = clobbered(first, n);  // no use to copy these
    for (std::uint64_t k = early; k < n; ++k) perforated |= !copy_header(first + k, headers[k]);
    for (std::uint64_t k = early; k < n;) {  // runs of whole, adjacent slots in one copy
      std::uint64_t run = 1;
      const std::uint64_t nbytes = std::min(headers[k].nbytes, size);
      if (nbytes == size && segment_->stride == size)
        while (k + run < n && segment_->place(first + k + run) && headers[k + run].nbytes == size) ++run;
      racy_copy(data + k * size, segment_->payload(first + k), run == 1 ? nbytes : run * size);
      LABHUB_FAILPOINT(read_run_copied);
      if (nbytes < size) std::memset(data + k * size + nbytes, 0, size - nbytes);
      k += run;
    }
    const std::uint64_t bad = std::max(early, clobbered(first, n));
    if (bad && bad < n) {
      std::memmove(data, data + bad * size, (n - bad) * size);
      std::memmove(static_cast<void*>(headers), headers + bad, (n - bad) * sizeof *headers);
    }
    return bad;
  }

  // How many headers in a row, from the first on, are those of holes, or of slots.
  static std::uint64_t leading(const HeaderCopy* headers, std::uint64_t n, bool holes) {
    std::uint64_t k = 0;
    while (k < n && bool(headers[k].flags & kHole) == holes) ++k;
    return k;
  }

  // Move a run of copied slots to the front, to index `to`.
  void keep(std::uint64_t from, std::uint64_t run, std::uint8_t* data, HeaderCopy* headers, std::uint64_t to) const {
    if (from == to) return;
    std::memmove(data + to * segment_->slot_nbytes, data + from * segment_->slot_nbytes, run * segment_->slot_nbytes);
    std::memmove(static_cast<void*>(headers + to), headers + from, run * sizeof *headers);
  }

  bool copy_header(std::uint64_t i, HeaderCopy& to) const {  // false for a hole
    const SlotHeader& s = segment_->slot(i);
    if (s.seq.load(std::memory_order_relaxed) < complete(i)) {  // committed, so nobody will write it any more
      to = HeaderCopy{};
      to.seq = i;
      to.flags = kHole;
      return false;
    }
    to.seq = i;
    to.timestamp_ns = s.timestamp_ns.load(std::memory_order_relaxed);  // all of these are validated by intact()
    to.nbytes = s.nbytes.load(std::memory_order_relaxed);
    to.flags = s.flags.load(std::memory_order_relaxed);
    to.epoch = s.epoch.load(std::memory_order_relaxed);
    if (to.flags & 1) racy_copy(to.checksum, s.checksum, sizeof to.checksum);
    else std::memset(to.checksum, 0, sizeof to.checksum);
    return true;
  }

  void lose(std::uint64_t n) {
    pending_ += n;
    lost_ += n;
  }
  std::uint64_t take_pending() {
    const std::uint64_t n = pending_;
    pending_ = 0;
    return n;
  }
  void show() const {  // for tools; nobody decides anything by it
    if (CursorLine* l = line()) {
      l->received.store(received_, std::memory_order_relaxed);
      l->lost.store(lost_, std::memory_order_relaxed);
    }
  }
  void advance(std::uint64_t cursor) {
    cursor_ = cursor;
    CursorLine* l = line();
    if (!l) return;
    // release: what we read of the slots behind is done before the producer, which loads this with acquire, reuses them
    l->cursor.store(cursor, std::memory_order_release);
    show();
    LABHUB_FAILPOINT(cursor_stored);
    if (lossless_) notify_producer(header(), cursor);
    LABHUB_FAILPOINT(cursor_notified);
  }

  void need_open() const {
    if (!open_) throw Fault(Code::invalid_argument, "no slot of " + path_ + " is open; acquire one first");
  }
  Fault still_open() const {
    return Fault(Code::concurrent, "a slot of " + path_ + " is still open; release it first");
  }
  Fault lapped(std::uint64_t seq) const {
    return Fault(Code::lapped, path_ + ": slot " + str(seq) + " was overwritten while it was in use; discard what you read "
                               "of it").with("seq", static_cast<std::int64_t>(seq));
  }

  void leave() {
    show();
    if (CursorLine* l = line()) {
      std::uint64_t mine = line_state(generation_, kActive);
      l->state.compare_exchange_strong(mine, line_state(generation_, kFree), std::memory_order_release);
      LABHUB_FAILPOINT(leave_freed);
      if (lossless_) notify_producer(header(), cursor_, true);
      LABHUB_FAILPOINT(leave_notified);
    }
    file_->close();  // drops the line's lock
  }

  bool lossless_, busy_poll_, open_ = false;
  int line_ = -1;
  std::uint64_t generation_ = 0, cursor_ = 0, lost_ = 0, received_ = 0;
  std::uint64_t pending_ = 0;  // lost, and not yet told
  Got last_read_{};
  std::uint32_t expected_ = 0;
};

}  // namespace labhub
