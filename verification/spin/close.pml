/* Closing: the producer commits and closes, a lossless consumer may leave at any time, a lossy reader reads to the end.
 * Checked: every sleeping reader and a waiting producer are released without the help of time slices; who sees the end has
 * seen every commit.
 */
#define N 2
#define WAKE 2
#define M 3
#define FAR 100    /* added to the head in the word when the stream ends */
#define READERS 2  /* 0 is lossless, 1 lossy */

byte commit, word_commit, space_word, wake_at, cursor;
bool word_bit, closed, is_active, producer_waiting, producer_asleep;
bool asleep[READERS];

/* wait.hpp, wake_readers */
inline wake_readers(h) {
  d_step { old = word_bit; word_commit = h; word_bit = 0 };
  if
  :: old -> d_step { asleep[0] = 0; asleep[1] = 0 }
  :: else
  fi
}

inline scan() {
  least = commit;
  if
  :: is_active -> c = cursor; if :: c < least -> least = c :: else fi
  :: else
  fi
}

active proctype producer() {
  byte least, c, word;
  bool old;
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
        d_step { if :: space_word == word -> producer_asleep = 1 :: else fi };
        !producer_asleep
      fi
    od;
    producer_waiting = 0;
    commit++;
    wake_readers(commit)
  :: else -> break
  od;
  /* creation.hpp, end_stream */
#ifdef MUT_WAKE_BEFORE_CLOSED
  wake_readers(commit);
  closed = 1
#else
  closed = 1;  /* mirrors creation.hpp: h.owner.closed.store(how, std::memory_order_release) */
#ifndef MUT_CLOSE_NO_WAKE
#ifdef MUT_SAME_WORD
  wake_readers(commit)
#else
  wake_readers(commit + FAR)  /* mirrors creation.hpp: wake_readers(h, h.commit.commit.load(std::memory_order_relaxed) + */
#endif
#endif
#endif
}

inline notify_producer(always) {
  if
  :: producer_waiting && (always || mine >= wake_at) ->
    d_step { old = producer_waiting; producer_waiting = 0 };
    if
    :: old -> space_word++; producer_asleep = 0
    :: else
    fi
  :: else
  fi
}

/* consumer.hpp, wait_unread and sleep_armed: sets `unread`, or `over` */
inline wait_unread() {
  do
  :: true ->
#ifdef MUT_COMMIT_BEFORE_CLOSED
    unread = commit - mine;
    over = closed;
#else
    over = closed;           /* mirrors consumer.hpp: const bool over = ended(); */
    unread = commit - mine;  /* mirrors consumer.hpp: std::int64_t n = unread(); */
#endif
    if
    :: unread > 0 || over -> break
    :: else
    fi;
    d_step { word = word_commit; armed_bit = word_bit };
    if
    :: armed_bit
    :: else ->
      d_step {
        if
        :: word_commit == word && !word_bit -> word_bit = 1; set = 1
        :: else -> set = 0
        fi
      };
      if
      :: !set -> goto again
      :: else
      fi
    fi;
#ifdef MUT_SECOND_LOOK_WITHOUT_CLOSED
    if
    :: commit != mine -> goto again
    :: else
    fi;
#else
    if
    :: commit != mine -> goto again
    :: else
    fi;
    if
    :: closed -> goto again  /* mirrors consumer.hpp: == seen && !ended() */
    :: else
    fi;
#endif
    d_step { if :: word_commit == word && word_bit -> asleep[me] = 1 :: else fi };
    !asleep[me];
again:
    skip
  od
}

proctype reader(byte me; bool lossless) {
  byte mine, unread, word;
  bool over, armed_bit, set, old;
  do
  :: true ->
    wait_unread();
    if
    :: unread == 0 && over -> assert(mine == M); break  /* mirrors consumer.hpp: if (over) return n ? n : kStreamEnded */
    :: else
    fi;
    mine++;
    if
    :: lossless -> cursor = mine; notify_producer(false)
    :: else
    fi
  :: lossless -> break
  od;
  /* consumer.hpp, leave */
  if
  :: lossless ->
    is_active = 0;
#ifdef MUT_LEAVE_NOT_ALWAYS
    notify_producer(false)
#elif !defined(MUT_LEAVE_NO_NOTIFY)
    notify_producer(true)  /* mirrors consumer.hpp: notify_producer(header(), cursor_, true) */
#endif
  :: else
  fi
}

init { atomic { is_active = 1; run reader(0, true); run reader(1, false) } }
