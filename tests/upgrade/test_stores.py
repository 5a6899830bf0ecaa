"""Recordings of an earlier labhub: proven, opened by xarray, and replayed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import labhub
from labhub.errors import DamagedStore, UntrustedSigner
from labhub.hub import Hub
from labhub.recording import verify
from labhub.transport.curve import CLIENT_KEY
from tests.hub.conftest import broker, hub  # noqa: F401  # fixtures
from tests.upgrade.stores import at_0323d94, before_tables

STORES = Path(before_tables.__file__).parent


@pytest.fixture
def old(private_dirs: Path, tmp_path: Path) -> Path:
    """The recordings of 0323d94, and their key as this user's."""
    shutil.unpack_archive(STORES / "at_0323d94.zip", tmp_path)
    (private_dirs / "data").mkdir(mode=0o700, exist_ok=True)
    key = shutil.copy(tmp_path / CLIENT_KEY, private_dirs / "data" / CLIENT_KEY)
    os.chmod(key, 0o600)
    return tmp_path


@pytest.fixture
def hub_of_old(old: Path, request: pytest.FixtureRequest) -> Hub:
    """A hub that is begun when the key is in its place."""
    found: Hub = request.getfixturevalue("hub")
    return found


@pytest.mark.parametrize(("name", "complete"), [("whole", True), ("cut_off", False)])
def test_a_store_is_proven_opened_and_replayed_as_ones_own(
    old: Path, hub_of_old: Hub, name: str, complete: bool
) -> None:
    store = old / f"{name}.zarr"
    proof = verify(store)
    assert proof.damaged == ()
    assert (proof.complete, proof.own, proof.version) == (complete, True, 1)
    assert proof.began.startswith("20")
    ds = xr.open_zarr(store, group="x", chunks=None)
    n = ds.sizes["time"]
    assert n >= at_0323d94.N
    assert ds["value"].values.tolist() == list(map(float, range(n)))
    assert ds["value"].attrs["units"] == "V"
    with labhub.replay(store, hub=hub_of_old, speed=None) as replay:
        with hub_of_old.consumer("x", mode="lossless", start="oldest") as reader:
            data = np.concatenate([batch.data for batch in reader.batches(timeout=10, total=n)])
        assert replay.wait(timeout=10)
    assert data.tolist() == list(map(float, range(n)))


def of_array(store: Path) -> None:
    edit(store / "x" / "value" / "zarr.json", "units", "mV")


def of_group(store: Path) -> None:
    edit(store / "x" / "zarr.json", "operator", "somebody")


def edit(file: Path, name: str, value: str) -> None:
    document = json.loads(file.read_bytes())
    document["attributes"][name] = value
    file.write_text(json.dumps(document))


def an_array(store: Path) -> None:
    shutil.copytree(store / "x" / "value", store / "x" / "scaled")


def a_chunk(store: Path) -> None:
    shutil.copy(store / "x" / "value" / "c" / "0", store / "x" / "value" / "c" / "1")


@pytest.mark.parametrize("change", [of_array, of_group, an_array, a_chunk])
@pytest.mark.parametrize("name", ["whole", "cut_off"])
def test_what_was_changed_in_an_old_store_is_named(old: Path, name: str, change: Callable[[Path], None]) -> None:
    change(old / f"{name}.zarr")
    (line,) = verify(old / f"{name}.zarr").damaged
    assert line.startswith("x/")


def test_a_line_behind_the_last_commit_of_an_old_store_is_refused(old: Path) -> None:
    with (old / "whole.zarr" / "manifest.jsonl").open("a") as file:
        file.write(json.dumps({"chunk": "x/value/c/0", "blake3": "00" * 32, "nbytes": 1}) + "\n")
    with pytest.raises(DamagedStore, match="behind the last commit"):
        verify(old / "whole.zarr")


def test_an_old_store_of_another_signer_is_played_when_told_so(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    shutil.unpack_archive(STORES / "before_tables.zip", tmp_path)
    store = tmp_path / before_tables.STORE.name
    proof = verify(store)
    assert proof
    assert not proof.own
    with pytest.raises(UntrustedSigner, match=proof.public_key):
        labhub.replay(store, hub=hub)
    with labhub.replay(store, hub=hub, key=proof.public_key, speed=None) as replay:
        assert set(replay.channels) == set(before_tables.SCHEMAS)
