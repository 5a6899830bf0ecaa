"""Another user: run as root, this imports labhub, becomes uid 65534, tries everything, and prints what came of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from labhub import DataBlockPolicy, Messenger, create_datablock_producer, find_datablock_consumer, liveness, runtime
from labhub.datablock.diagnostics import diagnose
from labhub.hub import connect
from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, KeyPair, load_key, read_key

NOBODY = 65534


def attempts(endpoint: str, public_key: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Everything that somebody else could try through labhub."""
    yield "attach", lambda: find_datablock_consumer("c", 0)
    yield "take over", lambda: create_datablock_producer("c", DataBlockPolicy.SINGLE)
    yield "look at", lambda: diagnose("c")
    yield "find the broker", lambda: runtime.find("default") or runtime.path_of("default").read_bytes()
    yield "connect by name", lambda: connect()
    for name in (CLIENT_KEY, SERVER_KEY):
        yield f"read {name}", lambda name=name: read_key(name)  # type: ignore[misc]
        yield f"load {name}", lambda name=name: load_key(name)  # type: ignore[misc]
    yield "connect with a key of their own", lambda: Messenger(KeyPair.random()).connect(endpoint, public_key)


def plain_attempts(base: Path, names: list[str]) -> Iterator[tuple[str, Callable[[], object]]]:
    """The same with the system's own means, file by file; their names were betrayed."""
    for name in names:
        path = base / name
        yield f"open {name}", lambda path=path: path.read_bytes()  # type: ignore[misc]
        yield f"unlink {name}", path.unlink
    for directory in ("shm", "run", "data"):
        yield f"list {directory}", lambda d=directory: os.listdir(base / d)  # type: ignore[misc]
        yield f"write into {directory}", (base / directory / "x").touch


def outcome(attempt: Callable[[], object]) -> tuple[list[str], str]:
    try:
        return ["succeeded"], str(attempt())
    except Exception as error:  # noqa: BLE001  # whatever it is, the test looks at it
        return [kind.__name__ for kind in type(error).__mro__], str(error)


def main() -> None:
    base, endpoint, public_key, *names = sys.argv[1:]
    liveness.boot_id()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    tried = [*attempts(endpoint, public_key), *plain_attempts(Path(base), names)]
    print(json.dumps({what: outcome(attempt) for what, attempt in tried}))


if __name__ == "__main__":
    main()
