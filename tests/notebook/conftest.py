"""A broker in this process, and a hub that is connected to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labhub.hub import Hub, connect, named_broker


@pytest.fixture
def hub() -> Iterator[Hub]:
    with named_broker(endpoint="tcp://127.0.0.1:0") as service:
        service.start()
        with connect() as hub:
            yield hub


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict, list]]:
    """What the widgets send, instead of sending it: (meta, buffers) of each message."""
    from labhub.notebook.live import LiveWidget

    sent: list[tuple[dict, list]] = []
    monkeypatch.setattr(LiveWidget, "send", lambda self, meta, buffers=None: sent.append((meta, buffers or [])))
    return sent
