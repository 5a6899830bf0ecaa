"""The settings file: what it may say, where an error in it is, and that a broken one changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from labhub.errors import InvalidName, InvalidSettings
from labhub.protocol.access import Grants
from labhub.settings import MOST_NBYTES, STILL, SettingsFile, read_settings, settings_path

WHOLE = """
[broker]
listen = "tcp://10.0.0.5:5570"
max_channels_per_key = 100
max_watches_per_key = 10

[metrics]
port = 9570
address = "127.0.0.1"
max_channels = 50

[access."*"]
consume = ["public.*"]

[access.ann]
produce = ["ann.*"]
consume = ["*"]
administer = ["ann.*"]
"""


@pytest.fixture
def path(private_dirs: Path) -> Path:
    return private_dirs / "config" / "broker-default.toml"


def test_all_that_it_may_say(path: Path) -> None:
    path.write_text(WHOLE)
    settings = read_settings(path)
    assert settings.broker.listen == "tcp://10.0.0.5:5570"
    assert (settings.broker.max_channels_per_key, settings.broker.max_watches_per_key) == (100, 10)
    assert (settings.metrics.port, settings.metrics.address, settings.metrics.max_channels) == (9570, "127.0.0.1", 50)
    assert settings.access == {
        "*": Grants(consume=["public.*"]),
        "ann": Grants(produce=["ann.*"], consume=["*"], administer=["ann.*"]),
    }


@pytest.mark.parametrize(
    ("text", "line", "field", "why"),
    [
        ("[broker]\nlisten = 3", 2, "broker.listen", "got `int`"),
        ("[broker]\nmax_watches_per_key = 0", 2, "broker.max_watches_per_key", ">= 1"),
        ("# colour\n\ncolour = 1", 3, "colour", "no such setting"),
        ("[metrics]\nport = 65536", 2, "metrics.port", "<= 65535"),
        ("metrics.port = true", 1, "metrics.port", "got `bool`"),
        ("access = 3", 1, "access", "got `int`"),
        ("access = 'shut'", 1, "access", "'open', or a table for each key, not 'shut'"),
        ("says_open = true", 1, "says_open", "no such setting"),
        ("[access]\nann = ['*']", 2, "access.ann", "got `array`"),
        ("[access.ann]\n# consum?\nconsum = ['*']", 3, "access.ann.consum", "no such setting"),
        ("[access.ann]\nconsume = [\n  'x',\n  3,\n]", 2, "access.ann.consume", "got `int`"),
        ("[access.ann]\nconsume = ['']", 2, "access.ann.consume", "length >= 1"),
        (f"[access.ann]\nconsume = ['{'x' * 257}']", 2, "access.ann.consume", "length <= 256"),
        ("[access.bob]\nconsume = ['*']\n\n[access.ann]\nconsume = '*'", 5, "access.ann.consume", "got `str`"),
        ("[access.ann.laptop]\nconsume = ['*']", 1, "access.ann.laptop", "no such setting"),
        ("[broker\nlisten = 3", 1, "", "Expected ']'"),
        ("[broker]\n[broker]", 2, "", "twice"),
        ("[broker]\nlisten = 'a'\nlisten = 'b'", 3, "", "overwrite"),
        ("[broker]\nlisten =", 2, "", "Invalid value"),
        ("x = " + "[" * 5000, 0, "", "nested too deeply"),
    ],
)
def test_an_error_says_where_it_is(path: Path, text: str, line: int, field: str, why: str) -> None:
    path.write_text(text)
    with pytest.raises(InvalidSettings, match=why.replace("[", r"\[")) as caught:
        read_settings(path)
    assert (caught.value.path, caught.value.line, caught.value.field) == (str(path), line, field)
    assert str(path) in str(caught.value)
    assert not line or f"line {line}" in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda p: p.unlink(), "No such file"),
        (lambda p: (p.unlink(), p.mkdir()), "Is a directory"),
        (lambda p: (p.unlink(), os.mkfifo(p)), "not a regular file"),
        (lambda p: p.chmod(0o620), "chmod go-w"),
        (lambda p: p.chmod(0o602), "chmod go-w"),
        (lambda p: p.write_bytes(b"# ok\n\xff"), "line 2: not UTF-8"),
        (lambda p: p.write_bytes(b"#" * (MOST_NBYTES + 1)), "longer"),
    ],
    ids=["missing", "directory", "pipe", "group", "others", "latin", "long"],
)
def test_a_file_that_is_not_to_be_believed(path: Path, spoil: Callable[[Path], object], why: str) -> None:
    path.write_text(WHOLE)
    file = SettingsFile(path)
    before = file.current
    spoil(path)
    with pytest.raises(InvalidSettings, match=why):
        SettingsFile(path)
    assert file.refresh()
    assert why in file.error
    assert file.current is before
    assert not file.refresh()  # once is enough, until it changes again


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_believed(path: Path) -> None:
    path.write_text(WHOLE)
    os.chown(path, 65534, -1)
    with pytest.raises(InvalidSettings, match="of yours"):
        read_settings(path)


def test_a_file_is_followed_through_every_kind_of_change(path: Path) -> None:
    with pytest.raises(InvalidSettings, match="No such file"):
        SettingsFile(path)
    file = SettingsFile(path, optional=True)
    assert not file.refresh()
    assert not file.refresh(force=True)
    for k, write in enumerate((path.write_text, lambda text: replace(path, text), path.write_text)):
        write(f'[access.k{k}]\n[access."*"]\n')
        assert file.refresh()
        assert list(file.current.access) == [f"k{k}", "*"]
        assert not file.refresh()
    path.write_text("[access.k2]\n# so everybody else may do everything\n")
    assert file.refresh(0.0)
    assert file.refresh(STILL)
    assert list(file.current.access) == ["k2"]
    assert file.refresh(force=True)
    path.unlink()
    assert file.refresh()
    assert "No such file" in file.error
    assert list(file.current.access) == ["k2"]
    path.write_text("[access.k3]\n")
    assert file.refresh(0.0)
    assert "no access rules for 'k2' any more" in file.error
    assert file.refresh(STILL)
    assert (file.error, list(file.current.access)) == ("", ["k3"])


def replace(path: Path, text: str) -> None:
    """As editors do: another file under the same name."""
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


def test_where_it_is_looked_for(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert settings_path() == path
    assert settings_path("beamline").name == "broker-beamline.toml"
    monkeypatch.delenv("LABHUB_CONFIG_DIR")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert settings_path() == tmp_path / "labhub" / "broker-default.toml"
    with pytest.raises(InvalidName):
        settings_path("../x")
