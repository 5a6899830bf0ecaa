"""A name that a process holds without a file, so that nobody can remove it: a socket in the abstract namespace."""

from __future__ import annotations

import hashlib
import os
import socket

import psutil


class Held(Exception):  # an answer, not an error
    """Another process of this user holds the name.

    Attributes
    ----------
    pid : int
        That process.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(f"process {pid} holds it")
        self.pid = pid


def hold(name: str) -> socket.socket | None:
    """Hold a name until the socket is closed, or the process ends; None where that is not possible.

    The name is that of this user, as this mount namespace sees files. A stranger can take it, too: he is left alone,
    and the name is then guarded by files only.

    Raises
    ------
    Held
        Another process of this user holds it.
    """
    address = b"\0labhub-" + hashlib.blake2b(_own(name), digest_size=20).hexdigest().encode()
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        end.bind(address)
    except OSError:
        end.close()
    else:
        return end
    if (pid := _holder(address)) is not None:
        raise Held(pid)
    return None


def _own(name: str) -> bytes:
    try:
        files = os.readlink("/proc/self/ns/mnt")
    except OSError:
        files = ""
    return "\0".join((str(os.geteuid()), files, name)).encode("utf-8", "surrogateescape")


def _holder(address: bytes) -> int | None:
    """The process of this user whose socket that is; None if there is none. Others' sockets cannot be looked at."""
    shown = "@" + address[1:].decode()
    for found in psutil.net_connections(kind="unix"):
        if str(found.laddr) == shown and found.pid is not None and _is_ours(found.pid):
            return found.pid
    return None


def _is_ours(pid: int) -> bool:
    try:
        return psutil.Process(pid).uids().effective == os.geteuid()
    except psutil.Error:
        return False
