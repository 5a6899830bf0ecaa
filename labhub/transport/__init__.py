"""Sockets and keys. Only here is zmq imported."""

from __future__ import annotations

import nacl.bindings

from labhub.lifecycle import ModuleDef


def get_lifecycle_module() -> ModuleDef:
    """Return the crypto module: libsodium, which needs the logger."""
    return ModuleDef("crypto", depends=("logger",), start=_start)


def _start() -> None:
    nacl.bindings.sodium_init()
