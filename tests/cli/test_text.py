"""Text that other people wrote is shown as text, in a real terminal: it is no markup, and orders nothing."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pexpect
import pytest

import labhub as package
from labhub.hub import Hub, Producer
from labhub.protocol.client_state import ASKED
from labhub.protocol.messages import REPLY_TO
from labhub.transport.keys import enroll
from labhub.words import visible

ORDERS = "\x1b[2J\x1b]0;owned\x07\u202eabc\x9b31m\n\t"
FIELDS = ("[/x]", "[red]r", "Temp °C", f"b{ORDERS}")
UNITS = {"[/x]": "[mm]", "[red]r": "µV/Å", "Temp °C": f"°C{ORDERS}"}

Terminal = Callable[..., pexpect.spawn]


@pytest.fixture
def hub(broker) -> Iterator[Hub]:
    with package.connect() as hub:
        yield hub


@pytest.fixture
def evil(hub: Hub) -> Iterator[Producer]:
    dtype = np.dtype([(FIELDS[0], "f8"), (FIELDS[1], "i4"), (FIELDS[2], "f8"), (FIELDS[3], "U8")])
    with hub.producer("evil", dtype=dtype, units=UNITS, attrs={f"note{ORDERS}": f"[/y]{ORDERS}"}) as producer:
        producer.write((1.5, 2, 3.5, "q\x1b[1m\u202e"))
        yield producer


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    children: list[pexpect.spawn] = []

    def spawn(*words: str) -> pexpect.spawn:
        command = ["-m", "labhub.cli", *words]
        wide = os.environ | {"COLUMNS": "250", "LINES": "40"}
        children.append(pexpect.spawn(sys.executable, command, timeout=60, encoding="utf-8", env=wide))
        return children[-1]

    yield spawn
    for child in children:
        child.close(force=True)


def shown_by(child: pexpect.spawn) -> str:
    """Everything that a command wrote to its terminal, with Rich's own colours and cursor moves taken out."""
    child.expect(pexpect.EOF)
    child.close()
    return quiet(child.before)


def quiet(output: str) -> str:
    """An output without Rich's own colours and cursor moves; it fails if anything else would be obeyed."""
    text = re.sub(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[12]K|\x1b\[1A|\x1b\[\?1049[lh]|\x1b\[H", "", output)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    return text


def test_channels_shows_fields_and_units_as_they_are(evil, terminal) -> None:
    child = terminal("channels")
    text = shown_by(child)
    assert child.exitstatus == 0
    for word in (
        "[/x], [red]r, Temp °C",
        "[mm]",
        "µV/Å",
        "°C\\x1b[2J",
        r"b\x1b[2J\x1b]0;owned\x07\u202eabc\x9b31m\n\t}",
    ):
        assert word in text


def test_info_and_tail_show_them_too(evil, terminal) -> None:
    child = terminal("info", "evil")
    text = shown_by(child)
    assert child.exitstatus == 0
    assert re.search(r"\[/x\] +float64, in \[mm\]", text)
    assert visible(f"[/y]{ORDERS}") in text
    child = terminal("tail", "evil", "-n", "1")
    text = shown_by(child)
    assert child.exitstatus == 0
    assert text.count("\n") == 1
    assert "[/x] 1.5 [mm]  [red]r 2 µV/Å  Temp °C 3.5 °C" in text
    assert r"'q\x1b[1m\u202e'" in text
    child = terminal("tail", "evil", "--fields", "[/y]")
    assert "a slot has no field '[/y]'; did you mean '[/x]'?" in shown_by(child)
    assert child.exitstatus == 1


def test_json_has_the_text_itself(evil, labhub) -> None:
    import json

    (found,) = json.loads(labhub("channels", "--json").stdout)
    assert found["units"] == UNITS
    assert json.loads(labhub("tail", "evil", "--json").stdout)["values"][FIELDS[3]] == "q\x1b[1m\u202e"


def test_a_recording_goes_on_whatever_fields_are_called(evil, terminal, tmp_path) -> None:
    """A field that looked like markup ended the recording of all channels, and a store's name was markup, too."""
    store = tmp_path / "[bold]run[.zarr"
    child = terminal("record", "evil", "-o", str(store))
    child.expect_exact("slots stored")
    evil.write((2.5, 3, 4.5, "r"))
    child.sendline("[/mark] valve")
    child.expect_exact("1 slots stored")
    child.sendintr()
    text = shown_by(child)
    assert child.exitstatus == 0
    assert f"{store}: 1 slots stored" in text


def test_a_reason_with_brackets_ends_no_recording(hub, terminal, tmp_path) -> None:
    """What happens to one channel is shown while the others are recorded."""
    with hub.producer("good", like=0.0) as good:
        bad = hub.producer("bad", dtype=[("[/x]", "f8")])
        child = terminal("record", "good", "bad", "-o", str(tmp_path / "run.zarr"))
        child.expect_exact("slots stored")
        bad.close()
        with hub.producer("bad", dtype=[("[/y]", "i4")]) as another:
            another.write((1,))
            child.expect_exact("[/x]")
            good.write(1.0)
            child.expect_exact("1 slots stored")
            child.sendintr()
            quiet(child.read())
        child.close()
        assert child.exitstatus == 1  # as a channel could not be followed to its end
        assert child.signalstatus is None


def test_bridge_shows_its_state_as_text(evil, terminal) -> None:
    child = terminal("bridge", "--export", "*", "--listen", "tcp/127.0.0.1:0")
    child.expect(r"export +evil")
    child.sendintr()
    quiet(child.read())
    child.close()
    assert child.exitstatus == 0
    child = terminal("bridge")
    assert "give --connect tcp/host:7447, --listen tcp/0.0.0.0:7447, or --config FILE" in shown_by(child)


def test_top_shows_names_as_text(evil, terminal) -> None:
    text = shown_by(terminal("top", "--once", "--interval", "0.1"))
    assert re.search(r"channel +slots/s +MB/s +head +newest +fill", text)
    child = terminal("top", "--interval", "0.1")
    child.expect_exact("evil")
    child.send("q")
    quiet(child.read())


def test_whose_a_key_is_is_text(terminal) -> None:
    enroll("yv(Q!s<BsjsFlL$B]V2AqQ*%&QtHHP*-d^(6QEx5", "Ann [/x], 3 °C", "ann")
    assert "ann  Ann [/x], 3 °C" in shown_by(terminal("key", "list"))


def test_doctor_shows_paths_as_text(private_dirs, terminal, monkeypatch) -> None:
    odd = private_dirs / "run\x1b[2J[x]"
    odd.mkdir(mode=0o755)
    monkeypatch.setenv("LABHUB_RUNTIME_DIR", str(odd))
    text = shown_by(terminal("doctor"))
    assert r"run\x1b[2J[x]" in text.replace("\r\n        ", " ")


def test_an_encoding_that_lacks_a_letter_shows_its_escape(evil, labhub, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "iso8859-7")  # Greek: it has a degree sign, and no letter A with a ring
    for words in (("tail", "evil", "-n", "1"), ("channels",), ("info", "evil")):
        shown = labhub(*words, encoding="iso8859-7")
        assert shown.returncode == 0
        assert r"V/\xc5" in shown.stdout
        assert "°C" in shown.stdout


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["tail", "nope"], 3, "`labhub channels` lists what is there."),
        (["info", "nope"], 3, "`labhub channels` lists what is there."),
        (["tail", "ev*"], 1, "'ev*' is a pattern, and here one channel is needed; `labhub channels 'ev*'` lists"),
        (["channels", "--broker", "far"], 3, "start one with `labhub broker start --name far`\n"),
        (["record", "nope", "-o", "x.zarr"], 3, "no channel matches 'nope'"),
        (["tail", "Temp°C"], 1, "'Temp°C' cannot name a channel"),
    ],
)
def test_a_shell_user_gets_words_for_a_shell(evil, labhub, words, code, told) -> None:
    shown = labhub(*words)
    assert shown.returncode == code
    assert told in shown.stderr
    assert shown.stderr.count("\n") == 1
    assert not re.search(r"hub\.|connect\(|%hub", shown.stderr)


def test_every_request_has_words() -> None:
    assert set(ASKED) == set(REPLY_TO)
