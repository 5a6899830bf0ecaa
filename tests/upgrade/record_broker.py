"""Make the settings files and the connection file of an older labhub, which runs this script itself.

``python record_broker.py DIRECTORY`` with the labhub of commit 0323d94 in the environment made what is in
``broker_0323d94``: settings files that this labhub has read, what it read in them, and the connection file of a broker
of its own that followed the first one and was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import msgspec

PLACE = Path(tempfile.gettempdir()) / "labhub-upgrade"
"""The path is in the connection file, so it is not one of a person's own."""

FILES = {
    "whole.toml": """\
# Everything that a settings file of this labhub may say.
[broker]
listen = "tcp://127.0.0.1:0"
max_channels_per_key = 100
max_watches_per_key = 10

[metrics]
port = 0
address = "127.0.0.1"
max_channels = 50

[access.ann]
produce = ["ann.*"]
consume = ["pump.*", "camera.left", "ann.*"]
administer = ["ann.*"]

[access."*"]
consume = ["public.*"]
""",
    "rules_only.toml": '[access.ann]\nconsume = ["pump.*"]\n',
    "without_rules.toml": "[broker]\nmax_watches_per_key = 10\n",
    "empty.toml": "",
}


def main(directory: Path) -> None:
    """Write all files into a directory."""
    os.environ |= {f"LABHUB_{name}_DIR": str(PLACE / name.lower()) for name in ("SHM", "RUNTIME", "DATA", "CONFIG")}
    for name in ("shm", "runtime", "data", "config"):
        (PLACE / name).mkdir(mode=0o700, parents=True)
    from labhub import runtime
    from labhub.hub import start_broker
    from labhub.settings import read_settings, settings_path

    directory.mkdir(exist_ok=True)
    read = {}
    for name, text in FILES.items():
        (directory / name).write_text(text)
        read[name] = msgspec.to_builtins(read_settings(directory / name))
    (directory / "read.json").write_text(json.dumps(read, indent=1) + "\n")
    Path(settings_path()).write_text(FILES["whole.toml"].replace("port = 0\n", ""))
    running = start_broker()
    shutil.copyfile(runtime.path_of("default"), directory / "broker-default.json")
    os.kill(running.pid, signal.SIGKILL)
    shutil.rmtree(PLACE)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
