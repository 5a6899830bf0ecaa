"""Objects that belong to the process that made them, and cannot be sent to another one or copied."""

from __future__ import annotations

from typing import Any, NoReturn

from labhub.errors import NotPicklable


class Bound:
    """Base of what holds a connection, a mapping, a lock or a thread: pickling and copying it says what to do instead.

    ``multiprocessing``, ``concurrent.futures``, joblib and dask pickle what they send to another process.
    """

    __slots__ = ()

    def _instead(self) -> str:
        """What to do in the other process, in words."""
        raise NotImplementedError

    def __copy__(self) -> NoReturn:
        self.__reduce_ex__(None)

    def __deepcopy__(self, _memo: Any) -> NoReturn:
        self.__reduce_ex__(None)

    def __reduce_ex__(self, _protocol: Any) -> NoReturn:
        kind = type(self).__name__
        raise NotPicklable(
            f"a labhub {kind} belongs to the process that made it and cannot be pickled or copied; {self._instead()}",
            kind=kind,
        )


def connect_line(name: str, *, endpoint: bool = False) -> str:
    """Return the line that connects another process to the broker of that name."""
    words = [] if name == "default" and not endpoint else [repr(name)]
    words += ["endpoint=...", "public_key=..."] if endpoint else []
    return f"labhub.connect({', '.join(words)})"
