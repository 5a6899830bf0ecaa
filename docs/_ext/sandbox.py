"""The notebooks of the site run in directories of their own: nothing of the user who builds it is read or touched."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labhub.errors import BrokerUnreachable
from labhub.hub import stop_broker

if TYPE_CHECKING:
    from sphinx.application import Sphinx

OURS = ("LABHUB_SHM_DIR", "LABHUB_RUNTIME_DIR", "LABHUB_DATA_DIR", "LABHUB_CONFIG_DIR")
# Settings of the user would change what the pages look like.
OTHERS = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR")


def enter(app: Sphinx) -> None:
    """Give the kernels that this build will start directories of their own, on tmpfs as segments want it."""
    base = Path(tempfile.mkdtemp(prefix="labhub-site-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    for variable in (*OURS, *OTHERS):
        (base / variable).mkdir(mode=0o700)
        os.environ[variable] = str(base / variable)
    app.connect("build-finished", lambda *_: leave(base))


def leave(base: Path) -> None:
    """Stop the broker of a notebook that failed, the others stop their own, and remove the directories."""
    with suppress(BrokerUnreachable):
        stop_broker()
    shutil.rmtree(base)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("builder-inited", enter)
    return {"parallel_read_safe": False}  # the notebooks share one broker's name
