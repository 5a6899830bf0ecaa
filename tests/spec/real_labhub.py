"""A process of real labhub that does what it is told: one JSON command a line in, one JSON answer a line out."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from labhub.datablock.consumer import open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.schema import Schema

WORDS = 8


def slots(first: int, n: int) -> NDArray[np.uint64]:
    """Return the contents of n slots, shape (n, WORDS): each word depends on the seq and on its place."""
    seqs = np.arange(first, first + n, dtype="u8")[:, np.newaxis]
    return seqs * np.uint64(0x9E3779B97F4A7C15) + np.arange(WORDS, dtype="u8")


def is_whole(payload: bytes, seq: int) -> bool:
    return payload == slots(seq, 1).tobytes()


class RealLabhub:
    """The parent's side of that process. Segments are in the directory that is the parent's at that moment."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._unanswered = 0

    def revive(self) -> Self:
        """Start another process if this one is dead."""
        if self._process.poll() is not None:
            self._start()
        return self

    def tell(self, do: str, **arguments: Any) -> None:
        """Give a command, and do not wait for its answer."""
        assert self._process.stdin is not None
        if "name" in arguments:
            arguments["directory"] = segment_directory()
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        self._unanswered += 1

    def answer(self) -> Any:
        """Wait for the next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process ended early"
        self._unanswered -= 1
        return json.loads(line)

    def ask(self, do: str, **arguments: Any) -> Any:
        """Give a command, and wait for its answer; those before it that nobody took are dropped."""
        while self._unanswered:
            self.answer()
        self.tell(do, **arguments)
        return self.answer()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._process.kill()
        self._process.communicate(timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.communicate(timeout=10)  # the end of its input ends it


def main() -> None:
    schema = Schema(np.dtype("u8"), (WORDS,))
    held: dict[str, Any] = {}

    def produce(name: str, **how: Any) -> dict[str, Any]:
        held["p"] = p = open_producer(name, schema, **how)
        return {"took_over": p.took_over, "epoch": p.epoch}

    def write(n: int, at_once: bool = False) -> int:
        p, first = held["p"], held["p"].next_seq
        if at_once:
            p.write_many(slots(first, n))
        else:
            for slot in slots(first, n):
                p.write(slot)
        return int(p.next_seq)

    def die_in_mid_write() -> None:
        with held["p"].slot() as slot:
            slot.array[0] = 1
            print(json.dumps("open"), flush=True)
            sys.stdin.readline()  # until it is killed

    def consume(name: str, **how: Any) -> None:
        held["c"] = open_consumer(name, schema, **how)

    commands = {
        "produce": produce,
        "write": write,
        "stats": lambda: held["p"].stats(),
        "close": lambda: held.pop("p").close(),
        "die_in_mid_write": die_in_mid_write,
        "consume": consume,
    }
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(commands[command.pop("do")](**command)), flush=True)


if __name__ == "__main__":
    main()
