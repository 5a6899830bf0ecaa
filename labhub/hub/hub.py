"""A client's handle on a broker: joins the control plane (the directory) with the data plane (the rings)."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from labhub.arguments import checked_choice, checked_flag, checked_path, checked_positive, checked_text
from labhub.bound import Bound, connect_line
from labhub.datablock.config import Checksum, checksum_policy_of, nanoseconds
from labhub.datablock.consumer import Mode, Start
from labhub.datablock.location import free_nbytes, segment_directory
from labhub.datablock.producer import DataBlockProducer, Lossless, check_ring
from labhub.errors import ClosedError, ForkedProcessError, InvalidArgument, MissingDependency
from labhub.hub.channels import Channel, ChannelInfo
from labhub.hub.consumers import Attached, Consumer
from labhub.hub.directory import Directory
from labhub.hub.lease import WITHDRAW_TIMEOUT, Lease
from labhub.hub.local_broker import settings_error
from labhub.hub.producers import Producer, Wanted, announce_replacement
from labhub.hub.status import ConsumerStatus, HubStatus, ProducerStatus
from labhub.hub.watching import Watch
from labhub.messenger import Messenger
from labhub.names import check_name, check_one
from labhub.schema import Schema
from labhub.tasks import contained
from labhub.words import quoted

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from labhub.recording import Recording


class Hub(Bound):
    """A client's handle on one broker. Made by `connect`.

    Any thread may use it. Closing it closes its producers, consumers and watches.

    Attributes
    ----------
    name : str
        Name of the broker.
    given : tuple of (str, str) or None
        Endpoint and key, if they were given and not found by name.
    """

    def __init__(self, name: str, messenger: Messenger, given: tuple[str, str] | None, timeout: float) -> None:
        self.name = name
        self.given = given
        self._messenger = messenger
        self._directory = Directory(name, messenger)
        self._timeout = timeout
        self._pid = os.getpid()
        self._closed = False
        self._lock = threading.RLock()
        # Weakly held: the user's variables decide how long a producer or a reader lives.
        self._producers: weakref.WeakValueDictionary[str, Producer] = weakref.WeakValueDictionary()
        self._consumers: weakref.WeakSet[Consumer] = weakref.WeakSet()
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        # Not the hub itself: the Messenger's thread does not keep it alive.
        messenger.look_after(partial(_look, self._producers))

    @property
    def usable(self) -> bool:
        """Whether it is open, and of this process."""
        return not self._closed and self._pid == os.getpid()

    @property
    def idle(self) -> bool:
        """Whether it has no open producer and no open consumer."""
        return all(p.closed for p in self._producers.values()) and all(c.closed for c in self._consumers)

    @property
    def connected(self) -> bool:
        """Whether the broker can be reached now; cheaper than `status`."""
        return self._messenger.status == "connected"

    @property
    def status(self) -> HubStatus:
        """``"connected"``, ``"connecting"``, ``"disconnected"`` or ``"unauthorized"``, and the facts behind it.

        Its own producers, consumers and refused channels are in it. The broker is not asked, so it is there at once.
        """
        connection = self._messenger.connection
        if connection is None:
            return HubStatus("disconnected")
        return HubStatus(
            connection.status,
            connection.endpoint,
            connection.since_s,
            connection.reconnects,
            tuple(
                ProducerStatus.of(producer, registered=channel in connection.registered)
                for channel, producer in sorted(self._producers.items())
                if not producer.closed
            ),
            tuple(ConsumerStatus.of(c) for c in sorted(self._consumers, key=lambda c: c.channel) if not c.closed),
            connection.rejected,
            free_nbytes(segment_directory(self.name)),
            "" if self.given else settings_error(self.name),
            connection.error,
        )

    def producer(
        self,
        channel: str,
        like: ArrayLike | Mapping[str, Any] | None = None,
        *,
        dtype: DTypeLike | None = None,
        shape: int | Sequence[int] | None = None,
        units: str | Mapping[str, str] | None = None,
        dims: str | Sequence[str] | None = None,
        sample_rate: float | None = None,
        attrs: Mapping[str, Any] | None = None,
        capacity: int | None = None,
        history: float | None = None,
        rate: float | None = None,
        lossless: Lossless = True,
        timeout: float | None = 5.0,
        evict_after: float | None = 1.0,
        checksum: Checksum = "none",
    ) -> Producer:
        """Open a channel for writing, and register it.

        Re-running a notebook cell just works: while the earlier producer of this process is alive, the same schema
        gives the same producer, and another one closes the earlier producer and says so.

        Parameters
        ----------
        channel : str
            Its name.
        like : array_like, scalar or dict, optional
            An example of one slot. Without it and without `dtype` the first write decides.
        dtype : dtype_like, optional
            Overrides the dtype of `like`.
        shape : int or sequence of int, optional
            Shape of one slot.
        units : str or mapping of str to str, optional
            One unit for every field, or one for each.
        dims : str or sequence of str, optional
            Names of the axes of a slot. An axis ``"time"`` holds samples that follow each other.
        sample_rate : float, optional
            Samples per second along the ``"time"`` axis.
        attrs : mapping, optional
            Free notes.
        capacity : int, optional
            Slots of the ring. Unless it or `history` is given, as many as fit 8 MB, at least 8; if the rate is known,
            2 seconds at least, but a quarter of what is free in shared memory at most. `Producer.history` tells.
        history : float, optional
            How far back the ring reaches instead (in seconds): ``snapshot(seconds=history)`` is always complete.
        rate : float, optional
            Slots per second, if there is no `sample_rate` that says it; it only sizes the ring.
        lossless : bool or "single"
            Whether lossless readers may attach: up to 64, none, or exactly one.
        timeout : float or None
            How long a write waits for lossless readers (in seconds; None: for ever).
        evict_after : float or None
            After how long without a move a lossless reader that holds the producer up is evicted (in seconds; None:
            never, which lets a forgotten notebook stop an experiment).
        checksum : {"none", "manual", "enforced"} or ChecksumPolicy
            ``"enforced"``: each slot carries the BLAKE3 of its bytes, and each read verifies it. This finds faulty
            memory and stray writes, and costs most of the bandwidth of large slots; a slot that is overwritten while it
            is read is found without it. ``"manual"``: a slot carries one where `WriteSlot.update_checksum` says so, and
            `Batch.verify_checksum` and the like compare it.

        Returns
        -------
        Producer

        Raises
        ------
        ChannelBusy
            Another process has a live producer on it; the message names it.
        SchemaConflict
            It has one, and with another schema: a `ChannelBusy` and a `SchemaMismatch`, with each field that differs.
        AccessDenied
            The broker's rules do not let this client produce it.
        BrokerUnreachable, ProtocolError
            The broker did not answer, or refused the registration.
        InvalidName, InvalidArgument, SegmentSpaceError, SegmentAccessError, IncompatibleSegment

        Examples
        --------
        >>> with hub.producer("pump.pressure", like=0.0, units="mbar") as pressure:
        ...     pressure.write(1013.2)
        0

        A slot that is a block of 64 samples of 8 channels, taken 10,000 times a second:

        >>> daq = hub.producer("daq", dtype="f4", shape=(64, 8), dims=("time", "channel"), sample_rate=10_000)
        >>> daq.schema
        Schema(float32, shape=(64, 8), dims=('time', 'channel'), sample_rate=10000)
        """
        self._check()
        check_name(channel)
        check_ring(capacity, lossless, timeout, evict_after)
        hints = {"shape": shape, "units": units, "dims": dims, "sample_rate": sample_rate, "attrs": attrs}
        ring: dict[str, Any] = {"capacity": capacity, "history": history, "rate": rate}
        ring["checksum"] = checksum_policy_of(checksum)
        ring |= {"lossless": lossless, "timeout": timeout, "evict_after": evict_after}
        wanted = Wanted.infer(like, dtype, hints, **ring)
        with self._lock:
            earlier = self._producers.get(channel)
            if earlier is not None and not earlier.closed:
                lines = earlier.difference(wanted)
                if not lines:
                    earlier.reuse(wanted)
                    return earlier
                announce_replacement(channel, lines)
                earlier.close()
            # Bound to the directory, not to the hub: a producer does not keep its hub alive.
            register = partial(self._directory.register, timeout=self._timeout)
            conflict = partial(self._directory.conflict, channel, timeout=self._timeout)
            announce = partial(self._directory.amend, notes={})
            producer = Producer(channel, segment_directory(self.name), wanted, register, conflict, announce)
            self._producers[channel] = producer
            return producer

    def consumer(
        self,
        channel: str,
        mode: Mode = "stream",
        start: Start = "newest",
        timeout: float | None = None,
        follow: bool = False,
        schema: Schema | None = None,
        busy_poll: bool = False,
    ) -> Consumer:
        """Attach a reader to a channel.

        Parameters
        ----------
        channel : str
            Its name. `wait_for` waits for one that is not there yet.
        mode : {"stream", "latest", "lossless"}
            In order, without slowing the producer, and counting what it lost; only the newest slot; or every slot, for
            which the producer waits.
        start : {"newest", "oldest"} or int
            Where to begin: with the next slot to be written, as far back as the ring holds, or with a seq.
        timeout : float, optional
            How long to wait for the broker's answer (in seconds); that of `connect` unless given.
        follow : bool
            At the end of the stream, wait for the channel to come back instead of ending the iteration; `Batch.epoch`
            marks the seam.
        schema : Schema, optional
            What the slots must look like; whatever the producer has declared unless given.
        busy_poll : bool
            Look for the next slot again and again instead of sleeping until the producer wakes the reader: a delay of
            about a microsecond instead of some tens, for a whole CPU core while it waits, in every reader that does so.
            Worth it for a control loop on a core of its own; never with fewer cores than busy processes.

        Returns
        -------
        Consumer

        Raises
        ------
        ChannelNotFound
            The broker does not know it; the message names the closest names. Or its segment is not on this machine.
        AccessDenied
            The broker's rules do not let this client consume it.
        ChannelBusy
            The mode is ``"lossless"``, and the channel has no place for another such reader.
        SchemaMismatch
            The channel does not carry what `schema` says, with one line for each field that differs; with `follow`,
            while iterating, too.
        SegmentAccessError, IncompatibleSegment, BrokerUnreachable, InvalidName, InvalidArgument

        Examples
        --------
        >>> pressure = hub.producer("pump.pressure", like=0.0, units="mbar")
        >>> with hub.consumer("pump.pressure", mode="lossless") as recorder:
        ...     seq = pressure.write(1013.2)
        ...     pressure.close()
        ...     for batch in recorder:
        ...         print(batch.seq, batch.data, batch.lost)
        [0] [1013.2] 0
        """
        self._check()
        nanoseconds(timeout)
        checked_choice("mode", mode, get_args(Mode))
        checked_flag("follow", follow)
        if schema is not None and not isinstance(schema, Schema):
            raise InvalidArgument(f"schema is a labhub.Schema, not {quoted(schema)}; labhub.Schema.infer makes one")
        patience = self._timeout if timeout is None else timeout
        attached = self._directory.attach(channel, mode, start, patience, expected=schema, busy_poll=busy_poll)

        def reattach(ended: bytes) -> Attached | None:
            self._check()
            return self._directory.attach_to_successor(channel, mode, ended, schema, busy_poll)

        consumer = Consumer(channel, attached, reattach if follow else None, self)
        self._consumers.add(consumer)
        return consumer

    def adopt(self, block: DataBlockProducer, notes: Mapping[str, Any]) -> Lease:
        """Register a DataBlock that the caller has opened in this hub's `segment_directory`, and keeps writing.

        Parameters
        ----------
        block : DataBlockProducer
            Its name becomes the channel's.
        notes : mapping
            What the broker tells everybody about it besides what it is; plain JSON values.

        Returns
        -------
        Lease
            Closes the DataBlock and withdraws the channel.

        Raises
        ------
        ChannelBusy, SchemaMismatch, ProtocolError
            The broker refused it; it is closed then.
        BrokerUnreachable
            The broker did not answer; so is it then.
        """
        self._check()
        return self._directory.register(block, self._timeout, notes)

    def amend(self, block: DataBlockProducer, notes: Mapping[str, Any]) -> Future[None]:
        """Tell the broker something else about a DataBlock that was adopted, and is still open.

        Returns
        -------
        Future of None
            Its answer, with the errors of `adopt`. Nobody who watches is told.
        """
        self._check()
        return self._directory.amend(block, notes)

    def peek(self, channel: str, mode: Mode = "stream") -> Consumer:
        """Attach a reader for a moment's look, which the broker does not count; else as `consumer`."""
        self._check()
        attached = self._directory.attach(channel, mode, "newest", self._timeout, counted=False)
        return Consumer(channel, attached, None, self)

    def channels(self, pattern: str = "*") -> list[ChannelInfo]:
        """List the channels whose names match a shell pattern, in the order of their names.

        Raises
        ------
        BrokerUnreachable
            The broker does not answer.

        Examples
        --------
        >>> pump, room = hub.producer("pump.pressure", like=0.0, units="mbar"), hub.producer("room.humidity", like=0.0)
        >>> hub.channels("pump.*")
        [ChannelInfo('pump.pressure', float64, units={'value': 'mbar'}, alive)]
        """
        self._check()
        return [ChannelInfo.from_entry(entry) for entry in self._directory.list(pattern, self._timeout)]

    def find(self, channel: str) -> ChannelInfo:
        """What the broker knows of one channel.

        Raises
        ------
        ChannelNotFound
            Nothing; the message names the channels with the closest names.
        """
        self._check()
        return ChannelInfo.from_entry(self._directory.find(channel, self._timeout))

    def wait_for(self, channel: str, timeout: float | None = 5.0) -> ChannelInfo:
        """Wait until a channel has a living producer.

        Raises
        ------
        TimeoutExpired
            It has none within `timeout` seconds (None waits for ever).
        """
        self._check()
        nanoseconds(timeout)
        return ChannelInfo.from_entry(self._directory.wait_for(channel, timeout))

    def watch(self, pattern: str = "*", *, existing: bool = True, timeout: float | None = None) -> Watch:
        """Iterate over what happens to the channels whose names match a shell pattern, with ``for`` or ``async for``.

        A broker that is restarted meanwhile goes unnoticed: what did not change is not told again. Of a watch that
        nobody reads, a thousand events are kept; then what has changed altogether takes their place, and checksum
        errors among them are forgotten.

        Parameters
        ----------
        pattern : str
            Such as ``"pump.*"``.
        existing : bool
            Begin with one ``"appeared"`` for each channel that is there already.
        timeout : float, optional
            How long to wait for each event (in seconds); None waits for ever.

        Returns
        -------
        Watch
            An iterator of `ChannelEvent`, and a context manager that ends it.

        Raises
        ------
        TimeoutExpired
            While iterating, if nothing happened within `timeout`; the iteration can go on.
        QuotaExceeded
            This user has as many watches open as the broker allows.
        BrokerUnreachable, InvalidArgument

        Examples
        --------
        >>> pump = hub.producer("pump.pressure", like=0.0)
        >>> with hub.watch("pump.*", timeout=5) as events:
        ...     print(next(events).kind)
        ...     pump.close()
        ...     print(next(events).kind)
        appeared
        gone
        """
        self._check()
        nanoseconds(timeout)
        checked_flag("existing", existing)
        watch = Watch(self._messenger, pattern, existing=existing, timeout=timeout, reply_timeout=self._timeout)
        self._watches.add(watch)
        return watch

    def record(
        self,
        *channels: str,
        store: str | os.PathLike[str],
        split_nbytes: int | None = None,
        split_seconds: float | None = None,
        follow: bool = True,
        compression: Literal["zstd", "none"] = "zstd",
        title: str = "",
    ) -> Recording:
        """Record channels into a Zarr v3 store that ``xarray.open_zarr(store, group=channel)`` reads, without labhub.

        Every slot is recorded of a channel that lets a lossless reader in; of another one, what is missing stands in
        the group's table of gaps. The store is committed every second: what a kill, or a full disk, can cost is what
        came since. It is signed, and ``labhub verify`` proves that nothing in it was changed.

        Parameters
        ----------
        *channels : str
            Names or shell patterns; ``"*"`` takes all that are there now.
        store : path
            Where; nothing may be there yet. By custom its name ends in ``.zarr``.
        split_nbytes, split_seconds : int or float, optional
            Begin another store, ``NAME-0002.zarr`` and so on, when one has reached so many bytes on disk, or after so
            many seconds.
        follow : bool
            Go on when a channel ends and comes back; else the recording ends with the last channel.
        compression : {"zstd", "none"}
            zstd, as zarr does by default, or nothing, for rates that are near those of the disk.
        title : str
            What the recording is called. It is signed with the rest, and ``labhub verify`` shows it.

        Returns
        -------
        Recording
            A context manager that stops it.

        Raises
        ------
        StoreExists
            There is something at that path.
        MissingDependency
            zarr is not installed.
        ChannelNotFound, InvalidArgument, BrokerUnreachable, OSError

        Examples
        --------
        >>> with hub.record("pump.*", store="run42.zarr") as rec:  # doctest: +SKIP
        ...     rec.mark("valve open")
        """
        self._check()
        checked_path("store", store)
        checked_flag("follow", follow)
        checked_choice("compression", compression, ("zstd", "none"))
        checked_text("title", title)
        for name, value, unit in (("split_nbytes", split_nbytes, "bytes"), ("split_seconds", split_seconds, "seconds")):
            if value is not None:
                checked_positive(name, value, unit)
        try:
            from labhub.recording import Recording
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "zarr":
                raise
            raise MissingDependency("recording needs zarr: pip install 'labhub[record]'", package="zarr") from None
        return Recording(
            self,
            channels,
            store,
            split_nbytes=split_nbytes,
            split_seconds=split_seconds,
            follow=follow,
            compression=compression,
            title=title,
        )

    def schema(self, channel: str) -> Schema | None:
        """What one slot of a channel looks like, as its producer declared it; None if it declared nothing.

        Raises
        ------
        ChannelNotFound
            The broker does not know it; the message names the channels with the closest names.
        """
        self._check()
        return self._directory.schema(channel, self._timeout)

    def __getitem__(self, channel: str) -> Channel:
        self._check()
        return Channel(self, check_one(channel))

    def close(self) -> None:
        """Close its producers, consumers and watches, and leave the broker. Twice is harmless.

        Any thread may call this; what other threads wait for in one of them ends at once, as their `close` says.
        """
        if not self.usable:
            return
        self._closed = True
        confirmations: list[Future[None]] = []

        def release(end: Producer | Consumer) -> None:
            if (confirmation := end.release()) is not None:
                confirmations.append(confirmation)

        def confirm(kind: type[BaseException] | None, *_: object) -> None:
            if kind is None:  # whoever interrupts a close does not want to wait
                wait(confirmations, WITHDRAW_TIMEOUT)

        # The last one first; whatever one of them raises, the others are closed, too. All together are waited for.
        with ExitStack() as stack:
            stack.callback(self._messenger.disconnect)
            stack.push(confirm)
            for watch in list(self._watches):
                stack.callback(watch.close)
            for consumer in list(self._consumers):
                stack.callback(release, consumer)
            for producer in list(self._producers.values()):
                stack.callback(release, producer)

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise ForkedProcessError(
                f"the hub {self.name!r} belongs to the parent process; call connect() in the child"
            )
        if self._closed:
            raise ClosedError(f"the hub {self.name!r} was closed; connect() opens it again")

    def _instead(self) -> str:
        return f"in the other process, {connect_line(self.name, endpoint=self.given is not None)} opens one"

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _repr_html_(self) -> str:
        from labhub.hub.rich import hub_html

        return hub_html(self)

    def __repr__(self) -> str:
        return f"Hub({self.name!r}, {'closed' if self._closed else self._messenger.status})"


def _look(producers: weakref.WeakValueDictionary[str, Producer]) -> None:
    """Let producers look whether their files are still there."""
    for channel, producer in list(producers.items()):
        with contained("labhub-messenger", channel):
            producer.look()
