// Registration against the scan: a lossless consumer that was not evicted finds every slot from its cursor on intact, however
// its registration and the producer's scans interleave. Consumer::enlist against Producer::open_slot and scan; one slot.
#include "model.hpp"

constexpr int kCapacity = 1, kSlots = 3;

struct Registration : rl::test_suite<Registration, 2> {
  Word commit, seq, state, cursor;

  void before() {
    commit.store(0, relaxed);
    seq.store(0, relaxed);
    state.store(0, relaxed);
    cursor.store(0, relaxed);
  }
  void thread(unsigned me) { me == 0 ? producer() : consumer(); }

  int scan(int head) {
    if (!mutated("NO_PRODUCER_FENCE"))
      fence(seq_cst);  // mirrors producer.hpp: std::atomic_thread_fence(std::memory_order_seq_cst)
    if (state.load(acquire) == 0) return head;  // mirrors producer.hpp: state.load(std::memory_order_acquire) & 3) != kActive
    const int c = cursor.load(acquire);  // mirrors producer.hpp: if (c < least) least = c
    return c < head ? c : head;
  }

  void producer() {
    int least = 0;
    for (int head = 0; head < kSlots; ++head) {
      if (head - least >= kCapacity) least = scan(head);  // mirrors producer.hpp: if (room() != 0 && !newcomer()) return true;
      if (head - least >= kCapacity) return;              // would wait for the consumer
      seq.store(writing(head), relaxed);
      fence(release);
      seq.store(complete(head), release);
      commit.store(head + 1, release);
    }
  }

  void consumer() {
    cursor.store(commit.load(acquire), relaxed);  // mirrors consumer.hpp: : head(), std::memory_order_relaxed)
    state.store(1, release);                      // mirrors consumer.hpp: l.state.store(line_state(generation_, kActive), std::memory_order_release)
    if (!mutated("NO_CONSUMER_FENCE"))
      fence(seq_cst);  // mirrors consumer.hpp: std::atomic_thread_fence(std::memory_order_seq_cst)
    const int mine = mutated("NO_REREAD") ? cursor.load(relaxed) : commit.load(acquire);  // mirrors consumer.hpp: cursor_ = head();
    cursor.store(mine, release);  // mirrors consumer.hpp: l.cursor.store(cursor_, std::memory_order_release)
    for (int look = 0; look < 3; ++look) {
      if (commit.load(acquire) == mine) continue;
      RL_ASSERT(seq.load(relaxed) == complete(mine));
      fence(acquire);
      RL_ASSERT(seq.load(relaxed) == complete(mine));
    }
  }
};

int main(int argc, char** argv) { return simulate<Registration>(argc, argv); }
