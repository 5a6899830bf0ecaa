/* Takeover after a death at any step: a producer may die at any step of a write, twice in a row; the next one repairs and goes on.
 * A lossy reader sleeps and reads beside them. Checked: it never believes a torn slot nor gets one twice, counts exactly,
 * and is not left asleep; what was finished is committed, what was not is written anew, and seq goes on without a gap.
 */
#define N 2
#define M 3
#define RUN 2  /* slots that write_many publishes together */
#define PRODUCERS 3
#define writing(i) (2 * (i) + 1)
#define complete(i) (2 * (i) + 2)

byte seq[N], first[N], second[N];
byte commit;
bool word_bit, asleep;
byte owner;              /* the kernel's lock: 0 is free */
byte heir = 1;           /* who is next to try; the order of equals is of no interest */
byte doomed;             /* the producer that is killed now */
byte finished;           /* ghost: slots 0 .. finished-1 were finished */

/* producer.hpp, publish */
inline publish(h) {
  assert(h >= commit);
  commit = h;
  d_step { old = word_bit; word_bit = 0 };
  if
  :: old -> asleep = 0
  :: else
  fi
}

/* producer.hpp, begin */
inline begin() {
  head = commit;
#ifdef MUT_TRUST_ODD
  do
  :: seq[head % N] == complete(head) || seq[head % N] == writing(head) -> head++
  :: else -> break
  od;
#elif defined(MUT_SKIP_ODD)
  do
  :: seq[head % N] == complete(head) -> head++
  :: else -> break
  od;
  if
  :: seq[head % N] == writing(head) -> head++
  :: else
  fi;
#elif !defined(MUT_NO_REPAIR)
  do
  :: seq[head % N] == complete(head) -> head++  /* mirrors producer.hpp: == complete(head_)) { */
  :: else -> break
  od;
#endif
  publish(head);  /* mirrors producer.hpp: publish(head_); */
#ifndef MUT_NO_WAKE
  asleep = 0;     /* mirrors producer.hpp: futex_wake(h.data.word);  // whatever the bit says */
#endif
  assert(commit == finished)
}

/* producer.hpp, begin_slot, the copy, finish_slot */
inline write_slot(i) {
  assert(i >= commit);
#ifdef MUT_EVEN_BEFORE_PAYLOAD
  d_step { seq[(i) % N] = complete(i); finished = (i) + 1 };
  first[(i) % N] = i;
  second[(i) % N] = i;
#else
  seq[(i) % N] = writing(i);
  first[(i) % N] = i;
  second[(i) % N] = i;
  d_step { seq[(i) % N] = complete(i); finished = (i) + 1 };
#endif
}

proctype producer(byte me) {
  byte head, k, n;
  bool old;
  d_step { owner == 0 && heir == me -> owner = me; heir++ };  /* mirrors creation.hpp: take_lock(o.file->get(), kProducerLock, path_) */
  {
    begin();
    do
    :: head < M ->
      if
      :: n = 1
      :: head + RUN <= M -> n = RUN
      fi;
#ifdef MUT_COMMIT_FIRST
      publish(head + n);
#endif
      k = 0;
      do
      :: k < n -> write_slot(head + k); k++
      :: else -> break
      od;
#ifndef MUT_COMMIT_FIRST
      publish(head + n);  /* mirrors producer.hpp: publish(head_ + run) */
#endif
      head = head + n
    :: else -> break
    od
  } unless { doomed == me };
  owner = 0  /* the kernel lets the lock go, however the process ended */
}

active proctype killer() {
end_first:
  (owner == 1);
  doomed = 1;
end_second:
  (owner == 2);
  doomed = 2
}

/* consumer.hpp, read with skip_overwritten, copy_valid, intact; wait_unread */
active proctype reader() {
  byte cursor, got, lost, head, a, b;
  bool good;
  do
  :: cursor == M -> break
  :: cursor < M && commit == cursor ->
    word_bit = 1;
    d_step { if :: commit == cursor && word_bit -> asleep = 1 :: else fi };
    !asleep
  :: cursor < M && commit > cursor ->
    head = commit;
    if
    :: head - cursor > N -> lost = lost + (head - N - cursor); cursor = head - N  /* mirrors consumer.hpp: const std::uint64_t oldest = h - segment_->capacity */
    :: else
    fi;
    good = (seq[cursor % N] == complete(cursor));
    a = first[cursor % N];
    b = second[cursor % N];
#ifndef MUT_NO_SEQ_RECHECK
    good = good && (seq[cursor % N] == complete(cursor));
#endif
    if
    :: good -> assert(a == cursor && b == cursor); got++
    :: else -> lost++
    fi;
    cursor++
  od;
  assert(got + lost == M)
}

init { atomic { run producer(1); run producer(2); run producer(3) } }
