"""One thing that was found."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from labhub.tasks import words

Severity = Literal["ok", "note", "problem"]

REPAIR = "labhub doctor --fix"


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    check : str
        Which check found it, such as "segments".
    severity : {"ok", "note", "problem"}
        A note is good to know; a problem stops something from working, or will.
    subject : str
        The path, broker or limit that it is about.
    what : str
        What was found there.
    fix : str
        What to do about it, as a command, where there is one.
    outcome : {"", "removed", "kept"}
        What `repair` did: nothing, as there was nothing to do; removed it; or kept it, as it was in use again, or could
        not be removed.
    remedy : callable or None
        Removes it if it still is provably dead; whether it was removed.
    """

    check: str
    severity: Severity
    subject: str
    what: str
    fix: str = ""
    outcome: Literal["", "removed", "kept"] = ""
    remedy: Callable[[], bool] | None = field(default=None, repr=False, compare=False)

    @property
    def unsolved(self) -> bool:
        """Whether it is a problem that is still there."""
        return self.severity == "problem" and self.outcome != "removed"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "check": self.check,
            "severity": self.severity,
            "subject": self.subject,
            "what": self.what,
            "fix": self.fix,
            "removable": self.remedy is not None,
            "outcome": self.outcome,
        }


def dead(check: str, subject: object, what: str, remedy: Callable[[], bool]) -> Finding:
    """Return the finding of something that is provably dead, so that it can be removed."""
    return Finding(check, "problem", str(subject), what, REPAIR, remedy=remedy)


def examined(check: str, subject: object, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings; if one thing cannot be examined to its end, that is a finding, too, and the others go on."""
    try:
        yield from findings
    except Exception as error:  # noqa: BLE001  # around one thing that is examined
        yield Finding(check, "problem", str(subject), f"cannot be examined: {words(error)}")


def command(*words: str | Path) -> str:
    """Return a command for the shell, its words quoted where they must be."""
    return shlex.join(map(str, words))
