"""A recording that was changed is told from one that was not, and the damaged chunk is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from labhub.errors import DamagedStore, NotARecording
from labhub.hub import Hub
from labhub.recording import verify
from labhub.recording.manifest import MANIFEST, ROOT


@pytest.fixture
def store(hub: Hub, tmp_path: Path) -> Path:
    path = tmp_path / "run.zarr"
    with hub.producer("cam", dtype="u2", shape=(64, 64)) as p, hub.record("cam", store=path):
        for k in range(20):
            p.write(np.full((64, 64), k))
    return path


def test_an_untouched_recording_is_proven(store: Path) -> None:
    proof = verify(store)
    assert proof
    assert proof.complete
    assert proof.own
    assert proof.n_chunks > 3
    assert verify(store, proof.public_key.upper())


def test_a_copy_is_as_good(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "copy.zarr")
    assert verify(tmp_path / "copy.zarr")


def test_one_flipped_bit_names_its_chunk(store: Path) -> None:
    chunk = store / "cam" / "value" / "c" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    proof = verify(store)
    assert not proof
    (line,) = proof.damaged
    assert line.startswith(f"{chunk.relative_to(store)}: was changed")


def test_a_chunk_that_is_gone_is_named(store: Path) -> None:
    (store / "cam" / "time" / "c" / "0").unlink()
    (line,) = verify(store).damaged
    assert line.startswith("cam/time/c/0: ")


def test_other_units_or_markers_are_noticed(store: Path) -> None:
    root = json.loads((store / ROOT).read_bytes())
    root["attributes"]["markers"] = [{"time_ns": 0, "label": "was never there"}]
    (store / ROOT).write_text(json.dumps(root))
    assert verify(store).damaged == (f"{ROOT}: is not the one that was signed",)


def test_a_line_taken_out_of_the_manifest_breaks_it(store: Path) -> None:
    lines = (store / MANIFEST).read_bytes().splitlines(keepends=True)
    (store / MANIFEST).write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(DamagedStore, match="does not follow"):
        verify(store)


def test_a_manifest_of_garbage_is_no_traceback(store: Path) -> None:
    for text in (b"", b"{}\n", b"\xff\xfe\n{}\n", b"[1]\n[2]\n", b'{"chunk": 1}\n{"commit": 0}\n'):
        (store / MANIFEST).write_bytes(text)
        with pytest.raises(DamagedStore):
            verify(store)
    (store / MANIFEST).unlink()
    with pytest.raises(NotARecording, match="has lost its"):
        verify(store)


def test_somebody_elses_signature_is_not_taken_for_the_wanted_one(store: Path) -> None:
    with pytest.raises(DamagedStore, match="is signed by"):
        verify(store, "00" * 32)
