"""The one tree of errors that labhub raises.

Every class derives from `LabHubError` and from the matching builtin, so that both ``except LabHubError`` and
``except TimeoutError`` work. The message says what was wrong, with which value, and what to do next; the facts behind
it are attributes, listed per class.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

from labhub.telling import Advice, Telling


class LabHubError(Telling, Exception):
    """Base of all errors raised by labhub.

    Parameters
    ----------
    message : str
        What was wrong, with which value, and what to do next.
    advice : Advice, optional
        What to do next, where that differs from face to face; it stands behind the message.
    **facts : object
        The facts behind the message; each becomes an attribute.
    """

    def __init__(self, message: str, *, advice: Advice | None = None, **facts: object) -> None:
        text = message if advice is None else message + advice.python
        super().__init__(text)
        self.args = (text,)  # also where `__new__` has seen the message without its advice
        self.__dict__.update(facts)
        self._told = message, advice


class InvalidArgument(LabHubError, ValueError):
    """An argument has a value that cannot be used."""


class InvalidName(InvalidArgument):
    """A channel, segment or broker name does not match ``[A-Za-z0-9][A-Za-z0-9._-]{0,127}``.

    Attributes
    ----------
    name : str
        The refused name.
    """

    name: str


class MissingDependency(LabHubError, ImportError):
    """A package that only some of labhub needs is not installed; the message has the line that installs it.

    Attributes
    ----------
    package : str
        The package.
    """

    package: str


class SchemaMismatch(LabHubError, ValueError):
    """Two schemas, or a value and a schema, do not describe the same bytes.

    Attributes
    ----------
    difference : tuple of str
        One line for each field that differs.
    """

    difference: tuple[str, ...] = ()


class IncompatibleSegment(LabHubError, ValueError):
    """A file is not a DataBlock segment that this build can use.

    Attributes
    ----------
    path : str
        The file.
    field : str
        The header field that gave it away.
    """

    path: str
    field: str = ""


class VersionMismatch(IncompatibleSegment):
    """A segment, or a broker, speaks another version of the layout or protocol.

    Attributes
    ----------
    ours, theirs : int
        The two versions.
    """

    ours: int
    theirs: int


class SegmentTokenMismatch(LabHubError, PermissionError):
    """The segment is not the one that was asked for: its shared secret or its instance id differs."""


class SegmentAccessError(LabHubError, PermissionError):
    """A segment, directory or key file belongs to another user, is a link, is open to others, or cannot be locked.

    Attributes
    ----------
    path : str
        The file or directory.
    """

    path: str


class SegmentSpaceError(LabHubError, OSError):
    """A segment, or what else labhub needs, does not fit: a file system, the memory or the table of open files is full.

    Attributes
    ----------
    needed, free : int
        Bytes asked for and bytes available (-1 where unknown).
    """

    needed: int = -1
    free: int = -1


class ChannelNotFound(LabHubError, LookupError):
    """No channel or segment of that name is there.

    Attributes
    ----------
    channel : str
        The name that was looked for.
    """

    channel: str


class ChannelBusy(LabHubError, RuntimeError):
    """The channel already has a live producer, or a consumer where only one is allowed.

    Attributes
    ----------
    pid : int
        Process that holds it (0 where unknown).
    """

    pid: int = 0


class SchemaConflict(SchemaMismatch, ChannelBusy):
    """The channel already has a live producer, and with another schema; the attributes are those of both."""


class TimeoutExpired(LabHubError, TimeoutError):
    """Nothing arrived within the timeout (in seconds)."""


class BackpressureTimeout(TimeoutExpired):
    """A lossless consumer held the producer for longer than the write's timeout.

    Attributes
    ----------
    pid : int
        Process of the slowest lossless consumer.
    lag : int
        Its lag (in slots).
    written : int
        How many slots of a `Producer.write_many` were written before.
    """

    pid: int = 0
    lag: int = 0
    written: int = 0


class StreamError(LabHubError, RuntimeError):
    """Base of what can befall a reader in mid-stream."""


class Lapped(StreamError):
    """A zero-copy view was overwritten by the producer while it was in use; what it showed must be discarded.

    Attributes
    ----------
    seq : int
        The slot that was lost.
    """

    seq: int


class Evicted(StreamError):
    """A lossless consumer was evicted because it held up the producer; it has been registered anew at the head.

    Attributes
    ----------
    lost : int
        Exactly how many slots it lost.
    """

    lost: int


class ProducerGone(StreamError, ConnectionError):
    """The producer died without closing the channel and nobody took it over.

    Attributes
    ----------
    pid : int
        Process of the dead producer.
    """

    pid: int = 0

    def __new__(cls, *args: object, **_facts: object) -> Self:
        """Make it as the `OSError` that it is; by itself, Python would look at `RuntimeError` first."""
        return ConnectionError.__new__(cls, *args)


class ChecksumError(StreamError, ValueError):
    """The bytes of a slot do not match the checksum that its producer stored.

    Attributes
    ----------
    seq : int
        The slot.
    """

    seq: int


class ClosedError(LabHubError, ValueError):
    """The object was closed before this call."""


class ConcurrentUseError(LabHubError, RuntimeError):
    """Two threads used one producer or consumer at the same time, or a slot is already open."""


class ForkedProcessError(LabHubError, RuntimeError):
    """A producer, consumer or hub of the parent process was used in a forked child."""


class NotPicklable(LabHubError, TypeError):
    """An object that belongs to its process was to be pickled or copied; the message says what to do instead.

    Attributes
    ----------
    kind : str
        Its class.
    """

    kind: str


class LifecycleError(LabHubError, RuntimeError):
    """Lifecycle modules depend on each other in a circle, on a missing one, or failed to start."""


class BrokerUnreachable(LabHubError, ConnectionError):
    """No broker answered.

    Attributes
    ----------
    endpoint : str
        Where it was looked for.
    """

    endpoint: str = ""


class AuthenticationError(LabHubError, PermissionError):
    """A key was refused: the server's, the client's, or a key file that others can read."""


class AccessDenied(LabHubError, PermissionError):
    """The broker's access rules do not give this client's key the right that a request needs.

    Attributes
    ----------
    key : str
        The name under which the client's key is enrolled there, or the public key itself.
    channel : str
        The channel; ``"*"`` for the broker itself.
    right : str
        What is missing: ``"produce"``, ``"consume"`` or ``"administer"``.
    grant : str
        The lines of the broker's settings file that would give it.
    """

    key: str = ""
    channel: str = ""
    right: str = ""
    grant: str = ""


class InvalidSettings(InvalidArgument):
    """A broker's settings file cannot be used.

    Attributes
    ----------
    path : str
        The file.
    line : int
        Where in it (from 1 on; 0 where that is not known).
    field : str
        Which setting, such as ``access.ann.consume``; empty where it is none in particular.
    """

    path: str = ""
    line: int = 0
    field: str = ""


class ProtocolError(LabHubError, ValueError):
    """A message breaks the protocol, or the broker refused a request.

    Attributes
    ----------
    code : str
        One of `labhub.protocol.messages.ErrorCode`.
    details : dict of str to str
        What a program may want to know of it, besides the message.
    """

    code: str = "INVALID_REQUEST"
    details: Mapping[str, str] = MappingProxyType({})


class QuotaExceeded(ProtocolError):
    """A client key has as many channels, watches or registered consumers as one may, or does not read its answers."""


class StoreExists(LabHubError, FileExistsError):
    """There is something where a recording was to be made.

    Attributes
    ----------
    path : str
        Where.
    """

    path: str


class NotARecording(LabHubError, ValueError):
    """A path holds no recording that this labhub can read.

    Attributes
    ----------
    path : str
        The path.
    """

    path: str


class DamagedStore(LabHubError, ValueError):
    """A recording, or its manifest, is not what was recorded.

    Attributes
    ----------
    path : str
        The recording.
    """

    path: str


class UntrustedSigner(DamagedStore, PermissionError):
    """A recording is signed by somebody else than it is to be; the message says by whom, and how to take it anyway.

    Attributes
    ----------
    path : str
        The recording.
    signer : str
        Who signed it (Ed25519, hex).
    """

    signer: str

    def __new__(cls, *args: object, **_facts: object) -> Self:
        """Make it as the `OSError` that it is; by itself, Python would look at `ValueError` first."""
        return PermissionError.__new__(cls, *args)


class RecordingError(LabHubError, OSError):
    """A recording, or one of its channels, could not go on; what was committed before is readable.

    The channels themselves were not touched.

    Attributes
    ----------
    path : str
        The recording.
    lost : int
        How many slots were read and not stored.
    """

    path: str
    lost: int = 0


class BridgeError(LabHubError, ConnectionError):
    """The network of a bridge cannot be opened, or another machine cannot be reached.

    Attributes
    ----------
    endpoint : str
        The Zenoh endpoint, where one is to blame.
    """

    endpoint: str = ""


class ExportConflict(LabHubError, RuntimeError):
    """A channel cannot be imported, because two machines export one of its name, or it has a producer here.

    Attributes
    ----------
    channel : str
        Its name.
    sites : tuple of str
        Who exports it.
    """

    channel: str
    sites: tuple[str, ...] = ()
