"""Channels as the broker knows them, and the handle that ``hub["name"]`` gives."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labhub import liveness
from labhub.bound import Bound, connect_line
from labhub.datablock.location import segment_directory
from labhub.datablock.sizing import history_of, rate_of
from labhub.errors import InvalidArgument
from labhub.schema import Schema
from labhub.tasks import contained
from labhub.words import did_you_mean, visible

if TYPE_CHECKING:
    import xarray as xr

    from labhub.datablock.batch import Batch
    from labhub.hub.consumers import Consumer
    from labhub.hub.hub import Hub
    from labhub.protocol.messages import ChannelEntry


@dataclass(frozen=True, repr=False)
class ChannelInfo:
    """One channel, as the broker knew it when it was asked.

    Attributes
    ----------
    name : str
        The channel.
    schema : Schema or None
        What one slot looks like; None where the producer did not say.
    liveness : {"alive", "stalled", "dead", "unknown"}
        What is known of its producer.
    producer_pid : int
        Its process.
    producer_hostname : str
        Its machine.
    consumers : int
        Readers registered with the broker.
    age_s : float
        Time since the registration (in seconds).
    capacity : int or None
        Slots of the ring.
    policy : str
        Who waits for whom: "Latest_only", "Sequential" or "Sequential_sync"; empty where the producer did not say.
    shm_name : str
        Name of its segment.
    directory : str or None
        Where that is; None if it is not within reach of this process. `labhub.diagnose` takes both.
    origin : mapping or None
        Where it was imported from, if a bridge did so: ``site``, ``host``, ``boot_id``, ``hub``, ``path`` (the hubs on
        its way), ``instance_id`` and ``epoch`` of the segment there, and ``clock_offset_ns`` (of the clock there).
    """

    name: str
    schema: Schema | None
    liveness: str
    producer_pid: int
    producer_hostname: str
    consumers: int
    age_s: float
    capacity: int | None = None
    policy: str = ""
    shm_name: str = ""
    directory: str | None = None
    origin: Mapping[str, Any] | None = None

    @classmethod
    def from_entry(cls, entry: ChannelEntry) -> ChannelInfo:
        """Read what the broker sent; metadata that cannot be understood is left out."""
        capacity = entry.metadata.get("ring_buffer_capacity")
        origin = entry.metadata.get("origin")
        return cls(
            name=entry.channel_name,
            schema=schema_of(entry.metadata),
            liveness=entry.liveness,
            producer_pid=entry.producer_pid,
            producer_hostname=entry.producer_hostname,
            consumers=entry.consumers,
            age_s=entry.age_s,
            capacity=capacity if isinstance(capacity, int) else None,
            policy=str(entry.metadata.get("consumer_sync_policy", "")),
            shm_name=entry.shm_name,
            directory=directory_of(entry.metadata),
            origin=origin if isinstance(origin, dict) else None,
        )

    @property
    def layout(self) -> str:
        """Layout of a slot in short, for example ``float32[64, 8]``; empty where unknown."""
        if self.schema is None:
            return ""
        names = self.schema.dtype.names
        kind = str(self.schema.dtype) if names is None else "{" + ", ".join(names) + "}"
        return kind + (str(list(self.schema.shape)) if self.schema.shape else "")

    @property
    def history(self) -> float | None:
        """How far back the ring reaches at any moment (in seconds); None if the schema does not say the rate."""
        return history_of(self.capacity, rate_of(self.schema))

    @property
    def units(self) -> dict[str, str]:
        """Unit of each field that has one."""
        return {} if self.schema is None else dict(self.schema.units)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "name": self.name,
            "schema": None if self.schema is None else json.loads(self.schema.to_json()),
            "layout": self.layout,
            "units": self.units,
            "sample_rate": None if self.schema is None else self.schema.sample_rate,
            "capacity": self.capacity,
            "policy": self.policy,
            "liveness": self.liveness,
            "producer_pid": self.producer_pid,
            "producer_hostname": self.producer_hostname,
            "consumers": self.consumers,
            "age_s": self.age_s,
            "shm_name": self.shm_name,
            "directory": self.directory,
            "origin": self.origin,
        }

    def __repr__(self) -> str:
        # Without pids and ages, which differ from run to run.
        parts = [repr(self.name), visible(self.layout) or "undeclared"]
        if self.units:
            parts.append(f"units={self.units}")
        if self.origin:
            parts.append(f"from {self.origin.get('site')!r}")
        return f"ChannelInfo({', '.join(parts)}, {self.liveness})"


def directory_of(metadata: dict[str, Any]) -> str | None:
    """Segment directory of a channel, None if that is elsewhere; the reference level's if the producer did not say."""
    if "shm_dir" not in metadata:
        return segment_directory()
    return str(metadata["shm_dir"]) if liveness.is_here(metadata) else None


def schema_of(metadata: dict[str, Any]) -> Schema | None:
    """The schema in a channel's metadata; None if there is none, or none that can be understood."""
    text = metadata.get("schema")
    schema: Schema | None = None
    with contained("channels", str(metadata.get("instance_id", ""))), contextlib.suppress(InvalidArgument):
        schema = Schema.from_json(text) if isinstance(text, str) else None
    return schema


def live(widget: str, hub: Hub, *args: Any, **options: Any) -> Any:
    """Make one of the notebook's widgets: they are above the hub, which knows their public names only."""
    import labhub

    made = getattr(labhub, widget)
    check_options(widget, made, options, given=("channel", "field", "hub"))
    return made(*args, **options, hub=hub)


def check_options(what: str, called: Callable[..., Any], options: Mapping[str, Any], given: Sequence[str]) -> None:
    """Refuse options that a function does not have beside those that are given; the message has the closest ones.

    Raises
    ------
    InvalidArgument
    """
    named = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    known = [p.name for p in inspect.signature(called).parameters.values() if p.kind in named and p.name not in given]
    for name in options:
        if name not in known:
            raise InvalidArgument(f"{what} has no option {name!r}; {did_you_mean(name, known)}")


class Channel(Bound):
    """One channel of a hub, by name; it need not be there yet. Made by ``hub["name"]``.

    Attributes
    ----------
    name : str
        The channel.
    """

    def __init__(self, hub: Hub, name: str) -> None:
        self._hub = hub
        self.name = name

    @property
    def info(self) -> ChannelInfo:
        """The channel as the broker knows it now.

        Raises
        ------
        ChannelNotFound
            If the broker does not know it.
        """
        return self._hub.find(self.name)

    def consumer(self, mode: Literal["stream", "latest", "lossless"] = "stream", **options: Any) -> Consumer:
        """Attach a reader; as `Hub.consumer`."""
        check_options("a consumer", self._hub.consumer, options, given=("channel", "mode"))
        return self._hub.consumer(self.name, mode, **options)

    def latest(self, timeout: float | None = 5.0) -> Batch:
        """Return the newest slot, as a batch of one; wait for the first one at most `timeout` seconds.

        Raises
        ------
        ChannelNotFound, TimeoutExpired

        Examples
        --------
        >>> with hub.producer("pump.pressure", like=0.0) as pump:
        ...     seq = pump.write(1013.2)
        ...     print(hub["pump.pressure"].latest().data)
        [1013.2]
        """
        with self._hub.peek(self.name, "latest") as consumer:
            return consumer.latest(timeout)

    def snapshot(self, last: int | None = None, seconds: float | None = None) -> Batch:
        """Return what the ring still holds: the last slots, or those of the last seconds.

        `Batch.complete` is False if the ring has overwritten slots that were asked for: its producer needs a longer
        `history`.

        Raises
        ------
        ChannelNotFound, InvalidArgument

        Examples
        --------
        >>> with hub.producer("adc", like=0) as adc:
        ...     count = adc.write_many(range(100))
        ...     print(hub["adc"].snapshot(last=3).data)
        [97 98 99]
        """
        with self._hub.peek(self.name) as consumer:
            return consumer.snapshot(last=last, seconds=seconds)

    def to_xarray(self, last: int | None = None, seconds: float | None = None) -> xr.Dataset:
        """Return `snapshot` as an `xarray.Dataset`.

        Raises
        ------
        ChannelNotFound, InvalidArgument
        """
        return self.snapshot(last=last, seconds=seconds).to_xarray()

    def plot(self, *fields: str, **options: Any) -> Any:
        """Plot its fields, or those that are named, live in a notebook; the options are those of `labhub.LivePlot`."""
        return live("LivePlot", self._hub, (self.name, *fields), **options)

    def image(self, field: str | None = None, **options: Any) -> Any:
        """Show its newest slot live in a notebook; the options are those of `labhub.LiveImage`."""
        return live("LiveImage", self._hub, self.name, field, **options)

    def _instead(self) -> str:
        hub = connect_line(self._hub.name, endpoint=self._hub.given is not None)
        return f"in the other process, take {hub}[{self.name!r}]; its data, from to_xarray() for example, can be sent"

    def __repr__(self) -> str:
        return f"Channel({self.name!r})"

    def _repr_html_(self) -> str:
        from labhub.hub.rich import channel_html

        return channel_html(self._hub, self.name)
