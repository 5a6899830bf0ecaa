// Eviction in the middle of a copy: the victim never believes a torn copy, and whenever one of its slots is overwritten it
// learns that it was evicted; a lossless reader is told of a loss in no other way.
// Producer::evict_or_find_blocker, scan, begin_slot against Consumer::read with intact and check_evicted; one slot.
#include "model.hpp"

struct Eviction : rl::test_suite<Eviction, 2> {
  Word seq, first, second, state;

  void before() {  // slot 0 is committed, the victim is ACTIVE (1) at cursor 0
    seq.store(complete(0), relaxed);
    first.store(0, relaxed);
    second.store(0, relaxed);
    state.store(1, relaxed);
  }
  void thread(unsigned me) { me == 0 ? producer() : victim(); }

  void evict() {
    int active = 1;
    state.compare_exchange_strong(active, 2, acq_rel);  // mirrors producer.hpp: | kEvicted, std::memory_order_acq_rel)
  }

  void producer() {
    if (!mutated("EVICT_LATE")) evict();
    if (!mutated("NO_SCAN_FENCE"))
      fence(seq_cst);  // mirrors producer.hpp: if (b.evicted) continue
    seq.store(writing(1), relaxed);
    fence(release);
    first.store(1, relaxed);
    second.store(1, relaxed);
    seq.store(complete(1), release);
    if (mutated("EVICT_LATE")) evict();
  }

  bool enlisted() {
    if (mutated("NO_STATE_LOOK")) return true;
    if (!mutated("NO_STATE_FENCE"))
      fence(acquire);  // mirrors consumer.hpp: whoever saw one of our slots overwritten sees the eviction.
    return state.load(relaxed) == 1;  // mirrors consumer.hpp: state.load(std::memory_order_relaxed) == line_state(generation_, kActive)
  }

  void victim() {
    const int a = first.load(relaxed), b = second.load(relaxed);
    bool active = mutated("STATE_BEFORE_SEQ") && enlisted();
    if (!mutated("NO_SEQ_FENCE")) fence(acquire);
    const bool good = seq.load(relaxed) == complete(0);
    if (!mutated("STATE_BEFORE_SEQ")) active = enlisted();  // mirrors consumer.hpp: if (lossless_) check_evicted();
    if (good) RL_ASSERT(a == 0 && b == 0);
    else RL_ASSERT(!active);
  }
};

int main(int argc, char** argv) { return simulate<Eviction>(argc, argv); }
