"""Who holds a channel, in words a person at the bench understands."""

from __future__ import annotations

import os

import psutil

KERNEL = "ipykernel"
"""What the command line of a Jupyter kernel contains."""


def is_kernel(pid: int) -> bool:
    """Whether a process is this one, or a Jupyter kernel: something that a user would not want to be ended."""
    try:
        return pid == os.getpid() or any(KERNEL in word for word in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def describe_process(pid: int) -> str:
    """Describe a process: its pid, and its notebook or command where they can be seen.

    Parameters
    ----------
    pid : int
        Process id, 0 where unknown.

    Returns
    -------
    str
        For example ``pid 4711 (the notebook pump.ipynb)``.
    """
    if pid <= 0:
        return "an unknown process"
    if pid == os.getpid():
        return f"pid {pid} (this process)"
    try:
        process = psutil.Process(pid)
        # Set by Jupyter servers in the environment of each kernel they start.
        notebook = process.environ().get("JPY_SESSION_NAME", "")
        command = process.cmdline()
    except psutil.Error:
        return f"pid {pid}"
    if notebook:
        return f"pid {pid} (the notebook {os.path.basename(notebook)})"
    if any(KERNEL in word for word in command):
        return f"pid {pid} (a Jupyter kernel)"
    return f"pid {pid} ({' '.join(command)[:60]})" if command else f"pid {pid}"
