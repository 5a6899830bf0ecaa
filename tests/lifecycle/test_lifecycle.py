from __future__ import annotations

import gc

import pytest

import labhub
from labhub import LifecycleGuard, make_mod_def_list
from labhub.errors import LifecycleError
from labhub.lifecycle import ModuleDef


class Log(list[str]):
    def module(self, name: str, *depends: str, fails: bool = False) -> ModuleDef:
        def start() -> None:
            if fails:
                raise OSError("no such device")
            self.append(f"+{name}")

        return ModuleDef(name, depends, start, lambda: self.append(f"-{name}"))


def test_modules_start_in_topological_order_and_stop_in_reverse() -> None:
    log = Log()
    with LifecycleGuard(make_mod_def_list(log.module("hub", "crypto"), log.module("crypto", "log"), log.module("log"))):
        assert log == ["+log", "+crypto", "+hub"]
    assert log[3:] == ["-hub", "-crypto", "-log"]


@pytest.mark.parametrize(
    ("depends_of_a", "message"), [(("b",), "circle"), (("c",), "needs c; add it")], ids=["cycle", "missing"]
)
def test_cycles_and_missing_modules_are_refused(depends_of_a: tuple[str, ...], message: str) -> None:
    log = Log()
    with pytest.raises(LifecycleError, match=message):
        LifecycleGuard([log.module("a", *depends_of_a), log.module("b", "a")])
    assert log == []


def test_two_modules_of_one_name_are_refused() -> None:
    with pytest.raises(LifecycleError, match="two different"):
        LifecycleGuard([Log().module("a"), Log().module("a")])


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(LifecycleError, match="get_lifecycle_module"):
        make_mod_def_list(labhub.lifecycle)  # type: ignore[arg-type]


def test_a_second_guard_is_harmless() -> None:
    log = Log()
    module = log.module("shared")
    with LifecycleGuard([module]):
        with LifecycleGuard([module]):
            pass
        assert log == ["+shared"]
    assert log == ["+shared", "-shared"]


def test_a_module_that_fails_stops_those_before_it() -> None:
    log = Log()
    with pytest.raises(LifecycleError, match="'b' did not start: no such device"):
        LifecycleGuard([log.module("a"), log.module("b", "a", fails=True)])
    assert log == ["+a", "-a"]


def test_a_dropped_guard_stops_its_modules() -> None:
    log = Log()
    guard = LifecycleGuard([log.module("a")])
    del guard
    gc.collect()
    assert log == ["+a", "-a"]


def test_the_modules_of_the_guide() -> None:
    rooms = (labhub.messenger, labhub.transport, labhub.lifecycle)
    with LifecycleGuard(make_mod_def_list(*(room.get_lifecycle_module() for room in rooms))) as guard:
        assert repr(guard) == "LifecycleGuard(logger, crypto, data_exchange_hub)"
