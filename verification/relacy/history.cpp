// Registration for older slots: a lossless consumer that was told that the producer noticed it finds every slot from its
// cursor on intact, also those that were there before it came. Consumer::enlist and place against Producer::has_room,
// open_slot and scan; a ring of two slots, the first of which are there when the consumer comes.
#include "model.hpp"

constexpr int kCapacity = 2, kSlots = 5;

struct History : rl::test_suite<History, 2> {
  Word commit, seq[kCapacity], state, cursor, joined, seen;

  void before() {
    commit.store(kCapacity, relaxed);
    for (int k = 0; k < kCapacity; ++k) seq[k].store(complete(k), relaxed);
    for (Word* w : {&state, &cursor, &joined, &seen}) w->store(0, relaxed);
  }
  void thread(unsigned me) { me == 0 ? producer() : consumer(); }

  int scan(int head, int& known) {
    int found = 0;
    if (!mutated("SEEN_AFTER_THE_SCAN")) found = joined.load(acquire);  // mirrors producer.hpp: = h.space.joined.load(std::memory_order_acquire)
    fence(seq_cst);  // mirrors producer.hpp: std::atomic_thread_fence(std::memory_order_seq_cst)
    int least = head;
    if (state.load(acquire) != 0) {  // mirrors producer.hpp: state.load(std::memory_order_acquire) & 3) != kActive
      const int c = cursor.load(acquire);  // mirrors producer.hpp: if (c < least) least = c
      if (c < least) least = c;
    }
    if (mutated("SEEN_AFTER_THE_SCAN")) found = joined.load(acquire);
    if (found != known) {  // mirrors producer.hpp: if (joined == joined_) return
      known = found;
      seen.store(found, release);  // mirrors producer.hpp: h.space.seen.store(joined, std::memory_order_release)
    }
    return least;
  }

  void producer() {
    int least = kCapacity, known = 0;  // a scan has left it all places
    for (int head = kCapacity; head < kSlots; ++head) {
      const bool newcomer = joined.load(relaxed) != known;  // mirrors producer.hpp: header().space.joined.load(std::memory_order_relaxed) != joined_
      if (head - least >= kCapacity || (newcomer && !mutated("NO_LOOK"))) least = scan(head, known);  // mirrors producer.hpp: if (room() != 0 && !newcomer()) return true;
      else if (newcomer) seen.store(1, release);
      if (head - least >= kCapacity) return;  // would wait for the consumer
      Word& place = seq[head % kCapacity];
      place.store(writing(head), relaxed);
      fence(release);
      place.store(complete(head), release);
      commit.store(head + 1, release);
    }
  }

  void consumer() {
    const int h = commit.load(acquire);
    cursor.store(h - kCapacity, relaxed);  // mirrors consumer.hpp: l.cursor.store(older ? oldest_held(head()) : head(), std::memory_order_relaxed)
    if (mutated("COUNTED_FIRST")) joined.fetch_add(1, release);
    state.store(1, release);  // mirrors consumer.hpp: l.state.store(line_state(generation_, kActive), std::memory_order_release)
    if (mutated("COUNTED_RELAXED")) joined.fetch_add(1, relaxed);
    else if (!mutated("COUNTED_FIRST")) joined.fetch_add(1, release);  // mirrors consumer.hpp: header().space.joined.fetch_add(1, std::memory_order_release)
    bool noticed = false;
    for (int look = 0; look < 4 && !noticed; ++look) noticed = seen.load(acquire) == 1;  // mirrors consumer.hpp: header().space.seen.load(std::memory_order_acquire) - mine) >= 0
    fence(seq_cst);
    if (!noticed) return;  // a producer that rests: nothing is claimed
    const int now = commit.load(acquire);
    const int mine = mutated("FROM_THE_FIRST_LOOK") ? h - kCapacity : now - kCapacity;  // mirrors consumer.hpp: cursor_ = oldest_held(h)
    for (int look = 0; look < 3; ++look)
      for (int i = mine; i < now; ++i) RL_ASSERT(seq[i % kCapacity].load(relaxed) == complete(i));
  }
};

int main(int argc, char** argv) { return simulate<History>(argc, argv); }
