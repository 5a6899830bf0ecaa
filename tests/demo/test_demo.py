"""The demo as a user runs it: real processes, real input, exact counts, nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import psutil
import pytest
import xarray as xr

from tests.demo.running import is_empty, rows


def await_line(process: subprocess.Popen[str], words: str) -> None:
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(f"{words!r} was never printed: {process.stderr.read()}")


def test_five_seconds_of_demo_account_for_every_slot(start_demo, private_dirs):
    demo = start_demo(5)
    text, errors = demo.communicate(timeout=60)
    assert demo.returncode == 0, text + errors
    assert errors == ""
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    table = rows(text)
    produced = {name: table[name][0] for name in ("host.sensors", "bio.ppg", "cam.frames")}
    assert produced["host.sensors"] > 150
    assert 20 <= produced["bio.ppg"] <= 26
    assert produced["cam.frames"] >= 500
    for reader, channel in {
        "monitor": "host.sensors",
        "pulse meter": "bio.ppg",
        "recorder, lossless": "cam.frames",
        "slow display": "cam.frames",
    }.items():
        received, lost = table[reader][:2]
        assert received + lost == produced[channel], text
    assert table["recorder, lossless"][1] == 0
    assert table["slow display"][1] > 0
    assert "Every slot is accounted for" in text
    assert is_empty(private_dirs / "tmp")
    assert is_empty(private_dirs / "shm")
    assert is_empty(private_dirs / "run")


def test_ctrl_c_ends_the_demo_with_its_table(start_demo, private_dirs):
    demo = start_demo(60)
    await_line(demo, "Ctrl-C ends it early")
    children = psutil.Process(demo.pid).children()
    assert len(children) == 8
    demo.send_signal(signal.SIGINT)
    text, errors = demo.communicate(timeout=30)
    assert demo.returncode == 0, text + errors
    assert errors == ""
    assert "slow display" in rows(text)
    assert not any(child.is_running() for child in children)
    assert is_empty(private_dirs / "tmp")
    assert is_empty(private_dirs / "shm")


def test_ctrl_c_before_the_first_slot_ends_quietly(start_demo, private_dirs, wait_until):
    demo = start_demo(60)
    wait_until(lambda: psutil.Process(demo.pid).children(), what="the broker")
    demo.send_signal(signal.SIGINT)
    text, errors = demo.communicate(timeout=30)
    assert (demo.returncode, text) == (130, "")
    assert "Traceback" not in errors
    assert is_empty(private_dirs / "tmp")


@pytest.mark.parametrize("victim", ["produce", "read", "serve"])
def test_a_process_that_dies_ends_the_demo_with_one_line(start_demo, private_dirs, victim):
    demo = start_demo(60)
    await_line(demo, "Ctrl-C ends it early")
    children = psutil.Process(demo.pid).children()
    os.kill(next(child.pid for child in children if victim in child.cmdline()), signal.SIGKILL)
    text, errors = demo.communicate(timeout=40)
    assert demo.returncode == 1, text + errors
    assert re.fullmatch(r"labhub: .*ended with status -9\n", errors)
    assert not any(child.is_running() for child in children)
    assert is_empty(private_dirs / "tmp")


def test_a_killed_demo_takes_its_processes_with_it(start_demo, private_dirs):
    demo = start_demo(60)
    await_line(demo, "Ctrl-C ends it early")
    children = psutil.Process(demo.pid).children()
    demo.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert [path for path in private_dirs.rglob("shm/**/*") if path.is_file()] == []


def test_a_demo_that_is_recorded_and_proven(start_demo, tmp_path):
    store = tmp_path / "demo.zarr"
    demo = start_demo(3, "--record", str(store))
    text, errors = demo.communicate(timeout=120)
    assert demo.returncode == 0, text + errors
    table = rows(text)
    for channel in ("host.sensors", "bio.ppg", "cam.frames"):
        found = xr.open_zarr(store, group=channel, chunks=None)
        missing = int(found["gap_slots"].sum()) if "gap_slots" in found else 0
        n_slots = found.sizes["slot"] if "slot" in found.sizes else found.sizes["time"]
        assert n_slots + missing == table[channel][0]
    assert "signed chunks" in text


def test_a_demo_overwrites_no_recording(start_demo, tmp_path):
    demo = start_demo(3, "--record", str(tmp_path))
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 2
    assert "choose another name" in errors
