"""All checks, one after the other, and the removal of what they found dead."""

from __future__ import annotations

from dataclasses import replace

from labhub.doctor.brokers import Brokers
from labhub.doctor.finding import Finding, examined
from labhub.doctor.keys import examine_keys
from labhub.doctor.leftovers import examine_leftovers
from labhub.doctor.places import examine_limits, examine_places, examine_space, segment_base
from labhub.doctor.segments import examine_segments
from labhub.runtime import runtime_path
from labhub.tasks import words
from labhub.transport.curve import data_directory


def examine() -> list[Finding]:
    """Look at everything of this user's: directories, limits, keys, brokers and segments. Nothing is changed.

    Returns
    -------
    list of Finding
        In the order of the checks; each check has at least one.
    """
    brokers = Brokers()
    # In this order: whether a segment is known to a broker is known only after they were asked.
    return [
        *examine_places(),
        *examined("shared memory", segment_base(), examine_space()),
        *examined("limits", "open files", examine_limits()),
        *examined("keys", data_directory(), examine_keys()),
        *examined("brokers", runtime_path(), brokers.examine()),
        *examined("segments", segment_base(), examine_segments(brokers.registered)),
        *examined("leftovers", "removed segments in use, files of dead kernels", examine_leftovers()),
    ]


def repair(findings: list[Finding]) -> list[Finding]:
    """Remove what is provably dead, and nothing else; what has come to life again meanwhile is kept.

    Each removal takes the lock first that the living would hold, so that it cannot race with a takeover or a start.

    Parameters
    ----------
    findings : list of Finding
        From `examine`.

    Returns
    -------
    list of Finding
        The same ones, with their `outcome`.
    """
    return [_repaired(finding) for finding in findings]


def _repaired(finding: Finding) -> Finding:
    if finding.remedy is None:
        return finding
    try:
        return replace(finding, outcome="removed" if finding.remedy() else "kept")
    except Exception as error:  # noqa: BLE001  # around one removal: the others go on
        return replace(finding, what=f"{finding.what}; it cannot be removed: {words(error)}", outcome="kept")
