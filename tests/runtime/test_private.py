"""Directories are this user's alone, or refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from labhub.errors import SegmentAccessError
from labhub.private import private_directory


def test_it_is_made_with_its_parents_and_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    for _ in range(2):
        assert private_directory(path) == path
    assert path.stat().st_mode & 0o777 == 0o700


def _file(path: Path) -> None:
    path.touch()


def _link(path: Path) -> None:
    path.with_name("real").mkdir(mode=0o700)
    path.symlink_to("real")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


def _open_to_others(path: Path) -> None:
    path.mkdir(mode=0o755)


def _foreign(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    path.mkdir(mode=0o700)
    os.chown(path, 65534, -1)


@pytest.mark.parametrize("spoil", [_file, _link, _dangling, _below_a_file, _open_to_others, _foreign])
def test_what_is_not_ours_alone_is_refused(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "place" / "directory"
    path.parent.mkdir()
    spoil(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SegmentAccessError, match="directory") as caught:
        private_directory(path)
    assert caught.value.path == str(path)
    assert sorted(tmp_path.rglob("*")) == before
