"""Background producers of a real notebook kernel: what an Interrupt leaves running, and what pins nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import labhub
from labhub import runtime
from labhub.datablock.location import segment_directory
from labhub.hub import Hub
from tests.kernels import PUMP, Notebook

Wait = Callable[..., None]


@pytest.fixture
def hub(broker: None) -> Iterator[Hub]:
    with labhub.connect() as hub:
        yield hub


@pytest.fixture
def pid(hub: Hub, notebook: Notebook) -> int:
    """Process of the background producer that the notebook has started."""
    assert notebook.run(PUMP) == "BackgroundProducer('pump', starting)"
    pid = hub.wait_for("pump.p", 20).producer_pid
    assert pid != notebook.process.pid
    return pid


def segments() -> list[str]:
    return sorted(os.listdir(segment_directory()))


def test_an_interrupt_leaves_it_running(notebook: Notebook, hub: Hub, pid: int) -> None:
    notebook.client.execute("import time\nprint('in')\ntime.sleep(60)")
    while notebook.client.get_iopub_msg(timeout=10)["header"]["msg_type"] != "stream":
        pass
    notebook.manager.interrupt_kernel()
    assert notebook.client.get_shell_msg(timeout=10)["content"]["ename"] == "KeyboardInterrupt"
    with hub.consumer("pump.p") as consumer:
        next(consumer.batches(min_slots=20, timeout=5))
    assert psutil.pid_exists(pid)
    assert "running" in notebook.run("%hub_producers")
    assert notebook.run("%hub_producers stop pump") == "BackgroundProducer('pump', stopped)"
    assert hub.channels() == []


def test_a_broker_in_the_kernel_ends_with_it(notebook: Notebook, wait_until: Wait) -> None:
    notebook.run("%hub_broker start --here --endpoint tcp://127.0.0.1:0")
    assert runtime.find_live().pid == notebook.process.pid
    notebook.run(PUMP)
    with labhub.connect() as hub:
        pid = hub.wait_for("pump.p", 20).producer_pid
        notebook.manager.restart_kernel()
        wait_until(lambda: runtime.find() is None, 10, "the end of the broker")
    assert not psutil.pid_exists(pid)
    assert segments() == []


def test_what_out_keeps_pins_nothing(notebook: Notebook, hub: Hub, wait_until: Wait) -> None:
    with hub.producer("x", like=1.5, capacity=8) as p:
        p.write(1.0)
        notebook.run("import labhub\nhub = labhub.connect()")
        notebook.run("with hub.consumer('x', mode='lossless', start='oldest') as c: batch = next(c.batches())")
        assert notebook.run("batch") == "Batch(x: seq 0-0, 1 of float64, lost=0)"
        for k in range(100):  # more than the ring holds: nobody holds it up
            p.write(float(k))
        assert p.stats()["evictions"] == 0
        assert notebook.run("print(float(Out[4].data[0]))") == "1.0\n"


def test_an_interrupted_read_leaves_no_reader(notebook: Notebook, hub: Hub, wait_until: Wait) -> None:
    with hub.producer("x", like=1.5, capacity=8) as p:
        notebook.run("import labhub\nhub = labhub.connect()")
        notebook.client.execute("with hub.consumer('x', mode='lossless') as c:\n    for batch in c.batches(): pass")
        wait_until(lambda: labhub.diagnose("x").readers, 10, "a reader")
        p.write(1.0)
        wait_until(lambda: labhub.diagnose("x").readers[0].received == 1, 10, "a read")
        notebook.manager.interrupt_kernel()
        wait_until(lambda: not labhub.diagnose("x").readers, 5, "the end of the reader")
        for k in range(100):
            p.write(float(k))
        assert p.stats()["evictions"] == 0


CYCLE = '''
import gc, os, threading, psutil
me = psutil.Process()
CELL = """
import labhub, time
with labhub.connect().producer("x", like=1.5) as p:
    while True:
        p.write(2.5)
        time.sleep(0.01)
"""

def cycle():
    shell = get_ipython()
    shell.run_line_magic("load_ext", "labhub")
    shell.run_line_magic("hub_broker", "start --here --endpoint tcp://127.0.0.1:0")
    hub = shell.run_line_magic("hub_connect", "")
    shell.run_cell_magic("hub_producer", "x", CELL)
    hub.wait_for("x", 20)
    with hub.consumer("x", mode="lossless") as c:
        kept.append(next(c.batches(min_slots=2, timeout=5)))
    for name in ("hub_discover", "hub_producers"):
        repr(shell.run_line_magic(name, ""))
    for name in ("hub_info", "hub_tail"):
        repr(shell.run_line_magic(name, "x"))
    shell.run_line_magic("unload_ext", "labhub")
    gc.collect()
    return me.num_fds(), sorted(t.name for t in threading.enumerate()), [p.name() for p in me.children(recursive=True)]

kept = []
get_ipython().run_line_magic("unload_ext", "labhub")
cycle()
first, last = cycle(), [cycle() for _ in range(2)][-1]
print(first == last, first[2], *[n for n in first[1] if "labhub" in n])
print(first, last)
'''


def test_loading_using_and_unloading_again_and_again_leaks_nothing(notebook: Notebook) -> None:
    answer, details = notebook.run(CYCLE, timeout=120).splitlines()
    assert answer == "True []", details
    assert list(runtime.runtime_directory().iterdir()) == []
    assert segments() == []


def test_completion_in_a_kernel(notebook: Notebook, hub: Hub) -> None:
    with hub.producer("pump.pressure", like={"bar": 1.0, "pascal": 2.0}):
        notebook.run("%hub_discover")

        def complete(line: str) -> list[str]:
            reply = notebook.client.complete(line, len(line), reply=True, timeout=10)["content"]
            start = reply["cursor_start"]
            return [line[:start] + match for match in reply["matches"]]

        assert complete("%hub_broker st") == ["%hub_broker start", "%hub_broker stop", "%hub_broker status"]
        assert complete("%hub_info pump.") == ["%hub_info pump.pressure"]
        assert complete("%hub_info pu") == ["%hub_info pump.pressure"]
        assert complete("%hub_plot pump.pressure --fields ") == [
            "%hub_plot pump.pressure --fields bar",
            "%hub_plot pump.pressure --fields pascal",
        ]
        assert complete("ch = %hub_discover --w") == ["ch = %hub_discover --wait"]


def test_the_log_directory_is_private(notebook: Notebook, pid: int) -> None:
    (directory,) = runtime.runtime_directory().glob("kernels-*")
    assert directory.stat().st_mode & 0o077 == 0
    assert [Path(p).name for p in sorted(directory.glob("*.log"))] == ["pump.log"]
    notebook.run("%hub_producers stop")
