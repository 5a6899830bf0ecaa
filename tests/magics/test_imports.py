"""What an import costs: a module that is not needed is not imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("xarray", "pandas", "anywidget", "ipywidgets", "matplotlib", "scipy", "pyarrow", "jupyter_client", "tqdm")


def imported_by(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*sorted(m for m in sys.modules if '.' not in m))"
    return set(subprocess.check_output([sys.executable, "-c", program], text=True, timeout=60).split())


@pytest.mark.parametrize(
    "statement",
    [
        "import labhub",
        "import labhub; labhub.connect, labhub.Schema, labhub.Batch",
        "import labhub.ipython_ext",
    ],
)
def test_nothing_heavy_comes_along(statement: str) -> None:
    assert imported_by(statement) & set(HEAVY) == set()


def test_the_package_alone_imports_next_to_nothing() -> None:
    assert imported_by("import labhub") & {"numpy", "zmq", "msgspec", "nacl", "IPython"} == set()
