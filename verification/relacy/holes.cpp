// Holes under weak memory: a reader neither believes an old slot in the place of a hole, nor takes a fresh slot for one.
// Producer::write_copies and pass_over against a lossy Consumer::read with copy_valid and clobbered; a ring of five slots
// with holes in it is passed over as a whole, so that a reader may find what it reads being overwritten by holes and slots.
#include "model.hpp"

#include <algorithm>

constexpr int kCapacity = 5, kWritten[] = {0, 1, 2, 4, 13, 14, 17}, kThere = 5;

bool is_written(int i) {
  for (int seq : kWritten)
    if (seq == i) return true;
  return false;
}

struct Holes : rl::test_suite<Holes, 2> {
  Word seq[kCapacity], payload[kCapacity], commit;

  void before() {
    for (int k = 0; k < kCapacity; ++k) {
      seq[k].store(is_written(k) ? complete(k) : writing(k), relaxed);
      payload[k].store(is_written(k) ? k : -1, relaxed);
    }
    commit.store(kThere, relaxed);
  }
  void thread(unsigned me) { me == 0 ? producer() : reader(); }

  void begin_slot(int i) {
    seq[i % kCapacity].store(writing(i), relaxed);
    if (!mutated("NO_WRITER_FENCE"))
      fence(release);  // mirrors producer.hpp: std::atomic_thread_fence(std::memory_order_release)
  }

  void mark(int from, int to) {
    const int step = to - from, n = std::min(step, kCapacity);  // mirrors producer.hpp: std::min(step, segment_->capacity)
    for (int k = 0; k < n; ++k) {
      if (mutated("MARKED_FROM_THE_END")) begin_slot(to - n + k);
      else begin_slot(from + k + (step - 1 - k) / kCapacity * kCapacity);  // mirrors producer.hpp: begin_slot(head_ + k + (step - 1 - k) / segment_->capacity * segment_->capacity)
    }
  }

  void producer() {
    int head = kThere;
    for (int i : kWritten) {
      if (i < kThere) continue;
      if (!mutated("UNMARKED") && !mutated("MARKED_LATE")) mark(head, i);  // mirrors producer.hpp: pass_over(h.seq - head_, p, i);
      if (mutated("COMMIT_BEFORE_SLOT")) commit.store(i + 1, release);
      begin_slot(i);
      payload[i % kCapacity].store(i, relaxed);
      seq[i % kCapacity].store(complete(i), release);
      if (mutated("MARKED_LATE")) mark(head, i);
      if (mutated("COMMIT_RELAXED")) commit.store(i + 1, relaxed);
      else commit.store(i + 1, release);  // mirrors producer.hpp: h.commit.commit.store(head, std::memory_order_release)
      head = i + 1;
    }
  }

  bool overwritten(int i) {
    if (!mutated("NO_READER_FENCE"))
      fence(acquire);  // mirrors consumer.hpp: std::atomic_thread_fence(std::memory_order_acquire);  // pairs as the one in intact
    return seq[i % kCapacity].load(relaxed) > complete(i);  // mirrors consumer.hpp: seq.load(std::memory_order_relaxed) > complete(i)
  }

  int clobbered(int first, int n) {
    int low = 0, high = n;
    while (low < high) {
      const int middle = low + (high - low) / 2;
      if (overwritten(first + middle)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  void reader() {
    int cursor = 0;
    for (int look = 0; look < 4; ++look) {
      const int head = commit.load(acquire);  // mirrors endpoint.hpp: commit.commit.load(std::memory_order_acquire)
      if (head - cursor > kCapacity) cursor = head - kCapacity;
      const int n = head - cursor;
      bool hole[kCapacity];
      int copy[kCapacity];
      const int early = clobbered(cursor, n);
      for (int k = early; k < n; ++k)
        hole[k] = !mutated("HOLE_NOT_SEEN") && seq[(cursor + k) % kCapacity].load(relaxed) < complete(cursor + k);  // mirrors consumer.hpp: seq.load(std::memory_order_relaxed) < complete(i)
      for (int k = early; k < n; ++k) copy[k] = payload[(cursor + k) % kCapacity].load(relaxed);
      for (int k = std::max(early, clobbered(cursor, n)); k < n; ++k) {  // mirrors consumer.hpp: std::max(early, clobbered(first, n))
        RL_ASSERT(hole[k] != is_written(cursor + k));
        if (!hole[k]) RL_ASSERT(copy[k] == cursor + k);
      }
      cursor = head;
    }
  }
};

int main(int argc, char** argv) { return simulate<Holes>(argc, argv); }
