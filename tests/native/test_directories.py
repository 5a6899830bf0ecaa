"""The place of the segment directories is looked at as well: nobody else may lead it elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labhub import Schema
from labhub.datablock.consumer import open_consumer
from labhub.datablock.producer import open_producer
from labhub.errors import SegmentAccessError

FRAME = Schema.infer(dtype="u1", shape=64)


@pytest.mark.parametrize("kind", ["link", "writable by others", "foreign"])
def test_a_place_of_segment_directories_that_could_lead_elsewhere(kind: str, private_dirs: Path) -> None:
    base, elsewhere = private_dirs / "shm", private_dirs / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    match kind:
        case "link":
            base.rmdir()
            base.symlink_to(elsewhere)
        case "writable by others":
            base.chmod(0o777)
        case "foreign" if os.geteuid() == 0:
            os.chown(base, 65534, -1)
        case _:
            pytest.skip("only root can give a directory away")
    for attach in (lambda: open_consumer("x", FRAME), lambda: open_producer("x", FRAME, capacity=2)):
        with pytest.raises(SegmentAccessError, match=f"{base}\\b"):
            attach()
    assert list(base.iterdir()) == list(elsewhere.iterdir()) == []
    if kind == "writable by others":
        base.chmod(0o1777)  # nobody renames another's directories there
        open_producer("x", FRAME, capacity=2).close()
