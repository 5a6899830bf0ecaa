/* Waking readers: the waiters bit inside the futex word.
 * A producer commits M slots, two readers wait for each of them, and one reader may be killed at any step.
 * Checked: nobody sleeps through a commit (no invalid end state), without the time slices that real waits have as a safety
 * net; a killed waiter costs one needless wake at most for each time that it armed.
 * A line with `mirrors` quotes the code that the step stands for.
 */
#define M 3
#define READERS 2

byte commit;             /* the head */
byte word_commit;        /* data.word: the low bits of commit ... */
bool word_bit;           /* ... and the waiters bit */
bool flag;               /* only for a mutant: a flag beside the word */
byte count;              /* only for a mutant: a counter of waiters */
bool asleep[READERS];
bool killed[READERS];
byte armed, needless;    /* ghosts */

inline futex_wake() {
  d_step {
    if
    :: asleep[0] || asleep[1] -> asleep[0] = 0; asleep[1] = 0
    :: else -> needless++
    fi
  }
}

/* wait.hpp, wake_readers */
inline wake_readers(head) {
#if defined(MUT_STICKY_FLAG)
  word_commit = head;
  if
  :: flag -> flag = 0; futex_wake()
  :: else
  fi
#elif defined(MUT_WAITER_COUNTER)
  word_commit = head;
  if
  :: count > 0 -> futex_wake()
  :: else
  fi
#else
#ifdef MUT_LOAD_THEN_STORE
  old = word_bit;
  d_step { word_commit = head; word_bit = 0 }
#else
  d_step { old = word_bit; word_commit = head; word_bit = 0 }  /* mirrors wait.hpp: h.data.word.exchange(data_word(commit) */
#endif
#ifndef MUT_NO_WAKE
  if
  :: old -> futex_wake()
  :: else
  fi
#endif
#endif
}

/* producer.hpp, publish */
active proctype producer() {
  byte head = 0;
  bool old;
  do
  :: head < M ->
    head++;
#ifdef MUT_WORD_BEFORE_COMMIT
    wake_readers(head);
    commit = head
#else
    commit = head;  /* mirrors producer.hpp: h.commit.commit.store(head, std::memory_order_release) */
    wake_readers(head)  /* mirrors producer.hpp: wake_readers(h, head) */
#endif
  :: else -> break
  od;
  assert(needless <= armed)
}

/* consumer.hpp, wait_unread and sleep_armed */
proctype reader(byte me) {
  byte cursor = 0, word;
  bool armed_bit, set;
  {
    do
    :: cursor == M -> break
    :: cursor < M && commit > cursor -> cursor++
    :: cursor < M && commit == cursor ->
#if defined(MUT_STICKY_FLAG)
      d_step { flag = 1; armed++ };
      word = word_commit;
      if
      :: commit != cursor -> goto again
      :: else
      fi;
      d_step { if :: word_commit == word -> asleep[me] = 1 :: else fi };
      !asleep[me]
#elif defined(MUT_WAITER_COUNTER)
      d_step { count++; armed++ };
      word = word_commit;
      if
      :: commit != cursor -> count--; goto again
      :: else
      fi;
      d_step { if :: word_commit == word -> asleep[me] = 1 :: else fi };
      !asleep[me];
      count--
#else
      d_step { word = word_commit; armed_bit = word_bit };
      if
      :: armed_bit
      :: else ->
        d_step {
          if
          :: word_commit == word && !word_bit -> word_bit = 1; set = 1; armed++
          :: else -> set = 0
          fi
        };
        if
        :: !set -> goto again  /* mirrors consumer.hpp: compare_exchange_strong(w, expected_, std::memory_order_acq_rel)) return false */
        :: else
        fi
      fi;
#ifndef MUT_NO_SECOND_LOOK
      if
      :: commit != cursor -> goto again
      :: else
      fi;
#endif
      d_step { if :: word_commit == word && word_bit -> asleep[me] = 1 :: else fi };  /* futex_wait compares under its lock */
      !asleep[me]
#endif
      ;
again:
      skip
    od
  } unless { killed[me] };
  asleep[me] = 0
}

active proctype killer() {
  if
  :: killed[1] = 1
  :: skip
  fi
}

init { atomic { run reader(0); run reader(1) } }
