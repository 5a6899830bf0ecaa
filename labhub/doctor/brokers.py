"""Brokers: their connection files, whether they answer, and what they know."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import psutil

from labhub import __version__, liveness, runtime
from labhub.doctor.finding import Finding, command, dead, examined
from labhub.doctor.live import is_stopped
from labhub.errors import AuthenticationError, InvalidSettings, LabHubError, SegmentAccessError
from labhub.messenger import Messenger
from labhub.names import NAME
from labhub.protocol.access import EVERY
from labhub.protocol.messages import ChannelEntry
from labhub.runtime import ConnectionFile
from labhub.settings import read_settings
from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, read_key
from labhub.transport.enrolled import EnrolledKey
from labhub.transport.keys import enrolled_keys

CHECK = "brokers"
PATIENCE = 2.0
"""How long a broker may take to answer (in seconds)."""
FEW_FILES = 24
"""With fewer open files left, a broker is in trouble."""


class Brokers:
    """All brokers of this user on this machine.

    Attributes
    ----------
    registered : dict of str to str
        Name of the channel for each instance id (in hexadecimal) that one of them knows.
    """

    def __init__(self) -> None:
        self.registered: dict[str, str] = {}

    def examine(self) -> Iterator[Finding]:
        """Look at each connection file, and ask each broker that runs."""
        try:
            files = runtime.connection_files()
        except (SegmentAccessError, OSError):
            return  # the runtime directory is reported as such, and nobody trusts what is in it
        names = [_name_of(path) for path in files]
        running = 0
        for path, name in zip(files, names, strict=True):
            findings = list(examined(CHECK, path, self._file(path, name)))
            running += not any(finding.check == "connection files" for finding in findings)
            yield from findings
        yield from examined(CHECK, runtime.runtime_path(), _leftovers(names))
        yield Finding(CHECK, "ok", "running", str(running))

    def _file(self, path: Path, name: str) -> Iterator[Finding]:
        found = runtime.find_live(name)
        if found is None:
            yield _stale(path, name)
        else:
            yield from self._running(found, path)

    def _running(self, broker: ConnectionFile, path: Path) -> Iterator[Finding]:
        status = path.lstat()
        if stat.S_IMODE(status.st_mode) & 0o077:
            yield Finding(CHECK, "problem", str(path), "open to others", command("chmod", "600", path))
        if broker.version != __version__:
            what = f"runs labhub {broker.version or 'of another version'}, this is {__version__}"
            yield Finding(CHECK, "problem", broker.name, what, _restart(broker.name))
        yield from _key_change(broker)
        yield from _settings(broker)
        yield from self._ask(broker)

    def _ask(self, broker: ConnectionFile) -> Iterator[Finding]:
        try:
            read_key(CLIENT_KEY)
            entries, numbers = _answers(broker)
        except FileNotFoundError:
            what = "runs, but this user's client key is gone (or LABHUB_DATA_DIR differs); a new one is not let in"
            yield Finding(CHECK, "problem", broker.name, what, _restart(broker.name))
            return
        except LabHubError as error:
            yield _silent(broker, error)
            return
        if full := _open_files(broker.pid):
            yield Finding(CHECK, "problem", broker.name, f"can serve hardly anybody more: {full}")
        if numbers.get("settings_refused") and not os.path.lexists(broker.settings):
            what = f"{broker.settings}, its settings, is gone: what it said holds until the broker is started again"
            yield Finding(CHECK, "problem", broker.name, what)
        for entry in entries:
            self.registered[str(entry.metadata.get("instance_id"))] = entry.channel_name
            if _segment_is_gone(entry):
                what = f"registered by process {entry.producer_pid}, but its segment is gone; it is forgotten soon"
                yield Finding("channels", "note", entry.channel_name, what)
            if entry.liveness == "stalled":
                what = f"its producer, process {entry.producer_pid}, lives but is silent: stopped, or very busy"
                fix = command("kill", "-CONT", str(entry.producer_pid))
                yield Finding("channels", "note", entry.channel_name, what, fix)


def _segment_is_gone(entry: ChannelEntry) -> bool:
    return liveness.is_here(entry.metadata) and not (Path(entry.metadata["shm_dir"]) / entry.shm_name).exists()


def _silent(broker: ConnectionFile, error: LabHubError) -> Finding:
    if is_stopped(broker.pid):
        what = f"does not answer: its process {broker.pid} is stopped"
        return Finding(CHECK, "problem", broker.name, what, command("kill", "-CONT", str(broker.pid)))
    if full := _open_files(broker.pid):
        return Finding(CHECK, "problem", broker.name, f"does not answer newcomers: {full}", _restart(broker.name))
    why = "keys do not match" if isinstance(error, AuthenticationError) else "does not answer"
    return Finding(CHECK, "problem", broker.name, f"{why}: {error}", _restart(broker.name))


def _open_files(pid: int) -> str:
    """What is to say of the open files of a process that has hardly any left; empty if it has."""
    try:
        process = psutil.Process(pid)
        taken, (most, _) = process.num_fds(), process.rlimit(psutil.RLIMIT_NOFILE)
    except (psutil.Error, OSError):
        return ""
    few = most != psutil.RLIM_INFINITY and taken + FEW_FILES > most
    return f"its process {pid} has {taken} of {most} open files; raise the limit: ulimit -n" if few else ""


def _answers(broker: ConnectionFile) -> tuple[list[ChannelEntry], Mapping[str, float]]:
    """Return the channels of a broker, and its own numbers."""
    with Messenger() as messenger:
        if not messenger.connect(broker.endpoint, broker.public_key, timeout=PATIENCE):
            raise LabHubError(f"nobody listens at {broker.endpoint}, though its process {broker.pid} runs")
        return messenger.list_channels(timeout=PATIENCE), messenger.query_metrics(timeout=PATIENCE).values


def _key_change(broker: ConnectionFile) -> Iterator[Finding]:
    try:
        key = read_key(SERVER_KEY).public
    except (FileNotFoundError, AuthenticationError):
        return
    if key != broker.public_key:
        what = "was started with another key than the server key that is there now; clients elsewhere need one of them"
        yield Finding(CHECK, "note", broker.name, what, _restart(broker.name))


def _settings(broker: ConnectionFile) -> Iterator[Finding]:
    if not os.path.lexists(broker.settings):
        return
    try:
        rules = read_settings(Path(broker.settings)).access
    except InvalidSettings as error:
        yield Finding(CHECK, "problem", broker.name, f"its settings are broken, so older ones hold: {error}")
        return
    if broker.settings_error:
        what = f"its settings are not believed, so older ones hold: {broker.settings_error}"
        yield Finding(CHECK, "problem", broker.name, what)
    known = {EVERY, *(text for entry in _enrolled() for text in (entry.name, entry.key))}
    for name in sorted(rules.keys() - known):
        what = f"{broker.settings} has rules for the key {name!r}, and none is enrolled so"
        yield Finding(CHECK, "note", broker.name, what, command("labhub", "key", "list"))


def _enrolled() -> list[EnrolledKey]:
    try:
        return enrolled_keys()
    except (AuthenticationError, OSError):
        return []  # reported with the keys


def _stale(path: Path, name: str) -> Finding:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        return Finding(CHECK, "problem", str(path), "not a file of yours", command("rm", path))
    known = runtime.find(name)
    what = "not a connection file" if known is None else f"the broker that wrote it, process {known.pid}, is dead"
    return dead("connection files", path, what, partial(_bury, path, name))


def _leftovers(names: list[str]) -> Iterator[Finding]:
    """Files that a broker's sudden end left beside its connection file."""
    directory = runtime.runtime_directory()
    for path in sorted(directory.glob("broker-*.lock")):
        name = path.name.removeprefix("broker-").removesuffix(".lock")
        if name not in names and NAME.fullmatch(name) and _free(name):
            yield dead("connection files", path, "the lock of a broker that is dead", partial(_bury, path, name))
    for path in sorted(directory.glob(".broker-*.json.*")):
        name = path.name.removeprefix(".broker-").rpartition(".json.")[0]
        if NAME.fullmatch(name) and _free(name):
            yield dead("temporaries", path, "half a connection file, whose writer died", partial(_bury, path, name))


def _free(name: str) -> bool:
    """Whether nobody holds the lock of a broker's name. Asked of the kernel: to try it could stop a broker's start."""
    try:
        status = runtime.path_of(name).with_suffix(".lock").stat()
        locks = Path("/proc/locks").read_text()
    except OSError:
        return True
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return not any(line.split()[1] == "FLOCK" and place in line.split() for line in locks.splitlines())


def _bury(path: Path, name: str) -> bool:
    """Remove a broker's file while its name is ours, so that no broker can be writing it; whether it was removed."""
    try:
        with runtime.claimed(name):
            if runtime.find_live(name) is None:
                path.unlink(missing_ok=True)
    except (LabHubError, OSError):
        return False
    return not os.path.lexists(path)


def _name_of(path: Path) -> str:
    return path.name.removeprefix("broker-").removesuffix(".json")


def _restart(name: str) -> str:
    stop, start = (command("labhub", "broker", word, "--name", name) for word in ("stop", "start"))
    return f"{stop}; {start}"
