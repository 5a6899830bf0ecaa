// The slot protocol: a lossy reader never believes a torn or a stale copy.
// Producer::begin_slot, finish_slot and publish against Consumer::read with copy_valid and intact; a ring of two slots, the
// payload is two words.
#include "model.hpp"

constexpr int kCapacity = 2, kSlots = 4;

struct Seqlock : rl::test_suite<Seqlock, 2> {
  Word seq[kCapacity], first[kCapacity], second[kCapacity], commit;

  void before() {
    for (int k = 0; k < kCapacity; ++k) {
      seq[k].store(0, relaxed);
      first[k].store(-1, relaxed);
      second[k].store(-1, relaxed);
    }
    commit.store(0, relaxed);
  }
  void thread(unsigned me) { me == 0 ? producer() : reader(); }

  void producer() {
    for (int i = 0; i < kSlots; ++i) {
      const int k = i % kCapacity;
      seq[k].store(writing(i), relaxed);  // mirrors producer.hpp: seq.store(writing(i), std::memory_order_relaxed)
      if (!mutated("NO_WRITER_FENCE"))
        fence(release);  // mirrors producer.hpp: std::atomic_thread_fence(std::memory_order_release)
      first[k].store(i, relaxed);
      second[k].store(i, relaxed);
      seq[k].store(complete(i), release);  // mirrors producer.hpp: s.seq.store(complete(i), std::memory_order_release)
      if (mutated("COMMIT_RELAXED")) commit.store(i + 1, relaxed);
      else commit.store(i + 1, release);  // mirrors producer.hpp: h.commit.commit.store(head, std::memory_order_release)
    }
  }

  bool intact(int i) {
    if (!mutated("NO_READER_FENCE"))
      fence(acquire);  // mirrors consumer.hpp: std::atomic_thread_fence(std::memory_order_acquire)
    return seq[i % kCapacity].load(relaxed) == complete(i);  // mirrors consumer.hpp: seq.load(std::memory_order_relaxed) == complete(i)
  }

  void reader() {
    int cursor = 0;
    for (int look = 0; look < kSlots; ++look) {
      const int head = commit.load(acquire);  // mirrors endpoint.hpp: commit.commit.load(std::memory_order_acquire)
      if (head == cursor) continue;
      if (head - cursor > kCapacity) cursor = head - kCapacity;  // mirrors consumer.hpp: const std::uint64_t oldest = h - segment_->capacity
      if (intact(cursor)) {
        const int a = first[cursor % kCapacity].load(relaxed);
        const int b = second[cursor % kCapacity].load(relaxed);
        if (mutated("NO_SECOND_LOOK") || intact(cursor)) RL_ASSERT(a == cursor && b == cursor);  // mirrors consumer.hpp: std::max(early, clobbered(first, n))
      }
      ++cursor;
    }
  }
};

int main(int argc, char** argv) { return simulate<Seqlock>(argc, argv); }
