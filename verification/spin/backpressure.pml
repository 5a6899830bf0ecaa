/* Back-pressure and its wake-ups: a full ring, a producer that sleeps until a part of it is free, two lossless consumers.
 * Checked: no slot is overwritten before both consumers have read it; the producer and the consumers never wait for each
 * other for ever, although wake-ups are held back until wake_at (no time slices in the model).
 */
#define N 3     /* capacity */
#define WAKE 2  /* the producer wants this many free slots; a quarter of the ring in the code */
#define M 6
#define BUSY 99

byte commit, cursor[2], wake_at, space_word;
bool producer_waiting, asleep;
byte ring[N];

/* producer.hpp, scan */
inline scan() {
  least = commit;
  k = 0;
  do
  :: k < 2 ->
#ifdef MUT_CURSOR_READ_TWICE
    if
    :: cursor[k] < least -> least = cursor[k]
    :: else
    fi;
#else
    c = cursor[k];  /* mirrors producer.hpp: cursor.load(std::memory_order_acquire);        // pairs with advance() */
    if
    :: c < least -> least = c  /* mirrors producer.hpp: if (c < least) least = c */
    :: else
    fi;
#endif
    k++
  :: else -> break
  od
}

/* producer.hpp, wait_for_room */
inline wait_for_room() {
  do
  :: commit - least < N -> break
  :: else ->
#ifndef MUT_WORD_AFTER_SCAN
    word = space_word;  /* mirrors producer.hpp: const std::uint32_t word = h.space.word.load( */
#endif
    wake_at = commit - N + WAKE;  /* mirrors producer.hpp: h.space.wake_at.store(head_ - segment_->capacity + quarter */
#ifdef MUT_WAITING_AFTER_SCAN
    scan();
    producer_waiting = 1;
#else
    producer_waiting = 1;  /* mirrors producer.hpp: h.space.producer_waiting.store(1 */
    scan();
#endif
#ifdef MUT_WORD_AFTER_SCAN
    word = space_word;
#endif
    if
    :: commit - least < N  /* mirrors producer.hpp: if (room()) return; */
    :: else ->
      d_step { if :: space_word == word -> asleep = 1 :: else fi };
      !asleep
    fi
  od;
  producer_waiting = 0
}

active proctype producer() {
  byte least, k, c, word;
  do
  :: commit < M ->
    if
    :: commit - least >= N -> scan()  /* mirrors producer.hpp: if (!has_room()) wait_for_room(p, i) */
    :: else
    fi;
    if
    :: commit - least >= N -> wait_for_room()
    :: else
    fi;
    ring[commit % N] = BUSY;
    ring[commit % N] = commit;
    commit++
  :: else -> break
  od
}

/* wait.hpp, notify_producer and wake_producer */
inline notify_producer() {
#ifndef MUT_NO_NOTIFY
  if
  :: producer_waiting && mine >= wake_at ->  /* mirrors wait.hpp: if (!always && cursor < h.space.wake_at */
    d_step { old = producer_waiting; producer_waiting = 0 };
    if
    :: old -> space_word++; asleep = 0  /* mirrors wait.hpp: h.space.word.fetch_add(1 */
    :: else
    fi
  :: else
  fi
#else
  skip
#endif
}

proctype consumer(byte me) {
  byte mine;
  bool old;
  do
  :: mine < M ->
    (commit > mine);
    assert(ring[mine % N] == mine);
    mine++;
    /* consumer.hpp, advance */
    cursor[me] = mine;  /* mirrors consumer.hpp: l->cursor.store(cursor, std::memory_order_release) */
    notify_producer()   /* mirrors consumer.hpp: if (lossless_) notify_producer(header(), cursor) */
  :: else -> break
  od
}

init { atomic { run consumer(0); run consumer(1) } }
