"""Whether ``labhub/_native.pyi`` says what the compiled core is: ``python -m labhub.testing.stub``."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType, WrapperDescriptorType
from typing import Any

import labhub
from labhub import _native

STUB = Path(labhub.__file__).with_name("_native.pyi")

DUNDERS = ("__init__", "__iter__", "__next__")
"""Special methods that the stub declares; the others are those of every object."""

Facts = dict[str, str]
"""What there is under each dotted name: a constant, a class, a property, or a signature."""


def differences(module: ModuleType, stub: str) -> list[str]:
    """Compare names, parameters, their kinds, order and defaults.

    Parameters
    ----------
    module : module
        Compiled with nanobind.
    stub : str
        Text of its stub.

    Returns
    -------
    list of str
        One line for each difference; none if the stub is current.
    """
    compiled, written = _of_module(module), _of_stub(ast.parse(stub), vars(module))
    lines = [
        f"{name}: compiled {compiled.get(name, 'missing')}, stub {written.get(name, 'missing')}"
        for name in sorted(compiled.keys() | written.keys())
        if compiled.get(name) != written.get(name)
    ]
    return lines + [f"{name}: a stub has no *args" for name, fact in sorted(written.items()) if "*" in _stars(fact)]


def _stars(fact: str) -> str:
    """The stars before parameters; the lone one, behind which parameters have names only, is none."""
    return "".join(re.findall(r"\*+(?=\w)", fact))


def _of_stub(tree: ast.Module, constants: dict[str, Any]) -> Facts:
    facts: Facts = {}
    for node in tree.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)):
                facts[name] = "a constant"
            case ast.FunctionDef():
                facts[node.name] = _signature(node, constants)
            case ast.ClassDef():
                facts[node.name] = "a class"
                for member in node.body:
                    if isinstance(member, ast.FunctionDef):
                        is_property = any(isinstance(d, ast.Name) and d.id == "property" for d in member.decorator_list)
                        fact = "a property" if is_property else _signature(member, constants)
                        facts[f"{node.name}.{member.name}"] = fact
    return facts


def _of_module(module: ModuleType) -> Facts:
    facts: Facts = {}
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        if inspect.isclass(value):
            facts[name] = "a class"
            facts |= {f"{name}.{key}": fact for key, fact in _of_class(value).items()}
        else:
            facts[name] = _compiled(value) if hasattr(value, "__nb_signature__") else "a constant"
    return facts


def _of_class(kind: type) -> Facts:
    facts: Facts = {}
    for name in vars(kind):
        member = getattr(kind, name)
        if isinstance(member, property):
            facts[name] = "a property"
        elif hasattr(member, "__nb_signature__") and (name in DUNDERS or not name.startswith("__")):
            facts[name] = _compiled(member)
        elif isinstance(member, WrapperDescriptorType) and name in ("__iter__", "__next__"):
            facts[name] = "(self)"  # a slot of the type itself
    return facts


def _compiled(function: Any) -> str:
    """Signature of a compiled function; its defaults are kept apart from the text, as numbered places."""
    overloads = function.__nb_signature__
    if len(overloads) != 1:
        return f"{len(overloads)} overloads"
    text, _, defaults = overloads[0]
    places = {f"default_{k}": value for k, value in enumerate(defaults or ())}
    text = re.sub(r"\\(\d+)", r"default_\1", text)
    (node,) = ast.parse(f"{text}: ...").body
    assert isinstance(node, ast.FunctionDef)
    return _signature(node, places)


def _signature(node: ast.FunctionDef, places: dict[str, Any]) -> str:
    """Return the parameters in one canonical form, without types, which a stub says better than the compiler knows."""

    def shown(parameter: ast.arg, default: ast.expr | None) -> str:
        if default is None:
            return parameter.arg
        known = isinstance(default, ast.Name) and default.id in places
        value = places[default.id] if known else ast.literal_eval(default)  # type: ignore[attr-defined]
        return f"{parameter.arg}={value!r}"

    a = node.args
    plain = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(plain) - len(a.defaults)) + list(a.defaults)
    parts = [shown(parameter, default) for parameter, default in zip(plain, defaults, strict=True)]
    if a.vararg:
        parts.append(f"*{a.vararg.arg}")
    elif a.kwonlyargs:
        parts.append("*")
    parts += [shown(parameter, default) for parameter, default in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    if a.kwarg:
        parts.append(f"**{a.kwarg.arg}")
    return f"({', '.join(parts)})"


def main() -> int:
    """Print the differences; 1 if there are any."""
    found = differences(_native, STUB.read_text())
    for line in found:
        print(line, file=sys.stderr)  # noqa: T201  this is a command
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
