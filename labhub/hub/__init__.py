"""The hub: where the control plane and the data plane meet."""

from labhub.hub.channels import Channel, ChannelInfo
from labhub.hub.connecting import connect
from labhub.hub.consumers import Consumer
from labhub.hub.hub import Hub
from labhub.hub.local_broker import named_broker, running_broker, start_broker, stop_broker
from labhub.hub.producers import Producer
from labhub.hub.roster import ChannelEvent
from labhub.hub.watching import Watch

__all__ = [
    "Channel",
    "ChannelEvent",
    "ChannelInfo",
    "Consumer",
    "Hub",
    "Producer",
    "Watch",
    "connect",
    "named_broker",
    "running_broker",
    "start_broker",
    "stop_broker",
]
