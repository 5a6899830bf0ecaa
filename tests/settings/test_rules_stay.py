"""Access rules never vanish by accident: a file that is being written, or was cut off, takes none away."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from labhub.settings import OPEN, STILL, SettingsFile

RULES = """# who may what
[broker]
max_watches_per_key = 10

[access.ann]
produce = ["ann.*"]
consume = ["ann.*"]

[access."*"]
consume = ["public.*"]
"""


@pytest.fixture
def path(private_dirs: Path) -> Path:
    found = private_dirs / "config" / "broker-default.toml"
    found.write_text(RULES)
    return found


@pytest.fixture
def file(path: Path) -> SettingsFile:
    return SettingsFile(path)


def rules(file: SettingsFile) -> list[str]:
    return sorted(file.current.access)


@pytest.mark.parametrize("length", range(len(RULES)))
def test_a_file_that_is_cut_off_anywhere_gives_no_key_more_than_before(
    path: Path, file: SettingsFile, length: int
) -> None:
    path.write_text(RULES[:length])
    before = file.current.access
    for now in (0.0, 1.0, STILL, 3600.0):
        file.refresh(now)
        file.refresh(now, force=True)
        assert "*" in file.current.access
        for name, grants in file.current.access.items():
            assert set(grants.produce) <= set(before[name].produce)
            assert set(grants.consume) <= set(before[name].consume)
    assert file.error or rules(file) == ["*", "ann"]


@pytest.mark.parametrize("text", ["", "\n", "# rules were here\n", "[broker]\n", "[metrics]\nport = 1\n", "[access]\n"])
def test_a_file_without_rules_is_not_believed_however_still_it_is(path: Path, file: SettingsFile, text: str) -> None:
    path.write_text(text)
    assert file.refresh(0.0)
    assert not file.refresh(3600.0)
    assert rules(file) == ["*", "ann"]
    assert str(path) in file.error
    assert 'access = "open"' in file.error


def test_an_editor_that_truncates_and_writes_changes_nothing_meanwhile(path: Path, file: SettingsFile) -> None:
    path.write_text("")
    assert file.refresh(0.0)
    assert file.error
    path.write_text(RULES.replace("public", "common"))
    assert file.refresh(0.5)
    assert (file.error, file.current.access["*"].consume) == ("", ["common.*"])


def test_a_file_that_says_so_and_is_still_is_believed(path: Path, file: SettingsFile) -> None:
    path.write_text(f'access = "{OPEN}"\n')
    assert file.refresh(0.0)
    assert not file.refresh(STILL - 0.1)
    assert rules(file) == ["*", "ann"]
    assert f"still for {STILL:g} s" in file.error
    assert file.refresh(STILL)
    assert (rules(file), file.error) == ([], "")
    assert not file.refresh(2 * STILL)


def test_each_change_begins_the_wait_anew(path: Path, file: SettingsFile) -> None:
    for now in (0.0, STILL - 0.5, 2 * STILL - 1.0):
        path.write_text(f'access = "{OPEN}"\n# {now}\n')
        assert file.refresh(now)
        assert file.error
    assert not file.refresh(2 * STILL)
    assert not file.refresh(2 * STILL, force=True) or rules(file) == ["*", "ann"]  # a SIGHUP does not shorten it
    assert file.refresh(3 * STILL)
    assert rules(file) == []


def test_it_need_not_say_so_where_there_were_no_rules(path: Path) -> None:
    path.write_text("")
    file = SettingsFile(path)
    for text in (f'access = "{OPEN}"', "[broker]\n", RULES):
        path.write_text(text)
        assert file.refresh(0.0)
        assert file.error == ""
    assert rules(file) == ["*", "ann"]


def test_the_rule_for_everybody_goes_only_once_the_file_is_still(path: Path, file: SettingsFile) -> None:
    path.write_text('[access.ann]\nproduce = ["ann.*"]\n')
    assert file.refresh(0.0)
    assert "no access rules for '*' any more" in file.error
    assert rules(file) == ["*", "ann"]
    assert file.refresh(STILL)
    assert (rules(file), file.error) == (["ann"], "")


def test_a_table_goes_at_once_where_the_rule_for_everybody_stays(path: Path, file: SettingsFile) -> None:
    path.write_text('[access."*"]\nconsume = ["public.*"]\n')
    assert file.refresh(0.0)
    assert (rules(file), file.error) == (["*"], "")


def test_rules_at_the_end_go_with_a_comment_in_their_place(path: Path, file: SettingsFile) -> None:
    head = RULES[: RULES.index('[access."*"]')]
    path.write_text(head)
    assert file.refresh(0.0)
    assert not file.refresh(3600.0)
    assert "it may have been cut off" in file.error
    assert "put a comment in their place" in file.error
    path.write_text(head + "# everybody else may do everything\n")
    assert file.refresh(3600.0)
    assert file.refresh(3600.0 + STILL)
    assert (rules(file), file.error) == (["ann"], "")


def unlink(path: Path) -> None:
    path.unlink()


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    "spoil",
    [
        unlink,
        directory,
        fifo,
        dangling,
        lambda p: p.write_text(RULES.replace('["public.*"]', "3")),
        lambda p: p.write_text(RULES.replace("[access.ann]", "[access")),
        lambda p: p.write_text("access = []"),
        lambda p: p.write_text("access = false"),
        lambda p: p.write_text("access = 'closed'"),
        lambda p: p.write_bytes(b"\0" * 4096),  # as after a crash of the machine
        lambda p: p.chmod(0o622),
    ],
)
def test_whatever_becomes_of_the_file_the_rules_stay(
    path: Path, file: SettingsFile, spoil: Callable[[Path], object]
) -> None:
    spoil(path)
    assert file.refresh(0.0)
    for now in (STILL, 3600.0):
        file.refresh(now)
        assert rules(file) == ["*", "ann"]
        assert str(path) in file.error


def test_a_file_that_comes_back_is_believed_again(path: Path, file: SettingsFile) -> None:
    path.unlink()
    assert file.refresh(0.0)
    assert not file.refresh(1.0)
    path.write_text(RULES)
    assert file.refresh(2.0)
    assert file.error == ""


def test_a_file_that_could_not_be_read_is_tried_again(
    path: Path, file: SettingsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(24, os.strerror(24))

    path.write_text(RULES.replace("public", "common"))
    with monkeypatch.context() as without_files:
        without_files.setattr(os, "open", full)
        assert file.refresh(0.0)
        assert "Too many open files" in file.error
        assert not file.refresh(1.0)  # nothing new to tell
    assert file.refresh(2.0)  # without a change of the file
    assert (file.error, file.current.access["*"].consume) == ("", ["common.*"])
