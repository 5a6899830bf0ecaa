"""The broker and the hub of the hub's own tests; and reading a replay from its first slot to its last."""

from __future__ import annotations

from typing import Any

import numpy as np

import labhub
from labhub.datablock.batch import Batch
from labhub.hub import Hub
from tests.hub.conftest import broker, hub

__all__ = ["broker", "everything", "hub", "replayed"]


def everything(hub: Hub, channel: str, n: int) -> Batch:
    """Read a channel that waits for its reader, from the first slot to the last."""
    with hub.consumer(channel, mode="lossless", start="oldest") as c:
        parts = list(c.batches(timeout=10, total=n))
    assert [part.lost for part in parts] == [0] * len(parts)
    data = np.concatenate([part.data for part in parts]).astype(parts[0].data.dtype)  # also its byte order
    return Batch(channel, parts[0].schema, data, np.concatenate([part.headers for part in parts]))


def replayed(hub: Hub, source: Any, **options: Any) -> Batch:
    """Replay a source of one channel, and return what its reader got."""
    with labhub.replay(source, hub=hub, speed=None, **options) as replay:
        found = everything(hub, replay.channels[0], replay.status.total)
        assert replay.wait(timeout=10)
    return found
