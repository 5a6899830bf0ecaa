/* Registration while the producer runs: two consumers register, read as much as they like, leave, and register again.
 * Checked: a registered consumer finds every slot from its cursor on intact until it moves on; nobody waits for ever, also
 * where the producer sleeps on the cursor that a registration is just about to raise.
 */
#define N 2
#define WAKE 2
#define M 4
#define ROUNDS 2
#define BUSY 99

byte commit, cursor[2], wake_at, space_word;
bool is_active[2], producer_waiting, asleep;
byte ring[N];

inline scan() {
  least = commit;
  k = 0;
  do
  :: k < 2 ->
    if
    :: is_active[k] ->  /* mirrors producer.hpp: & 3) != kActive) continue;  // pairs with registration */
#ifdef MUT_CURSOR_READ_TWICE
      if
      :: cursor[k] < least -> least = cursor[k]
      :: else
      fi
#else
      c = cursor[k];
      if
      :: c < least -> least = c
      :: else
      fi
#endif
    :: else
    fi;
    k++
  :: else -> break
  od
}

active proctype producer() {
  byte least, k, c, word;
  do
  :: commit < M ->
    if
    :: commit - least >= N -> scan()
    :: else
    fi;
    do
    :: commit - least < N -> break
    :: else ->
      word = space_word;
      wake_at = commit - N + WAKE;
      producer_waiting = 1;
      scan();
      if
      :: commit - least < N
      :: else ->
        d_step { if :: space_word == word -> asleep = 1 :: else fi };
        !asleep
      fi
    od;
    producer_waiting = 0;
    ring[commit % N] = BUSY;
    ring[commit % N] = commit;
    commit++
  :: else -> break
  od
}

inline notify_producer(always) {
  if
  :: producer_waiting && (always || mine >= wake_at) ->
    d_step { old = producer_waiting; producer_waiting = 0 };
    if
    :: old -> space_word++; asleep = 0
    :: else
    fi
  :: else
  fi
}

/* consumer.hpp, enlist */
inline enlist() {
  mine = commit;
  cursor[me] = mine;  /* mirrors consumer.hpp: : head(), std::memory_order_relaxed) */
  is_active[me] = 1;  /* mirrors consumer.hpp: l.state.store(line_state(generation_, kActive), std::memory_order_release);  // pairs with scan() */
#ifndef MUT_NO_REREAD
  mine = commit;      /* mirrors consumer.hpp: cursor_ = head(); */
  cursor[me] = mine;  /* mirrors consumer.hpp: l.cursor.store(cursor_, std::memory_order_release) */
#endif
#ifndef MUT_NO_NOTIFY
  notify_producer(false)  /* mirrors consumer.hpp: notify_producer(header(), cursor_); */
#endif
}

/* consumer.hpp, leave */
inline leave() {
  is_active[me] = 0;
  notify_producer(true)  /* mirrors consumer.hpp: if (lossless_) notify_producer(header(), cursor_, true) */
}

proctype consumer(byte me) {
  byte mine, round = 0;
  bool old;
  do
  :: round < ROUNDS ->
    round++;
    enlist();
    do
    :: mine < M ->
      (commit > mine);
      assert(ring[mine % N] == mine);
      mine++;
      cursor[me] = mine;
      notify_producer(false)
    :: mine == M -> break
    :: round < ROUNDS -> break
    od;
    leave()
  :: else -> break
  od
}

init { atomic { run consumer(0); run consumer(1) } }
