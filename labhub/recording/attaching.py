"""Which channels a recording takes, and what ends a single one of them."""

from __future__ import annotations

import errno
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from labhub.errors import (
    BrokerUnreachable,
    ChannelBusy,
    ChannelNotFound,
    ClosedError,
    ForkedProcessError,
    InvalidArgument,
    LabHubError,
    RecordingError,
)
from labhub.recording.layout import check_storable
from labhub.tasks import report, words
from labhub.words import did_you_mean

if TYPE_CHECKING:
    from labhub.hub import Hub
    from labhub.hub.channels import ChannelInfo
    from labhub.hub.consumers import Consumer

OF_A_NAME = (
    *(errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY),
)
"""What a file system says of one name: it takes no such name, or something else has it. Other names are no trouble."""
OF_ALL = (BrokerUnreachable, ClosedError, ForkedProcessError)
"""Errors that no channel is at fault for: they end the attempt to record."""


@dataclass
class Attached:
    """The channels of a recording.

    Attributes
    ----------
    consumers : list of (ChannelInfo, Consumer)
        Those that are recorded, with their readers.
    refused : dict of str to LabHubError
        Those that cannot be, and why.
    """

    consumers: list[tuple[ChannelInfo, Consumer]] = field(default_factory=list)
    refused: dict[str, LabHubError] = field(default_factory=dict)

    def close(self) -> None:
        """Give the readers back."""
        for _, consumer in self.consumers:
            consumer.close()


def attach(hub: Hub, channels: Sequence[str], follow: bool, path: str) -> Attached:
    """Attach a reader to each channel that matches, and leave out those that cannot be recorded.

    Raises
    ------
    ChannelNotFound, InvalidArgument
        A name or pattern matches nothing.
    LabHubError
        What is wrong with the only channel.
    RecordingError
        There are several, and none of them can be recorded.
    """
    attached = Attached()
    found = matching(hub, channels)
    try:
        for info in found:
            try:
                attached.consumers.append((info, _attach_one(hub, info, follow)))
            except OF_ALL:
                raise
            except Exception as error:  # noqa: BLE001  # around one channel: whatever is wrong with it, record the others
                attached.refused[info.name] = typed(error, info.name, path)
        if not attached.consumers:
            raise _none_left(attached.refused, path)
    except BaseException:
        attached.close()
        raise
    return attached


def matching(hub: Hub, wanted: Sequence[str]) -> list[ChannelInfo]:
    """Return the channels that match the names or patterns, each once; every one of these must match something."""
    there = hub.channels()
    found: dict[str, ChannelInfo] = {}
    for pattern in wanted:
        mine = {i.name: i for i in there if i.name == pattern or fnmatch.fnmatchcase(i.name, pattern)}
        if not mine:
            hint = did_you_mean(pattern, (i.name for i in there)) or "there are no channels"
            raise ChannelNotFound(f"no channel matches {pattern!r}; {hint}", channel=pattern)
        found |= mine
    if not found:
        raise InvalidArgument("name at least one channel to record; '*' takes all that are there")
    return list(found.values())


def typed(error: BaseException, channel: str, path: str) -> LabHubError:
    """Return what ended a channel as an error of labhub's; one that nobody has foreseen is logged."""
    if isinstance(error, LabHubError):
        return error
    report("item_failed", error, thread="recording", item=channel)
    wrapped = RecordingError(words(error), path=path)
    wrapped.__cause__ = error
    return wrapped


def is_of_disk(error: BaseException) -> bool:
    """Whether an error is about the disk, and so about all channels: full, removed, not writable any more."""
    return isinstance(error, OSError) and not isinstance(error, LabHubError) and error.errno not in OF_A_NAME


def words_of(errors: dict[str, LabHubError]) -> str:
    """Return which channels are not recorded, and why, in one line."""
    return "; ".join(f"{channel}: {error}" for channel, error in errors.items())


def _attach_one(hub: Hub, info: ChannelInfo, follow: bool) -> Consumer:
    """Attach a lossless reader, or a lossy one where the channel lets no further lossless reader in."""
    if info.schema is not None:
        check_storable(info.name, info.schema)
    consumer = _reader(hub, info, follow)
    try:
        check_storable(info.name, consumer.schema)
    except BaseException:
        consumer.close()
        raise
    return consumer


def _reader(hub: Hub, info: ChannelInfo, follow: bool) -> Consumer:
    if info.policy != "Latest_only":
        try:
            return hub.consumer(info.name, mode="lossless", follow=follow, schema=info.schema)
        except ChannelBusy:
            pass
    return hub.consumer(info.name, follow=follow, schema=info.schema)


def _none_left(refused: dict[str, LabHubError], path: str) -> LabHubError:
    errors = list(refused.values())
    if len(errors) == 1:
        return errors[0]
    error = RecordingError(f"none of the channels can be recorded: {words_of(refused)}", path=path)
    error.__cause__ = errors[0]
    return error
