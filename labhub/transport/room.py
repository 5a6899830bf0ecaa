"""Room for a libzmq context, asked for before one is made: where there is none, libzmq ends the whole process.

And the descriptor by which one thread wakes another that polls the sockets of one.
"""

from __future__ import annotations

import mmap
import os
import resource

from labhub.exhausted import raise_if_exhausted

DESCRIPTORS = 24
"""More open files than a context takes with its two threads, socket, monitor and connections (9 with libzmq 4.3.5)."""
STACKS = 4
"""More stacks than threads that start with it: two of libzmq's, and one or two of ours."""
USUAL_STACK = 8 * 1024 * 1024
"""Stack of a thread where the limit is none (in bytes)."""


def require_room() -> None:
    """Raise unless a context and its threads can be made now.

    Raises
    ------
    SegmentSpaceError
        If there are too few open files, or too little address space.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    stack = USUAL_STACK if soft == resource.RLIM_INFINITY else soft
    taken: list[int] = []
    try:
        for _ in range(DESCRIPTORS):
            taken.append(os.eventfd(0, os.EFD_CLOEXEC))
        mmap.mmap(-1, STACKS * stack, mmap.MAP_PRIVATE).close()
    except OSError as error:
        raise_if_exhausted(error, "there is no room for a connection to a broker")
        raise
    finally:
        for descriptor in taken:
            os.close(descriptor)


def wake_descriptor() -> int:
    """Return a new eventfd for a poll; raises as `require_room`."""
    try:
        return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    except OSError as error:
        raise_if_exhausted(error, "there is no room for a connection to a broker")
        raise
