"""Channels that are broken for real, beside good ones: what looks at all of them is to show the good ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labhub import Messenger, ProducerInfo
from labhub.hub import Hub, running_broker

ODD = '{"dtype":"f8,(","shape":[]}'
"""A schema that NumPy cannot even parse."""


@contextmanager
def junk_segment(hub: Hub, channel: str) -> Iterator[None]:
    """Put a file that is no segment in the place of one, as long as the block lasts."""
    info = hub.find(channel)
    path = Path(str(info.directory)) / info.shm_name
    hidden, junk = path.with_name("hidden"), path.with_name("junk")
    junk.write_bytes(os.urandom(8192))
    junk.chmod(0o600)
    hidden.hardlink_to(path)
    junk.rename(path)  # at no time is there nothing: its producer would go on in a new segment
    try:
        yield
    finally:
        hidden.rename(path)


@contextmanager
def odd_registration(channel: str, broker: str = "default", **metadata: object) -> Iterator[None]:
    """Register a channel with metadata that make no sense, as a program that speaks the protocol itself may do."""
    running = running_broker(broker)
    with Messenger() as messenger:
        assert messenger.connect(running.endpoint, running.public_key)
        info = ProducerInfo("nothing", os.getpid(), bytes(32), 1, {"schema": ODD, **metadata})
        messenger.register_producer(channel, info).result(10)
        try:
            yield
        finally:
            messenger.deregister_producer(channel).result(10)
