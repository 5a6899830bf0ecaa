"""Write down what a bridge says: to the one that imports from it, and to the one that it imports from.

Run with the labhub whose words are to be kept, in an environment with eclipse-zenoh::

    python tests/upgrade/record_bridge.py COMMIT > tests/upgrade/bridge_COMMIT.json

It uses the loopback, directories of its own, and ends by itself.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

DIRECTORY = tempfile.TemporaryDirectory()
for variable in ("LABHUB_SHM_DIR", "LABHUB_RUNTIME_DIR", "LABHUB_DATA_DIR", "LABHUB_CONFIG_DIR"):
    os.environ[variable] = os.path.join(DIRECTORY.name, variable)
    os.mkdir(os.environ[variable], 0o700)

import numpy as np  # noqa: E402
import zenoh  # noqa: E402

import labhub  # noqa: E402
from labhub.hub import named_broker  # noqa: E402

PATIENCE = 30.0
CHANNELS: dict[str, dict[str, Any]] = {
    "numbers": {"dtype": "i8", "capacity": 16, "units": "bar"},
    "frames": {"dtype": "<u2", "shape": (2, 3), "dims": ("y", "x"), "capacity": 8, "checksum": "enforced"},
    "records": {"dtype": [("t", "<f8"), ("name", "S4")], "capacity": 32, "lossless": False},
}


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("nothing came")
        time.sleep(0.01)


def opened(endpoint: str) -> zenoh.Session:
    config = zenoh.Config()
    config.insert_json5("connect/endpoints", json.dumps([endpoint]))
    config.insert_json5("scouting/multicast/enabled", "false")
    config.insert_json5("listen/endpoints", "[]")
    return zenoh.open(config)


def ask(session: zenoh.Session, selector: str) -> zenoh.Sample:
    for reply in session.get(selector, timeout=PATIENCE):
        if reply.ok is not None:
            return reply.ok
    raise SystemExit(f"no answer to {selector}")


def write(producer: Any, name: str) -> list[Any]:
    """Write a few slots; their values as JSON has them."""
    values: list[Any] = []
    for k in range(4):
        with producer.slot() as slot:
            if name == "records":
                slot.array["t"], slot.array["name"] = k / 4, f"s{k}".encode()
            else:
                slot.array[...] = 10 * k + np.arange(slot.array.size).reshape(slot.array.shape)
            whole = np.array(slot.array).tobytes()
            if name == "frames" and k == 2:
                slot.nbytes = 4
                whole = whole[:4] + bytes(len(whole) - 4)  # a reader gets zeros for the rest
            values.append(whole.hex())
    return values


def exported(hub: Any, endpoint: str) -> dict[str, Any]:
    """What it says as the one that exports."""
    told: dict[str, Any] = {}
    with ExitStack() as stack:
        stack.enter_context(labhub.bridge("*", hub=hub, site="lab", listen=endpoint))
        session = stack.enter_context(opened(endpoint))
        tokens: list[str] = []
        keep = session.liveliness().declare_subscriber(
            "labhub/*/*/*/alive/*", lambda s: tokens.append(str(s.key_expr)), history=True
        )
        for name, options in CHANNELS.items():
            producer = stack.enter_context(hub.producer(name, **options))
            wait(lambda name=name: any(f"/{name}/" in key for key in tokens))
            (token,) = {key for key in tokens if f"/{name}/" in key}
            base = token.split("/alive/")[0]
            data: list[zenoh.Sample] = []
            subscriber = session.declare_subscriber(f"{base}/data", data.append)
            importing = session.liveliness().declare_token(f"{base}/imported/0123456789ab")
            time.sleep(0.5)  # until the other side knows of both
            offer = ask(session, f"{base}/offer")
            values = write(producer, name)
            producer.close()
            wait(lambda data=data: data and not bytes(data[-1].payload))
            clock = f"{base.rpartition('/')[0]}/clock"
            told[name] = {
                "token": token,
                "offer": bytes(offer.payload).decode(),
                "messages": [[bytes(m.attachment or b"").hex(), bytes(m.payload).hex()] for m in data],
                "clock": [clock, bytes(ask(session, clock).payload).hex()],
                "values": values,
            }
            subscriber.undeclare()
            importing.undeclare()
        keep.undeclare()
    return told


def imported(hub: Any, endpoint: str, told: dict[str, Any]) -> dict[str, Any]:
    """What it says as the one that imports: its questions, and the keys of its tokens."""
    channel = told["numbers"]
    base = channel["token"].split("/alive/")[0]
    questions: list[str] = []
    tokens: list[str] = []
    with ExitStack() as stack:
        back = stack.enter_context(labhub.bridge((), "*", hub=hub, site="office", listen=endpoint))
        session = stack.enter_context(opened(endpoint))

        def answer(question: zenoh.Query) -> None:
            questions.append(str(question.parameters))
            question.reply(f"{base}/offer", channel["offer"].encode())

        kept = [
            session.declare_queryable(f"{base}/offer", answer),
            session.liveliness().declare_subscriber(
                f"{base}/imported/*", lambda s: tokens.append(str(s.key_expr)), history=True
            ),
            session.liveliness().declare_token(channel["token"]),
        ]
        wait(lambda: any(i.state == "receiving" for i in back.status.imports))
        attachment, payload = (bytes.fromhex(text) for text in channel["messages"][0])
        session.put(f"{base}/data", payload, attachment=attachment)
        wait(lambda: back.status.imports[0].received > 0)
        kept[-1].undeclare()  # a cut, after which it says where it is
        wait(lambda: back.status.imports[0].state == "cut")
        kept[-1] = session.liveliness().declare_token(channel["token"])
        wait(lambda: len(questions) > 1)
        for one in kept:
            one.undeclare()
    return {"questions": questions, "tokens": sorted(set(tokens))}


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp/127.0.0.1:{probe.getsockname()[1]}"


def main() -> None:
    """Write everything as JSON to the standard output."""
    with ExitStack() as stack:
        hubs = []
        for name in ("here", "there"):
            stack.enter_context(named_broker(name, "tcp://127.0.0.1:0")).start()
            hubs.append(stack.enter_context(labhub.connect(name)))
        told = exported(hubs[0], free_endpoint())
        asks = imported(hubs[1], free_endpoint(), told)
    json.dump({"commit": sys.argv[1], "exported": told, "imported": asks}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
