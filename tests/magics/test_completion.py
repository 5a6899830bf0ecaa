"""What is offered behind the magics, and that it is offered at once or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.completer import CompletionContext
from IPython.core.interactiveshell import InteractiveShell

import labhub
from labhub.notebook.complete import MagicCompleter
from labhub.notebook.session import Session

Offered = Callable[[str], list[str]]


@pytest.fixture
def completer() -> Iterator[MagicCompleter]:
    session = Session()
    completer = MagicCompleter(session)
    yield completer
    completer.close()
    session.close()


@pytest.fixture
def offered(completer: MagicCompleter) -> Offered:
    """What is offered at the end of a line."""

    def offered(line: str) -> list[str]:
        context = CompletionContext(
            token=line.rpartition(" ")[2], full_text=line, cursor_position=len(line), cursor_line=0, limit=None
        )
        return [completion.text for completion in completer.matcher(context)["completions"]]

    return offered


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("%hub_broker ", ["start", "stop", "status", "restart"]),
        ("%hub_broker sta", ["start", "status"]),
        ("hub_broker re", ["restart"]),
        ("x = %hub_broker r", ["restart"]),
        ("%hub_broker start --", ["--name", "--endpoint", "--here"]),
        ("%hub_broker start --here --", ["--name", "--endpoint"]),
        ("%hub_broker start ", []),
        ("%hub_producers lo", ["logs"]),
        ("%%hub_producer x --r", ["--restart"]),
        ("%hub_info ", []),
        ("%hub_nothing ", []),
        ("hub_broker", []),
        ("print(start", []),
    ],
)
def test_words(offered: Offered, line: str, texts: list[str]) -> None:
    assert offered(line) == texts


@pytest.mark.usefixtures("broker")
def test_live_channels_and_fields(offered: Offered) -> None:
    with labhub.connect() as hub, hub.producer("pump.a", like={"u": 1, "v": 2}), hub.producer("valve", like=1):
        assert offered("%hub_info ") == ["pump.a", "valve"]
        assert offered("%hub_tail va") == ["valve"]
        assert offered("%hub_tail valve ") == []
        assert offered("%hub_plot pump.a --fields ") == ["u", "v"]
        assert offered("%hub_plot pump.a --fields u ") == ["u", "v"]
        assert offered("%hub_plot none --fields ") == []


@pytest.mark.usefixtures("broker")
def test_a_broker_that_does_not_answer_costs_a_moment(
    completer: MagicCompleter, offered: Offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    with labhub.connect() as hub, hub.producer("x", like=1):
        assert offered("%hub_info ") == ["x"]
        slow = SimpleNamespace(channels=lambda: time.sleep(1.0))  # as if it hung; a bound is what is tested
        monkeypatch.setattr(completer._session, "hub", lambda *_: slow)
        began = time.monotonic()
        assert offered("%hub_info ") == ["x"]
        assert time.monotonic() - began < 0.9


def test_background_producers(offered: Offered, completer: MagicCompleter) -> None:
    completer._session.producers.start("pump", "1").wait(30)
    assert offered("%hub_producers stop ") == ["pump"]
    assert offered("%%hub_producer p") == ["pump"]


def test_a_shell_forgets_it_with_the_extension(shell: InteractiveShell) -> None:
    def matchers() -> list[Any]:
        return [m for m in shell.Completer.custom_matchers if m.matcher_identifier == "labhub"]

    assert len(matchers()) == 1
    shell.run_line_magic("unload_ext", "labhub")
    assert matchers() == []
    shell.run_line_magic("load_ext", "labhub")
