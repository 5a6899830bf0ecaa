"""S4: every file of a store is accounted for: an edited, added or removed one is named, metadata included."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest

import labhub
from labhub.errors import DamagedStore, InvalidArgument, NotARecording
from labhub.hub import Hub
from labhub.recording import verify
from labhub.recording.manifest import MANIFEST, ROOT
from labhub.recording.sums import SUMS, listed

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def store(hub: Hub, tmp_path: Path) -> Path:
    path = tmp_path / "run.zarr"
    with hub.producer("cam", dtype="u2", shape=(4, 4), units="V") as p, hub.record("cam", store=path, title="run 42"):
        for k in range(20):
            p.write(np.full((4, 4), k))
    return path


def edited(file: Path, edit: Edit) -> None:
    document = json.loads(file.read_bytes())
    edit(document)
    file.write_text(json.dumps(document))


ARRAY_EDITS: dict[str, Edit] = {
    "units": lambda d: d["attributes"].update(units="mV"),
    "scale_factor": lambda d: d["attributes"].update(scale_factor=1000.0),
    "data_type": lambda d: d.update(data_type="int16"),
    "shape": lambda d: d.update(shape=[10, 4, 4]),
    "codecs": lambda d: d.update(codecs=d["codecs"][:1]),
    "an attribute that is gone": lambda d: d["attributes"].pop("units"),
    "dimension_names": lambda d: d.update(dimension_names=["time", "y", "x"]),
    "a blank": lambda d: None,
}


@pytest.mark.parametrize("edit", ARRAY_EDITS.values(), ids=ARRAY_EDITS.keys())
def test_edited_metadata_of_an_array_are_named(store: Path, edit: Edit) -> None:
    edited(store / "cam" / "value" / ROOT, edit)
    assert verify(store).damaged == ("cam/value/zarr.json: was changed after it had been recorded",)


@pytest.mark.parametrize("array", ["time", "seq", "epoch", "nbytes"])
def test_another_time_unit_is_named_and_so_is_that_of_any_array(store: Path, array: str) -> None:
    edited(store / "cam" / array / ROOT, lambda d: d["attributes"].update(units="seconds since 1970-01-01"))
    assert verify(store).damaged == (f"cam/{array}/zarr.json: was changed after it had been recorded",)


def test_edited_metadata_of_a_group_are_named(store: Path) -> None:
    edited(store / "cam" / ROOT, lambda d: d["attributes"].update(operator="somebody"))
    assert verify(store).damaged == ("cam/zarr.json: was changed after it had been recorded",)


@pytest.mark.parametrize(
    "name",
    ["cam/value/c/7/0/0", "cam/scale/zarr.json", "other/zarr.json", "cam/notes.txt", "README", ".reserve", ".hidden/x"],
)
def test_an_added_file_is_named(store: Path, name: str) -> None:
    (store / name).parent.mkdir(parents=True, exist_ok=True)
    (store / name).write_text("{}")
    (line,) = verify(store).damaged
    assert name.startswith(line.partition(": ")[0])
    assert "is not in the manifest" in line


def test_an_added_directory_is_named(store: Path) -> None:
    (store / "cam" / "empty").mkdir()
    assert verify(store).damaged == ("cam/empty/: is not in the manifest",)


@pytest.mark.parametrize("name", ["cam/zarr.json", "cam/time/zarr.json", "cam/seq/c/0", SUMS])
def test_a_removed_file_is_named(store: Path, name: str) -> None:
    (store / name).unlink()
    (line,) = verify(store).damaged
    assert line.startswith(f"{name}: ")


def test_a_removed_array_is_named_file_by_file(store: Path) -> None:
    shutil.rmtree(store / "cam" / "epoch")
    assert [line.partition(": ")[0] for line in verify(store).damaged] == ["cam/epoch/c/0", "cam/epoch/zarr.json"]


def test_what_is_proven_is_told(store: Path) -> None:
    proof = verify(store)
    assert proof.title == "run 42"
    assert re.fullmatch(r"[0-9a-f]{32}", proof.run_id)
    assert proof.began.startswith("20")
    assert proof.commits >= 2
    assert proof.version == 2
    assert proof.n_files == sum(p.is_file() for p in store.rglob("*"))
    assert proof.unfinished == ()


def test_the_parts_of_a_recording_have_one_run_and_two_recordings_have_two(
    hub: Hub, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    with hub.producer("x", dtype="f8") as p:
        with hub.record("x", store=tmp_path / "a.zarr", split_seconds=0.1) as rec:
            p.write(1.0)
            wait_until(lambda: len(rec.paths) > 1)
        with hub.record("x", store=tmp_path / "b.zarr"):
            p.write(1.0)
    proofs = [verify(path) for path in rec.paths]
    assert [proof.part for proof in proofs] == list(range(1, len(proofs) + 1))
    (run,) = {proof.run_id for proof in proofs}
    assert verify(tmp_path / "b.zarr").run_id != run


@pytest.mark.parametrize("title", ["x" * 1001, "\udcff", 42])
def test_a_title_that_cannot_be_signed_is_refused(hub: Hub, tmp_path: Path, title: Any) -> None:
    with hub.producer("x", dtype="f8"), pytest.raises(InvalidArgument, match="title"):
        hub.record("x", store=tmp_path / "run.zarr", title=title)
    assert not (tmp_path / "run.zarr").exists()


def sums(store: Path) -> dict[str, str]:
    """The list as ``b3sum --check`` reads it."""
    found = {}
    for line in (store / SUMS).read_text().split("\n")[:-1]:
        escaped = line.startswith("\\")
        digest, _, name = line.lstrip("\\").partition("  ")
        if escaped:
            name = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], name)
        found[name] = digest
    return found


def test_a_list_of_all_files_needs_no_labhub(store: Path) -> None:
    files = {str(p.relative_to(store)) for p in store.rglob("*") if p.is_file()}
    found = sums(store)
    assert set(found) == files - {SUMS}
    for name, digest in found.items():
        assert blake3.blake3((store / name).read_bytes()).hexdigest() == digest


def test_names_with_line_breaks_and_backslashes_are_escaped_in_the_list() -> None:
    assert listed({"b\\c": "22", "a\nd": "11", "plain": "33"}) == b"\\11  a\\nd\n\\22  b\\\\c\n33  plain\n"


def test_the_list_is_proven_too(store: Path) -> None:
    (store / SUMS).write_text((store / SUMS).read_text().replace("cam/seq", "cam/sqe"))
    assert verify(store).damaged == (f"{SUMS}: was changed after it had been recorded",)


def test_fields_with_line_breaks_in_their_names_are_listed(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with hub.producer("x", dtype=[("a\nb", "f8"), ("c", "f8")]) as p, hub.record("x", store=path):
        p.write((1.0, 2.0))
    assert verify(path)
    assert set(sums(path)) == {str(q.relative_to(path)) for q in path.rglob("*") if q.is_file()} - {SUMS}


def test_a_line_of_somebody_elses_behind_the_last_commit_is_refused(store: Path) -> None:
    evil = json.dumps({"file": "cam/value/c/0/0/0", "blake3": "00" * 32, "nbytes": 1, "signature": "00" * 64})
    with (store / MANIFEST).open("a") as file:
        file.write(evil + "\n")
    with pytest.raises(DamagedStore, match="behind the last commit"):
        verify(store)


def test_a_chunk_cannot_be_changed_in_a_store_that_still_records(
    hub: Hub, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """Lines behind the last commit are signed too: nobody can announce another content."""
    path = tmp_path / "run.zarr"
    with hub.producer("x", dtype="f8") as p, hub.record("x", store=path) as rec:
        p.write(1.0)
        wait_until(lambda: rec.status.stored == 1)
        shutil.copytree(path, tmp_path / "copy.zarr")
    copy = tmp_path / "copy.zarr"
    assert verify(copy)
    assert not verify(copy).complete
    with (copy / MANIFEST).open("ab") as file:
        forged = (copy / "x" / "value" / "c" / "0").read_bytes()[::-1]
        (copy / "x" / "value" / "c" / "0").write_bytes(forged)
        line = {"file": "x/value/c/0", "blake3": blake3.blake3(forged).hexdigest(), "nbytes": len(forged)}
        file.write(json.dumps(line | {"signature": "00" * 64}).encode() + b"\n")
    with pytest.raises(DamagedStore, match="behind its last commit"):
        verify(copy)
    with pytest.raises(DamagedStore):
        labhub.replay(copy, hub=hub)


def test_files_on_their_way_when_the_recorder_died_are_told_and_count_for_nothing(
    hub: Hub, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    path, copy = tmp_path / "run.zarr", tmp_path / "copy.zarr"
    with hub.producer("x", dtype="f8") as p, hub.record("x", store=path) as rec:
        p.write(1.0)
        wait_until(lambda: rec.status.stored == 1)
        shutil.copytree(path, copy)
    (copy / "x" / "value" / "c" / f"0.{'ab' * 16}.partial").write_bytes(b"half a ch")
    proof = verify(copy)
    assert proof
    assert not proof.complete
    assert ".reserve" in proof.unfinished
    assert f"x/value/c/0.{'ab' * 16}.partial" in proof.unfinished
    (copy / "x" / "notes.txt").write_text("was never there")
    assert verify(copy).damaged == ("x/notes.txt: is not in the manifest",)


def test_killed_between_the_last_signature_and_the_renaming_it_is_not_complete(
    hub: Hub, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    path = tmp_path / "run.zarr"
    with hub.producer("x", dtype="f8") as p, hub.record("x", store=path) as rec:
        p.write(1.0)
        wait_until(lambda: rec.status.stored == 1)
        before = (path / ROOT).read_bytes()
    whole = (path / ROOT).read_bytes()
    (path / ROOT).write_bytes(before)
    (path / f".{ROOT}.partial").write_bytes(whole)
    proof = verify(path)
    assert proof
    assert not proof.complete


@pytest.mark.parametrize("line", ['{"manifest":3,"needs":[]}', '{"manifest":2,"needs":["tree"]}'])
def test_a_manifest_of_a_later_version_asks_for_an_update(store: Path, line: str) -> None:
    rest = (store / MANIFEST).read_text().partition("\n")[2]
    (store / MANIFEST).write_text(f"{line}\n{rest}")
    with pytest.raises(NotARecording, match="update labhub"):
        verify(store)
