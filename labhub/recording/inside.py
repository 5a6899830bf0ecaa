"""Opening the files of a store that somebody else may have made: regular files below it, and nothing else.

A name is resolved part by part from a descriptor of the store, and no symbolic link is followed on the way. A name that
leads outside, a FIFO, a device, a socket or a directory in the place of a file is refused before it is opened.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

LONGEST_PATH = 4096
"""Most bytes of a name with all its directories, as in Linux."""
LARGEST_FILE = 1 << 32
"""Most bytes of a chunk in a store, and so of a slot that can be recorded."""
LARGEST_JSON = 256 * 1024 * 1024
"""Most bytes of a metadata file."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def check_inside(name: object) -> str:
    """Return a name relative to a store if it can only lead to a place inside; `ValueError` otherwise."""
    if not isinstance(name, str) or len(name.encode()) > LONGEST_PATH:
        raise ValueError("a file's name is no text, or too long")
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"the name {name[:80]!r} leads to no file inside the store")
    return name


def open_inside(store: Path, name: str) -> BinaryIO:
    """Open a regular file of a store for reading, without a buffer.

    Raises
    ------
    OSError
        There is none of that name, or it is no regular file.
    ValueError
        The name leads outside.
    """
    *parents, last = check_inside(name).split("/")
    with _directory(store, parents) as directory:
        # Looked at first: to open a device can already do something.
        _check_regular(os.stat(last, dir_fd=directory, follow_symlinks=False), name)
        descriptor = os.open(last, _FILE, dir_fd=directory)
    try:
        _check_regular(os.fstat(descriptor), name)
        return os.fdopen(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def read_inside(store: Path, name: str, most: int) -> bytes:
    """Read a regular file of a store, as `open_inside`; one of more than `most` bytes is an `OSError`."""
    with open_inside(store, name) as file:
        data = b"" if (size := os.fstat(file.fileno()).st_size) > most else _read(file, size)
        if size > most or file.read(1):
            raise OSError(errno.EFBIG, f"has more than {most} bytes", name)
        return data


def entries(store: Path, directories: Container[str]) -> Iterator[tuple[str, bool]]:
    """Return what lies in a store, and whether it is a regular file; only these directories are looked into.

    Yields
    ------
    name : str
        Relative to the store; that of a directory that is not looked into ends with ``/``.
    regular : bool
    """
    todo = [""]
    while todo:
        inside = todo.pop()
        with _directory(store, inside.split("/") if inside else []) as directory, os.scandir(directory) as found:
            for entry in found:
                name = f"{inside}/{entry.name}" if inside else entry.name
                if not entry.is_dir(follow_symlinks=False):
                    yield name, entry.is_file(follow_symlinks=False)
                elif name in directories:
                    todo.append(name)
                else:
                    yield f"{name}/", False


def parsed(data: bytes) -> Any:
    """Parse JSON of a stranger's; whatever is wrong with it is a `ValueError`."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _read(file: BinaryIO, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_regular(found: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is no regular file", name)


@contextmanager
def _directory(store: Path, parts: list[str]) -> Iterator[int]:
    descriptor = os.open(store, _DIRECTORY)
    try:
        for part in parts:
            below = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)
