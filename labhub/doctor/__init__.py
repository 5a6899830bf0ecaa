"""What is wrong with labhub on this machine, and how to put it right.

`examine` only looks. `repair` removes what is provably dead, and nothing else.
"""

from labhub.doctor.examination import examine, repair
from labhub.doctor.finding import Finding, Severity

__all__ = ["Finding", "Severity", "examine", "repair"]
