/* Eviction of the stuck and the dead: a consumer that holds up the producer is stuck, dead, or dead and succeeded by another on its line.
 * Checked: the victim never believes a torn slot, learns of its loss as an eviction and in no other way, counts exactly, and
 * goes on; only the consumer that was found dead or stuck is evicted, never a successor on the same line.
 */
#define N 2
#define M 4
#define FREE 0
#define ACTIVE 1
#define EVICTED 2
#define complete(i) (2 * (i) + 2)
#define writing(i) (2 * (i) + 1)

byte seq[N], first[N], second[N];
byte commit, cursor;
byte state, generation;  /* one word in the code: loaded and exchanged together */
byte holder;             /* the lock of the line: 0 is free */
bool doomed;
byte incarnation;        /* ghost: who is registered */

inline overwrite(i) {
  seq[(i) % N] = writing(i);
  first[(i) % N] = i;
  second[(i) % N] = i;
  seq[(i) % N] = complete(i)
}

/* producer.hpp, scan and evict_or_find_blocker */
active proctype producer() {
  byte least, c, s, g, judged;
  bool swapped;
  do
  :: commit < M ->
    do
    :: commit - least < N -> break
    :: else ->
      least = commit;
      s = state;
      if
      :: s == ACTIVE -> c = cursor; if :: c < least -> least = c :: else fi
      :: else
      fi;
      if
      :: commit - least < N -> break
      :: else
      fi;
#ifdef MUT_OVERWRITE_BEFORE_EVICTING
      seq[commit % N] = writing(commit);
#endif
      d_step { s = state; g = generation; judged = incarnation };  /* mirrors producer.hpp: std::uint64_t state = line.state.load(std::memory_order_acquire) */
      c = cursor;
      if
      :: s != ACTIVE || c > commit || commit - c < N  /* mirrors producer.hpp: head_ - cursor < segment_->capacity) continue */
      :: else ->
        if
        :: holder == 0  /* dead; mirrors producer.hpp: !maybe_locked_by_other(file_->get(), line_lock(k)) */
        :: true         /* stuck for longer than evict_after */
        fi;
        d_step {
#ifdef MUT_NO_GENERATION
          swapped = (state == ACTIVE);
#else
          swapped = (state == ACTIVE && generation == g);  /* mirrors producer.hpp: compare_exchange_strong(state, (state & ~std::uint64_t{3}) | kEvicted */
#endif
          if
          :: swapped -> state = EVICTED; assert(incarnation == judged)
          :: else
          fi
        }
      fi
    od;
    overwrite(commit);
    commit++
  :: else -> break
  od
}

/* consumer.hpp, enlist */
inline enlist() {
  cursor = commit;
  d_step { state = ACTIVE; generation = mine; incarnation++ };
  next = commit;
  cursor = next
}

inline look_at_state() { active_seen = (state == ACTIVE && generation == mine) }

proctype consumer(byte me) {
  byte next, mine, start, got, lost, a, b;
  bool good, active_seen, old_state;
  d_step { holder == 0 -> holder = me };  /* mirrors consumer.hpp: take_lock(file_->get(), line_lock(k), path_) */
  {
#ifdef MUT_SAME_GENERATION
    mine = generation;
#else
    mine = generation + 1;  /* mirrors consumer.hpp: >> 2) + 1;  // a dead owner's state is left; ours differs */
#endif
    enlist();
    start = next;
    do
    :: next == M -> break
    :: next < M ->
      (commit > next || state != ACTIVE);
      look_at_state();
      if
      :: !active_seen -> goto evicted
      :: commit == next -> goto done
      :: else
      fi;
      a = first[next % N];
      b = second[next % N];
#ifdef MUT_STATE_BEFORE_SEQ
      look_at_state();
      good = (seq[next % N] == complete(next));
#elif defined(MUT_NO_STATE_RECHECK)
      good = (seq[next % N] == complete(next));
#elif defined(MUT_BELIEVES_ITS_COPY)
      good = 1;
#else
      good = (seq[next % N] == complete(next));  /* mirrors consumer.hpp: const bool good = intact(cursor_) */
      look_at_state();                           /* mirrors consumer.hpp: who is overwritten was evicted before */
#endif
      if
      :: !active_seen -> goto evicted
      :: else
      fi;
      assert(good);  /* a lossless reader loses nothing without being told that it was evicted */
      assert(a == next && b == next);
      got++;
      next++;
      cursor = next;
      goto done;
evicted:
      /* consumer.hpp, check_evicted */
      mine++;
      lost = lost - next;
      enlist();
      lost = lost + next;
done:
      skip
    od;
    assert(got + lost == M - start)
  } unless { doomed && me == 1 };
  d_step {
    if
    :: !(doomed && me == 1) && state == ACTIVE && generation == mine -> state = FREE  /* leave */
    :: else
    fi;
    holder = 0
  }
}

active proctype killer() {
end:
  (holder == 1);
  doomed = 1
}

init { atomic { run consumer(1); run consumer(2) } }
