"""How an error tells itself to a person: with advice for the face that they use, and without labhub's own frames."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

Face = Literal["python", "shell", "notebook"]

EVERYTHING = "Verbose"
"""The mode of IPython's ``%xmode`` in which nothing is hidden."""
OURS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
_PATHS = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
LIBRARIES = tuple(os.path.join(path, "") for path in (*_PATHS, site.getusersitepackages()) if path)


@dataclass(frozen=True)
class Advice:
    """What to do next, where that depends on where a person meets the error. It follows the message as it stands.

    Attributes
    ----------
    python, shell : str
        In a program, and at the command line.
    notebook : str, optional
        Behind a magic; the program's unless given.
    """

    python: str
    shell: str = ""
    notebook: str | None = None


class Telling:
    """What errors of labhub can do besides being raised."""

    _told: tuple[str, Advice | None]

    @property
    def bare(self) -> str:
        """The message without the advice that differs from face to face, to be quoted in another one."""
        return self._told[0]

    def told(self, face: Face) -> str:
        """Return the message as it is meant for a person at the command line, in a notebook or in a program."""
        message, advice = self._told
        if advice is None or face == "python":
            return str(self)
        here = advice.shell if face == "shell" else advice.notebook
        return message + (advice.python if here is None else here)

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows; it calls this by itself."""
        assert isinstance(self, BaseException)
        return rendered(self)


def rendered(error: BaseException) -> list[str]:
    """Return the lines of an error's traceback, as IPython shows it, without what lies inside labhub.

    IPython calls the method ``_render_traceback_`` of an error, if it has one, instead of formatting it itself, and
    with the extension or without. The shell's own formatter makes the lines, so that its colours, its width and
    ``%xmode`` stay in force; ``%xmode Verbose`` shows all frames, and ``%debug`` still has them.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None:
        return traceback.format_exception(error)
    whole = error.__traceback__
    formatter = shell.InteractiveTB
    shown = whole if formatter.mode == EVERYTHING else without_ours(whole)
    lines: list[str] = formatter.structured_traceback(type(error), error, shown)
    return lines


def without_ours(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without labhub's frames, and without what labhub has called in other libraries.

    Callbacks of the user that labhub has called stay. If no frame is the user's, nothing is left out.
    """
    steps = list(_steps(trace))
    users = [k for k, step in enumerate(steps) if _is_users(step)]
    if not users:
        return trace
    kept = None
    for step in reversed(steps[: users[-1] + 1]):
        if not _file(step).startswith(OURS):
            kept = TracebackType(kept, step.tb_frame, step.tb_lasti, step.tb_lineno)
    return kept


def _steps(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _file(step: TracebackType) -> str:
    return step.tb_frame.f_code.co_filename


def _is_users(step: TracebackType) -> bool:
    return not _file(step).startswith((OURS, *LIBRARIES, "<frozen"))
