"""The committed stub is the contract of the compiled core, and it is current."""

from __future__ import annotations

import subprocess
import sys

import pytest

from labhub import _native
from labhub.testing.stub import STUB, differences

NOW = _native.NOW


def test_the_stub_is_current() -> None:
    assert differences(_native, STUB.read_text()) == []
    assert subprocess.run([sys.executable, "-m", "labhub.testing.stub"], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("written", "instead", "line"),
    [
        ("def abort(self)", "def give_up(self)", "Producer.abort: compiled (self), stub missing"),
        ("def abort(self)", "def abort(self, why: str)", "Producer.abort: compiled (self), stub (self, why)"),
        (
            "timestamp_ns: int = NOW, checksum",
            "timestamp_ns: int = 1, checksum",
            f"timestamp_ns={NOW}, checksum=None, ",
        ),
        ("timestamp_ns: int = NOW, checksum", "timestamp_ns: int, checksum", "stub (self, nbytes, timestamp_ns, check"),
        (
            "nbytes: int, timestamp_ns",
            "nbytes: int, *, timestamp_ns",
            f"stub (self, nbytes, *, timestamp_ns={NOW}",
        ),
        (
            'instance_id: bytes = b"") -> bool',
            "instance_id: bytes = None) -> bool",
            "stub (directory, name, instance_id=None)",
        ),
        ("def probe(directory: str, name: str)", "def probe(*args: str)", "probe: a stub has no *args"),
        ("def probe(directory: str, name: str)", "def probe(**kwargs: str)", "probe: a stub has no *args"),
        ("ABI_VERSION: Final[int]", "ABI: Final[int]", "ABI_VERSION: compiled a constant, stub missing"),
        ("class Mapping:", "class Map:", "Mapping: compiled a class, stub missing"),
        (
            "    @property\n    def took_over",
            "    def took_over",
            "Producer.took_over: compiled a property, stub (self)",
        ),
        ("capacity: int,\n", "", "Producer.__init__: compiled"),
    ],
)
def test_a_stub_that_is_not_is_noticed(written: str, instead: str, line: str) -> None:
    text = STUB.read_text()
    assert written in text
    assert any(line in found for found in differences(_native, text.replace(written, instead, 1)))
