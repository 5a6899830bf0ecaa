"""What a mistake looks like in a notebook: the cell's own lines and the error, without labhub's frames."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.kernels import Notebook, running_notebook

SETUP = """
import labhub, numpy as np
hub = labhub.connect(start=True)
pump = hub.producer("pump.pressure", like=0.0, units="mbar")
record = hub.producer("record", like={"a": 0.0, "b": 1})
reader = hub.consumer("pump.pressure")
"""
MISTAKES = [
    'hub.consumer("pump.presure")',
    'hub.producer("x", like=0.0, units=5)',
    'pump.write("abc")',
    'record.write({"a": 1.0})',
    'hub["pump.*"].plot()',
    'hub["pump.pressure"].plot("nofield")',
    'hub["pump.pressure"].plot(windw=3)',
    "next(reader.batches(timeout=0.01))",
    "for batch in reader.batches(timeout=0.01):\n    pass",
    "async for batch in reader.batches(timeout=0.01):\n    pass",
    'labhub.connect("nosuch")',
    'hub.record("nope", store="/nowhere/x.zarr")',
    'labhub.replay("/nowhere.zarr")',
    'hub.consumer("record", schema=labhub.Schema.infer(0.0))',
    "import pickle; pickle.dumps(hub)",
    'plot = labhub.LivePlot("pump.pressure")\nplot.window = -1',
]


def traceback_of(notebook: Notebook, code: str) -> list[str]:
    """Run a cell that raises; the lines that the page shows."""
    found: list[str] = []

    def take(message: dict) -> None:
        if message["header"]["msg_type"] == "error":
            found.extend("\n".join(message["content"]["traceback"]).splitlines())

    notebook.client.execute_interactive(code, timeout=60, output_hook=take)
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in found]


@pytest.fixture
def lab(notebook: Notebook) -> Iterator[Notebook]:
    notebook.run(SETUP)
    yield notebook
    notebook.run("from labhub.hub import stop_broker\nhub.close()\nstop_broker()")


def test_mistakes_show_the_cell_and_the_error_only(lab: Notebook) -> None:
    for code in MISTAKES:
        lines = traceback_of(lab, code)
        assert 5 <= len(lines) <= 12, "\n".join(lines)
        assert not [line for line in lines if "labhub/" in line and line.startswith("File ")]
        (arrow,) = [line for line in lines if line.startswith("---->")]
        assert re.sub(r"----> \d+ ", "", arrow) in code
        kind = lines[1].split()[0]
        assert [line for line in lines[4:] if line.startswith(f"{kind}: ")]


def test_the_users_own_frames_stay(lab: Notebook) -> None:
    lines = traceback_of(lab, "def f():\n    return hub.find('a')\n\ndef g():\n    return f()\n\ng()")
    assert [line.rpartition("in ")[2] for line in lines if line.startswith("Cell ")][1:] == ["g()", "f()"]
    assert lines[-1].startswith("ChannelNotFound: ")
    lines = traceback_of(lab, "with pump.slot() as slot:\n    raise ValueError('mine')")
    assert lines[-1] == "ValueError: mine"


def test_everything_is_there_for_whoever_wants_it(lab: Notebook) -> None:
    lab.run("%xmode Verbose")
    assert [line for line in traceback_of(lab, "hub.find('a')") if "labhub/hub/directory.py" in line]
    lab.run("%xmode Plain")
    plain = traceback_of(lab, "hub.find('a')")
    assert plain[0] == "Traceback (most recent call last):"
    assert not [line for line in plain if "directory.py" in line]
    lab.run("%xmode Minimal")
    assert len(traceback_of(lab, "hub.find('a')")) == 1
    lab.run("%xmode Context")
    files = lab.run(
        "import sys, traceback\nprint([f.filename for f in traceback.extract_tb(sys.last_value.__traceback__)])"
    )
    assert "labhub/hub/directory.py" in files  # as a debugger needs it


def test_it_needs_no_extension() -> None:
    with running_notebook() as notebook:
        notebook.run("%unload_ext labhub\nimport labhub")
        lines = traceback_of(notebook, "labhub.connect('nosuch')")
        assert len(lines) <= 8
        assert lines[-1].startswith("BrokerUnreachable: no broker named 'nosuch' is running")


def test_magics_are_one_line_with_words_for_a_notebook(lab: Notebook) -> None:
    for code, told in (
        ("%hub_info nope", "%hub_discover nope --wait 5 waits for it to appear."),
        ("%hub_tail pump.*", "%hub_discover pump.* lists those that match"),
        ("%hub_connect nosuch", "start one with: %hub_broker start --name nosuch"),
    ):
        text = lab.run(code)
        assert told in text
        assert text.strip().count("\n") == 0
