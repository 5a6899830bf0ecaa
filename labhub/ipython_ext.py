"""Magics for notebooks and IPython: ``%load_ext labhub``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labhub.ending import at_exit
from labhub.notebook.complete import MAGICS, MagicCompleter
from labhub.notebook.magics.broker import BrokerMagics
from labhub.notebook.magics.channels import ChannelMagics
from labhub.notebook.magics.producers import ProducerMagics
from labhub.notebook.magics.recordings import RecordingMagics
from labhub.notebook.session import Session

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


@dataclass(frozen=True)
class _Loaded:
    """What one shell has loaded."""

    session: Session
    completer: MagicCompleter

    def close(self) -> None:
        self.completer.close()
        self.session.close()


_loaded: dict[int, _Loaded] = {}


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add the magics and their completion. Loading twice is harmless: IPython does not call it again."""
    session = Session()
    for magics in (BrokerMagics, ChannelMagics, ProducerMagics, RecordingMagics):
        shell.register_magics(magics(shell, session))
    completer = MagicCompleter(session)
    shell.Completer.custom_matchers.append(completer.matcher)
    _loaded[id(shell)] = _Loaded(session, completer)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove the magics and end what they started; a broker that is a process of its own goes on, for the others."""
    loaded = _loaded.get(id(shell))
    if loaded is None:
        return
    stop_widgets()
    loaded.completer.close()

    def step() -> None:
        if _loaded.pop(id(shell), None) is None:
            return  # the unload before was interrupted, and came to its end all the same
        shell.Completer.custom_matchers.remove(loaded.completer.matcher)
        for kind in shell.magics_manager.magics.values():
            for name in MAGICS:
                kind.pop(name, None)
        loaded.session.close()

    loaded.session.steps(step)


def stop_widgets() -> None:
    """Stop the threads and readers of live widgets, if there are any; what they show stays."""
    live = sys.modules.get("labhub.notebook.live")
    if live is not None:
        live.stop_all()


@at_exit
def _close_all() -> None:
    """The end of the kernel is an unload, too."""
    while _loaded:
        _loaded.popitem()[1].close()
