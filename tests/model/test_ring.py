"""One suite, two subjects: the model of the ring by itself, and the native ring beside it, step by step.

Each rule asks both for the same and compares what they say, errors included. What is true of any ring is checked on
top: the payload is a function of (incarnation, seq), seqs strictly rise, and received + lost is what the cursor moved.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from labhub.errors import BackpressureTimeout, Evicted, LabHubError, Lapped
from labhub.testing.model import LAST, LATEST_ONLY, NEWEST, OLDEST, SEQUENTIAL, SEQUENTIAL_SYNC, ModelHost, Shape, Slot
from labhub.testing.subject import NativeHost

SLOT_NBYTES = 24
SINGLE, DOUBLE_BUFFER, RING_BUFFER = 0, 1, 2
CAPACITIES = {SINGLE: [1], DOUBLE_BUFFER: [2], RING_BUFFER: [1, 2, 3, 5, 8]}
FIRST_SEQS = [0, 0, 7, 2**31 - 3, 2**62 - 3]  # the futex word has 31 bits of the seq, slot headers twice the seq
GAPS = st.sampled_from([0, 0, 0, 1, 2, 3, 12, -1])
STARTS = st.sampled_from([NEWEST, NEWEST, OLDEST, OLDEST, LAST])
FACTS = ("lost", "seq", "lag", "written")


def payload(incarnation: int, seq: int, nbytes: int) -> bytes:
    return b"".join(n.to_bytes(8, "little") for n in (incarnation, seq, incarnation ^ seq))[:nbytes]


@dataclass
class Pair:
    """One reader, of each subject, and what any reader must be true to."""

    subjects: list
    lossless: bool
    incarnation: int
    began: int
    registered: int
    received: int = 0
    told: int = 0
    last: int = -1
    open: bool = False

    def take(self, slots: list[Slot], lost: int) -> None:
        if slots and self.lossless:  # history before the registration is read like a lossy reader's
            gone = range(max(self.registered, slots[0].seq - lost), slots[0].seq)
            assert all(self.subjects[0].segment.is_hole(seq) for seq in gone), "lost what was there"
        for slot in slots:
            assert slot.data == payload(self.incarnation, slot.seq, len(slot.data)), "torn or foreign bytes"
            assert slot.seq > self.last, "seqs must strictly rise"
            self.last = slot.seq
        self.received += len(slots)
        self.told += lost


@dataclass
class Answer:
    value: object = None
    error: LabHubError | None = None

    def __eq__(self, other) -> bool:
        return (self.value, type(self.error), self.facts()) == (other.value, type(other.error), other.facts())

    def facts(self) -> dict[str, object]:
        return {f: getattr(self.error, f) for f in FACTS if hasattr(self.error, f)}

    def __repr__(self) -> str:
        return f"{self.value!r}" if self.error is None else f"{type(self.error).__name__}({self.facts()})"


def ask(action) -> Answer:
    try:
        return Answer(action())
    except LabHubError as error:
        return Answer(error=error)


@dataclass
class Tally:
    """How often each rule fired, and what came of it."""

    counts: Counter = field(default_factory=Counter)

    def add(self, rule_name: str, answer: Answer) -> None:
        self.counts[rule_name] += 1
        if answer.error is not None:
            self.counts[f"{rule_name}: {type(answer.error).__name__}"] += 1


class RingMachine(RuleBasedStateMachine):
    """Drives every subject of `hosts()` through the same life."""

    policy: ClassVar[int]
    sync: ClassVar[int]
    native_directory: ClassVar[str | None]
    tally: ClassVar[Tally]

    def __init__(self) -> None:
        super().__init__()
        self.hosts = [ModelHost()]
        if self.native_directory is not None:
            self.hosts.append(NativeHost(self.native_directory, "ring"))
        self.segments: list = []
        self.readers: list[Pair] = []
        self.incarnation = 0
        self.alive = False

    @initialize(capacity=st.data(), first_seq=st.sampled_from(FIRST_SEQS))
    def begin(self, capacity, first_seq) -> None:
        self.capacities = st.sampled_from(CAPACITIES[self.policy])
        self.shape = Shape(capacity.draw(self.capacities), SLOT_NBYTES, self.sync, self.policy)
        self.first_seq = first_seq
        self.create()
        self.attach(False, NEWEST)
        if self.sync != LATEST_ONLY:
            self.attach(True, NEWEST)

    def both(self, name: str, *actions) -> Answer:
        """Ask each subject; all must say the same."""
        answers = [ask(action) for action in actions]
        self.tally.add(name, answers[0])
        note(f"{name} -> {answers[0]!r}")
        assert all(answer == answers[0] for answer in answers), f"{name}: model {answers[0]!r}, native {answers[1:]!r}"
        return answers[0]

    def each(self, name: str, subjects: list, action) -> Answer:
        return self.both(name, *[lambda s=s: action(s) for s in subjects])

    @property
    def segment(self):
        return self.segments[0]

    # ------------------------------------------------------------------------------------------------------ producer

    def create(self) -> None:
        self.segments = [host.open_producer(self.shape, self.first_seq) for host in self.hosts]
        self.alive = True
        self.claimed = False
        if self.segment.epoch == 1:
            self.incarnation += 1

    def text(self, seq: int, nbytes: int = SLOT_NBYTES) -> bytes:
        return payload(self.incarnation, seq, nbytes)

    @precondition(lambda self: self.alive)
    @rule(nbytes=st.integers(0, SLOT_NBYTES), evict=st.booleans())
    def write(self, nbytes, evict) -> None:
        data = self.text(self.segment.next_seq, nbytes)
        answer = self.each("write", self.segments, lambda s: s.write(data, evict))
        self.blocked(answer)

    @precondition(lambda self: self.alive)
    @rule(n=st.integers(0, 12), evict=st.booleans())
    def write_many(self, n, evict) -> None:
        first = self.segment.next_seq
        slots = [self.text(first + k) for k in range(n)]
        answer = self.each("write_many", self.segments, lambda s: s.write_many(slots, evict))
        self.blocked(answer)

    @precondition(lambda self: self.alive)
    @rule(gaps=st.lists(GAPS, max_size=6), nbytes=st.integers(0, SLOT_NBYTES), evict=st.booleans())
    def write_copies(self, gaps, nbytes, evict) -> None:
        """Leave holes of these lengths, each before a slot; -1 is a slot that is there already."""
        ends = accumulate((gap + 1 for gap in gaps), initial=self.segment.next_seq)
        seqs = [max(0, end - 1) for end in islice(ends, 1, None)]
        slots = [(seq, self.text(seq, nbytes)) for seq in seqs]
        answer = self.each("write_copies", self.segments, lambda s: s.write_copies(slots, evict))
        self.blocked(answer)

    @precondition(lambda self: self.alive)
    @rule(evict=st.booleans())
    def claim(self, evict) -> None:
        answer = self.each("claim", self.segments, lambda s: s.claim(evict))
        self.blocked(answer)
        self.claimed = self.claimed or answer.error is None

    @precondition(lambda self: self.alive and self.claimed)
    @rule(nbytes=st.sampled_from([0, 1, SLOT_NBYTES, SLOT_NBYTES + 1]))
    def commit(self, nbytes) -> None:
        data = self.text(self.segment.next_seq, nbytes) if nbytes <= SLOT_NBYTES else bytes(nbytes)
        answer = self.each("commit", self.segments, lambda s: s.commit(data))
        self.claimed = answer.error is not None

    @precondition(lambda self: self.alive and (self.claimed or self.segment.head % 7 == 3))
    @rule()
    def abort(self) -> None:
        self.each("abort" if self.claimed else "abort nothing", self.segments, lambda s: s.abort())
        self.claimed = False

    def blocked(self, answer: Answer) -> None:
        if isinstance(answer.error, BackpressureTimeout):
            assert answer.error.lag >= self.shape.capacity

    @precondition(lambda self: self.alive and self.segment.head % 7 == 5)
    @rule()
    def intrude(self) -> None:
        """A second producer is refused while the first one lives."""
        self.each("intrude", self.hosts, lambda h: h.open_producer(self.shape, 0))

    @precondition(lambda self: self.alive)
    @rule(rare=st.integers(0, 2))
    def crash(self, rare) -> None:
        """The producer is killed, perhaps in the middle of a write."""
        if rare:  # otherwise examples would be mostly funerals
            return
        self.each("crash while writing" if self.claimed else "crash", self.segments, lambda s: s.crash())
        self.alive = False

    @precondition(lambda self: not self.alive and self.hosts[0].segment is not None)
    @rule()
    def take_over(self) -> None:
        epoch = self.segment.epoch
        self.create()
        self.tally.add("take over", Answer())
        assert [s.epoch for s in self.segments] == [epoch + 1] * len(self.segments)

    @precondition(lambda self: not self.alive and self.hosts[0].segment is not None and self.policy == RING_BUFFER)
    @rule(more=st.integers(1, 3))
    def replace(self, more) -> None:
        """A producer of another shape ends the dead one's stream and begins a new one."""
        self.shape = Shape(self.shape.capacity + more, SLOT_NBYTES, self.sync, self.policy)
        self.create()
        self.tally.add("replace", Answer())
        assert [s.epoch for s in self.segments] == [1] * len(self.segments)

    @precondition(lambda self: self.alive)
    @rule(rare=st.integers(0, 2))
    def close_producer(self, rare) -> None:
        if rare:
            return
        self.each("close producer", self.hosts, lambda h: h.close_producer())
        self.alive = False

    @precondition(lambda self: not self.alive and self.hosts[0].segment is None)
    @rule()
    def create_anew(self) -> None:
        self.tally.add("create anew", Answer())
        self.create()

    # ------------------------------------------------------------------------------------------------------- readers

    @precondition(lambda self: len(self.readers) < 3)
    @rule(lossless=st.booleans(), start=STARTS | st.integers(0, 20))
    def attach(self, lossless, start) -> None:
        if start >= 0:
            start += max(0, self.segment.head - 10)
        found = []

        def open_reader(host):
            found.append(host.attach(lossless, start))

        kind = "lossless" if lossless else "lossy"
        answer = self.each(f"attach {kind}", self.hosts, open_reader)
        if answer.error is None:
            self.readers.append(Pair(found, lossless, self.incarnation, found[0].cursor, found[0].segment.head))
            assert [r.cursor for r in found] == [found[0].cursor] * len(found)

    @precondition(lambda self: self.sync != LATEST_ONLY)
    @rule(start=STARTS)
    def attach_and_die(self, start) -> None:
        """A lossless reader is killed as soon as it holds the ring."""
        self.each("attach and die", self.hosts, lambda h: h.attach_and_die(start))

    def pick(self, which: int, want=lambda reader: True) -> Pair | None:
        found = [r for r in self.readers if want(r)]
        return found[which % len(found)] if found else None

    def settle(self, reader: Pair, answer: Answer) -> None:
        """Book what an error told: an eviction closes the open slot, a lap costs one slot."""
        if isinstance(answer.error, Evicted):
            reader.told += answer.error.lost
            reader.open = False
        if isinstance(answer.error, Lapped):
            self.tally.add("lapped", Answer())

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 9), min_slots=st.integers(1, 9), until_gone=st.booleans())
    def wait(self, which, min_slots, until_gone) -> None:
        reader = self.pick(which)
        answer = self.each("wait", reader.subjects, lambda r: r.wait(min_slots, until_gone))
        self.settle(reader, answer)
        if answer.value == -1:
            self.tally.add("wait: end of stream", Answer())

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 9), n=st.integers(1, 9))
    def read(self, which, n) -> None:
        reader = self.pick(which)
        answer = self.each("read", reader.subjects, lambda r: r.read(n))
        self.settle(reader, answer)
        if answer.error is None:
            reader.take(*answer.value)
            if answer.value[1]:
                self.tally.add("read: lost", Answer())
                self.tally.add(f"read: lost, {'lossless' if reader.lossless else 'lossy'}", Answer())

    @precondition(lambda self: any(not r.lossless for r in self.readers))
    @rule(which=st.integers(0, 9))
    def skip_to_newest(self, which) -> None:
        reader = self.pick(which, lambda r: not r.lossless)
        self.each("skip to newest", reader.subjects, lambda r: r.skip_to_newest())

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 9), back=st.integers(0, 12), n=st.integers(1, 12))
    def peek(self, which, back, n) -> None:
        reader = self.pick(which)
        first = max(0, reader.subjects[0].segment.head - back)
        answer = self.each("peek", reader.subjects, lambda r: r.peek(first, n))
        for slot in answer.value:
            assert slot.data == payload(reader.incarnation, slot.seq, len(slot.data))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 9), newest=st.booleans())
    def acquire(self, which, newest) -> None:
        reader = self.pick(which)
        newest = newest and not reader.lossless
        answer = self.each("acquire newest" if newest else "acquire", reader.subjects, lambda r: r.acquire(newest))
        self.settle(reader, answer)
        reader.open = reader.open or (answer.error is None and answer.value >= 0)

    @precondition(lambda self: any(r.open for r in self.readers))
    @rule(which=st.integers(0, 9))
    def look(self, which) -> None:
        reader = self.pick(which, lambda r: r.open)
        valid = self.each("valid", reader.subjects, lambda r: r.valid())
        answer = self.each("look", reader.subjects, lambda r: r.look())
        assert valid.value == (answer.error is None)
        self.settle(reader, answer)
        if answer.error is None:
            slot = answer.value
            assert slot.data == payload(reader.incarnation, slot.seq, len(slot.data))

    @precondition(lambda self: any(r.open for r in self.readers))
    @rule(which=st.integers(0, 9))
    def release(self, which) -> None:
        reader = self.pick(which, lambda r: r.open)
        answer = self.each("release", reader.subjects, lambda r: r.release())
        self.settle(reader, answer)
        reader.open = False
        if answer.error is None:
            reader.received += 1
        if isinstance(answer.error, Lapped):
            reader.told += 1

    @precondition(lambda self: self.alive and not self.claimed and self.readers)
    @rule(which=st.integers(0, 9), then=st.sampled_from(["look", "release", "wait", "read", "acquire"]))
    def overrun(self, which, then) -> None:
        """The producer goes a whole ring ahead, of a slot that is open perhaps: too rare to wait for by chance."""
        self.write(SLOT_NBYTES, True)
        if then in ("look", "release"):
            self.acquire(which, False)
        self.write_many(self.shape.capacity + 1, True)
        match then:
            case "look" | "release" if any(r.open for r in self.readers):
                getattr(self, then)(which)
            case "wait":
                self.wait(which, 1, False)
            case "read":
                self.read(which, 9)
            case "acquire":
                self.acquire(which, False)

    @precondition(lambda self: self.alive and not self.claimed and self.readers)
    @rule(which=st.integers(0, 9), gap=st.integers(1, 9))
    def read_over_holes(self, which, gap) -> None:
        """A reader that has read everything comes upon holes: too rare to wait for by chance."""
        self.read(which, 9)
        self.write_copies([gap, 0], SLOT_NBYTES, True)
        self.read(which, 9)

    @precondition(lambda self: self.alive and not self.claimed and self.sync != LATEST_ONLY)
    @rule()
    def jam(self) -> None:
        """Nobody reads, and nobody is evicted."""
        self.write_many(self.shape.capacity, False)
        self.claim(False)

    @precondition(lambda self: not self.alive and self.readers)
    @rule(which=st.integers(0, 9))
    def drain(self, which) -> None:
        """Read what a producer that is gone has left, and then wait for more."""
        for _ in range(2):
            self.read(which, 9)
        self.wait(which, 1, True)

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 9), start=STARTS | st.integers(0, 12))
    def seek(self, which, start) -> None:
        reader = self.pick(which)
        if start >= 0:
            start += max(0, reader.subjects[0].segment.head - 10)
        answer = self.each("seek", reader.subjects, lambda r: r.seek(start))
        if answer.error is None:  # nothing counts as lost: the count begins anew
            model = reader.subjects[0]
            reader.began = model.cursor - reader.received - model.lost
            reader.last = -1

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 9))
    def detach(self, which) -> None:
        reader = self.pick(which)
        self.each("detach", reader.subjects, lambda r: r.close())
        self.each("use after close", reader.subjects, lambda r: r.read(1))
        self.readers.remove(reader)

    # ---------------------------------------------------------------------------------------------------- invariants

    @invariant()
    def nothing_is_unaccounted_for(self) -> None:
        for reader in self.readers:
            model = reader.subjects[0]
            for subject in reader.subjects:
                assert subject.cursor == model.cursor
                assert subject.lost == model.lost
                assert reader.received + subject.lost == subject.cursor - reader.began
            assert reader.told == model.lost - model.untold

    @invariant()
    def heads_agree(self) -> None:
        if self.alive:
            assert [s.head for s in self.segments] == [self.segment.head] * len(self.segments)

    def teardown(self) -> None:
        for reader in self.readers:
            for subject in reader.subjects:
                subject.close()
        for host in self.hosts[1:]:
            host.clean_up()


ALWAYS = {
    "write",
    "write_many",
    "write_copies",
    "write_copies: ConcurrentUseError",
    "write_copies: InvalidArgument",
    "claim",
    "claim: ConcurrentUseError",
    "commit",
    "commit: InvalidArgument",
    "abort",
    "abort nothing",
    "intrude: ChannelBusy",
    "crash",
    "crash while writing",
    "take over",
    "close producer",
    "create anew",
    "attach lossy",
    "attach lossy: ChannelNotFound",
    "wait",
    "wait: ProducerGone",
    "wait: end of stream",
    "read",
    "read: lost",
    "read: lost, lossy",
    "read: ConcurrentUseError",
    "skip to newest",
    "peek",
    "acquire",
    "acquire newest",
    "valid",
    "look",
    "look: Lapped",
    "release",
    "release: Lapped",
    "seek",
    "detach",
    "use after close: ClosedError",
}
WITH_LOSSLESS = {
    "attach lossless",
    "attach and die",
    "seek: InvalidArgument",
    "write: BackpressureTimeout",
    "write_many: BackpressureTimeout",
    "write_copies: BackpressureTimeout",
    "read: lost, lossless",
    "claim: BackpressureTimeout",
    "wait: Evicted",
    "read: Evicted",
    "acquire: Evicted",
    "look: Evicted",
    "release: Evicted",
}
OF_SYNC = {
    LATEST_ONLY: {"attach lossless: InvalidArgument"},
    SEQUENTIAL: WITH_LOSSLESS | {"attach lossless: ChannelBusy", "attach and die: ChannelBusy"},
    SEQUENTIAL_SYNC: WITH_LOSSLESS,
}


ROUND = 60  # examples
MAX_ROUNDS = 12


def drive(policy: int, sync: int, directory: str | None) -> Tally:
    """Run the machine, round after round with another seed, until every rule has fired.

    The seeds are the same each time, so that a rule that never fires is a fact and not bad luck; to look further, set
    LABHUB_EXPLORE to another seed to begin with.
    """
    tally = Tally()
    first = int(os.environ.get("LABHUB_EXPLORE", "0"))
    for k in range(MAX_ROUNDS):
        machine = type(
            "Machine", (RingMachine,), {"policy": policy, "sync": sync, "native_directory": directory, "tally": tally}
        )
        run_state_machine_as_test(
            seed(first + k)(machine),
            settings=settings(
                max_examples=ROUND,
                stateful_step_count=50,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        if not missing(tally, policy, sync):
            break
    print(f"{k + 1} rounds")
    return tally


def missing(tally: Tally, policy: int, sync: int) -> set[str]:
    expected = ALWAYS | OF_SYNC[sync] | ({"replace"} if policy == RING_BUFFER else set())
    return {name for name in expected if not tally.counts[name]}


@pytest.mark.parametrize("sync", [LATEST_ONLY, SEQUENTIAL, SEQUENTIAL_SYNC], ids=["latest", "single", "sync"])
@pytest.mark.parametrize("policy", [SINGLE, DOUBLE_BUFFER, RING_BUFFER], ids=["one", "two", "ring"])
@pytest.mark.parametrize("subject", ["model", "native"])
def test_ring(subject, policy, sync, private_dirs):
    directory = str(private_dirs / "shm" / "default") if subject == "native" else None
    tally = drive(policy, sync, directory)
    print(f"\n{sum(tally.counts.values())} steps: {dict(sorted(tally.counts.items()))}")
    assert not missing(tally, policy, sync), "these rules never fired"
