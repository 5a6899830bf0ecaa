/* Holes: a producer writes another ring's slots and passes over the seqs that are missing; one reader, lossless or lossy.
 * The producer may die before a slot is begun, complete or committed, and is succeeded; the reader registers at any
 * moment, and reads batches or in place.
 * Checked: whatever is delivered is that slot, once and in order; a lossless reader loses the holes and nothing else, a lossy
 * one also what the producer was a whole ring ahead of; nobody waits for ever, also where holes fill the ring. Waits are
 * plain here: their wake-ups are those of spin/backpressure and spin/wake.
 */
#define N 3
#define M 7
#define FREE 0
#define ACTIVE 1
#define writing(i) (2 * (i) + 1)
#define complete(i) (2 * (i) + 2)

byte seq[N], data[N];
byte commit, cursor, state;
bool died, started;
bool lossless;
bool written[M];  /* ghost: finished by the last who began it */
byte begun;       /* ghost: one more than the last seq whose place was taken */

#define used ((head - least) & 255)  /* unsigned, as in the code: a successor begins a ring behind */
#define room (!lossless -> N : (used >= N -> 0 : N - used))

/* producer.hpp, scan with wait_for_room and without its sleep */
inline wait_for_room() {
  do
  :: room == 0 ->
    least = head;
    if
    :: state == ACTIVE ->
      d_step { if :: cursor < least -> least = cursor :: else fi };
      if
      :: head - least >= N -> (cursor > least)
      :: else
      fi
    :: else
    fi
  :: else -> break
  od;
  skip
}

/* producer.hpp, begin_slot */
inline begin(i) {
  seq[(i) % N] = writing(i);
  written[i] = 0;
  if
  :: begun < (i) + 1 -> begun = (i) + 1
  :: else
  fi
}

inline mark(n) {
  do
#ifdef MUT_MARKED_FROM_THE_START
  :: d_step { k < n && k < N -> begin(head + k); k++ }
#else
  :: d_step { k < n && k < N -> begin(head + k + (n - 1 - k) / N * N); k++ }  /* mirrors producer.hpp: begin_slot(head_ + k + (step - 1 - k) / segment_->capacity * segment_->capacity) */
#endif
  :: d_step { k >= n || k >= N -> k = 0 }; break
  od;
  skip
}

/* producer.hpp, pass_over */
inline pass_over() {
  do
  :: n > 0 ->
#ifdef MUT_NO_ROOM_FOR_HOLES
    step = n;
#else
    wait_for_room();  /* mirrors producer.hpp: if (!has_room()) wait_for_room(p, i); */
#ifdef MUT_ALL_AT_ONCE
    step = n;
#else
    step = (room == N || n < room -> n : room);  /* mirrors producer.hpp: room() == segment_->capacity ? n : std::min(n, room()) */
#endif
#endif
#if !defined(MUT_UNMARKED) && !defined(MUT_MARKED_LATE)
    mark(step);
#endif
    n = n - step;
    d_step { head = head + step; step = 0 };
#ifndef MUT_FULL_OF_HOLES_UNPUBLISHED
    if
    :: room == 0 -> commit = head  /* mirrors producer.hpp: if (room() == 0) publish(head_); */
    :: else
    fi
#endif
  :: else -> break
  od;
  skip
}

/* A successor follows at once: who else comes changes nothing. */
#define may_die if :: !died -> died = 1; goto succeed :: skip fi

active proctype producer() {
  byte head, least, k, n, step;
#ifdef MUT_MARKED_LATE
  byte late;
#endif
  (started);
succeed:
  head = commit;
  d_step { k = 0; n = 0; step = 0 };
  do
  :: seq[head % N] == complete(head) -> head++  /* mirrors producer.hpp: == complete(head_)) { */
  :: else -> break
  od;
  least = (died -> head - N : head);
  commit = head;
  do
  :: head < M ->
    if
    :: n = 0
    :: head + 1 < M -> n = 1
    :: head + 2 < M -> n = 2
    :: head + N + 1 < M -> n = N + 1  /* more than the ring holds */
    fi;
#ifdef MUT_MARKED_LATE
    late = n;
#endif
    pass_over();  /* mirrors producer.hpp: pass_over(h.seq - head_, p, i); */
    wait_for_room();
    may_die;
    skip;  /* not a jump into the step */
    d_step { begin(head) };
    may_die;
    data[head % N] = head;
#ifdef MUT_COMMIT_FIRST
    commit = head + 1;
#endif
    d_step { seq[head % N] = complete(head); written[head] = 1 };
    may_die;
#ifdef MUT_MARKED_LATE
    head = head - late;
    mark(late);
    head = head + late;
#endif
    commit = head + 1;
    head++
  :: else -> break
  od
}

#define there(i) (seq[(i) % N] == complete(i))
#ifdef MUT_HOLE_IS_OVERWRITTEN
#define overwritten(i) (!there(i))
#else
#define overwritten(i) (seq[(i) % N] > complete(i))  /* mirrors consumer.hpp: seq.load(std::memory_order_relaxed) > complete(i) */
#endif

#ifdef MUT_HOLE_NOT_SEEN
#define is_hole(i) false
#else
#define is_hole(i) (seq[(i) % N] < complete(i))  /* mirrors consumer.hpp: seq.load(std::memory_order_relaxed) < complete(i) */
#endif

/* consumer.hpp, clobbered: how many of the slots from `next` on */
inline clobbered() {
  low = 0;
  high = want;
  do
  :: d_step {
      low < high ->
      middle = low + (high - low) / 2;  /* mirrors consumer.hpp: low + (high - low) / 2 */
      if
      :: overwritten(next + middle) -> low = middle + 1
      :: else -> high = middle
      fi;
      middle = 0
    }
  :: d_step { low >= high -> high = 0 }; break
  od;
  skip
}

/* Count the next slot as lost; is it? */
inline lose() {
  assert(!written[next] || (!lossless && begun > next + N));
  next++
}

inline deliver(value) {
  assert(value == next && written[next]);
  next++
}

/* consumer.hpp, read with copy_valid */
inline read() {
#ifdef MUT_LOOKS_AHEAD
  want = (M - next < N -> M - next : N);
#else
  h = commit;
  want = (h - next < N -> h - next : N);
#endif
  clobbered();
  bad = low;
  k = low;
  do
  :: d_step { k < want -> hole[k] = is_hole(next + k); k++ }
  :: d_step { k >= want -> k = bad }; break
  od;
  do
  :: d_step { k < want -> copy[k] = data[(next + k) % N]; k++ }
  :: k >= want -> break
  od;
  skip;
#ifndef MUT_NO_SECOND_LOOK
  clobbered();
  if
  :: low > bad -> bad = low  /* mirrors consumer.hpp: std::max(early, clobbered(first, n)) */
  :: else
  fi;
#endif
  d_step {
    k = 0;
    do
    :: k < bad -> lose(); k++
    :: else -> break
    od;
    do
    :: k < want && hole[k] -> lose(); k++  /* mirrors consumer.hpp: holes = leading(headers, want - bad, true) */
    :: else -> break
    od;
    do
#ifdef MUT_BATCH_GOES_ON
    :: k < want -> deliver(copy[k]); k++
#else
    :: k < want && !hole[k] -> deliver(copy[k]); k++  /* mirrors consumer.hpp: leading(headers + holes, want - bad - holes, false) */
#endif
    :: else -> break
    od;
    for (k : 0 .. N - 1) { hole[k] = 0; copy[k] = 0 };
    k = 0;
    bad = 0;
    low = 0;
    want = 0;
    h = 0
  }
}

/* consumer.hpp, open_slot and release_slot */
inline in_place() {
  if
  :: there(next) ->  /* mirrors consumer.hpp: seq.load(std::memory_order_acquire) == complete(seq) */
    copy[0] = data[next % N];
    d_step {
      if
      :: there(next) -> deliver(copy[0])
      :: else -> lose()
      fi;
      copy[0] = 0
    }
  :: else -> d_step { lose() }  /* mirrors consumer.hpp: lose(1);  // overwritten between the two looks */
  fi
}

active proctype reader() {
  byte next, h, k, want, bad, low, high, middle, copy[N];
  bool hole[N];
  if
  :: lossless = 1
  :: skip
  fi;
  started = 1;
  if
  :: lossless ->  /* consumer.hpp, enlist */
    cursor = commit;
    state = ACTIVE;
    next = commit;
    cursor = next
  :: else -> next = commit
  fi;
  do
  :: next == M -> break
  :: next < M ->
    (commit > next);
    /* consumer.hpp, skip_overwritten */
    h = commit;
    d_step {
      do
      :: h > next + N -> lose()  /* mirrors consumer.hpp: const std::uint64_t oldest = h - segment_->capacity */
      :: else -> break
      od;
      h = 0
    };
    if
    :: read()
    :: in_place()
    fi;
    cursor = next
  od;
  state = FREE
}
