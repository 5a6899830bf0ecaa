"""Commands as scripts and people use them: in a process of their own, judged by output and exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from labhub import __version__, runtime
from labhub.hub import connect

ANY_PORT = "tcp://127.0.0.1:0"
BROKER_COMMAND = [sys.executable, "-c", "from labhub.cli.broker import labhub_broker; labhub_broker()"]


EXAMPLES = {
    "broker start": "labhub broker start --name",
    "broker stop": "labhub broker stop",
    "broker status": "labhub broker status --json",
    "broker run": "labhub broker run --listen",
    "channels": "labhub channels 'pump.*' --json",
    "top": "labhub top 'pump.*' --interval 0.5",
    "info": "labhub info pump.pressure",
    "tail": "labhub tail pump.pressure -n 3 --follow",
    "doctor": "labhub doctor --fix",
    "key show": "labhub key show",
    "key list": "labhub key list --json",
    "key enroll": "labhub key enroll 'PUBLIC_KEY' --comment",
    "key revoke": "labhub key revoke 'PUBLIC_KEY'",
    "key export": "labhub key export my.key",
    "key import": "labhub key import my.key",
    "record": "labhub record 'pump.*' -o run42.zarr",
    "verify": "labhub verify run42.zarr",
    "replay": "labhub replay run42.zarr --speed 10",
    "demo": "labhub demo --seconds 20",
}


@pytest.mark.parametrize("words", EXAMPLES)
def test_each_command_has_help_with_an_example_and_its_exit_codes(words, labhub):
    shown = labhub(*words.split(), "--help")
    assert shown.returncode == 0
    text = " ".join(shown.stdout.split())
    assert f"Example: {EXAMPLES[words]}" in text
    assert "Exit codes: 0 " in text
    assert "130 interrupted" in text


def test_no_command_is_left_out_of_the_help_and_of_the_page(labhub):
    from labhub.cli.app import app

    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    groups = {group.name: group.typer_instance for group in app.registered_groups} | {"": app}
    names = {
        f"{group} {command.name or command.callback.__name__}".strip()
        for group, typer in groups.items()
        for command in typer.registered_commands
    }
    assert names >= set(EXAMPLES)
    for name in names:
        assert f"labhub {name}" in page, name


def test_help_names_the_exit_codes(labhub):
    for words in ([], ["broker"], ["key"]):
        assert "3 no such broker or channel" in " ".join(labhub(*words, "--help").stdout.split())


def test_the_version(labhub):
    shown = labhub("--version")
    assert (shown.returncode, shown.stdout) == (0, f"labhub {__version__}\n")


@pytest.mark.parametrize(
    "words", [["nonsense"], ["broker", "start", "--port", "1"], ["demo", "--seconds", "0"], ["demo", "--seconds", "x"]]
)
def test_wrong_usage_is_2(words, labhub):
    shown = labhub(*words)
    assert shown.returncode == 2
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    "words", [["broker", "stop"], ["broker", "status"], ["channels", "--json"], ["top"], ["tail", "x"], ["info", "x"]]
)
def test_no_broker_is_3_and_one_line(words, labhub):
    shown = labhub(*words)
    assert (shown.returncode, shown.stdout) == (3, "")
    assert shown.stderr.startswith("labhub: no broker named 'default' is running; start one with `labhub broker start`")
    assert shown.stderr.count("\n") == 1


def test_a_bad_name_is_1_and_one_line(labhub):
    shown = labhub("broker", "start", "--name", "../x")
    assert shown.returncode == 1
    assert re.fullmatch(r"labhub: '\.\./x' cannot name a broker.*\n", shown.stderr)


def test_a_runtime_directory_open_to_others_is_4(private_dirs, labhub):
    (private_dirs / "run").chmod(0o755)
    shown = labhub("channels")
    assert shown.returncode == 4
    assert "chmod 700" in shown.stderr
    (private_dirs / "run").chmod(0o700)


def test_the_life_of_a_broker(labhub):
    started = labhub("broker", "start", "--listen", ANY_PORT)
    assert started.returncode == 0, started.stderr
    pid, endpoint = re.fullmatch(r"broker 'default' started: pid (\d+) at (tcp://\S+)\n", started.stdout).groups()
    again = labhub("broker", "start")
    assert (again.returncode, again.stdout) == (0, f"broker 'default' runs already: pid {pid} at {endpoint}\n")

    facts = json.loads(labhub("broker", "status", "--json").stdout)
    assert (facts["name"], facts["endpoint"], facts["pid"], facts["channels"]) == ("default", endpoint, int(pid), [])
    assert 0 < facts["uptime_s"] < 60
    text = labhub("broker", "status").stdout
    assert re.search(rf"endpoint +{endpoint}\n", text)
    assert re.search(r"channels +none\n", text)

    running = runtime.find_live()
    started = json.loads(labhub("broker", "start", "--json").stdout)
    place = {"name": "default", "endpoint": endpoint, "public_key": running.public_key, "pid": int(pid)}
    assert started == place | {"started": False}
    stopped = labhub("broker", "stop")
    assert (stopped.returncode, stopped.stdout) == (0, f"broker 'default' stopped: pid {pid}\n")
    assert runtime.find() is None
    assert json.loads(labhub("broker", "start", "--listen", ANY_PORT, "--json").stdout)["started"] is True
    assert json.loads(labhub("broker", "stop", "--json").stdout)["stopped"] is True


def test_status_never_shows_a_secret(broker, private_dirs, labhub):
    secrets = [path.read_text().split()[1] for path in (private_dirs / "data").glob("*.key")]
    assert len(secrets) == 2
    shown = labhub("broker", "status").stdout + labhub("broker", "status", "--json").stdout
    assert broker.public_key in shown
    assert not any(secret in shown for secret in secrets)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [BROKER_COMMAND, [sys.executable, "-m", "labhub.cli", "broker", "run"]])
def test_a_broker_in_the_foreground_prints_the_two_lines_and_ends_on_a_signal(command, number):
    with subprocess.Popen([*command, "--listen", ANY_PORT], stdout=subprocess.PIPE, text=True) as process:
        first, second = process.stdout.readline(), process.stdout.readline()
        found = runtime.find_live()
        assert first == f"[INFO] Broker: listening on {found.endpoint}\n"
        assert second == f"[INFO] Broker: server_public_key = {found.public_key}\n"
        assert len(found.public_key) == 40
        process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stdout.read() == ""
    assert runtime.find() is None


def test_a_second_broker_in_the_foreground_is_refused(broker, labhub):
    shown = labhub("broker", "run")
    assert shown.returncode == 1
    assert f"runs already: pid {broker.pid} at {broker.endpoint}" in shown.stderr


def test_channels_for_people_and_for_scripts(broker, labhub):
    empty = labhub("channels")
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", "no channel matches '*'\n")
    assert json.loads(labhub("channels", "--json").stdout) == []
    shape = {"shape": (64, 8), "dims": ("time", "channel"), "sample_rate": 1e4}
    with (
        connect() as hub,
        hub.producer("daq.raw", dtype="f4", units="V", capacity=32, **shape),
        hub.producer("pump.log", dtype=[("pressure", "f8"), ("on", "?")]),
    ):
        text = labhub("channels").stdout
        assert re.search(rf"daq\.raw +float32\[64, 8\] +V +{os.getpid()} alive +0 ", text)
        assert re.search(r"pump\.log +\{pressure, on\} ", text)
        assert "\x1b" not in text
        (daq,) = json.loads(labhub("channels", "daq.*", "--json").stdout)
        assert daq["schema"]["shape"] == [64, 8]
        assert daq["age_s"] >= 0
        expected = {"name": "daq.raw", "layout": "float32[64, 8]", "units": {"value": "V"}, "sample_rate": 1e4}
        expected |= {"capacity": 32, "policy": "Sequential_sync", "liveness": "alive", "producer_pid": os.getpid()}
        assert expected.items() <= daq.items()
    assert labhub("channels", "--broker", "other").returncode == 3


def test_the_command_line_imports_no_more_than_it_needs():
    program = "import sys, labhub.cli.app; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert not {"numpy", "zmq", "xarray", "pandas", "scipy", "rich", "psutil", "IPython"} & set(loaded)


def test_a_broker_in_a_terminal_reads_its_settings_at_hangup_and_ends_when_it_is_closed(private_dirs, wait_until):
    settings = private_dirs / "config" / "broker-default.toml"
    settings.write_text(f'[broker]\nlisten = "{ANY_PORT}"\n')
    terminal = pexpect.spawn(sys.executable, ["-m", "labhub.cli", "broker", "run"], timeout=60, encoding="utf-8")
    terminal.expect("server_public_key")
    pid = runtime.find_live().pid
    settings.write_text("[access.ann]\nconsume = 3\n")
    os.kill(pid, signal.SIGHUP)
    terminal.expect("the settings stay as they were")
    terminal.expect("access.ann.consume")
    assert runtime.find_live().pid == pid
    terminal.ptyproc.fileobj.close()  # and no signal but the kernel's own SIGHUP
    wait_until(lambda: runtime.find() is None, 60, "the end of the broker")
    assert terminal.wait() == 0


def test_wrong_settings_end_a_start_with_one_line(labhub, private_dirs):
    path = private_dirs / "mine.toml"
    path.write_text("[access.ann]\nconsum = []\n")
    done = labhub("broker", "start", "--config", str(path))
    assert done.returncode == 1
    assert done.stderr == f"labhub: {path}, line 2: access.ann.consum: there is no such setting\n"
    assert labhub("broker", "start", "--metrics-port", "70000").returncode == 2
