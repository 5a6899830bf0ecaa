"""Fault 17: names that would lead elsewhere, at every entrance."""

from __future__ import annotations

import json
import os
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

import labhub
from labhub import DataBlockPolicy, Messenger, ProducerInfo, create_datablock_producer, find_datablock_consumer, runtime
from labhub.cli.app import app
from labhub.datablock.location import segment_directory
from labhub.errors import InvalidName, LabHubError
from labhub.hub import named_broker, start_broker, stop_broker
from labhub.hub.hub import Hub
from labhub.runtime import ConnectionFile
from labhub.transport.curve import CLIENT_KEY, load_key
from tests.faults.rounds import Fault
from tests.faults.security_peers import RawPeer, broker_process, tree

FIRST = string.ascii_letters + string.digits
OTHERS = FIRST + "._-"
MARK = f"hostile{os.getpid()}"  # what would be found if a name led somewhere
PIECES = [
    "../", "..", "/", "\\", "\0", "\n", " ", "~", "$HOME", "%n", "{x}", ".", "-", "_", "a", MARK, f"../../../{MARK}",
    f"/dev/shm/{MARK}", "é", "р", "ｐ", "\u200b", "\u202e", "\ud800", "\udcff", "\U0001f4a5", "a" * 129, "a" * 300,
]  # fmt: skip


def is_good(name: str) -> bool:
    return 0 < len(name) <= 128 and name[0] in FIRST and set(name) <= set(OTHERS)


HOSTILE = (
    st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=6).map("".join) | st.text(max_size=300)
).filter(lambda name: not is_good(name))

Entrance = Callable[[str], Any]


@pytest.fixture
def place(private_dirs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConnectionFile]:
    (private_dirs / "home").mkdir()
    monkeypatch.chdir(private_dirs / "home")
    with broker_process() as place:
        yield place


def info(shm_name: str) -> ProducerInfo:
    return ProducerInfo(shm_name, os.getpid(), bytes(32), 1)


def python_entrances(hub: Hub, messenger: Messenger) -> list[Entrance]:
    def named(name: str) -> None:
        with named_broker(name):
            pass

    def write(name: str) -> None:
        ConnectionFile.of_this_process(name, "tcp://127.0.0.1:1", "").write()

    return [
        lambda name: hub.producer(name, like=0.0),
        *(hub.consumer, hub.find, hub.wait_for, hub.__getitem__, hub.peek),
        lambda name: create_datablock_producer(name, DataBlockPolicy.SINGLE),
        lambda name: find_datablock_consumer(name, 0),
        lambda name: messenger.register_producer(name, info("c")),
        lambda name: messenger.register_producer("c", info(name)),
        *(messenger.deregister_producer, messenger.discover_producer, messenger.register_consumer),
        *(messenger.query, messenger.query_schema, messenger.query_metrics),
        lambda name: messenger.report_metrics(name, {}),
        lambda name: messenger.report_checksum_error(name, 0),
        *(labhub.connect, start_broker, stop_broker, named, write, runtime.find, segment_directory),
    ]


BUILT = typer.main.get_command(app)  # once, as that takes longer than all the rest


def command(*words: str) -> Entrance:
    """The command, in this process; an option and its value are one word, so that a name that begins with - is one."""
    return lambda name: BUILT([*words[:-1], words[-1] + name], standalone_mode=False)


COMMANDS = [
    command("register", "--schema=f8", "--", ""),
    *(command("broker", action, "--name=") for action in ("start", "stop", "status", "run")),
    *(command(*words, "--broker=") for words in (("info", "c"), ("tail", "c"), ("channels",))),
]


def refusals_on_the_wire(peer: RawPeer, name: str) -> int:
    """Say a name in each field of each request that has one; how often it was refused."""
    good = {"channel_name": "c", "shm_name": "c", "schema_hash": "0" * 64, "schema_version": 1, "producer_pid": 1}
    good |= {"consumer_pid": 1, "seq": 1, "metrics": {}}
    for kind, field in [("REG_REQ", "channel_name"), ("REG_REQ", "shm_name"), ("HEARTBEAT_REQ", "channels")] + [
        (f"{word}_REQ", "channel_name")
        for word in ("DISC", "DEREG", "CONSUMER_REG", "CONSUMER_DEREG", "SCHEMA", "METRICS_REPORT", "CHECKSUM_ERROR")
    ]:
        peer.flood([kind.encode(), json.dumps(good | {field: [name] if field == "channels" else name}).encode()])
    replies = [(kind, json.loads(body).get("error_code")) for kind, body in peer.settle()]
    assert set(replies) == {(b"ERROR", "INVALID_REQUEST")}, (name, replies)
    return len(replies)


@pytest.mark.fault(17, quick=60, full=1000, share=0.5)
def test_17_hostile_names_in_python_on_the_wire_and_in_the_command(
    fault: Fault, place: ConnectionFile, private_dirs: Path
) -> None:
    # Under a name of its own: a command in this process would open and close the hub "default".
    given_place = {"endpoint": place.endpoint, "public_key": place.public_key}
    with labhub.connect("ours", **given_place) as hub, Messenger() as messenger, RawPeer(place) as peer:
        assert messenger.connect(place.endpoint, place.public_key)
        entrances = [*python_entrances(hub, messenger), *COMMANDS]
        before = tree(private_dirs)

        @settings(max_examples=fault.at_least, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(HOSTILE)
        def refused(name: str) -> None:
            with fault.round():
                for enter in entrances:
                    with pytest.raises(InvalidName):
                        enter(name)
                fault.happened(len(entrances) + refusals_on_the_wire(peer, name))
                assert tree(private_dirs) == before

        refused()
        assert hub.channels() == []
    assert not [at for parent in private_dirs.parents for at in os.listdir(parent) if MARK in at]


@pytest.mark.fault(17, quick=20, full=200, share=0.2)
@pytest.mark.usefixtures("place")
def test_17_hostile_names_in_magics(fault: Fault, private_dirs: Path) -> None:
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "labhub")
    shell.run_line_magic("hub_connect", "")  # so that it has all files open that it needs
    before = tree(private_dirs)
    lines = ["hub_info {}", "hub_tail {}", "hub_plot {}", "hub_connect {}", "hub_discover --name={}"]
    lines += [f"hub_broker {action} --name={{}}" for action in ("start", "stop", "status", "restart")]
    # One word, and not an option: whatever the shell would make several words of is not one name.
    words = HOSTILE.filter(lambda name: name and name.isprintable() and not set(name) & set(" -\"'\\{}$#?"))

    @settings(max_examples=fault.at_least, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(words)
    def refused(name: str) -> None:
        with fault.round():
            for line in lines:
                magic, _, rest = line.format(name).partition(" ")
                with pytest.raises(UsageError, match="cannot name"):
                    shell.run_line_magic(magic, rest)
            with pytest.raises(UsageError, match="cannot name"):
                shell.run_cell_magic("hub_producer", name, "pass")
            fault.happened(len(lines) + 1)
            assert tree(private_dirs) == before

    refused()
    shell.run_line_magic("unload_ext", "labhub")


@pytest.mark.fault(17, quick=3, full=3, share=0.1)
@pytest.mark.usefixtures("place")
def test_17_hostile_names_on_the_command_line(fault: Fault, private_dirs: Path) -> None:
    before = tree(private_dirs)
    for words in fault.each(
        [["info", f"../../{MARK}"], ["tail", "\udcff"], ["broker", "start", "--name", f"../{MARK}"]],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "labhub.cli", *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert "cannot name a" in done.stderr
        assert done.stderr.count("\n") == 1
        fault.happened()
        assert tree(private_dirs) == before


def use_all() -> None:
    create_datablock_producer("c", DataBlockPolicy.SINGLE).close()
    runtime.names()
    load_key(CLIENT_KEY)


@pytest.mark.fault(17, quick=18, full=18, share=0.1)
def test_17_hostile_directories_in_the_variables(
    fault: Fault, private_dirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_all()
    file, link = private_dirs / "file", private_dirs / "link"
    (private_dirs / "behind").mkdir(mode=0o700)
    file.touch()
    link.symlink_to("behind")
    before = tree(private_dirs)
    values = [file, file / "x", link, "/dev/null", "/" + "x" * 300, "/proc/none/x"]
    for variable, value in fault.each((v, x) for v in ("SHM", "RUNTIME", "DATA") for x in values):
        with monkeypatch.context() as patched, pytest.raises(LabHubError):
            patched.setenv(f"LABHUB_{variable}_DIR", str(value))
            use_all()
        fault.happened()
        assert tree(private_dirs) == before
    monkeypatch.setenv("LABHUB_SHM_DIR", f"{private_dirs}/\udcff")  # a byte that is no text
    with pytest.raises(LabHubError, match="UTF-8"):
        use_all()
