"""How hubs, channels, producers and consumers show themselves in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labhub.errors import LabHubError
from labhub.schema import Schema
from labhub.tables import html_facts, html_table
from labhub.words import age, one_line

if TYPE_CHECKING:
    from labhub.hub.channels import ChannelInfo
    from labhub.hub.consumers import Consumer
    from labhub.hub.hub import Hub
    from labhub.hub.producers import Producer

HEAD = ("channel", "slot", "units", "producer", "consumers", "age", "liveness")


def hub_html(hub: Hub) -> str:
    """The hub's state and what the broker knows."""
    if not hub.usable:
        return html_facts(f"hub {hub.name}: closed", [])
    status = hub.status
    title = f"hub {hub.name}: {status}"
    if status != "connected":
        return html_facts(title, [])
    try:
        found = hub.channels()
    except LabHubError as error:
        return html_facts(title, [("channels", one_line(error))])
    return html_facts(title, []) + (html_table(HEAD, map(_row, found)) if found else "")


def _row(channel: ChannelInfo) -> tuple[str, ...]:
    units = " ".join(dict.fromkeys(channel.units.values()))
    who = (str(channel.producer_pid), str(channel.consumers), age(channel.age_s), channel.liveness)
    return (channel.name, channel.layout or "undeclared", units, *who)


def channel_html(hub: Hub, name: str) -> str:
    """What the broker knows of a channel."""
    try:
        found = hub.find(name)
    except LabHubError:
        return html_facts(f"channel {name}: not there", [])
    facts = [("slot", found.layout or "undeclared")]
    if found.schema is not None:
        facts = found.schema.facts()
    facts += [
        ("producer", f"pid {found.producer_pid} on {found.producer_hostname}, {found.liveness}"),
        ("consumers", str(found.consumers)),
        ("age", age(found.age_s)),
    ]
    return html_facts(f"channel {name}", facts)


def producer_html(producer: Producer) -> str:
    """What a producer writes, and how much it has written."""
    title = f"producer of {producer.channel}"
    if producer.closed:
        return html_facts(f"{title}: closed", _slot(producer.schema))
    reach = "" if producer.history is None else f", {producer.history:.4g} s"
    ring = [("capacity", f"{producer.capacity} slots{reach}")] if producer.capacity else []
    return html_facts(title, [*_slot(producer.schema), *ring, ("next seq", str(producer.next_seq))])


def _slot(schema: Schema | None) -> list[tuple[str, str]]:
    return [("slot", "left to the first write")] if schema is None else schema.facts()


def consumer_html(consumer: Consumer) -> str:
    """What a consumer reads, and how far it is."""
    title = f"consumer of {consumer.channel}"
    if consumer.closed:
        return html_facts(f"{title}: closed", consumer.schema.facts())
    place = [(name, str(getattr(consumer, name))) for name in ("mode", "cursor", "lag", "lost")]
    return html_facts(title, [*consumer.schema.facts(), *place])
