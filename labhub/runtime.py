"""What is in the runtime directory: connection files, where running brokers are found, and files of kernels."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from labhub import __version__, guard, liveness
from labhub.errors import LabHubError, SegmentAccessError
from labhub.exhausted import raise_if_exhausted
from labhub.names import NAME, check_name
from labhub.private import private_directory

LOOK_INTERVAL = 0.02
"""How often a change in the runtime directory is looked for (in seconds)."""
HOLDER_PATIENCE = 2.0
"""How long a broker may hold its lock without a connection file, before it is taken for one that runs (in seconds)."""

KERNELS = re.compile(r"(labhub-)?kernels-(?P<pid>\d+)-(?P<start>\d+\.\d+)(-\w+)?")


class ConnectionFile(msgspec.Struct, frozen=True, kw_only=True):
    """What ``broker-<name>.json`` says.

    Attributes
    ----------
    name, endpoint, public_key : str
        Of the broker.
    pid : int
        Its process, and when that started (`start_time`, in seconds since boot) on which boot, so that another
        process with the same pid is not taken for it.
    version : str
        Of the labhub that it runs; empty where it does not say.
    settings : str
        Path of the settings file that it follows, be it there or not; empty where it does not say.
    settings_error : str
        Why it does not believe what that file says now; empty while it does.
    """

    name: str
    endpoint: str
    public_key: str
    pid: int
    start_time: float
    boot_id: str
    version: str = ""
    settings: str = ""
    settings_error: str = ""

    @classmethod
    def of_this_process(cls, name: str, endpoint: str, public_key: str, settings: str = "") -> ConnectionFile:
        """Describe a broker that runs in this process."""
        return cls(
            name=name,
            endpoint=endpoint,
            public_key=public_key,
            pid=os.getpid(),
            start_time=liveness.start_time_of(os.getpid()) or 0.0,
            boot_id=liveness.boot_id(),
            version=__version__,
            settings=settings,
        )

    def is_of(self, other: ConnectionFile | None) -> bool:
        """Whether both are of one broker, whatever it has said of its settings meanwhile."""
        return other is not None and msgspec.structs.replace(other, settings_error=self.settings_error) == self

    @property
    def alive(self) -> bool:
        """Whether the process that wrote it still runs."""
        return self.boot_id == liveness.boot_id() and liveness.start_time_of(self.pid) == self.start_time

    @property
    def uptime(self) -> float:
        """For how long the process that wrote it has been running (in seconds)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.start_time

    def write(self) -> Path:
        """Put the file into the runtime directory, whole or not at all, readable by its owner only.

        Raises
        ------
        SegmentAccessError
            If the runtime directory is not private.
        SegmentSpaceError
            If it is full; nothing is left there then.
        """
        path = path_of(self.name)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(self), indent=1))
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise_if_exhausted(error, f"cannot write {path}")
            raise
        return path

    def remove(self) -> None:
        """Remove the file, unless another broker has written it meanwhile."""
        if self.is_of(find(self.name)):
            path_of(self.name).unlink(missing_ok=True)


def runtime_path() -> Path:
    """Return where connection files are, without a look at the place.

    `LABHUB_RUNTIME_DIR`, or ``$XDG_RUNTIME_DIR/labhub``, or a folder of Jupyter's runtime directory.
    """
    if given := os.environ.get("LABHUB_RUNTIME_DIR"):
        return Path(given)
    if xdg := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(xdg) / "labhub"
    from jupyter_core.paths import jupyter_runtime_dir

    return Path(jupyter_runtime_dir()) / "labhub"


def runtime_directory() -> Path:
    """Return `runtime_path`; the directory is made if needed, and private.

    Raises
    ------
    SegmentAccessError
        As `private_directory`.
    """
    return private_directory(runtime_path())


def path_of(name: str) -> Path:
    """Return the path of a broker's connection file.

    Raises
    ------
    InvalidName
        If the name cannot be part of a file name.
    """
    return runtime_directory() / f"broker-{check_name(name, 'broker')}.json"


def names() -> list[str]:
    """Return the names of the brokers that have a connection file, be it a stale one; sorted."""
    return sorted(path.name.removeprefix("broker-").removesuffix(".json") for path in connection_files())


def connection_files() -> list[Path]:
    """Return the paths in the runtime directory that look like connection files, sorted."""
    found = runtime_directory().glob("broker-*.json")
    return sorted(path for path in found if NAME.fullmatch(path.name.removeprefix("broker-").removesuffix(".json")))


def is_written(name: str) -> bool:
    """Whether there is anything under the name of a broker's connection file; no directory is made."""
    return os.path.lexists(runtime_path() / f"broker-{name}.json")


def find(name: str = "default") -> ConnectionFile | None:
    """Return the connection file of a broker; None if there is none, or what is there is not one.

    Raises
    ------
    SegmentSpaceError
        If no file can be opened to find out.
    """
    path = path_of(name)
    try:
        if not path.is_file():  # nothing, or a pipe, on which a reader would wait for ever
            return None
        return msgspec.json.decode(path.read_bytes(), type=ConnectionFile)
    except OSError as error:
        raise_if_exhausted(error, f"cannot read {path}")
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def find_live(name: str = "default") -> ConnectionFile | None:
    """Return the connection file of a broker whose process runs, else None; raises as `find`."""
    found = find(name)
    return found if found is not None and found.alive else None


def kernel_directory() -> Path:
    """Return the directory for the kernels that this process starts; it may not be there."""
    return runtime_directory() / f"kernels-{os.getpid()}-{liveness.start_time_of(os.getpid())}"


def socket_directory() -> Path:
    """Make a directory for their sockets, where the path of `kernel_directory` is too long for a socket's."""
    return Path(tempfile.mkdtemp(prefix=f"labhub-{kernel_directory().name}-"))


def abandoned_directories() -> list[Path]:
    """Return the directories of both kinds whose processes have died."""
    found = [*runtime_directory().glob("kernels-*"), *Path(tempfile.gettempdir()).glob("labhub-kernels-*")]
    return sorted(path for path in found if is_abandoned(path))


def is_abandoned(path: Path) -> bool:
    """Whether a directory was made by `kernel_directory` or `socket_directory`, in a process of yours that has died."""
    named = KERNELS.fullmatch(path.name)
    try:
        status = path.lstat()
    except OSError:
        return False
    if named is None or not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return False
    return str(liveness.start_time_of(int(named["pid"]))) != named["start"]


@contextmanager
def claimed(name: str) -> Iterator[None]:
    """Hold a broker's name by a lock file and a socket, which the kernel releases whatever happens to this process.

    The socket is for the case that the file is removed under its broker, as the end of a login does.

    A holder that cannot be found is a broker that is just starting, or just dying: it is waited for, so that the first
    can be named, and the second does not keep its successor from starting.

    Raises
    ------
    LabHubError
        A broker of that name runs already.
    SegmentSpaceError
        There is no room for the file.
    SegmentAccessError
        The runtime directory cannot hold locks, or is not private.
    """
    path = path_of(name).with_suffix(".lock")
    deadline = time.monotonic() + HOLDER_PATIENCE
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise_if_exhausted(error, f"cannot create {path}")
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            if find_live(name) is not None or time.monotonic() > deadline:
                raise _already_running(name) from None
            time.sleep(LOOK_INTERVAL)
            continue
        except OSError as error:
            os.close(descriptor)
            raise_if_exhausted(error, f"cannot lock {path}")
            raise SegmentAccessError(
                f"files in {path.parent} cannot be locked ({error.strerror}), so nobody can tell whether a broker "
                "runs; set LABHUB_RUNTIME_DIR to a directory that can hold locks",
                path=str(path.parent),
            ) from error
        # The holder before us may have unlinked the file between our open and our lock.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            try:
                socket = guard.hold(str(path))
                break
            except guard.Held as holder:  # its lock file was removed
                path.unlink(missing_ok=True)
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    raise _already_running(name, holder.pid) from None
                time.sleep(LOOK_INTERVAL)
        os.close(descriptor)
    held = {descriptor} if socket is None else {descriptor, socket.detach()}
    _claims.update(held)
    try:
        yield
    finally:
        if held <= _claims:  # not in a forked child: the name is its parent's
            path.unlink(missing_ok=True)
            _claims.difference_update(held)
            for each in held:
                os.close(each)


_claims: set[int] = set()


def _forget_claims() -> None:
    """In a forked child: give up its copies, with which a name would be taken for as long as the child lives."""
    while _claims:
        os.close(_claims.pop())


os.register_at_fork(after_in_child=_forget_claims)


def _already_running(name: str, pid: int = 0) -> LabHubError:
    running = find_live(name)
    where = f": pid {pid}" if pid else ""
    where = where if running is None else f": pid {running.pid} at {running.endpoint}"
    return LabHubError(f"a broker named {name!r} runs already{where}; stop it first, or give the new one another name")
