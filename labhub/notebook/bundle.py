"""The JavaScript that the build bundled, one module and one style sheet for each widget."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from labhub.errors import LabHubError

STATIC = Path(__file__).parent / "static"


@cache
def bundle(name: str) -> tuple[str, str]:
    """Return a widget's module and style sheet.

    Parameters
    ----------
    name : str
        ``"live_plot"``, for example.

    Raises
    ------
    LabHubError
        They were not built.
    """
    try:
        return tuple((STATIC / f"{name}.{kind}").read_text("utf-8") for kind in ("js", "css"))  # type: ignore[return-value]
    except OSError:
        raise LabHubError(
            f"the JavaScript of labhub's widgets is not there ({name}.js); in a checkout run `pip install -e .`, which "
            "builds it, elsewhere reinstall labhub"
        ) from None
