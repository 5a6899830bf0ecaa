"""A recording that runs: what `Hub.record` gives."""

from __future__ import annotations

import os
import platform
import shutil
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, SupportsFloat

import labhub
from labhub.bound import Bound
from labhub.errors import ClosedError, ForkedProcessError, InvalidArgument, LabHubError, RecordingError
from labhub.recording.attaching import attach, words_of
from labhub.recording.channel import ChannelReader
from labhub.recording.layout import group_attrs
from labhub.recording.store import RecordingStore
from labhub.recording.writer import Queue, Writer
from labhub.tables import html_facts
from labhub.tasks import Task
from labhub.words import quoted, size

if TYPE_CHECKING:
    from labhub.hub import Hub
    from labhub.hub.channels import ChannelInfo
    from labhub.hub.consumers import Consumer

QUEUE_NBYTES = 256 * 1024 * 1024
TICK = 0.1
LONGEST_TITLE = 1000
"""Most bytes of a title: each store of the recording begins with it."""


@dataclass(frozen=True)
class RecordingStatus:
    """How a recording goes.

    Attributes
    ----------
    state : {"recording", "stopped", "failed"}
    seconds : float
        Since it began (in seconds).
    n_slots, stored : int
        Slots read, and slots that are in the store for good.
    missing : int
        Slots that were lost on the way; the gap tables say which.
    nbytes : int
        Size of the store that is being written (in bytes).
    rate : float
        Bytes of slots per second, over the whole recording.
    waiting : int
        Bytes of slots that were read and wait to be written.
    free : int
        Bytes that are free where it is written.
    error : str
        Why it failed, or which channels are not recorded (any more), and why; empty if nothing is wrong.
    """

    state: Literal["recording", "stopped", "failed"]
    seconds: float
    n_slots: int
    stored: int
    missing: int
    nbytes: int
    rate: float
    waiting: int
    free: int
    error: str = ""


class Recording(Bound):
    """Channels on their way to disk. Made by `Hub.record`; a context manager that stops it.

    Attributes
    ----------
    path : Path
        The first store.
    channels : tuple of str
        What is recorded; a channel that cannot be is in `errors` instead.
    """

    def __init__(
        self,
        hub: Hub,
        channels: Sequence[str],
        path: str | os.PathLike[str],
        *,
        split_nbytes: int | None = None,
        split_seconds: float | None = None,
        follow: bool = True,
        compression: Literal["zstd", "none"] = "zstd",
        memory: int = QUEUE_NBYTES,
        title: str = "",
    ) -> None:
        _check_options(channels, split_nbytes, split_seconds, compression)
        _check_title(title)
        self.path = Path(path)
        self._compression = compression
        self._queue = Queue(memory)
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._error: BaseException | None = None
        self._lost = 0
        self._closed = False
        self._began = self._ended = time.monotonic()
        attached = attach(hub, channels, follow, str(self.path))
        self._refused = attached.refused
        self.channels = tuple(info.name for info, _ in attached.consumers)
        try:
            self._provenance = _provenance(hub, self._refused, title)
            written = {info.name: (consumer.schema, _source(info, consumer)) for info, consumer in attached.consumers}
            self._writer = Writer(self._open_store, written, split_nbytes, split_seconds)
        except BaseException:
            attached.close()
            raise
        self._readers = [ChannelReader(c, self._queue.put, str(self.path)) for _, c in attached.consumers]
        self._thread = Task(self._run, f"labhub-record-{self.path.name}")
        for reader in self._readers:
            reader.start()
        self._thread.start()

    def mark(self, label: str) -> None:
        """Note that something happened now; it is kept with the time in the store's attribute ``markers``.

        Raises
        ------
        ClosedError
            The recording has ended.
        ForkedProcessError
            In a forked child: the recording is its parent's.
        """
        self._check_process()
        marker = {"time_ns": time.time_ns(), "label": str(label)}  # now, not when the writer lets it in
        with self._lock:
            if self._closed or not self.running:
                raise ClosedError(f"the recording {self.path} has ended; a marker has no place any more")
            self._writer.mark(marker)

    @property
    def running(self) -> bool:
        """Whether it still records, in this process."""
        return self._thread.is_alive() and self._error is None

    @property
    def errors(self) -> dict[str, LabHubError]:
        """Why a channel is not recorded, from the beginning or any longer: by its name, what is wrong with it.

        A dtype that Zarr cannot store, for example, or another schema. The other channels go on.
        """
        read = {reader.channel: reader.error for reader in self._readers if reader.error is not None}
        return self._refused | read | self._writer.errors

    @property
    def paths(self) -> list[Path]:
        """The stores that were begun, in their order; more than one if the recording is split."""
        return [Path(p) for p in self._writer.paths]

    @property
    def status(self) -> RecordingStatus:
        """How it goes, at this moment; `ForkedProcessError` in a forked child, whose parent knows."""
        self._check_process()
        seconds = (time.monotonic() if self._thread.is_alive() else self._ended) - self._began
        read = sum(r.n_slots for r in self._readers)
        nbytes = sum(r.n_slots * r.consumer.schema.slot_nbytes for r in self._readers)
        return RecordingStatus(
            state="failed" if self._error else "recording" if self.running else "stopped",
            seconds=seconds,
            n_slots=read,
            stored=sum(self._writer.committed.values()),
            missing=sum(r.n_missing for r in self._readers),
            nbytes=self._writer.store.nbytes,
            rate=nbytes / seconds if seconds else 0.0,
            waiting=self._queue.nbytes,
            free=_free_nbytes(self.path.parent),
            error="; ".join(filter(None, (str(self._error or ""), words_of(self.errors)))),
        )

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended: all channels were closed (if it does not follow them), or it failed.

        Returns
        -------
        bool
            False if that did not happen within `timeout` seconds (None waits for ever).

        Raises
        ------
        ForkedProcessError
        """
        self._check_process()
        return self._thread.wait(timeout)

    def stop(self) -> RecordingStatus:
        """Read what is in the rings now, write it, sign, and close the store. Twice is harmless.

        Raises
        ------
        RecordingError
            It could not be written to the end; what was committed before is readable, and `lost` says how many slots
            are missing. Or a channel was left out or ended early, see `errors`; what came before is stored, and all of
            the other channels.
        ForkedProcessError
            In a forked child: the recording is its parent's.
        """
        self._check_process()
        for reader in self._readers:
            reader.stop()
        self._thread.wait()
        if self._error is not None:
            stored = sum(self._writer.committed.values())
            raise RecordingError(
                f"the recording {self.path} ended early: {self._error}. {stored} slots are stored and readable, "
                f"{self._lost} that were read are not; the channels were not touched",
                path=str(self.path),
                lost=self._lost,
            ) from self._error
        if errors := self.errors:
            kept = ", ".join(f"{n} slots of {channel}" for channel, n in self._writer.committed.items())
            message = f"not every channel was recorded to its end: {words_of(errors)}. Stored: {kept}"
            raise RecordingError(message, path=str(self.path)) from next(iter(errors.values()))
        return self.status

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedProcessError(f"the recording {self.path} belongs to the process that this one was forked from")

    def _run(self) -> None:
        try:
            self._write()
        except BaseException as error:  # noqa: BLE001  # told by `stop` and `status`, whatever it is
            self._fail(error)
        finally:
            self._ended = time.monotonic()

    def _write(self) -> None:
        open_channels = set(self.channels)
        while open_channels:
            arrival = self._queue.get(TICK)
            with self._lock:
                if arrival is not None:
                    self._writer.accept(arrival)
                    if arrival.ended:
                        open_channels.discard(arrival.channel)
                self._writer.tick()
            for reader in self._readers:
                if reader.channel in self._writer.errors:  # what it still reads can go nowhere
                    reader.stop(drain=False)
        with self._lock:
            self._closed = True
            self._writer.close()

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._queue.drop()
        for reader in self._readers:  # at once: nobody is to wait for a recorder that cannot go on
            reader.stop(drain=False)
        self._writer.rescue()
        for reader in self._readers:
            reader.join()
        self._lost = sum(r.n_slots for r in self._readers) - sum(self._writer.committed.values())

    def _open_store(self, number: int) -> RecordingStore:
        path = self.path if number == 0 else self.path.with_name(f"{self.path.stem}-{number + 1:04d}{self.path.suffix}")
        return RecordingStore(path, self._provenance | {"part": number + 1}, self._compression)

    def _instead(self) -> str:
        return f"send its path, {str(self.path)!r}; while it runs, it is stopped and marked here"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:
            return  # a forked child leaves its parent's recording alone
        try:
            self.stop()
        except RecordingError as failure:
            if error is None:
                raise
            error.add_note(f"and {failure}")

    def _repr_html_(self) -> str:
        now = self.status
        facts = [
            ("state", now.state + (f": {now.error}" if now.error else "")),
            ("slots", f"{now.stored} stored of {now.n_slots}, {now.missing} missing"),
            ("rate", f"{size(round(now.rate))}/s"),
            ("free", size(now.free)),
        ]
        return html_facts(f"recording {self.path.name}", facts)

    def __repr__(self) -> str:
        state = "failed" if self._error else "recording" if self.running else "stopped"
        bad = "".join(f"; {channel} is not recorded" for channel in self.errors)
        return f"Recording({self.path.name!r}, {', '.join(self.channels)}: {state}{bad})"


def _check_options(channels: Sequence[object], split_nbytes: Any, split_seconds: Any, compression: str) -> None:
    for channel in channels:
        if not isinstance(channel, str):
            raise InvalidArgument(f"channels are given one by one: record('a', 'b.*', store=...), not {channel!r}")
    if compression not in ("zstd", "none"):
        raise InvalidArgument(f"compression is 'zstd' or 'none', not {compression!r}")
    for value, name, unit in (split_nbytes, "split_nbytes", "bytes"), (split_seconds, "split_seconds", "seconds"):
        if value is not None and (not isinstance(value, SupportsFloat) or not float(value) > 0):
            raise InvalidArgument(f"{name} is a positive number of {unit}, not {value!r}")


def _check_title(title: object) -> None:
    if not isinstance(title, str) or len(title.encode(errors="replace")) > LONGEST_TITLE:
        raise InvalidArgument(f"title is a text of at most {LONGEST_TITLE} bytes, not {quoted(title)}")
    try:
        title.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"title holds what UTF-8 cannot hold: {error}") from None


def _free_nbytes(directory: Path) -> int:
    """Return the free space where a store is written; 0 if that was removed."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return 0


def _source(info: ChannelInfo, consumer: Consumer) -> dict[str, Any]:
    """Where a channel came from, as attributes of its group."""
    own = {
        "channel": info.name,
        "labhub_schema": consumer.schema.to_json(),
        "producer_pid": info.producer_pid,
        "producer_hostname": info.producer_hostname,
        "lossless": int(consumer.mode == "lossless"),
    }
    return group_attrs(consumer.schema, own)


def _provenance(hub: Hub, refused: dict[str, LabHubError], title: str) -> dict[str, Any]:
    versions = {name: version(name) for name in ("numpy", "zarr")} | {"labhub": labhub.__version__}
    return {
        "run_id": uuid.uuid4().hex,
        "title": title,
        "begun": datetime.now(UTC).isoformat(),
        "hostname": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "broker": hub.name,
        "pid": os.getpid(),
        **({"left_out": {channel: str(error) for channel, error in refused.items()}} if refused else {}),
    }
