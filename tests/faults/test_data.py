"""Faults 13, 16 and 33: corrupt slots, schemas that do not fit, and what is kept after its segment is gone."""

from __future__ import annotations

import itertools
import os
import random
import struct

import numpy as np
import pytest

from labhub import Schema
from labhub.errors import ChecksumError, SchemaConflict, SchemaMismatch
from labhub.hub import connect, named_broker
from tests.faults.rounds import Fault
from tests.faults.segments import FRAME, HEADER_NBYTES, elsewhere, place

ANY_PORT = "tcp://127.0.0.1:0"
SEALING = """
import labhub
with labhub.connect() as hub, hub.producer("x", dtype="u8", shape=(64,), capacity=16, checksum="enforced") as p:
    print("ready", flush=True)
    for line in sys.stdin:
        p.write_many(np.array(slots(p.next_seq, int(line)), "u8"))
        print(p.next_seq, flush=True)
"""
BURST = 8
"""Slots of one round: half a ring, so that none is overwritten before it is read."""


def flip_a_bit(seq: int, chance: random.Random) -> None:
    """Flip one bit of a committed slot: of its bytes, or of the checksum in its header."""
    with place("x").open("r+b") as file:
        payload = struct.unpack_from("<Q", file.read(64), 48)[0]
        slot = payload + seq % 16 * FRAME.slot_nbytes
        checksum = HEADER_NBYTES + seq % 16 * 64 + 32
        where = chance.choice([slot + chance.randrange(FRAME.slot_nbytes), checksum + chance.randrange(32)])
        file.seek(where)
        (byte,) = file.read(1)
        file.seek(where)
        file.write(bytes([byte ^ 1 << chance.randrange(8)]))


@pytest.mark.fault(13, quick=50, full=1_000)
def test_13_bit_flipped_in_a_committed_slot(fault: Fault) -> None:
    chance = random.Random(13)
    with named_broker(endpoint=ANY_PORT) as service:
        service.start()
        with connect() as hub, hub.watch(existing=False, timeout=30) as watch, elsewhere(SEALING) as producer:
            readers = [hub.consumer("x", mode=mode) for mode in ("stream", "lossless")]
            streams = [reader.batches(timeout=30) for reader in readers]
            assert next(watch).kind == "appeared"
            for number in fault.each_round():
                first = number * BURST
                assert producer.ask(BURST) == str(first + BURST)
                bad = first + chance.randrange(BURST)
                flip_a_bit(bad, chance)
                for stream in streams:
                    received: list[int] = []
                    for _ in range(2):  # what is before the corrupt slot, and behind it
                        if len(received) == bad - first:
                            with pytest.raises(ChecksumError) as caught:
                                next(stream)
                            assert caught.value.seq == bad
                            fault.happened()
                        if len(received) < BURST - 1:
                            batch = next(stream)
                            assert (batch.data == batch.seq[:, None]).all()
                            received += batch.seq.tolist()
                    assert received == [seq for seq in range(first, first + BURST) if seq != bad]
                event = next(watch)  # once, though two have found it
                assert (event.kind, event.detail) == ("checksum_error", f"seq {bad}")
            rounds = fault.rounds
            assert [(reader.lost, reader.corrupt) for reader in readers] == [(0, rounds)] * 2
            for reader in readers:
                reader.close()
            assert producer.end() == 0
            assert next(watch).kind == "gone"


FIELDS = [("a", "f4"), ("b", "i2"), ("c", "f8")]
HOLDER = f"""
import labhub
with labhub.connect() as hub, hub.producer("x", dtype={FIELDS!r}, units="V") as p:
    print("ready", flush=True)
    sys.stdin.read()
"""
OTHER_FIELDS = [("a", "f4"), ("b", "i4"), ("d", "f8")]
OTHER_DIFFERENCE = (
    "field 'b': <i4 at byte 4 here, <i2 at byte 4 there",
    "field 'd': <f8 at byte 8 here, missing there",
    "field 'c': missing here, <f8 at byte 6 there",
)


@pytest.mark.fault(16)
def test_16_other_fields_at_register_and_attach(fault: Fault) -> None:
    with fault.round(), named_broker(endpoint=ANY_PORT) as service:
        service.start()
        with connect() as hub, elsewhere(HOLDER) as holder:
            with pytest.raises(SchemaConflict, match=rf"already has a producer: pid {holder.pid} ") as register:
                hub.producer("x", dtype=OTHER_FIELDS)
            with pytest.raises(SchemaMismatch) as attach:
                hub.consumer("x", schema=Schema.infer(dtype=OTHER_FIELDS))
            fault.happened()
            assert register.value.pid == holder.pid
            for caught in (register, attach):
                assert caught.value.difference == OTHER_DIFFERENCE
                for line in OTHER_DIFFERENCE:
                    assert line in str(caught.value)
            assert hub.find("x").producer_pid == holder.pid
            assert hub.find("x").liveness == "alive"


@pytest.mark.fault(16)
def test_16_every_order_and_type_of_the_fields(fault: Fault) -> None:
    kinds = ("f4", "i2", "f8")
    names = itertools.permutations("abc")
    layouts = [list(zip(n, k, strict=True)) for n in names for k in itertools.product(kinds, repeat=3)]
    with named_broker(endpoint=ANY_PORT) as service:
        service.start()
        with connect() as hub, elsewhere(HOLDER):
            for fields in fault.each(layouts):
                wanted = Schema.infer(dtype=fields)
                if fields == FIELDS:
                    hub.consumer("x", schema=wanted).close()
                    continue
                with pytest.raises(SchemaMismatch) as register:
                    hub.producer("x", dtype=fields)
                with pytest.raises(SchemaMismatch) as attach:
                    hub.consumer("x", schema=wanted)
                fault.happened()
                mine, theirs = wanted.dtype.fields, np.dtype(FIELDS).fields
                assert mine is not None
                assert theirs is not None
                differ = [name for name, _ in fields if mine[name] != theirs[name]]
                for caught in (register, attach):
                    lines = [line.split("'")[1] for line in caught.value.difference if line.startswith("field")]
                    assert lines == differ


KEEP = """
import gc
producing = {producing}
p = open_producer("x", FRAME, capacity=16) if producing else None
print("ready", flush=True)
sys.stdin.readline()
if p: p.write_many(slots(0, 16))
c, lossless = (open_consumer("x", FRAME, mode=mode, start="oldest") for mode in ("stream", "lossless"))
batch = c.next_batch(8, 1, 1.0, False)
rows = batch.data[3:5]
with c.slot(timeout=1) as s: view = s.array
handle = c.acquire_consume_slot(1000)
views = c.views(timeout=1)
in_place = next(views)
lossy = open_consumer("x", FRAME, start="oldest")
open_slots = [reader.slot(timeout=1).__enter__() for reader in (lossless, lossy)]
kept = [view, view[1:], in_place, *(s.array for s in open_slots)]
if p:
    p.evict_after = 0.0
    with p.slot() as w: kept.append(w.array)
expected = batch.data.copy()
print("kept", flush=True)
sys.stdin.readline()
{fate}
gc.collect()
assert (batch.data == expected).all() and (rows == expected[3:5]).all() and batch.to_xarray()["value"].shape == (8, 64)
assert handle.read() == np.full(64, handle.seq, "u8").tobytes()
ballast = [bytearray(1 << 20) for _ in range(32)]  # where memory that was let go would be used again
for array in kept: assert int(array.sum()) >= 0  # valid memory, whatever is in it
for array in kept[:5]:
    try: array[...] = 1
    except ValueError: pass
    else: raise AssertionError("a view of a consumer can be written")
if producing: kept[5][...] = 7
outcomes = []
for s in open_slots:
    try: s.valid
    except LabHubError as error: outcomes.append(type(error).__name__)
    try: s.__exit__(None, None, None)
    except LabHubError as error: outcomes.append(type(error).__name__)
try: next(views)
except (LabHubError, StopIteration): pass
for use in (lambda: c.slot(timeout=0).__enter__(), lambda: next(c.batches(timeout=0)), lambda: c.snapshot()):
    try: use()
    except (LabHubError, StopIteration, EOFError): pass
print("intact", *sorted(set(outcomes)), flush=True)
"""
FATES = {
    "close": "c.close(); lossless.close(); p.close(); del s, w",
    "unlink": "os.unlink(p._native.path)",
    "overwrite": "p.write_many(slots(17, 64))",
    "close and make anew": "p.close(); p = open_producer('x', Schema.infer(dtype='u1'), capacity=3); p.write(1)",
    "forget": "p.close(); del lossless, lossy, p, s, w; c = open_slots[1]._consumer",
}


@pytest.mark.fault(33, full=2)
def test_33_what_is_kept_after_the_end_is_intact_or_valid_memory(fault: Fault) -> None:
    for _ in fault.each_round():
        for fate, code in FATES.items():
            if fate == "forget":  # all but what an open slot needs; those two hold their consumers
                code += "; c = open_slots[0]._consumer"
            with elsewhere(KEEP.format(producing=True, fate=code)) as notebook:
                assert notebook.ask("go") == "kept"
                answer = notebook.ask("on")
                assert answer.startswith("intact Evicted Lapped" if fate == "overwrite" else "intact"), (fate, answer)
                fault.happened()
                assert notebook.end() == 0, fate
            place("x").unlink(missing_ok=True)


TAKER = """
p = open_producer("x", Schema.infer(dtype="u2", shape=({words},)), capacity={capacity})
assert not p.took_over
p.write_many(np.zeros((100, {words}), "u2"))
print("ready", flush=True)
sys.stdin.read()
p.close()
"""


@pytest.mark.fault(33, full=2)
def test_33_segment_replaced_by_another_geometry(fault: Fault) -> None:
    first = (
        'p = open_producer("x", FRAME, capacity=16); p.write_many(slots(0, 16)); print("ready", flush=True); input()'
    )
    for _ in fault.each_round():
        with elsewhere(first) as producer, elsewhere(KEEP.format(producing=False, fate="")) as notebook:
            assert notebook.ask("go") == "kept"
            inode = os.stat(place("x")).st_ino
            producer.kill()
            with elsewhere(TAKER.format(words=3, capacity=5)):
                assert os.stat(place("x")).st_ino != inode
                fault.happened()
                assert notebook.ask("on").startswith("intact")
                assert notebook.end() == 0
