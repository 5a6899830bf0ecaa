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

from labhub import __version__, liveness
from labhub.errors import LabHubError, SegmentAccessError
from labhub.names import NAME, check_name

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
    """

    name: str
    endpoint: str
    public_key: str
    pid: int
    start_time: float
    boot_id: str
    version: str = ""

    @classmethod
    def of_this_process(cls, name: str, endpoint: str, public_key: str) -> ConnectionFile:
        """Describe a broker that runs in this process."""
        return cls(
            name=name,
            endpoint=endpoint,
            public_key=public_key,
            pid=os.getpid(),
            start_time=liveness.start_time_of(os.getpid()) or 0.0,
            boot_id=liveness.boot_id(),
            version=__version__,
        )

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
        """
        path = path_of(self.name)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self), indent=1))
        os.replace(temporary, path)
        return path

    def remove(self) -> None:
        """Remove the file, unless another broker has written it meanwhile."""
        if find(self.name) == self:
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
        If it belongs to somebody else or is open to others.
    """
    path = runtime_path()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise SegmentAccessError(f"{path} must be yours alone; run: chmod 700 '{path}'", path=str(path))
    return path


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


def find(name: str = "default") -> ConnectionFile | None:
    """Return the connection file of a broker; None if there is none, or what is there is not one."""
    path = path_of(name)
    try:
        return msgspec.json.decode(path.read_bytes(), type=ConnectionFile)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def find_live(name: str = "default") -> ConnectionFile | None:
    """Return the connection file of a broker whose process runs, else None."""
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
    """Hold the lock file of a broker's name, which the kernel releases whatever happens to this process.

    Raises
    ------
    LabHubError
        A broker of that name runs already.
    """
    path = path_of(name).with_suffix(".lock")
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise _already_running(name) from None
        # The holder before us may have unlinked the file between our open and our lock.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            break
        os.close(descriptor)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _already_running(name: str) -> LabHubError:
    running = find_live(name)
    where = "" if running is None else f": pid {running.pid} at {running.endpoint}"
    return LabHubError(f"a broker named {name!r} runs already{where}; stop it first, or give the new one another name")
