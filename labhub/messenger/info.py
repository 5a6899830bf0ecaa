"""What producers and consumers tell each other through the broker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ProducerInfo:
    """What a producer tells the broker.

    Attributes
    ----------
    shm_name : str
        Name of the segment.
    producer_pid : int
    schema_hash : bytes
        32 bytes; all zero means undeclared.
    schema_version : int
    metadata : mapping
        Plain JSON values.
    """

    shm_name: str
    producer_pid: int
    schema_hash: bytes
    schema_version: int
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ConsumerInfo:
    """What the broker tells a consumer; the fields are those of `ProducerInfo`."""

    shm_name: str
    schema_hash: bytes
    schema_version: int
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metrics:
    """Numbers about a channel, or about the broker itself.

    Attributes
    ----------
    values : mapping of str to float
    age_s : float or None
        How old they are (in seconds); None if nothing was reported yet.
    """

    values: Mapping[str, float]
    age_s: float | None
