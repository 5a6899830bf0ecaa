"""Where a C++ program finds the core that this package was built from."""

from __future__ import annotations

from pathlib import Path

from labhub import _native


def get_include() -> str:
    """Return the directory to hand to a C++ compiler (``-I``); the headers are ``labhub/*.hpp`` in it.

    Returns
    -------
    str

    Examples
    --------
    >>> import labhub
    >>> flags = ["-std=c++17", "-pthread", f"-I{labhub.get_include()}"]
    """
    return str(_installed() / "include")


def get_cmake_dir() -> str:
    """Return the directory for CMake's ``labhub_DIR``: ``find_package(labhub CONFIG)`` gives the target labhub::core.

    Returns
    -------
    str
    """
    return str(_installed() / "cmake")


def _installed() -> Path:
    """Return where the build put its files: beside the compiled core, also of an editable install."""
    assert _native.__file__ is not None  # it was loaded from a file
    return Path(_native.__file__).parent
