"""All checks, one after the other, and the removal of what they found dead."""

from __future__ import annotations

from dataclasses import replace

from labhub.doctor.brokers import Brokers
from labhub.doctor.finding import Finding
from labhub.doctor.keys import examine_keys
from labhub.doctor.leftovers import examine_leftovers
from labhub.doctor.places import examine_limits, examine_places, examine_space
from labhub.doctor.segments import examine_segments


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
        *examine_space(),
        *examine_limits(),
        *examine_keys(),
        *brokers.examine(),
        *examine_segments(brokers.registered),
        *examine_leftovers(),
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
    return [
        finding if finding.remedy is None else replace(finding, outcome="removed" if finding.remedy() else "kept")
        for finding in findings
    ]
