"""A replay that runs: one producer and one thread for each channel, all on one clock."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from labhub.arguments import checked_choice, checked_text, number_of
from labhub.bound import Bound
from labhub.datablock.location import RING_NBYTES
from labhub.errors import BackpressureTimeout, ChannelBusy, InvalidArgument, LabHubError
from labhub.hub.connecting import given_or_default
from labhub.logs import event
from labhub.names import check_name
from labhub.replaying.sources import Tracks, tracks_of
from labhub.replaying.times import check_unit
from labhub.replaying.tracks import Track
from labhub.tasks import Task
from labhub.words import quoted

if TYPE_CHECKING:
    from labhub.hub import Hub, Producer

logger = logging.getLogger(__name__)

POLL = 0.1
"""How often a replay that waits for its readers looks whether it is to end (in seconds)."""
FEWEST_SLOTS = 8
"""Slots of the ring of a channel with fewer."""
COARSE = 0.002
"""Slots that are due within this time are written together (in seconds): no wait is much finer than that."""
LONGEST_WAIT = 3600.0
"""A slot that is due later than this is waited for in steps (in seconds); the system refuses to wait for centuries."""


@dataclass(frozen=True)
class ReplayStatus:
    """How a replay goes.

    Attributes
    ----------
    state : {"waiting", "playing", "ended", "failed"}
        It waits while it is to go as fast as its readers and there are none. A channel that fails does not end the
        others: the replay has failed when all have ended and not all of them well.
    n_slots, total : int
        Slots written, and slots altogether.
    behind : float
        By how much it is late (in seconds), because readers or this machine cannot keep up.
    error : str
        Which channels failed so far, and why.
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
    time_unit: Literal["s", "ms", "us", "ns"] | None = None,
    key: str | None = None,
) -> Replay:
    """Turn a recording into live channels again.

    Slots look as they did: same schema, same bytes, and the times of the recording. What was lost then is missing now.
    The channels end with the recording.

    A table or dataset gives one slot for each row, in the order of their ``time``. It may be dates (UTC where they
    name no zone; text begins with the year), durations, which count from 1970 on, or numbers. What `Batch.to_arrow`
    made, or ``xarray.open_zarr`` read of a recording, becomes the channel that it was, with the same schema; anything
    else a field for each column. What a slot has no place for is left out, and `Replay.notes`, the log and the
    channel's attribute ``replay_notes`` name it.

    Parameters
    ----------
    source : path, xarray.Dataset, pandas.DataFrame or pyarrow.Table
        A recording; a CSV or Parquet file with a column ``time``; or what xarray, pandas or pyarrow have read.
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
    time_unit : {"s", "ms", "us", "ns"}, optional
        Unit of a ``time`` that is numbers. Unless given, fractional numbers are seconds, and integers are of the unit
        in which they are times of the years 2000 to 2099; other integers are refused.
    key : str, optional
        Who signed the recording (Ed25519, hex), as for `labhub.recording.verify`: this user unless given.
        ``"any"`` plays it whoever signed it.

    Returns
    -------
    Replay
        A context manager that ends it.

    Raises
    ------
    NotARecording, ChannelNotFound, InvalidArgument
        There is nothing (of that name) to replay, or a time or number is missing or out of range: the message has the
        row and the column. No channel was opened then.
    UntrustedSigner
        Somebody else signed the recording.
    DamagedStore
        The recording is not what was signed.
    ChannelBusy
        A channel of that name lives; see `prefix`.
    BrokerUnreachable
    """
    _check_pace(speed)
    checked_choice("times", times, ("original", "now"))
    checked_text("prefix", prefix)
    check_unit(time_unit)
    if name is not None:
        check_name(name)
    for pattern in channels:
        checked_text("a channel to replay", pattern)
    hub = given_or_default(hub)
    tracks = tracks_of(source, channels, name, time_unit, key)
    if not tracks.names:
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
    notes : dict of str to tuple of str
        By channel, what its source has and the channel has not, or has as another type: a line for each.
    """

    def __init__(
        self, tracks: Tracks, hub: Hub, speed: float | None, prefix: str, times: Literal["original", "now"]
    ) -> None:
        self._errors: dict[str, BaseException] = {prefix + name: error for name, error in tracks.errors.items()}
        if not tracks.good:
            raise next(iter(self._errors.values()))
        named = {prefix + track.channel: track for track in tracks.good}
        self.channels = tuple(sorted([*named, *self._errors]) if self._errors else named)
        self.speed = speed
        self.notes = {channel: track.words for channel, track in named.items() if track.words}
        self._original_times = times == "original"
        self._first_ns = min(track.begins_ns for track in tracks.good)
        self._total = sum(track.n_slots for track in tracks.good)
        self._written = dict.fromkeys(self.channels, 0)
        self._behind = 0.0
        self._waiting: set[str] = set()
        self._stop = threading.Event()
        self._pid = os.getpid()
        _check_free(hub, tuple(named))
        self._began_ns = time.time_ns()
        producers = self._producers(hub, named)
        self._began = time.monotonic()
        self._threads = [
            Task(partial(self._run, producer, named[producer.channel]), f"labhub-replay-{producer.channel}")
            for producer in producers
        ]
        for channel, words in self.notes.items():
            for line in words:
                logger.warning("%s: %s", channel, line, extra=event("replay_note", channel=channel, note=line))
        for thread in self._threads:
            thread.start()

    def _producers(self, hub: Hub, named: dict[str, Track]) -> list[Producer]:
        """Open a producer for each channel; one that cannot be opened is left out, if there are others."""
        producers: list[Producer] = []
        try:
            for channel, track in named.items():
                try:
                    producers.append(_producer(hub, channel, track, self._facts(), self.speed))
                except (InvalidArgument, OSError) as error:  # its schema, or the room for its ring
                    self._failed(channel, error)
            if not producers:
                raise next(iter(self._errors.values()))
        except BaseException:
            for producer in producers:
                producer.close()
            raise
        return producers

    @property
    def running(self) -> bool:
        """Whether a channel still has something to come."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def status(self) -> ReplayStatus:
        """How it goes, at this moment."""
        state: Literal["waiting", "playing", "ended", "failed"] = "waiting" if self._waiting else "playing"
        if not self.running:
            state = "failed" if self._errors else "ended"
        error = "; ".join(f"{channel}: {_words(e)}" for channel, e in list(self._errors.items()))
        return ReplayStatus(state, sum(self._written.values()), self._total, self._behind, error)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything was written.

        Returns
        -------
        bool
            False if that did not happen within `timeout` seconds (None waits for ever), or not at all, because the
            replay was stopped.

        Raises
        ------
        LabHubError, OSError
            What ended a channel early, once all channels have ended.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if self.running:
            return False
        for channel, error in self._errors.items():
            if isinstance(error, LabHubError | OSError):
                raise error
            raise LabHubError(f"the replay of {channel!r} ended early: {_words(error)}") from error
        return sum(self._written.values()) == self._total

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
        except BaseException as error:  # noqa: BLE001  # told by `wait` and `status`, whatever it is
            self._failed(producer.channel, error)
        finally:
            self._waiting.discard(producer.channel)

    def _failed(self, channel: str, error: BaseException) -> None:
        self._errors[channel] = error
        words = _words(error)
        fields = event("item_failed", thread="replay", item=channel, kind=type(error).__name__, reason=words)
        logger.error("%s: %s", channel, words, extra=fields)

    def _wait_for_reader(self, producer: Producer) -> None:
        self._waiting.add(producer.channel)
        while not self._stop.is_set() and not producer.stats()["consumers"]:
            self._stop.wait(POLL)
        self._waiting.discard(producer.channel)

    def _late(self, timestamp_ns: int) -> bool:
        """Wait until a slot is due; whether the replay is to end instead."""
        if self.speed is None:
            return self._stop.is_set()
        due = (timestamp_ns - self._first_ns) / 1e9 / float(self.speed)
        while (left := due - (time.monotonic() - self._began)) > COARSE:
            self._behind = 0.0
            if self._stop.wait(min(left, LONGEST_WAIT)):
                return True
        self._behind = max(0.0, -left)
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


def _words(error: BaseException) -> str:
    """Say what an error is; labhub's own say it themselves."""
    return str(error) if isinstance(error, LabHubError) and str(error) else f"{type(error).__name__}: {error}"


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
    # A ring that holds all of a short recording is never overwritten; a longer one gets what a live channel would.
    whole = max(FEWEST_SLOTS, track.n_slots) if track.n_slots * schema.slot_nbytes <= RING_NBYTES else None
    return hub.producer(
        channel,
        capacity=whole,
        dtype=schema.dtype,
        shape=schema.shape,
        units=dict(schema.units),
        dims=schema.dims,
        sample_rate=schema.sample_rate,
        attrs={**schema.attrs, **facts},
        timeout=POLL,
        evict_after=None if speed is None else 1.0,
    )
