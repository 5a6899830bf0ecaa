"""How many examples the property tests try, and which."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("LABHUB_PROPERTY_EXAMPLES", "0"))
"""So many random examples for each test, others each time; unless it is set, a few that are always the same."""


def examples(few: int) -> Callable[[Any], Any]:
    """Return the settings of a test that tries a few examples unless the environment asks for more."""
    return settings(
        max_examples=EXAMPLES or few,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


quick = examples(200)
