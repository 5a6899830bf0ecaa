"""What the magics share: one-line errors and the session."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from IPython.core.error import UsageError
from IPython.core.magic import Magics
from IPython.core.magic_arguments import argument

from labhub.errors import LabHubError
from labhub.notebook.session import Session
from labhub.words import did_you_mean, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from IPython.core.interactiveshell import InteractiveShell

P = ParamSpec("P")
T = TypeVar("T")


class SessionMagics(Magics):
    """Magics that share what they have started.

    Parameters
    ----------
    shell : InteractiveShell
    session : Session
    """

    def __init__(self, shell: InteractiveShell, session: Session) -> None:
        super().__init__(shell)
        self.session = session


S = TypeVar("S", bound=SessionMagics)


def one_line_errors(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Turn labhub's errors, which say what to do, into one line without a traceback."""

    @functools.wraps(method)
    def wrapped(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except LabHubError as error:
            raise UsageError(one_line(error.told("notebook"))) from None
        except OSError as error:  # a file that is not there, or not to be read: as at the command line
            raise UsageError(one_line(error)) from None

    return wrapped


def uninterrupted(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Let a magic come to its end, see `Steps`, even where an Interrupt ends the wait for it."""

    @functools.wraps(method)
    def wrapped(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.session.steps(lambda: method(self, *args, **kwargs))

    return wrapped


def checked_action(magic: str, action: str, actions: Sequence[str]) -> str:
    """Return the sub-command of a magic.

    Raises
    ------
    UsageError
        If it is not one of them; the message has them all, and the closest.
    """
    if action in actions:
        return action
    hint = did_you_mean(action, actions)
    closest = f"; {hint}" if hint.startswith("did") else ""
    raise UsageError(f"%{magic} {action}: choose one of {', '.join(actions)}{closest}")


def broker_name(option: str = "--name") -> Any:
    """Return the option that names the broker."""
    return argument(option, default="default", metavar="NAME", help="name of the broker")
