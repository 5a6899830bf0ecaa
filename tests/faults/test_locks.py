"""45: a file system that cannot hold locks. The error says which directory; and nobody is taken for dead."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.rounds import Fault
from tests.faults.stepped import lockless_environment

ROOT = Path(__file__).parents[2]
NUMBERS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO, errno.ENOSYS)


@pytest.mark.fault(45, quick=len(NUMBERS), full=len(NUMBERS), share=0.1)
def test_45_locks_that_cannot_be_had(fault: Fault, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.lockless_subject"]
    with subprocess.Popen(
        command, cwd=ROOT, env=lockless_environment(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as subject:
        for number in fault.each(NUMBERS):
            subject.stdin.write(f"{number}\n")
            subject.stdin.flush()
            seen = json.loads(subject.stdout.readline())
            for newcomer, (kind, text) in seen.pop("refused").items():
                place = os.environ["LABHUB_RUNTIME_DIR" if newcomer == "broker" else "LABHUB_SHM_DIR"]
                assert kind == "SegmentAccessError", newcomer
                assert text.startswith(f"files in {place}"), newcomer
                assert os.strerror(number) in text, newcomer
            fault.happened()
            assert seen == {
                "write": "waited",
                "evictions": 0,
                "alive": True,
                "verdict": "unknown",
                "buried": False,
                "orphan": False,
                "removals": [],
                "read": [0.0, 1.0, 2.0, 3.0],
            }
        subject.stdin.close()
        assert subject.wait(60) == 0
