"""The parts of a bridge that do no I/O: messages, the backlog, the arithmetic of clocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labhub.bridging import wire
from labhub.bridging.backlog import Backlog
from labhub.bridging.clocks import best
from labhub.bridging.wire import Address, Message, decode, decode_offer, parse_token
from labhub.datablock.batch import SLOT_HEADER
from labhub.errors import ProtocolError

ONE, TWO = bytes([1]) * 16, bytes([2]) * 16
RUN = "00" * 8
ADDRESS = Address("lab", "0123456789ab", "x")


def message(first: int, n: int, instance: bytes = ONE) -> Message:
    headers = np.zeros(n, SLOT_HEADER)
    headers["seq"] = np.arange(first, first + n)
    headers["nbytes"] = 8
    headers["epoch"] = 1
    return Message(instance, first, 1, headers, bytes(8 * n), 8)


@given(first=st.integers(0, 2**60), n=st.integers(0, 5), partial=st.booleans(), sealed=st.booleans(), data=st.data())
def test_a_message_arrives_as_it_was_sent(first, n, partial, sealed, data) -> None:
    sent = message(first, n)
    sent.headers["timestamp_ns"] = data.draw(st.lists(st.integers(-(2**60), 2**60), min_size=n, max_size=n))
    if partial:
        sent.headers["nbytes"] = data.draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))
    if sealed:
        sent.headers["flags"] = 1
        sent.headers["checksum"] = bytes(range(32))
    attachment = sent.attachment(RUN, 7, 3)
    got = decode(attachment, sent.payload, 8)
    assert (got.run, got.generation, got.follows) == (RUN, 7, 3)
    assert (got.message.instance, got.message.first_seq, got.message.end) == (ONE, first, False)
    assert got.message.headers.tolist() == sent.headers.tolist()
    assert decode(attachment, b"", None).message.first_seq == first


@given(attachment=st.binary(max_size=200), payload=st.binary(max_size=64), nbytes=st.integers(1, 16))
def test_nonsense_is_a_protocol_error(attachment, payload, nbytes) -> None:
    for read in (lambda: decode(attachment, payload, nbytes), lambda: decode_offer(attachment)):
        try:
            read()
        except ProtocolError:
            continue


def test_cut_and_prolonged_messages_are_refused() -> None:
    sent = message(5, 3)
    whole = sent.attachment(RUN, 0, 0)
    for attachment, payload in ((whole[:-1], sent.payload), (whole + b"0", sent.payload), (whole, sent.payload[:-1])):
        with pytest.raises(ProtocolError):
            decode(attachment, payload, 8)


class Counted(bytes):
    """A payload that says whether it was looked into."""

    def __bytes__(self) -> bytes:
        raise AssertionError("copied before its length was compared")


@pytest.mark.parametrize("flags", [0, wire._PARTIAL, wire._SEALED, wire._PARTIAL | wire._SEALED, wire._END])
def test_nothing_is_allocated_for_slots_that_are_only_announced(monkeypatch, flags) -> None:
    head = wire._HEAD.pack(1, flags, 5_000, 1, 0, bytes(8), ONE, 0, 0)
    with monkeypatch.context() as patched:
        patched.setattr(wire.np, "zeros", None)
        patched.setattr(wire.np, "arange", None)
        for behind in (b"", b"x", bytes(8 * 4_999), bytes(100_000)):
            with pytest.raises(ProtocolError, match="instead of"):
                decode(head + behind, b"x", 8)
            with pytest.raises(ProtocolError, match="instead of"):
                decode(head + behind, b"", None)


def test_the_slots_are_not_copied_before_their_length_fits() -> None:
    whole = message(5, 3).attachment(RUN, 0, 0)
    with pytest.raises(ProtocolError, match="9 bytes are not 3 slots of 8"):
        decode(whole, Counted(9), 8)


def test_one_message_has_an_upper_bound_even_if_all_of_it_is_there(monkeypatch) -> None:
    monkeypatch.setattr(wire, "MAX_MESSAGE_SLOTS", 10)
    assert len(decode(message(0, 10).attachment(RUN, 0, 0), bytes(80), 8).message.headers) == 10
    with pytest.raises(ProtocolError, match="more than any labhub sends"):
        decode(message(0, 11).attachment(RUN, 0, 0), bytes(88), 8)
    monkeypatch.setattr(wire, "MAX_MESSAGE_NBYTES", 40)
    with pytest.raises(ProtocolError, match="more than any labhub sends"):
        decode(message(0, 6).attachment(RUN, 0, 0), bytes(48), 8)
    assert len(decode(message(0, 1).attachment(RUN, 0, 0), bytes(8), 8).message.headers) == 1


@pytest.mark.parametrize("asked", [("xy", "0"), ("11" * 8, "0"), ("11" * 16, "-1"), ("", "9" * 5000), ("", "1_0")])
def test_a_question_for_no_slot_is_refused(asked) -> None:
    with pytest.raises(ProtocolError):
        wire.parse_place(*asked)
    assert wire.parse_place("11" * 16, "7") == (b"\x11" * 16, 7)
    assert wire.parse_place("", "0") == (b"", 0)


def test_keys() -> None:
    assert parse_token(ADDRESS.token("run")) == (ADDRESS, "run")
    for key in ("", "labhub/lab/0/x/dead/run", "other/lab/0/x/alive/run", "labhub/lab/0/../alive/run", ADDRESS.data):
        assert parse_token(key) is None


def sent_now(backlog: Backlog) -> list[tuple[int, int]]:
    """Take all there is: generation and first seq of each message."""
    taken = []
    while (found := backlog.take(0.0)) is not None:
        backlog.handed_over()
        taken.append((found[0], found[2].first_seq))
    return taken


def test_what_is_in_hand_is_not_sent_yet() -> None:
    backlog = Backlog(1 << 20)
    backlog.append(sent := message(0, 10))
    assert backlog.take(0.0) is not None
    assert (backlog.unsent, backlog.unsent_nbytes, backlog.is_empty) == (10, sent.nbytes, False)
    backlog.handed_over()
    assert (backlog.unsent, backlog.unsent_nbytes, backlog.is_empty) == (0, 0, True)


def test_what_is_in_hand_counts_as_memory_and_only_once() -> None:
    limit = 2 * message(0, 10).nbytes
    backlog = Backlog(limit)
    for first in (0, 10, 20):
        backlog.append(message(first, 10))
        if first == 0:
            backlog.take(0.0)
    assert (backlog.unsent, backlog.unsent_nbytes, backlog.lost) == (20, limit, 10)
    backlog.rewind(ONE, 0, 0.0)  # it is to be sent once more
    assert (backlog.unsent, backlog.unsent_nbytes) == (20, limit)
    assert sent_now(backlog) == [(1, 0), (1, 20)]
    assert backlog.is_empty


def test_what_was_sent_can_be_sent_again() -> None:
    backlog = Backlog(1 << 20)
    for k in range(5):
        backlog.append(message(10 * k, 10))
    assert sent_now(backlog) == [(0, 10 * k) for k in range(5)]
    assert backlog.rewind(ONE, 25, 0.0) == (1, ONE, 25)
    assert sent_now(backlog) == [(1, 20), (1, 30), (1, 40)]
    assert backlog.rewind(b"", 0, 0.0) == (1, ONE, 50)  # who has nothing begins now
    assert backlog.rewind(ONE, 50, 0.0) == (2, ONE, 50)
    assert sent_now(backlog) == []


def test_who_asks_first_gets_what_was_sent_before_the_answer() -> None:
    backlog = Backlog(1 << 20)
    backlog.append(message(0, 10))
    assert sent_now(backlog) == [(0, 0)]
    assert backlog.rewind(b"", 0, 0.0) == (1, ONE, 0)
    assert sent_now(backlog) == [(1, 0)]
    assert backlog.rewind(b"", 0, 0.0) == (1, ONE, 10)


def test_of_a_later_incarnation_all_is_sent_again() -> None:
    backlog = Backlog(1 << 20)
    backlog.append(message(0, 10))
    backlog.append(message(0, 10, TWO))
    assert len(sent_now(backlog)) == 2
    assert backlog.rewind(ONE, 10, 0.0) == (1, TWO, 0)
    assert sent_now(backlog) == [(1, 0)]
    assert backlog.rewind(bytes(16), 3, 0.0) == (2, TWO, 0)


def test_memory_is_bounded_and_what_it_costs_is_counted() -> None:
    backlog = Backlog(10 * message(0, 10).nbytes)
    for k in range(20):
        backlog.append(message(10 * k, 10))
    assert (backlog.unsent, backlog.lost) == (100, 100)
    assert sent_now(backlog)[0] == (0, 100)
    for k in range(20, 25):  # what was sent makes room first
        backlog.append(message(10 * k, 10))
    assert (backlog.unsent, backlog.lost) == (50, 100)
    assert backlog.rewind(ONE, 0, 0.0) == (1, ONE, 150)
    backlog.close()
    assert backlog.take(10.0) is None


def test_a_message_says_what_it_follows() -> None:
    backlog = Backlog(3 * message(0, 10).nbytes)
    backlog.append(message(0, 10))
    assert backlog.take(0.0)[1] == 0
    backlog.handed_over()
    for first in (10, 20, 30, 40):  # of which the first one is given up
        backlog.append(message(first, 10))
    assert [backlog.take(0.0)[1:2] for _ in range(3)] == [(10,), (30,), (40,)]
    assert backlog.rewind(ONE, 30, 0.0) == (1, ONE, 30)
    assert backlog.take(0.0)[1] == 30
    backlog.append(message(0, 10, TWO))
    assert sent_now(backlog) == [(1, 40), (1, 0)]


def test_the_end_is_repeated_if_it_was_sent_and_is_the_last_word() -> None:
    backlog = Backlog(1 << 20)
    backlog.append(message(0, 10))
    assert sent_now(backlog) == [(0, 0)]
    backlog.repeat_end()
    assert sent_now(backlog) == []
    backlog.append(Message.the_end(ONE, 10, 1))
    backlog.repeat_end()  # it has not been sent yet
    assert sent_now(backlog) == [(0, 10)]
    backlog.repeat_end()
    assert backlog.take(0.0)[1] == 10, "who has not got the slots before it must see that"
    assert backlog.rewind(ONE, 0, 0.0) == (1, ONE, 0)
    assert sent_now(backlog) == [(1, 0), (1, 10)]
    backlog.append(message(0, 10, TWO))
    assert sent_now(backlog) == [(1, 0)]
    backlog.repeat_end()
    assert sent_now(backlog) == []


def test_nothing_is_known_before_the_first_look() -> None:
    backlog = Backlog(1 << 20)
    assert backlog.rewind(b"", 0, 0.0) is None
    backlog.begin(ONE, 7)
    assert backlog.rewind(b"", 0, 0.0) == (0, ONE, 7)


@given(
    offset=st.integers(-(10**12), 10**12),
    trips=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**6)), min_size=1),
)
def test_the_offset_is_wrong_by_half_the_round_trip_at_most(offset, trips) -> None:
    samples = [(0, out + offset, out + offset + busy, out + busy + back) for out, back, busy in trips]
    found = best(samples)
    assert found is not None
    assert found.round_trip_ns == min(out + back for out, back, _ in trips)
    assert abs(found.offset_ns - offset) <= found.round_trip_ns / 2 + 1
    assert best([]) is None
