"""Opening a recording: whether it is one, and what is in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labhub.errors import NotARecording
from labhub.recording.proof import MANIFEST, ROOT
from labhub.recording.store import ATTRIBUTE, FORMAT_VERSION


def check_ours(store: str | Path) -> Path:
    """Return the path of a recording.

    Raises
    ------
    NotARecording
        There is nothing, something else, or a recording of a later version.
    """
    path = Path(store)
    version = attributes_of(path).get(ATTRIBUTE, {}).get("version")
    if version != FORMAT_VERSION:
        raise NotARecording(
            f"{path} is a recording of version {version!r}, this labhub reads version {FORMAT_VERSION}; update labhub",
            path=str(path),
        )
    if not (path / MANIFEST).exists():
        raise NotARecording(f"{path} has lost its {MANIFEST}; xarray.open_zarr may still read it", path=str(path))
    return path


def attributes_of(path: Path) -> dict[str, Any]:
    """Return the attributes of a recording's root.

    Raises
    ------
    NotARecording
        There is nothing, or something else.
    """
    try:
        attributes = json.loads((path / ROOT).read_bytes())["attributes"]
        if ATTRIBUTE in attributes:
            return dict(attributes)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    what = "is no recording of labhub" if path.exists() else "does not exist"
    raise NotARecording(f"{path} {what}", path=str(path))
