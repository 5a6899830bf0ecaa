"""The broker of this machine that others find by its name: serve it, start it in the background, stop it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from labhub import runtime
from labhub.broker import DEFAULT_ENDPOINT, BrokerConfig, BrokerService
from labhub.errors import (
    AuthenticationError,
    BrokerUnreachable,
    InvalidSettings,
    LabHubError,
    TimeoutExpired,
)
from labhub.exhausted import raise_if_exhausted
from labhub.hub.holder import describe_process, is_kernel
from labhub.logs import event, get_logger
from labhub.messenger import Messenger
from labhub.names import check_name
from labhub.private import private_directory
from labhub.runtime import ConnectionFile
from labhub.settings import MetricsSettings, SettingsFile, read_settings, settings_path
from labhub.tasks import Task, words
from labhub.telling import Advice
from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, data_directory, load_key

logger = get_logger(__name__)

# How long a broker whose process runs may take to answer, before it is believed all the same; and how long it is asked
# before a look whether its process still runs (both in seconds).
ANSWER_PATIENCE = 2.0
ANSWER_SLICE = 0.2


@contextlib.contextmanager
def named_broker(
    name: str = "default",
    endpoint: str | None = None,
    on_ready: Callable[[str, str], object] | None = None,
    *,
    config: Path | None = None,
    metrics_port: int | None = None,
) -> Iterator[BrokerService]:
    """Make a broker that is found by its name; it serves once its `start` or `run` is called.

    While it listens, its connection file is in the runtime directory. Leaving the block stops it and removes the file.

    Parameters
    ----------
    name : str
        Name of the broker.
    endpoint : str, optional
        Where to listen; port 0 is any. Else where its settings say, or at the default; if that port is taken, any other
        is used.
    on_ready : callable, optional
        Called as ``on_ready(endpoint, public_key)`` once it listens.
    config : Path, optional
        Its settings file, which it follows; that of ``labhub.settings.settings_path`` unless given, if it is there.
    metrics_port : int, optional
        Port of its Prometheus endpoint, 0 for any; as its settings say unless given.

    Raises
    ------
    LabHubError
        A broker of this name runs already.
    InvalidSettings
        Its settings file cannot be used.
    MissingDependency, BrokerUnreachable
        There is no prometheus_client for the metrics, or their port is taken.
    InvalidName, SegmentAccessError
        The name cannot be one, or the runtime directory is not private.
    """
    written: list[ConnectionFile] = []
    settings = settings_of(name, config)

    def announce(bound_to: str, public_key: str) -> None:
        written.append(ConnectionFile.of_this_process(name, bound_to, public_key, str(settings.path)))
        written[0].write()
        if on_ready is not None:
            on_ready(bound_to, public_key)

    def refused(error: str) -> None:
        for at, file in enumerate(written):
            written[at] = msgspec.structs.replace(file, settings_error=error)
            written[at].write()

    told = ""

    def keep() -> None:
        nonlocal told
        if written:
            told = _keep(written[0], told)

    try:
        with runtime.claimed(name):
            service = _service(endpoint, announce, keep, settings, refused)
            try:
                with _metrics(service, settings.current.metrics, metrics_port):
                    yield service
            finally:
                service.stop()
    finally:
        # Last, because whoever stops a broker waits for that.
        for file in written:
            if file.pid == os.getpid():  # not in a forked child, which leaves its parent's broker alone
                file.remove()


def settings_of(name: str, config: Path | None = None) -> SettingsFile:
    """Read the settings file of a broker: the given one, or that of its name, which need not be there.

    Raises
    ------
    InvalidSettings
        It cannot be used.
    """
    if config is None:
        return SettingsFile(settings_path(name), optional=True)
    return SettingsFile(config.absolute())


def settings_error(name: str) -> str:
    """Why the settings file of a running broker is not believed; empty if it is, or there never was one."""
    running = runtime.find(name)
    if running is None:
        return ""
    if os.path.lexists(running.settings):
        try:
            read_settings(Path(running.settings))
        except InvalidSettings as error:
            return str(error)
    return running.settings_error


def _keep(file: ConnectionFile, told: str) -> str:
    """Write a connection file again that was removed under its broker, as the end of a login does.

    Returns
    -------
    str
        Why it cannot be written, which is logged unless it was `told` before; empty if it is there.
    """
    if runtime.is_written(file.name):
        return ""
    try:
        path = file.write()
    except (LabHubError, OSError) as error:  # the place of the directory is gone, too: until the next login, perhaps
        facts = event("connection_file_gone", path=str(runtime.runtime_path()), reason=words(error))
        if words(error) != told:
            logger.warning("the connection file was removed, and cannot be written again: %s", error, extra=facts)
        return words(error)
    facts = event("connection_file_renewed", path=str(path))
    logger.warning("the connection file was removed, and is written again: %s", path, extra=facts)
    return ""


def _service(
    endpoint: str | None,
    on_ready: Callable[[str, str], object],
    on_tick: Callable[[], object],
    settings: SettingsFile,
    on_settings: Callable[[str], object],
) -> BrokerService:
    wanted = settings.current.broker
    return BrokerService(
        BrokerConfig(
            endpoint=endpoint or wanted.listen or DEFAULT_ENDPOINT,
            on_ready=on_ready,
            on_tick=on_tick,
            max_channels_per_key=wanted.max_channels_per_key,
            max_watches_per_key=wanted.max_watches_per_key,
            max_consumers_per_key=wanted.max_consumers_per_key,
            settings=settings,
            on_settings=on_settings,
        )
    )


def _metrics(
    service: BrokerService, settings: MetricsSettings, port: int | None
) -> contextlib.AbstractContextManager[object]:
    if port is None:
        port = settings.port
    if port is None:
        return contextlib.nullcontext()
    from labhub.hub.metrics import serve  # here, so that nobody else pays for it

    return serve(service.look, settings.address, port, settings.max_channels)


def _is_free(name: str) -> bool:
    try:
        with runtime.claimed(name):
            return True
    except LabHubError:
        return False


def start_broker(
    name: str = "default",
    endpoint: str | None = None,
    timeout: float = 15.0,
    *,
    config: Path | None = None,
    metrics_port: int | None = None,
) -> ConnectionFile:
    """Start a broker in the background, unless it runs; it outlives this process.

    Parameters
    ----------
    name : str
        Name of the broker.
    endpoint, config, metrics_port : optional
        As `named_broker`.
    timeout : float
        How long it may take (in seconds).

    Returns
    -------
    ConnectionFile
        Where it is.

    Raises
    ------
    BrokerUnreachable
        It did not start; the message has the last line of its log.
    InvalidSettings
        Its settings file cannot be used.
    AuthenticationError
        A key file is unusable.
    InvalidName, SegmentAccessError, SegmentSpaceError
        The name cannot be one, the runtime directory or the one for keys and logs is not private, or there is no room
        for a key or a process.
    """
    check_name(name, "broker")
    if running := _not_dying(name):
        return running
    file = settings_of(name, config)  # here, for an error that is better than a line in a log
    # Here, because where there is no room for a key there is none for the log that would say so.
    for key in (CLIENT_KEY, SERVER_KEY):
        load_key(key)
    log = private_directory(data_directory()) / f"broker-{name}.log"
    words = [
        *("--name", name),
        *(() if endpoint is None else ("--listen", endpoint)),
        *(() if config is None else ("--config", str(file.path))),
        *(() if metrics_port is None else ("--metrics-port", str(metrics_port))),
    ]
    try:
        process = _launched(words, log)
    except OSError as error:
        raise_if_exhausted(error, f"cannot start the broker {name!r}")
        raise
    # So that it does not stay behind as a zombie when it ends before this process does.
    reaper = Task(process.wait, "labhub-broker-reaper")
    reaper.start()
    deadline = time.monotonic() + timeout
    while (running := runtime.find_live(name)) is None:
        # One that ended because another starter's broker has the name is no failure: that one is about to be found.
        if time.monotonic() > deadline or (process.returncode is not None and _is_free(name)):
            raise BrokerUnreachable(
                f"the broker {name!r} did not start: {_last_line(log)} (log: {log})", endpoint=endpoint or ""
            )
        time.sleep(runtime.LOOK_INTERVAL)
    if running.pid != process.pid:
        # Another starter was faster. Ours must not come up later, after that one was stopped perhaps.
        process.terminate()
        reaper.wait(timeout)
    return running


def _launched(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Run the broker's command, with what it says in a log, out of reach of Ctrl-C and of a kernel's interrupt."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "labhub.cli", "broker", "run", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _not_dying(name: str) -> ConnectionFile | None:
    """Where the broker of that name is; None if none runs.

    For some milliseconds after a SIGKILL a process still looks alive, so its broker is asked for an answer. One that
    neither answers nor ends, as it is stopped or very busy, runs: what is wrong with it, `connect` finds out.
    """
    deadline = time.monotonic() + ANSWER_PATIENCE
    while (running := runtime.find_live(name)) is not None:
        if time.monotonic() > deadline:
            break
        # A process that was killed before we asked finishes no handshake. A refusal is an answer, too, unless it is
        # the end of a dying one's connections.
        with contextlib.suppress(AuthenticationError), Messenger() as messenger:
            if messenger.connect(running.endpoint, running.public_key, timeout=ANSWER_SLICE):
                break
        time.sleep(runtime.LOOK_INTERVAL)
    return running


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def running_broker(name: str = "default") -> ConnectionFile:
    """Where the broker of that name is.

    Raises
    ------
    BrokerUnreachable
        None runs; the message says how to start one.
    """
    check_name(name, "broker")
    if running := runtime.find_live(name):
        return running
    option = "" if name == "default" else f" --name {name}"
    argument = "" if name == "default" else f"{name!r}, "
    raise BrokerUnreachable(
        f"no broker named {name!r} is running",
        advice=Advice(
            f"; start one with `labhub broker start{option}` in a terminal, or with "
            f"labhub.connect({argument}start=True)",
            shell=f"; start one with `labhub broker start{option}`",
            notebook=f"; start one with: %hub_broker start{option}",
        ),
    )


def broker_place(name: str) -> tuple[str, str] | None:
    """Endpoint and public key of the broker of that name; None if none runs."""
    found = runtime.find_live(name)
    return None if found is None else (found.endpoint, found.public_key)


def stop_broker(name: str = "default", timeout: float = 15.0) -> ConnectionFile:
    """Stop a broker, and wait until it has removed what dead producers left behind. Live channels go on.

    Parameters
    ----------
    name : str
        Name of the broker.
    timeout : float
        How long it may take (in seconds).

    Returns
    -------
    ConnectionFile
        What was stopped.

    Raises
    ------
    BrokerUnreachable
        None runs.
    TimeoutExpired
        It did not end in time.
    LabHubError
        It runs inside a notebook's kernel or this very process, which a signal would end with it.
    """
    running = running_broker(name)
    if is_kernel(running.pid):
        raise LabHubError(
            f"the broker {name!r} runs inside {describe_process(running.pid)}; stop it there: with "
            "%hub_broker stop if that magic started it, else with its own stop()"
        )
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while running.alive and running.is_of(runtime.find(name)):
        if time.monotonic() > deadline:
            raise TimeoutExpired(f"the broker {name!r}, pid {running.pid}, did not stop within {timeout:g} s")
        time.sleep(runtime.LOOK_INTERVAL)
    return running
