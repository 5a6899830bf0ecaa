"""Start and stop of process-wide modules, in the order of what they need."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from types import TracebackType
from typing import Self

from labhub.errors import LifecycleError
from labhub.logs import event

logger = logging.getLogger(__name__)


def _nothing() -> None:
    return


@dataclass(frozen=True)
class ModuleDef:
    """One module of a process.

    Attributes
    ----------
    name : str
        Its name.
    depends : tuple of str
        Modules that must be started before it.
    start, stop : callable
        What to do; neither takes an argument.
    """

    name: str
    depends: tuple[str, ...] = ()
    start: Callable[[], None] = _nothing
    stop: Callable[[], None] = _nothing


def make_mod_def_list(*modules: ModuleDef) -> list[ModuleDef]:
    """Return the modules as a list, in the words of the reference guide.

    Raises
    ------
    LifecycleError
        If one is not a `ModuleDef`.
    """
    for module in modules:
        if not isinstance(module, ModuleDef):
            raise LifecycleError(f"a lifecycle module is what get_lifecycle_module() returns, not {module!r}")
    return list(modules)


def start_order(modules: Iterable[ModuleDef]) -> list[ModuleDef]:
    """Sort modules so that each comes after those that it needs.

    Raises
    ------
    LifecycleError
        If two have one name, one needs a module that is not there, or they need each other in a circle.
    """
    by_name: dict[str, ModuleDef] = {}
    for module in modules:
        if by_name.setdefault(module.name, module) != module:
            raise LifecycleError(f"two different lifecycle modules are called {module.name!r}")
    for module in by_name.values():
        missing = [name for name in module.depends if name not in by_name]
        if missing:
            raise LifecycleError(f"module {module.name!r} needs {', '.join(missing)}; add it to make_mod_def_list")
    try:
        order = TopologicalSorter({m.name: m.depends for m in by_name.values()}).static_order()
        return [by_name[name] for name in order]
    except CycleError as error:
        raise LifecycleError(f"lifecycle modules need each other in a circle: {' -> '.join(error.args[1])}") from None


class _Running:
    """The modules of this process that are started, each with the number of guards that hold it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._count: dict[str, int] = {}

    def start(self, order: list[ModuleDef]) -> None:
        with self._lock:
            done: list[ModuleDef] = []
            for module in order:
                try:
                    if not self._count.get(module.name):
                        module.start()
                except BaseException as error:
                    self.stop(done)
                    if isinstance(error, Exception):
                        raise LifecycleError(f"module {module.name!r} did not start: {error}") from error
                    raise
                self._count[module.name] = self._count.get(module.name, 0) + 1
                done.append(module)

    def stop(self, order: list[ModuleDef]) -> None:
        with self._lock:
            for module in reversed(order):
                self._count[module.name] -= 1
                if self._count[module.name] == 0:
                    try:
                        module.stop()
                    except Exception:  # the others must stop all the same
                        facts = event("module_stop_failed", module=module.name)
                        logger.exception("lifecycle module %r did not stop cleanly", module.name, extra=facts)


_running = _Running()


class LifecycleGuard:
    """Starts modules in topological order, and stops them in reverse when it is left, closed or dropped.

    A second guard over the same modules is harmless: a module stops when the last guard that holds it does.

    Parameters
    ----------
    modules : iterable of ModuleDef
        From `make_mod_def_list`.

    Raises
    ------
    LifecycleError
        If the modules cannot be ordered, or one does not start; those started before it are stopped then.

    Examples
    --------
    >>> with LifecycleGuard(make_mod_def_list(get_lifecycle_module())):
    ...     pass
    """

    def __init__(self, modules: Iterable[ModuleDef] = ()) -> None:
        self._order = start_order(modules)
        _running.start(self._order)
        self._finalize = weakref.finalize(self, _running.stop, self._order)

    def close(self) -> None:
        """Stop the modules. Twice is harmless."""
        self._finalize()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LifecycleGuard({', '.join(m.name for m in self._order)})"


def get_lifecycle_module() -> ModuleDef:
    """Return the logger module: labhub's loggers stay silent unless the program configures logging."""
    return ModuleDef("logger", start=lambda: logging.getLogger("labhub").addHandler(logging.NullHandler()))
