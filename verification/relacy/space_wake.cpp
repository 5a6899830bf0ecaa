// The space notification, a Dekker pair, and the hand-over of a slot: the producer does not sleep on free space, and what the
// consumer read of a slot happened before the slot is reused. Consumer::advance and notify_producer against
// Producer::wait_for_room and scan; a ring of one slot. The payload is an ordinary variable: Relacy reports a data race.
#include "model.hpp"

struct SpaceWake : rl::test_suite<SpaceWake, 2> {
  Word cursor, waiting, wake_at, word;
  rl::var<int> payload;
  Futex futex;

  void before() {
    cursor.store(0, relaxed);
    waiting.store(0, relaxed);
    wake_at.store(0, relaxed);
    word.store(0, relaxed);
    payload($) = 0;  // slot 0 is committed, the ring is full
    futex.reset();
  }
  void thread(unsigned me) { me == 0 ? producer() : consumer(); }

  void scan_fence() {
    if (!mutated("NO_PRODUCER_FENCE"))
      fence(seq_cst);  // mirrors producer.hpp: std::atomic_thread_fence(std::memory_order_seq_cst)
  }
  bool room() {
    scan_fence();
    if (mutated("SCAN_RELAXED")) return cursor.load(relaxed) == 1;
    return cursor.load(acquire) == 1;  // mirrors producer.hpp: cursor.load(std::memory_order_acquire)
  }

  void producer() {
    for (int look = 0; look < 2; ++look) {
      const int w = word.load(acquire);  // mirrors producer.hpp: h.space.word.load(std::memory_order_acquire)
      wake_at.store(1, relaxed);         // mirrors producer.hpp: h.space.wake_at.store(
      bool free = mutated("WAITING_AFTER_SCAN") && room();
      waiting.store(1, relaxed);  // mirrors producer.hpp: h.space.producer_waiting.store(1, std::memory_order_relaxed)
      if (!mutated("WAITING_AFTER_SCAN")) free = room();
      if (free) {
        waiting.store(0, relaxed);
        payload($) = 1;
        return;
      }
      futex.wait(0, word, w);  // mirrors producer.hpp: futex_wait(h.space.word, word, std::min(deadline.slice(), b.rest_ns))
      if (!futex.quiet()) return;  // asleep: after() tells whether somebody woke it
    }
  }

  void consumer() {
    RL_ASSERT(payload($) == 0);
    if (mutated("CURSOR_RELAXED")) cursor.store(1, relaxed);
    else cursor.store(1, release);  // mirrors consumer.hpp: l->cursor.store(cursor, std::memory_order_release)
    if (mutated("NO_NOTIFY")) return;
    if (!mutated("NO_CONSUMER_FENCE"))
      fence(seq_cst);  // mirrors wait.hpp: std::atomic_thread_fence(std::memory_order_seq_cst)
    if (waiting.load(relaxed) == 0) return;  // mirrors wait.hpp: h.space.producer_waiting.load(std::memory_order_relaxed) == 0
    if (1 < wake_at.load(relaxed)) return;   // mirrors wait.hpp: cursor < h.space.wake_at.load(std::memory_order_relaxed)
    if (waiting.exchange(0, acq_rel)) {      // mirrors wait.hpp: h.space.producer_waiting.exchange(0, std::memory_order_acq_rel)
      word.fetch_add(1, release);            // mirrors wait.hpp: h.space.word.fetch_add(1, std::memory_order_release)
      futex.wake();
    }
  }

  void after() { RL_ASSERT(futex.quiet()); }
};

int main(int argc, char** argv) { return simulate<SpaceWake>(argc, argv); }
