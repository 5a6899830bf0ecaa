"""Every argument of a wrong kind is refused by name, with what it was and what it may be."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import labhub
from labhub.errors import InvalidArgument, LabHubError
from labhub.hub import Hub
from labhub.schema import Schema

ODD = (
    5, -1, 1.5, float("nan"), True, None, b"x", "x", "", ("a",), ["a", 1], {"a": 1}, {1: "a"}, {"value": 5}, object(),
    Path("x"), np.array([1, 2]), np.nan, print, 10**400, {"time"}, [[1]], (None,), "é", "a\x1b",
)  # fmt: skip


def refused_or_done(call: Callable[[], Any]) -> bool:
    """Make a call; an error is one of labhub's, or none."""
    try:
        made = call()
    except LabHubError:
        return True
    for end in ("close", "stop"):
        if hasattr(made, end):
            getattr(made, end)()
            break
    return False


@pytest.mark.parametrize(
    "name",
    [
        "like", "dtype", "shape", "units", "dims", "attrs", "sample_rate", "capacity", "lossless", "timeout",
        "evict_after", "checksum",
    ],
)  # fmt: skip
def test_whatever_a_producer_is_given_is_taken_or_refused(hub: Hub, name: str) -> None:
    refused = [refused_or_done(lambda v=v: hub.producer("x", **{"like": 0.0, name: v})) for v in ODD]
    assert sum(refused) > (5 if name == "like" else 15)


@pytest.mark.parametrize("name", ["shape", "units", "dims", "attrs", "capacity", "lossless", "timeout", "checksum"])
def test_a_producer_whose_first_write_decides_refuses_at_once(hub: Hub, name: str) -> None:
    with pytest.raises(InvalidArgument, match=name):
        hub.producer("x", **{name: object()})


@pytest.mark.parametrize("name", ["dtype", "shape", "units", "dims", "attrs", "sample_rate"])
def test_whatever_a_schema_is_given_is_taken_or_refused(name: str) -> None:
    for value in ODD:
        refused_or_done(partial(Schema.infer, **{"like": np.zeros((2, 3)), name: value}))
        refused_or_done(partial(Schema, **{"dtype": np.dtype("f8"), "shape": (2, 3), name: value}))
        refused_or_done(partial(Schema.from_json, value))
        refused_or_done(partial(Schema.raw, value))


@pytest.mark.parametrize("name", ["channel", "mode", "start", "timeout", "follow", "schema", "busy_poll"])
def test_whatever_a_consumer_is_given_is_taken_or_refused(hub: Hub, name: str) -> None:
    with hub.producer("x", like=0.0):
        refused = [refused_or_done(lambda v=v: hub.consumer(**{"channel": "x", name: v})) for v in ODD]
    assert sum(refused) > 15


@pytest.mark.parametrize("name", ["max_slots", "min_slots", "timeout", "until_gone", "total", "progress", "out"])
def test_whatever_an_iteration_is_given_is_taken_or_refused(hub: Hub, name: str) -> None:
    with hub.producer("x", like=0.0), hub.consumer("x") as reader:
        refused = [refused_or_done(lambda v=v: reader.batches(**{name: v})) for v in ODD]
        assert all(refused_or_done(lambda v=v: reader.datasets(gaps=v)) for v in ODD)
    assert sum(refused) > 15


def test_whatever_a_look_is_given_is_taken_or_refused(hub: Hub) -> None:
    with hub.producer("x", like=0.0) as producer, hub.consumer("x") as reader:
        producer.write(1.0)
        for value in ODD:
            for call in (
                lambda v: reader.snapshot(last=v), lambda v: reader.snapshot(seconds=v), reader.latest, reader.seek,
                hub.channels, hub.find, hub.schema, hub.__getitem__, lambda v: hub.wait_for(v, timeout=0),
                lambda v: hub.wait_for("x", timeout=v), hub.watch, lambda v: hub.watch(timeout=v),
                lambda v: hub.watch(existing=v), producer.write, producer.write_many,
            ):  # fmt: skip
                refused_or_done(lambda v=value, c=call: c(v))


@pytest.mark.parametrize("name", ["name", "start", "endpoint", "public_key"])
def test_whatever_connect_is_given_is_taken_or_refused(hub: Hub, name: str) -> None:
    for value in ODD:
        given = {"name": "other", name: value}
        if name in ("endpoint", "public_key"):
            given = {"endpoint": "tcp://127.0.0.1:1", "public_key": "K" * 40, "timeout": 0.05} | given
        if not isinstance(given["name"], str) or (given["name"] == "other" and value is not True):
            refused_or_done(lambda g=given: labhub.connect(**g))


@pytest.mark.parametrize("name", ["store", "split_nbytes", "split_seconds", "follow", "compression"])
def test_whatever_a_recording_is_given_is_refused_before_it_starts(hub: Hub, tmp_path: Path, name: str) -> None:
    with hub.producer("x", like=0.0):
        for value in (object(), b"x", np.array([1, 2]), ("a",), 10**400, float("nan")):
            with pytest.raises(InvalidArgument, match=name):
                hub.record("x", **{"store": tmp_path / "r.zarr", name: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["speed", "name", "prefix", "times", "hub"])
def test_whatever_a_replay_is_given_is_taken_or_refused(hub: Hub, name: str) -> None:
    table = pd.DataFrame({"time": [1.0, 2.0], "v": [1.0, 2.0]})
    for value in ODD:
        if value is not None:
            refused_or_done(lambda v=value: labhub.replay(table, **{"hub": hub, "name": "z", name: v}))
    refused_or_done(lambda: labhub.replay(table, 5, hub=hub))


@pytest.mark.parametrize("name", ["exports", "imports", "connect", "listen", "config", "site", "hub", "reexport"])
def test_whatever_a_bridge_is_given_is_refused_by_name(hub: Hub, name: str) -> None:
    for value in (object(), 5, np.array([1, 2]), [5]):
        with pytest.raises(InvalidArgument):
            labhub.bridge(**{"listen": "tcp/127.0.0.1:0", "hub": hub, name: value})


@pytest.mark.parametrize("name", ["hub", "title", "window", "height", "columns"])
def test_whatever_a_plot_is_given_is_refused_by_name(hub: Hub, name: str) -> None:
    with hub.producer("x", like=0.0):
        for value in (object(), b"x", np.array([1, 2]), ("a",), [5]):
            with pytest.raises(InvalidArgument, match=name):
                labhub.LivePlot("x", **{"hub": hub, name: value})


@pytest.mark.parametrize("name", ["hub", "title", "field", "cmap", "vmin", "vmax", "max_width", "reduce"])
def test_whatever_an_image_is_given_is_refused_by_name(hub: Hub, name: str) -> None:
    with hub.producer("x", like=np.zeros((4, 5), "u2")):
        for value in (object(), b"x", np.array([1, 2]), ("a",), [5]):
            with pytest.raises(InvalidArgument, match=name):
                labhub.LiveImage("x", **{"hub": hub, name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": 5}, "units is a text such as 'mbar', or one for each field such as .*, not 5"),
        ({"units": {"value": 5}}, "the unit of 'value' must be text, not 5"),
        ({"attrs": 5}, "attrs is a mapping of names to notes such as .*, not 5"),
        ({"attrs": {1: "a"}}, "attrs have names that are text, not 1"),
        ({"dims": 5}, "dims is a name such as 'time', or several such as .*, not 5"),
        ({"shape": 1.5}, "shape is a length such as 64, or several such as .*, not 1.5"),
        ({"capacity": "8"}, "capacity must be a whole number of at least 1, not '8'"),
        ({"capacity": 10**400}, r"capacity must be a whole number of at least 1, not 10000*\.\.\."),
        ({"lossless": [True]}, r"lossless is True, False or 'single', not \[True\]"),
        ({"timeout": "5"}, "timeout is a number of seconds of at least 0, or None for ever, not '5'"),
        ({"evict_after": b"5"}, "evict_after is a number of seconds of at least 0, or None for ever, not b'5'"),
        ({"checksum": ["none"]}, r"checksum is 'none', 'manual', 'enforced' or a ChecksumPolicy, not \['none'\]"),
    ],
)
def test_the_message_has_the_name_the_value_and_what_it_may_be(hub: Hub, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{message}$"):
        hub.producer("x", **{"like": 0.0} | options)


def test_a_seq_of_a_batch_is_a_place_to_begin(hub: Hub) -> None:
    with hub.producer("x", like=0.0) as producer:
        producer.write_many([1.0, 2.0, 3.0])
        seq = hub["x"].snapshot().seq[1]
        with hub.consumer("x", start=seq) as reader:
            assert next(reader.batches(timeout=5)).data.tolist() == [2.0, 3.0]
            reader.seek(np.int64(2))
            assert next(reader.batches(timeout=5)).data.tolist() == [3.0]


def test_an_option_that_is_not_there_has_a_close_one(hub: Hub) -> None:
    with hub.producer("x", like=0.0):
        for call, option in ((hub["x"].plot, "window"), (hub["x"].image, "cmap"), (hub["x"].consumer, "timeout")):
            with pytest.raises(InvalidArgument, match=f"has no option '{option}s'; did you mean {option}"):
                call(**{option + "s": 1})


def test_a_pattern_where_one_channel_is_needed(hub: Hub) -> None:
    calls = (
        lambda: hub["s.*"].plot(), lambda: hub.consumer("s.*"), lambda: hub.find("s.*"), lambda: hub.schema("s.*"),
        lambda: hub.wait_for("s.*", timeout=0), lambda: labhub.LivePlot("s.*", hub=hub),
        lambda: labhub.LiveImage("s.*", hub=hub),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(InvalidArgument, match=re.escape("'s.*' is a pattern, and here one channel is needed")):
            call()
