"""Live data channels between lab processes: shared-memory rings, a broker, and notebooks that feel native.

Names are imported on first use, so that ``import labhub`` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__version__ = "0.1.0"

_MODULE_OF = {
    "BrokerConfig": "broker",
    "BrokerService": "broker",
    "ChannelRegistry": "broker",
    "bridge": "bridging",
    "Batch": "datablock.batch",
    "ChecksumPolicy": "datablock.config",
    "ConsumerSyncPolicy": "datablock.config",
    "DataBlockConfig": "datablock.config",
    "DataBlockPageSize": "datablock.config",
    "DataBlockPolicy": "datablock.config",
    "ConsumeHandle": "datablock.reading",
    "DataBlockConsumer": "datablock.consumer",
    "find_datablock_consumer": "datablock.reference",
    "find_datablock_consumer_impl": "datablock.reference",
    "diagnose": "datablock.diagnostics",
    "reset_counters": "datablock.diagnostics",
    "get_cmake_dir": "datablock.headers",
    "get_include": "datablock.headers",
    "DataBlockProducer": "datablock.producer",
    "WriteHandle": "datablock.writing",
    "create_datablock_producer": "datablock.reference",
    "create_datablock_producer_impl": "datablock.reference",
    "Hub": "hub",
    "connect": "hub",
    "LifecycleGuard": "lifecycle",
    "make_mod_def_list": "lifecycle",
    "ConsumerInfo": "messenger",
    "Messenger": "messenger",
    "ProducerInfo": "messenger",
    "HubBrowser": "notebook.browser",
    "LiveImage": "notebook.live_image",
    "LivePlot": "notebook.live_plot",
    "Recording": "recording",
    "replay": "replaying",
    "Schema": "schema",
}
_SUBMODULES = frozenset({"broker", "doctor", "errors", "lifecycle", "messenger", "transport"})

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"labhub.{name}")
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'labhub' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"labhub.{module}"), name)
    except ModuleNotFoundError as error:
        if error.name != "labhub._native":
            raise
        raise ImportError(
            "labhub's compiled core is not there. In a checkout, run `pip install -e .` (a plain install is hidden by "
            "the labhub/ folder of the current directory); elsewhere, reinstall labhub."
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF, *_SUBMODULES})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add labhub's magics: ``%load_ext labhub``."""
    from labhub.ipython_ext import load_ipython_extension as load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove labhub's magics and stop what they started: ``%unload_ext labhub``."""
    from labhub.ipython_ext import unload_ipython_extension as unload

    unload(shell)
