"""Interrupt in the middle of each magic that changes something, at lines and moments picked at random."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from labhub import runtime
from labhub.datablock.location import segment_directory
from tests.kernels import PUMP, Notebook

ROUNDS = 3
# Runs a magic, and interrupts this kernel at the given line that its main thread runs, or after a time.
PRESS = """
import os, signal, sys, threading, time
def in_del(frame):  # an error in there is only printed
    while frame and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None
def press(magic, cell="", line=None, delay=None):
    n = 0
    def step(frame, event, argument):
        nonlocal n
        if event == "line" and not in_del(frame):
            n += 1
            if n == line:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return step
    timer = threading.Timer(delay or 0.0, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    began = time.monotonic()
    try:
        try:
            if line is None and delay is not None:
                timer.start()
            elif line is not None:
                sys.settrace(lambda *_: step)
            name, _, words = magic.lstrip("%").partition(" ")
            shell = get_ipython()
            shell.run_cell_magic(name, words, cell) if cell else shell.run_line_magic(name, words)
        finally:
            sys.settrace(None)
            took = time.monotonic() - began
            timer.cancel()
            if timer.ident:
                timer.join(60)
    except KeyboardInterrupt:
        pass
    print(n, took)
"""
START = "%hub_broker start --here --endpoint tcp://127.0.0.1:0\n"
HUB = f"{START}%hub_connect\n"
CHANNEL = f"""{HUB}p = hub.producer('a', dtype='f8')
seq = p.write(1.0)
shutil.rmtree('run.zarr', ignore_errors=True)
"""
RECORDING = f"{CHANNEL}%hub_record start run.zarr a\n"
REPLAY = f"{RECORDING}seq = p.write(2.0)\nseq = p.write(3.0)\n%hub_record stop\n"
PRODUCER = f"{HUB}get_ipython().run_cell_magic('hub_producer', 'pump', {PUMP.partition(chr(10))[2]!r})\n"
STOP = "%hub_broker stop\n"
LEAVE = f"hub.close()\n{STOP}"
# What comes first, the magic, which ends with all that it began, and what it may say when it is run once more.
SCENES = {
    "broker start": ("", START, STOP, ""),
    "broker stop": (START, STOP, "", "no broker named"),
    "broker restart": (START, "%hub_broker restart", STOP, ""),
    "connect": (START, "%hub_connect", LEAVE, ""),
    "discover": (HUB, "%hub_discover no.* --wait 0.1", LEAVE, ""),
    "record start": (CHANNEL, "%hub_record start run.zarr a", f"%hub_record stop\n{LEAVE}", "is being recorded"),
    "record stop": (RECORDING, "%hub_record stop", LEAVE, ""),
    "replay start": (REPLAY, "%hub_replay start run.zarr --prefix old.", f"%hub_replay stop\n{LEAVE}", ""),
    "replay stop": (f"{REPLAY}%hub_replay start run.zarr --prefix old.", "%hub_replay stop", LEAVE, ""),
    "producer": (HUB, PUMP, f"%hub_producers stop\n{LEAVE}", "is running; --restart"),
    "producer restart": (PRODUCER, "%hub_producers restart pump", f"%hub_producers stop\n{LEAVE}", ""),
    "record mark": (RECORDING, "%hub_record mark here", f"%hub_record stop\n{LEAVE}", ""),
    "unload": (RECORDING, "%unload_ext labhub", f"%load_ext labhub\np.close()\n{LEAVE}", ""),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pressed(notebook: Notebook) -> Callable[..., tuple[int, float]]:
    """Run a magic and interrupt it; how many lines ran, and for how long (in seconds)."""
    notebook.run(f"import shutil\n{PRESS}")

    def press(magic: str, **when: float) -> tuple[int, float]:
        first, _, cell = magic.strip().partition("\n")
        words = "".join(f", {name}={value}" for name, value in when.items())
        text = notebook.run(f"press({first!r}, {cell!r}{words})")
        n, took = text.split()  # nothing else: no traceback of what goes on in the background
        return int(n), float(took)

    return press


def left_over(notebook: Notebook) -> list[str]:
    """Child processes of the kernel, and files of brokers and channels."""
    files = [*Path(segment_directory()).glob("*"), *runtime.runtime_directory().glob("broker-*")]
    return [p.name() for p in notebook.process.children(recursive=True)] + [path.name for path in files]


def test_an_interrupt_leaves_nothing_half_done(
    notebook: Notebook, pressed: Callable[..., tuple[int, float]], wait_until: Callable[..., None]
) -> None:
    moments = random.Random(1)
    for scene, (before, magic, after, refusal) in SCENES.items():
        lines, took = 10**9, 0.0
        for k in range(ROUNDS):
            notebook.run(before)
            if k == 0:
                lines, took = pressed(magic, line=lines)  # to its end
            elif k % 2:
                pressed(magic, line=moments.randint(1, lines))
            else:
                pressed(magic, delay=moments.uniform(0.0, took))
            text, error = notebook.run_anyhow(magic)
            assert not error or (refusal and refusal in text + error), f"{scene}: {error}"
            notebook.run(after)
            wait_until(lambda: not left_over(notebook), 10, f"{scene}: the end of all that was begun")
