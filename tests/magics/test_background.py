"""Background producers, started by the magic in this process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from IPython.core.interactiveshell import InteractiveShell

import labhub
from labhub import ipython_ext, runtime
from labhub.notebook import background
from labhub.notebook.background import BackgroundProducer, BackgroundProducers

Run = Callable[[str], Any]
Wait = Callable[..., None]

PUMP = """%%hub_producer {name}
import labhub, time
with labhub.connect().producer("{channel}", like=1.5, units="bar") as p:
    print("pumping")
    while True:
        p.write(2.5)
        time.sleep(0.01)
"""


def kernels() -> list[psutil.Process]:
    """The background kernels of this process."""
    return [p for p in psutil.Process().children(recursive=True) if "ipykernel_launcher" in p.cmdline()]


def files() -> list[Path]:
    """Files of background producers, of whichever kernel."""
    return [path for d in runtime.runtime_directory().glob("kernels-*") for path in d.rglob("*")]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert kernels() == []
    assert files() == []
    assert [t.name for t in threading.enumerate() if t.name.startswith(("labhub-producer", "labhub-messenger"))] == []


@pytest.fixture
def producers(shell: InteractiveShell) -> Iterator[BackgroundProducers]:
    """Background producers of which the test knows the handle; stopped at its end."""
    producers = BackgroundProducers()
    yield producers
    producers.close()


@pytest.mark.usefixtures("broker")
def test_a_cell_produces_until_it_is_stopped(run: Run) -> None:
    handle = run(PUMP.format(name="pump", channel="pump.p"))
    assert isinstance(handle, BackgroundProducer)
    assert repr(handle) == "BackgroundProducer('pump', starting)"
    with labhub.connect() as hub:
        assert hub.wait_for("pump.p", 20).producer_pid == handle.pid
        with hub.consumer("pump.p") as consumer:
            assert (next(consumer.batches(min_slots=3, timeout=5)).data == 2.5).all()
            assert repr(handle) == "BackgroundProducer('pump', running)"
            table = repr(run("%hub_producers"))
            assert "pump.p" in table
            assert str(handle.pid) in table
            run("%hub_producers stop pump")
            # Its `with` block closed the channel: the stream has an end.
            assert all((batch.data == 2.5).all() for batch in consumer.batches(timeout=5))
            assert consumer.ended
        assert handle.state == "stopped"
        assert handle.error == ""
        assert hub.channels() == []
        assert not psutil.pid_exists(handle.pid)
        assert run("%hub_producers logs pump") == "pumping"


def test_a_running_one_is_refused_and_restart_replaces_it(
    run: Run, capsys: pytest.CaptureFixture[str], wait_until: Wait
) -> None:
    cell = "%%hub_producer x{}\nimport time\nprint('on')\ntime.sleep(1000)"
    first = run(cell.format(""))
    assert run(cell.format("")) is None
    assert "'x' is running; --restart replaces it" in capsys.readouterr().err
    wait_until(lambda: first.log() == "on", 20)
    second = run(cell.format(" --restart"))
    assert first.state == "stopped"
    wait_until(lambda: second.state == "running", 20)
    third = run("%hub_producers restart")
    assert second.state == "stopped"
    assert third.cell == second.cell
    wait_until(lambda: third.state == "running", 20)
    run("%hub_producers stop")
    assert third.state == "stopped"


def test_a_failed_one_says_why(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    handle = run("%%hub_producer bad\nprint('so far')\n1 / 0")
    assert handle.wait(30)
    assert repr(handle) == "BackgroundProducer('bad', failed: ZeroDivisionError: division by zero)"
    trace = run("%hub_producers traceback")
    assert "1 / 0" in trace
    assert "\x1b" not in trace
    assert run("%hub_producers logs bad -n 1000").startswith("so far\n")
    assert "ZeroDivisionError" in repr(run("%hub_producers"))
    run("%hub_producers stop badd")
    assert "did you mean bad?" in capsys.readouterr().err
    again = run("%%hub_producer bad\n40 + 2")  # one that is over is replaced
    assert again.wait(30)
    assert (again.state, again.log()) == ("ended", "42")


def test_a_process_that_dies_is_a_failure(run: Run) -> None:
    handle = run("%%hub_producer gone\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert handle.wait(30)
    assert repr(handle) == "BackgroundProducer('gone', failed: its process died)"
    assert run("%hub_producers traceback gone") == "its process died"


def test_one_that_ignores_the_interrupt_is_ended_all_the_same(run: Run, wait_until: Wait) -> None:
    cell = "while True:\n  try:\n    print('on'); time.sleep(1000)\n  except KeyboardInterrupt:\n    print('no')"
    handle = run(f"%%hub_producer stubborn\nimport time\n{cell}")
    wait_until(lambda: handle.log() == "on", 20)
    handle.stop()
    assert handle.state == "stopped"
    assert "no" in handle.log()


def test_what_a_cell_finds_is_the_notebooks_world_without_its_variables(
    run: Run, shell: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    shell.user_ns |= {"name": "world", "secret": 1}
    # Braces and dollars are expanded behind the magic, never in the cell.
    handle = run(
        "%%hub_producer {name}\n"
        "import os, sys\n"
        "print(os.getcwd(), sys.path[0], os.environ['LABHUB_SHM_DIR'], '{name}', '$name', 'secret' in globals())"
    )
    assert handle.name == "world"
    assert handle.wait(30)
    assert handle.error == ""
    assert handle.log().split() == [
        str(tmp_path),
        sys.path[0],
        os.environ["LABHUB_SHM_DIR"],
        "{name}",
        "$name",
        "False",
    ]


@pytest.mark.usefixtures("broker")
def test_unloading_ends_it(shell: InteractiveShell, run: Run) -> None:
    handle = run(PUMP.format(name="pump", channel="pump.p"))
    with labhub.connect() as hub:
        hub.wait_for("pump.p", 20)
        shell.run_line_magic("unload_ext", "labhub")
        assert (kernels(), files()) == ([], [])
        assert handle.state == "stopped"
        assert hub.channels() == []
    shell.run_line_magic("load_ext", "labhub")


def test_a_forked_child_ends_nothing_of_its_parents(run: Run, wait_until: Wait) -> None:
    handle = run("%%hub_producer x\nimport time\nprint('on')\ntime.sleep(1000)")
    wait_until(lambda: handle.log() == "on", 20)
    child = os.fork()
    if child == 0:
        try:
            ipython_ext._close_all()  # as the end of its interpreter would
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert handle.log() == "on"
    assert handle.state == "running"
    assert psutil.pid_exists(handle.pid)


def test_a_log_stays_small(producers: BackgroundProducers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "LOG_NBYTES", 10_000)
    handle = producers.start("chatty", "for k in range(5000):\n    print(f'line {k:06d}', flush=True)")
    assert handle.wait(60)
    assert handle.state == "ended"
    assert handle.log_path.stat().st_size <= 20_000
    assert handle.log(2).split("\n") == ["line 004998", "line 004999"]


def test_a_runtime_directory_with_a_long_path_does_for_sockets(
    producers: BackgroundProducers, private_dirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = private_dirs / "run" / ("d" * 90)
    monkeypatch.setenv("LABHUB_RUNTIME_DIR", str(deep))
    handle = producers.start("deep", "6 * 7")
    assert handle.wait(30)
    assert (handle.state, handle.log()) == ("ended", "42")


def test_what_killed_kernels_left_is_removed(producers: BackgroundProducers) -> None:
    left = runtime.runtime_directory() / "kernels-4194304-1.0"
    left.mkdir()
    (left / "pump.log").write_text("old")
    producers.start("now", "1").wait(30)
    assert not left.exists()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%%hub_producer\n1", "the following arguments are required: name"),
        ("%%hub_producer ../x\n1", "cannot name a background producer"),
        ("%%hub_producer x\n  ", "needs a cell to run"),
        ("%hub_producers stpo", "choose one of list, stop, restart, logs, traceback; did you mean stop?"),
        ("%hub_producers logs", "which one? There is none"),
        ("%hub_producers stop x", "no background producer is called 'x'; there is none"),
    ],
)
def test_bad_input_is_one_clear_line(run: Run, capsys: pytest.CaptureFixture[str], cell: str, message: str) -> None:
    assert run(cell) is None
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err + captured.out


def test_an_interrupted_stop_can_be_repeated(producers: BackgroundProducers, wait_until: Wait) -> None:
    cell = (
        "import time\nprint('on', flush=True)\nwhile True:\n  try: time.sleep(1000)\n  except KeyboardInterrupt: pass"
    )
    handle = producers.start("stubborn", cell)
    wait_until(lambda: handle.log() == "on", 20)
    interrupt = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        handle.stop()
    assert psutil.pid_exists(handle.pid)
    handle.stop()
    assert not psutil.pid_exists(handle.pid)
    assert handle.state == "stopped"


@pytest.mark.usefixtures("broker")
def test_a_log_that_somebody_removes_does_not_end_the_producer(
    producers: BackgroundProducers, wait_until: Wait
) -> None:
    handle = producers.start("pump", PUMP.partition("\n")[2].format(channel="pump.p"))
    with labhub.connect() as hub:
        hub.wait_for("pump.p", 20)
        handle.log_path.unlink()
        with hub.consumer("pump.p") as consumer:
            assert next(consumer.batches(min_slots=50, timeout=5)).data[0] == 2.5
        wait_until(lambda: handle.state == "running")
        assert handle.error == ""
        assert handle.log() == ""
        handle.stop()
        assert handle.state == "stopped"
