// The data notification: no waiter sleeps through a commit, and no seq_cst fence is needed for that.
// wake_readers against Consumer::wait_unread and sleep_armed; one producer, two waiters, one commit.
// That the compare-and-swap is acq_rel is more than is needed: the acquire load before it already orders what follows.
#include "model.hpp"

struct DataWake : rl::test_suite<DataWake, 3> {
  Word commit, word;
  Futex futex;

  void before() {
    commit.store(0, relaxed);
    word.store(0, relaxed);
    futex.reset();
  }
  void thread(unsigned me) { me == 0 ? producer() : waiter(static_cast<int>(me) - 1); }

  void producer() {
    commit.store(1, release);
    int old;
    if (mutated("EXCHANGE_RELAXED")) {
      old = word.exchange(1 << 1, relaxed);
    } else if (mutated("STORE_NOT_EXCHANGE")) {
      old = word.load(acquire);
      word.store(1 << 1, release);
    } else {
      old = word.exchange(1 << 1, acq_rel);  // mirrors wait.hpp: h.data.word.exchange(data_word(commit), std::memory_order_acq_rel)
    }
    if ((old & 1) && !mutated("NO_WAKE")) futex.wake();  // mirrors wait.hpp: futex_wake(h.data.word)
  }

  void waiter(int me) {
    if (commit.load(acquire) != 0) return;  // the look of wait_unread
    int w = word.load(acquire);             // mirrors consumer.hpp: h.data.word.load(std::memory_order_acquire)
    const int expected = w | 1;             // mirrors consumer.hpp: expected_ = w | 1
    if (!(w & 1)) {
      if (!word.compare_exchange_strong(w, expected, acq_rel)) return;  // mirrors consumer.hpp: compare_exchange_strong(w, expected_, std::memory_order_acq_rel)
    }
    if (!mutated("NO_SECOND_LOOK") && commit.load(acquire) != 0) return;  // mirrors consumer.hpp: == seen && !ended()
    futex.wait(me, word, expected);  // mirrors consumer.hpp: futex_wait(h.data.word, expected_, deadline.slice())
  }

  void after() { RL_ASSERT(futex.quiet()); }
};

int main(int argc, char** argv) { return simulate<DataWake>(argc, argv); }
