"""A replay that runs: one producer and one thread for each channel, all on one clock."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from labhub.arguments import checked_choice, checked_text, number_of
from labhub.bound import Bound
from labhub.errors import BackpressureTimeout, ChannelBusy, InvalidArgument, LabHubError
from labhub.hub.connecting import given_or_default
from labhub.names import check_name
from labhub.replaying.tracks import Track, tracks_of
from labhub.tasks import Task
from labhub.words import quoted

if TYPE_CHECKING:
    from labhub.hub import Hub, Producer

POLL = 0.1
"""How often a replay that waits for its readers looks whether it is to end (in seconds)."""
COARSE_NS = 2_000_000
"""Slots that are due within this time are written together (in nanoseconds): no wait is much finer than that."""


@dataclass(frozen=True)
class ReplayStatus:
    """How a replay goes.

    Attributes
    ----------
    state : {"waiting", "playing", "ended", "failed"}
        It waits while it is to go as fast as its readers and there are none.
    n_slots, total : int
        Slots written, and slots altogether.
    behind : float
        By how much it is late (in seconds), because readers or this machine cannot keep up.
    error : str
        Why it failed.
    """

    state: Literal["waiting", "playing", "ended", "failed"]
    n_slots: int
    total: int
    behind: float
    error: str = ""


def replay(
    source: Any,
    *channels: str,
    hub: Hub | None = None,
    speed: float | None = 1.0,
    name: str | None = None,
    prefix: str = "",
    times: Literal["original", "now"] = "original",
) -> Replay:
    """Turn a recording into live channels again.

    Slots look as they did: same schema, same bytes, and the times of the recording. What was lost then is missing now.
    The channels end with the recording.

    Parameters
    ----------
    source : path, xarray.Dataset or pandas.DataFrame
        A recording; a CSV or Parquet file with a column ``time`` (dates, or seconds); or what xarray or pandas have
        read: one slot for each element along ``time``.
    *channels : str
        Names or shell patterns; everything unless given.
    hub : Hub, optional
        Where; `labhub.connect` finds the broker unless given.
    speed : float or None
        So many times as fast as it was; None writes as fast as lossless readers read, and waits for the first of them.
    name : str, optional
        Name of the channel, for a source that has none: its file's name, or ``replay``, unless given.
    prefix : str
        Before each name: ``"replay."`` lets a recording run beside the channels that it was made of.
    times : {"original", "now"}
        Timestamps of the slots. The channel's attributes lead to the other ones: ``replay_began_ns`` is when the
        replay began, ``replay_first_ns`` the original time of that moment, ``replay_speed`` the pace.

    Returns
    -------
    Replay
        A context manager that ends it.

    Raises
    ------
    NotARecording, ChannelNotFound, InvalidArgument
        There is nothing (of that name) to replay.
    ChannelBusy
        A channel of that name lives; see `prefix`.
    BrokerUnreachable
    """
    _check_pace(speed)
    checked_choice("times", times, ("original", "now"))
    checked_text("prefix", prefix)
    if name is not None:
        check_name(name)
    for pattern in channels:
        checked_text("a channel to replay", pattern)
    hub = given_or_default(hub)
    tracks = tracks_of(source, channels, name)
    if not tracks:
        raise InvalidArgument("the recording holds no slots")
    return Replay(tracks, hub, speed, prefix, times)


class Replay(Bound):
    """Recorded channels that run again. Made by `labhub.replay`; a context manager that ends it.

    Attributes
    ----------
    channels : tuple of str
        Their names now.
    speed : float or None
        The pace.
    """

    def __init__(
        self, tracks: list[Track], hub: Hub, speed: float | None, prefix: str, times: Literal["original", "now"]
    ) -> None:
        self.channels = tuple(prefix + track.channel for track in tracks)
        self.speed = speed
        self._original_times = times == "original"
        self._first_ns = min(track.begins_ns for track in tracks)
        self._total = sum(track.n_slots for track in tracks)
        self._written = dict.fromkeys(self.channels, 0)
        self._behind = 0.0
        self._waiting: set[str] = set()
        self._error: LabHubError | None = None
        self._stop = threading.Event()
        self._pid = os.getpid()
        _check_free(hub, self.channels)
        producers: list[Producer] = []
        self._began_ns = time.time_ns()
        try:
            for channel, track in zip(self.channels, tracks, strict=True):
                producers.append(_producer(hub, channel, track, self._facts(), speed))
        except BaseException:
            for producer in producers:
                producer.close()
            raise
        self._began = time.monotonic_ns()
        self._threads = [
            Task(partial(self._run, producer, track), f"labhub-replay-{producer.channel}")
            for producer, track in zip(producers, tracks, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> bool:
        """Whether a channel still has something to come."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def status(self) -> ReplayStatus:
        """How it goes, at this moment."""
        state: Literal["waiting", "playing", "ended", "failed"] = "playing" if self.running else "ended"
        if self._waiting:
            state = "waiting"
        if self._error is not None:
            state = "failed"
        error = "" if self._error is None else str(self._error)
        return ReplayStatus(state, sum(self._written.values()), self._total, self._behind, error)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything was written.

        Returns
        -------
        bool
            False if that did not happen within `timeout` seconds (None waits for ever).

        Raises
        ------
        LabHubError
            What ended a channel early.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if self._error is not None:
            raise self._error
        return not self.running

    def stop(self) -> None:
        """End it now. Twice is harmless; in a forked child it does nothing, because the replay is its parent's."""
        if os.getpid() != self._pid:
            return
        self._stop.set()
        for thread in self._threads:
            thread.wait()

    def _facts(self) -> dict[str, Any]:
        return {
            "replay_began_ns": self._began_ns,
            "replay_first_ns": self._first_ns,
            "replay_speed": self.speed if self.speed is not None else "as fast as its readers",
        }

    def _run(self, producer: Producer, track: Track) -> None:
        try:
            with producer:
                if self.speed is None:
                    self._wait_for_reader(producer)
                for block in track.blocks():
                    for k in range(len(block.data)):
                        if self._late(int(block.timestamp_ns[k])):
                            return
                        self._write(producer, block.data[k], int(block.timestamp_ns[k]), int(block.nbytes[k]))
        except LabHubError as error:
            self._error = error

    def _wait_for_reader(self, producer: Producer) -> None:
        self._waiting.add(producer.channel)
        while not self._stop.is_set() and not producer.stats()["consumers"]:
            self._stop.wait(POLL)
        self._waiting.discard(producer.channel)

    def _late(self, timestamp_ns: int) -> bool:
        """Wait until a slot is due; whether the replay is to end instead."""
        if self.speed is None:
            return self._stop.is_set()
        due = self._began + round((timestamp_ns - self._first_ns) / self.speed)
        left = due - time.monotonic_ns()
        self._behind = max(0.0, -left / 1e9)
        if left > COARSE_NS:
            return self._stop.wait(left / 1e9)
        return self._stop.is_set()

    def _write(self, producer: Producer, slot: Any, timestamp_ns: int, nbytes: int) -> None:
        while not self._stop.is_set():
            try:
                with producer.slot() as s:
                    s.array[...] = slot
                    s.nbytes = nbytes
                    if self._original_times:
                        s.timestamp_ns = timestamp_ns
            except BackpressureTimeout:
                continue  # it is a reader's right to make a replay wait; look whether to end
            self._written[producer.channel] += 1
            return

    def _instead(self) -> str:
        return "in the other process, read the channels that it plays, or call labhub.replay"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        pace = "as fast as its readers" if self.speed is None else f"x{self.speed:g}"
        return f"Replay({', '.join(self.channels)}: {pace}, {self.status.state})"


def _check_pace(speed: Any) -> None:
    if speed is not None and not 0 < (number_of(speed) or 0.0) < float("inf"):
        form = "a positive number, or None for as fast as the readers go"
        raise InvalidArgument(f"speed is {form}, not {quoted(speed)}")


def _check_free(hub: Hub, channels: tuple[str, ...]) -> None:
    """Refuse to replay over a living channel, also over one of this process, which a new producer would replace."""
    living = {info.name: info for info in hub.channels() if info.liveness != "dead"}
    for channel in channels:
        if channel in living:
            pid = living[channel].producer_pid
            message = f"channel {channel!r} is live (pid {pid}); a prefix lets the replay run beside it"
            raise ChannelBusy(message, pid=pid)


def _producer(hub: Hub, channel: str, track: Track, facts: dict[str, Any], speed: float | None) -> Producer:
    schema = track.schema
    return hub.producer(
        channel,
        dtype=schema.dtype,
        shape=schema.shape,
        units=dict(schema.units),
        dims=schema.dims,
        sample_rate=schema.sample_rate,
        attrs={**schema.attrs, **facts},
        timeout=POLL,
        evict_after=None if speed is None else 1.0,
    )
