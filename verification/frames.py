"""Broken messages against the broker's state machine: nothing is raised, memory stays flat, and it serves on.

``python -m verification.frames 100000 [--seed 1] [--mutant NAME]``
"""

from __future__ import annotations

import argparse
import inspect
import json
import random
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from labhub.errors import ProtocolError
from labhub.protocol import broker_state, codec
from labhub.protocol.messages import MAX_MESSAGE_NBYTES, REPLY_TO, TYPE_NAME, ErrorCode

QUOTA = 20
KEYS = ["", "k" * 40, "l" * 40]

SAMPLES: dict[str, dict[str, Any]] = {
    "REG_REQ": {
        "channel_name": "a",
        "shm_name": "a",
        "schema_hash": "0" * 64,
        "schema_version": 1,
        "producer_pid": 1,
        "producer_hostname": "lab",
        "metadata": {"instance_id": "00", "epoch": 1, "schema": "{}"},
    },
    "DISC_REQ": {"channel_name": "a"},
    "DEREG_REQ": {"channel_name": "a", "producer_pid": 1},
    "HEARTBEAT_REQ": {"producer_pid": 1, "channels": ["a", "b"]},
    "LIST_REQ": {"pattern": "*", "offset": 0, "limit": 10},
    "CONSUMER_REG_REQ": {"channel_name": "a", "consumer_pid": 2},
    "CONSUMER_DEREG_REQ": {"channel_name": "a", "consumer_pid": 2},
    "SCHEMA_REQ": {"channel_name": "a"},
    "METRICS_REPORT_REQ": {"channel_name": "a", "producer_pid": 1, "metrics": {"head": 1.0}},
    "METRICS_REQ": {"channel_name": "a"},
    "CHECKSUM_ERROR_REQ": {"channel_name": "a", "consumer_pid": 2, "seq": 3},
    "WATCH_REQ": {"watch_id": "w", "pattern": "*"},
    "UNWATCH_REQ": {"watch_id": "w"},
}
"""One valid request of each type."""

TRAPS = [
    b"[" * 200_000,
    b'{"a":' * 20_000,
    b"9" * 5_000,
    b"-" + b"9" * 400 + b"e" + b"9" * 400,
    b"NaN",
    b"Infinity",
    b'"\\ud800"',
    b'"\xff\xfe"',
    b'"\xed\xa0\x80"',
    b'"' + b"x" * 70_000 + b'"',
    b"1e400",
    b"-0",
    b"18446744073709551616",
    b"null",
    b"{}",
    b"[]",
    b'"../../etc/passwd"',
    b'"a\\u0000b"',
    b'{"a":1,"a":2}',
    b"",
]
"""JSON values (some are none) that have broken parsers before."""

MUTANTS: dict[str, tuple[ModuleType, str, str]] = {
    "SPLIT_TRUSTS_COUNT": (codec, "if len(frames) != 2 and not marked:", "if False:"),
    "SPLIT_TRUSTS_ASCII": (codec, "except UnicodeDecodeError:", "except KeyError:"),
    "DECODE_TRUSTS_JSON": (
        codec,
        "except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as error:",
        "except msgspec.ValidationError as error:",
    ),
    "DECODE_TRUSTS_DEPTH": (
        codec,
        "except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as error:",
        "except (msgspec.MsgspecError, UnicodeDecodeError) as error:",
    ),
    "NO_QUOTA": (broker_state, "self._per_key[peer.key] >= self._quota", "self._quota < 0"),
}
"""Faults to sow, to prove that the fuzz would find them: module, text, replacement."""


class FuzzError(Exception):
    """The broker did what it must not do."""


@dataclass
class Outcome:
    """What a run saw."""

    messages: int = 0
    replies: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    grown_nbytes: int = 0


def sow(name: str) -> None:
    """Exchange one piece of the text of a module of the broker, and run the module again."""
    module, old, new = MUTANTS[name]
    source = inspect.getsource(module)
    if source.count(old) < 1:
        raise LookupError(f"{name}: {module.__name__} does not contain {old!r} any more")
    exec(compile(source.replace(old, new), module.__file__ or name, "exec"), module.__dict__)


def _mutated_body(rng: random.Random, name: str) -> bytes:
    sample = dict(SAMPLES[name])
    how = rng.randrange(8)
    key = rng.choice(list(sample))
    if how == 0:
        del sample[key]
    elif how == 1:
        sample[key] = rng.choice([None, True, -1, 2**63, 1.5, "", "x" * 300, [], {}, ["a"] * 2000, {"b": [{}]}])
    elif how == 2:
        sample[rng.choice(["correlation_id", "status", "extra"])] = rng.choice(["c", "c" * 65, 1, None, [["d"]]])
    elif how == 3 and isinstance(sample[key], str):
        sample[key] = "".join(rng.choice("ab.-_/\0é\ud800*[") for _ in range(rng.randrange(6)))
    elif how == 4 and isinstance(sample[key], int):
        sample[key] = rng.choice([0, 1, 2, 10**30, -(10**30), 2**63 - 1, 2**64])
    if "channel_name" in sample and how > 4:
        sample["channel_name"] = rng.choice("abcdefgh") + str(rng.randrange(40))
    body = json.dumps(sample).encode()
    if how == 5:
        return body.replace(json.dumps(sample[key]).encode(), rng.choice(TRAPS), 1)
    if how == 6 and body:
        at = rng.randrange(len(body))
        return body[:at] + rng.randbytes(rng.randrange(4)) + body[at + rng.randrange(4) :]
    return body


def frames_of(rng: random.Random) -> list[bytes]:
    """Return the frames of one message: valid, nearly so, or not at all."""
    name = rng.choice(list(SAMPLES))
    kind = rng.randrange(10)
    if kind == 0:
        return [rng.randbytes(rng.choice([0, 1, 2, 30, 200])) for _ in range(rng.randrange(6))]
    if kind == 1:
        return [name.encode(), rng.choice(TRAPS)]
    body = _mutated_body(rng, name)
    if kind == 2:
        type_frame = rng.choice([b"C", b"", b"REG_REQ\0", b"\xff\xfe", name.lower().encode(), *_reply_names()])
        return [type_frame, body]
    if kind == 3:
        return rng.choice([[name.encode()], [name.encode(), body, body], [b"C", b"C", name.encode(), body], [body]])
    if kind == 4:
        return [b"C", name.encode(), body]
    if kind == 5 and rng.random() < 0.02:
        return [name.encode(), body + b" " * (3 * MAX_MESSAGE_NBYTES)]
    return [name.encode(), body]


def _reply_names() -> list[bytes]:
    return [TYPE_NAME[reply].encode() for reply in REPLY_TO.values()]


def _check_reply(frames: list[bytes], outcome: Outcome) -> None:
    """Whatever the broker sends, its clients can read."""
    try:
        envelope = codec.split(frames)
        reply = codec.decode(envelope)
    except ProtocolError as error:
        raise FuzzError(f"no client can read the reply {str(frames)[:200]}: {error}") from error
    outcome.replies[envelope.type_name] += 1
    code = getattr(reply, "error_code", None)
    if code is not None:
        outcome.refused[ErrorCode(code).value] += 1


def _still_serves(state: broker_state.BrokerState, now: float) -> None:
    peer = broker_state.Peer(b"honest", "h" * 40)
    for name, wanted in (("REG_REQ", "REG_ACK"), ("DISC_REQ", "DISC_ACK"), ("DEREG_REQ", "DEREG_ACK")):
        sample = {**SAMPLES[name], "channel_name": "honest", "correlation_id": "7"}
        [reply] = [
            out.frames
            for out in state.receive(peer, [name.encode(), json.dumps(sample).encode()], now)
            if out.routing_id == peer.routing_id
        ]
        if reply[0] != wanted.encode():
            raise FuzzError(f"after the garbage {name} is answered with {reply}")


def fuzz(count: int, seed: int = 1, progress: Callable[[int], object] = lambda _: None) -> Outcome:
    """Send `count` messages to a broker's state machine.

    Raises
    ------
    FuzzError
        If it raised, answered what no client can read, grew without bound, or does not answer a valid request any more.
    """
    missing = {TYPE_NAME[request] for request in REPLY_TO} - set(SAMPLES)
    if missing:
        raise FuzzError(f"there is no sample of {sorted(missing)}")
    rng = random.Random(seed)
    state = broker_state.BrokerState(
        probe=lambda entry: ("alive", "unknown", "dead")[entry.producer_pid % 3],
        allowed=lambda key: key != KEYS[-1] or rng.random() < 0.5,
        max_channels_per_key=QUOTA,
    )
    outcome, now, baseline = Outcome(), 0.0, 0
    tracemalloc.start()
    try:
        for n in range(count):
            frames = frames_of(rng)
            now += rng.random() * 0.1
            try:
                sent = state.receive(broker_state.Peer(rng.randbytes(1), rng.choice(KEYS)), frames, now)
                if n % 50 == 0:
                    sent += state.tick(now)
            except Exception as error:
                raise FuzzError(f"message {n}, {str(frames)[:200]}: {type(error).__name__}: {error}") from error
            for out in sent:
                _check_reply(out.frames, outcome)
            outcome.messages += 1
            if n == count // 4:  # caches and quotas are full by now
                baseline = tracemalloc.get_traced_memory()[0]
            progress(n)
        outcome.grown_nbytes = tracemalloc.get_traced_memory()[0] - baseline
    finally:
        tracemalloc.stop()
    _still_serves(state, now)
    _check_bounds(state, outcome)
    return outcome


def _check_bounds(state: broker_state.BrokerState, outcome: Outcome) -> None:
    if len(state.registry.names()) > QUOTA * len(KEYS):
        raise FuzzError(f"{len(state.registry.names())} channels, although one key may register {QUOTA}")
    if outcome.grown_nbytes > 4_000_000:
        raise FuzzError(f"memory grew by {outcome.grown_nbytes} bytes in the last three quarters of the run")
    absent = {"REG_ACK", "DISC_ACK", "ERROR"} - set(outcome.replies)
    if absent:
        raise FuzzError(f"no message of this run got the reply {sorted(absent)}")


def main() -> int:
    """Run from the command line; the last line is for `verification.run`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutant", choices=sorted(MUTANTS))
    options = parser.parse_args()
    if options.mutant:
        sow(options.mutant)
    try:
        outcome = fuzz(options.count, options.seed)
    except FuzzError as error:
        sys.stdout.write(f"VIOLATED {error}\n")
        return 1
    sys.stdout.write(
        f"HOLDS iterations={outcome.messages} grown={outcome.grown_nbytes} refused={dict(outcome.refused)}\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
