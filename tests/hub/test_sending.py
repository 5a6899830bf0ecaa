"""What can be sent to another process, and what says why it cannot."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import labhub
from labhub import errors
from labhub.errors import Advice, LabHubError, NotPicklable
from labhub.hub import Hub

CLASSES = [k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, LabHubError)]


def facts_of(kind: type[LabHubError]) -> dict[str, Any]:
    """A value for each attribute that a class of errors says it has."""
    values = {"int": 7, "str": "v", "tuple[str, ...]": ("a", "b"), "Mapping[str, str]": {"k": "v"}}
    return {
        name: values[str(form)]
        for base in kind.__mro__
        if base.__module__ == "labhub.errors"
        for name, form in vars(base).get("__annotations__", {}).items()
    }


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_arrives_with_its_facts(kind: type[LabHubError], protocol: int) -> None:
    error = kind("5 °C is too warm", advice=Advice("; wait", "; wait a bit"), **facts_of(kind))
    error.add_note("noted")
    for again in (pickle.loads(pickle.dumps(error, protocol)), copy.deepcopy(error), copy.copy(error)):
        assert type(again) is kind
        assert str(again) == "5 °C is too warm; wait"
        assert again.told("shell") == "5 °C is too warm; wait a bit"
        assert vars(again) == vars(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_can_be_made_as_tools_that_send_errors_do(kind: type[LabHubError]) -> None:
    """tblib, which dask uses, calls `__new__` and then sets the attributes."""
    bare = kind.__new__(kind, "text")
    bare.__dict__.update(facts_of(kind))
    assert isinstance(bare, kind)


def raise_in_child(channel: str) -> float:
    with labhub.connect() as hub:
        return float(hub[channel].latest(timeout=0.01).data[0])


def test_an_error_of_a_child_is_raised_in_the_parent(hub: Hub) -> None:
    with (
        hub.producer("x", like=0.0) as producer,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        producer.write(2.5)
        assert pool.submit(raise_in_child, "x").result(60) == 2.5
        with pytest.raises(errors.ChannelNotFound, match="has no channel 'y'") as caught:
            pool.submit(raise_in_child, "y").result(60)
        assert caught.value.channel == "y"
        with pytest.raises(NotPicklable, match=r"labhub.connect\(\) opens one"):
            pool.submit(Hub.channels, hub).result(60)


def everything(hub: Hub, path: Path) -> list[tuple[str, Any]]:
    """What belongs to its process, with what its message says to do instead."""
    producer = hub.producer("x", like=np.zeros((4, 5)))
    producer.write(np.ones((4, 5)))
    consumer = hub.consumer("x", start="oldest")
    recording = hub.record("x", store=path / "r.zarr")
    producer.write(np.ones((4, 5)))
    return [
        (r"labhub\.connect\(\)", hub),
        (r"labhub\.connect\(\) and hub\.producer\('x', \.\.\.\)", producer),
        (r"labhub\.connect\(\)\.consumer\('x'\)", consumer),
        (r"labhub\.connect\(\)\['x'\]", hub["x"]),
        (r"hub\.watch\('\*'\)", hub.watch()),
        ("send the batches", consumer.batches()),
        ("send the datasets", consumer.datasets()),
        ("one writer", producer._block),
        ("open another one", consumer._block),
        ("a copy of its array", producer.slot()),
        ("a copy of its array", consumer.slot()),
        (r"send its path, '.*r\.zarr'", recording),
        ("labhub.bridge", labhub.bridge(listen="tcp/127.0.0.1:0", hub=hub)),
        ("the notebook that is to show it", labhub.LivePlot("x", hub=hub)),
        ("the notebook that is to show it", labhub.LiveImage("x", hub=hub)),
        ("the notebook that is to show it", labhub.HubBrowser(hub=hub)),
    ]


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_belongs_to_its_process_says_what_to_do_there(
    hub: Hub, tmp_path: Path, send: Callable[[Any], Any]
) -> None:
    belongings = everything(hub, tmp_path)
    try:
        for words, thing in belongings:
            with pytest.raises(NotPicklable, match=words) as refused:
                send(thing)
            assert isinstance(refused.value, TypeError)
            assert "object at 0x" not in str(refused.value)
            if send is not copy.copy:
                with pytest.raises(NotPicklable, match=words):
                    send({"inside": [thing]})
    finally:
        for _, thing in reversed(belongings):
            if isinstance(thing, labhub.Hub):
                continue
            for end in ("stop", "close"):
                if hasattr(thing, end):
                    getattr(thing, end)()


def test_a_replay_says_so_too(hub: Hub) -> None:
    dataset = xr.Dataset({"v": ("time", [1.0, 2.0])}, {"time": np.array([1, 2], "M8[s]")})
    with labhub.replay(dataset, hub=hub, speed=None) as replay, pytest.raises(NotPicklable, match=r"labhub\.replay"):
        pickle.dumps(replay)


def test_a_hub_elsewhere_is_connected_elsewhere(hub: Hub) -> None:
    place = hub.status.endpoint
    from labhub.transport.curve import SERVER_KEY, load_key

    with (
        labhub.connect("far", endpoint=place, public_key=load_key(SERVER_KEY).public) as far,
        pytest.raises(NotPicklable, match=r"labhub.connect\('far', endpoint=..., public_key=...\)"),
    ):
        pickle.dumps(far)


def test_what_is_plain_data_arrives(hub: Hub) -> None:
    with hub.producer("x", like={"a": 0.0, "b": np.zeros(3)}, units={"a": "°C"}) as producer, hub.watch() as events:
        producer.write({"a": 1.5, "b": np.ones(3)})
        batch = hub["x"].snapshot()
        for thing in (batch.schema, hub.find("x"), hub.status, next(events), labhub.diagnose("x")):
            for again in (pickle.loads(pickle.dumps(thing)), copy.deepcopy(thing)):
                assert again == thing
                assert repr(again) == repr(thing)
        again = pickle.loads(pickle.dumps(batch))
        assert again.data.tobytes() == batch.data.tobytes()
        assert again.headers.tobytes() == batch.headers.tobytes()
        assert again.to_xarray().identical(batch.to_xarray())
