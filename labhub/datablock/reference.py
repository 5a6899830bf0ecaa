"""DataBlocks under the names and with the configuration of the reference guide."""

from __future__ import annotations

from labhub import _native
from labhub.datablock.config import (
    ChecksumPolicy,
    ConsumerSyncPolicy,
    DataBlockConfig,
    DataBlockPolicy,
    capacity_of,
    checked_count,
    checksum_policy_of,
)
from labhub.datablock.consumer import DataBlockConsumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import DataBlockProducer, open_native
from labhub.errors import InvalidArgument
from labhub.names import check_name
from labhub.schema import Schema


def create_datablock_producer(
    name: str, policy: DataBlockPolicy, config: DataBlockConfig | None = None, schema: Schema | None = None
) -> DataBlockProducer:
    """Create the segment of a channel (reference level).

    Parameters
    ----------
    name : str
        Name of the segment.
    policy : DataBlockPolicy
        How many slots it has.
    config : DataBlockConfig, optional
        Everything else.
    schema : Schema, optional
        What one slot looks like; raw bytes unless given.

    Returns
    -------
    DataBlockProducer

    Raises
    ------
    ChannelBusy, InvalidName, InvalidArgument, IncompatibleSegment, SegmentAccessError, SegmentSpaceError

    Examples
    --------
    >>> producer = create_datablock_producer("raw", DataBlockPolicy.DOUBLE_BUFFER)
    >>> handle = producer.acquire_write_slot(timeout_ms=100)
    >>> handle.write(b"1013.2")
    >>> handle.commit(6)
    >>> producer.release_write_slot(handle)
    >>> producer.next_seq
    1
    """
    check_name(name, "segment")
    config = config or DataBlockConfig()
    policy = DataBlockPolicy(policy)
    if config.policy not in (None, policy):
        raise InvalidArgument(f"the policy is {policy.name}, but config.policy is {config.policy!r}; give one of them")
    schema = schema or Schema.raw(checked_count("logical_unit_size", config.slot_nbytes))
    sync = config.consumer_sync_policy
    return open_native(
        name,
        schema,
        segment_directory(),
        capacity=capacity_of(policy, config.ring_buffer_capacity),
        page_nbytes=config.page_nbytes,
        shared_secret=config.shared_secret or 0,
        policy=policy,
        sync_policy=ConsumerSyncPolicy.LATEST_ONLY if sync is None else ConsumerSyncPolicy(sync),
        checksum_policy=checksum_policy_of(config.checksum_policy or ChecksumPolicy.NONE),
        timeout=None,
        evict_after=None,
    )


def find_datablock_consumer(
    shm_name: str, shared_secret: int, config: DataBlockConfig | None = None
) -> DataBlockConsumer:
    """Attach to a segment (reference level).

    It reads as the segment's `ConsumerSyncPolicy` says: the newest slot under LATEST_ONLY, else every slot, beginning
    with the oldest that is still there.

    Parameters
    ----------
    shm_name : str
        Name of the segment.
    shared_secret : int
        Must match the producer's; 0 asks for none.
    config : DataBlockConfig, optional
        Its fields that are not None must match the segment.

    Returns
    -------
    DataBlockConsumer

    Raises
    ------
    ChannelNotFound, ChannelBusy, SegmentTokenMismatch, SegmentAccessError, IncompatibleSegment, InvalidName

    Examples
    --------
    >>> producer = labhub.create_datablock_producer("raw", labhub.DataBlockPolicy.SINGLE)
    >>> consumer = find_datablock_consumer("raw", shared_secret=0)
    >>> seq = producer.write(b"1013.2")
    >>> handle = consumer.acquire_consume_slot(timeout_ms=1000)
    >>> handle.read(6)
    b'1013.2'
    >>> handle.release()
    """
    directory = segment_directory()
    config = config or DataBlockConfig()
    report = _native.probe(directory, check_name(shm_name, "segment"))
    latest = report["sync_policy"] == ConsumerSyncPolicy.LATEST_ONLY
    capacity = config.ring_buffer_capacity
    native = _native.Consumer(
        directory,
        shm_name,
        lossless=not latest,
        start=_native.START_LAST if latest else _native.START_OLDEST,
        shared_secret=shared_secret or config.shared_secret or 0,
        capacity=capacity if config.policy is None or capacity is None else capacity_of(config.policy, capacity),
        slot_nbytes=config.logical_unit_size,
        policy=config.policy,
        sync_policy=config.consumer_sync_policy,
        checksum_policy=None if config.checksum_policy is None else checksum_policy_of(config.checksum_policy),
    )
    return DataBlockConsumer(native, shm_name, Schema.raw(native.slot_nbytes), "latest" if latest else "lossless")


create_datablock_producer_impl = create_datablock_producer
find_datablock_consumer_impl = find_datablock_consumer
