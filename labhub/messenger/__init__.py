"""The client that speaks to the broker."""

from labhub.messenger.info import ConsumerInfo, Metrics, ProducerInfo
from labhub.messenger.messenger import Messenger, get_lifecycle_module
from labhub.messenger.questions import check_pattern
from labhub.messenger.worker import Connection, Status

__all__ = [
    "Connection",
    "ConsumerInfo",
    "Messenger",
    "Metrics",
    "ProducerInfo",
    "Status",
    "check_pattern",
    "get_lifecycle_module",
]
