"""Losses made explicit, ends of iterations, progress bars, Arrow tables and rich reprs."""

from __future__ import annotations

import asyncio
import builtins
import io
import itertools
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import xarray as xr

from labhub.datablock import gaps
from labhub.errors import InvalidArgument, MissingDependency, TimeoutExpired
from labhub.hub import Consumer, Hub, Producer
from labhub.schema import Schema


@pytest.fixture
def blocks(hub: Hub) -> Iterator[Producer]:
    """A channel whose slots are 4 samples of two channels at 1 kHz; its ring holds 8 slots."""
    options = {"dims": ("time", "lead"), "sample_rate": 1000, "units": "mV", "capacity": 8}
    with hub.producer("ecg", dtype="i2", shape=(4, 2), **options) as producer:
        yield producer


def block(k: int) -> np.ndarray:
    return np.full((4, 2), k, "i2")


def lose(consumer: Consumer, producer: Producer, lost: int) -> list[xr.Dataset]:
    """Read one slot, lose some, read the rest of the ring; the datasets with their gaps."""
    datasets = consumer.datasets(timeout=5, gaps="nan")
    producer.write(block(0))
    first = next(datasets)
    for k in range(1, lost + 9):
        producer.write(block(k))
    return [first, next(datasets)]


def test_lost_blocks_are_there_as_nan(blocks: Producer, hub: Hub) -> None:
    with hub.consumer("ecg") as consumer:
        first, second = lose(consumer, blocks, 5)
        assert consumer.lost == 5  # the loss did happen
    assert first.attrs["lost"] == 0
    assert second.attrs["lost"] == 5
    assert first.value.dtype == second.value.dtype == np.float32
    assert second.sizes == {"time": (5 + 8) * 4, "lead": 2}
    gap = second.isel(time=slice(0, 20))
    assert np.isnan(gap.value).all()
    assert not np.isnan(second.value[20:]).any()
    whole = xr.concat([first, second], "time")
    assert whole.seq.dtype == np.uint64
    assert (whole.seq == np.repeat(np.arange(14), 4)).all()
    assert whole.value.attrs == {"units": "mV"}
    steps = np.diff(whole.time[3:25]).astype(int)
    assert (steps > 0).all() or (abs(steps - steps.mean()) <= 1).all()
    assert np.ptp(steps) <= 1  # evenly, to the nanosecond


def test_lost_records_are_there_by_seq(hub: Hub) -> None:
    like = {"bar": np.float32(1), "count": 1, "on": True, "word": "abc"}
    with hub.producer("pump", like=like, capacity=4) as p, hub.consumer("pump") as consumer:
        datasets = consumer.datasets(timeout=5, gaps="nan")
        p.write((1.0, 1, True, "one"))
        next(datasets)
        for k in range(9):
            p.write((k, k, True, "two"))
        found = next(datasets)
    assert found.seq.values.tolist() == list(range(1, 10))
    assert np.isnan(found["bar"][:5]).all()
    assert {name: str(v.dtype) for name, v in found.data_vars.items()} == {
        "bar": "float32",
        "count": "float64",
        "on": "object",
        "word": "object",
    }
    assert found.time.to_index().is_monotonic_increasing


def test_what_was_lost_before_the_first_is_not_filled(blocks: Producer, hub: Hub) -> None:
    with hub.consumer("ecg", start="oldest") as consumer:
        for k in range(20):
            blocks.write(block(k))
        found = next(consumer.datasets(timeout=5, gaps="nan"))
        assert consumer.lost == 12
    assert found.sizes["time"] == 32
    assert found.attrs["lost"] == 0


def test_a_very_long_gap_is_filled_at_its_end_only(blocks: Producer, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "MAX_FILL_NBYTES", 3 * 16)
    with hub.consumer("ecg") as consumer:
        found = lose(consumer, blocks, 50)[1]
    assert found.attrs["lost"] == 50
    assert found.sizes["time"] == (3 + 8) * 4
    assert int(found.seq[0]) == 48


def test_without_gaps_nothing_changes(blocks: Producer, hub: Hub) -> None:
    with hub.consumer("ecg") as consumer:
        blocks.write(block(1))
        assert next(consumer.datasets(timeout=5)).value.dtype == np.int16
        with pytest.raises(InvalidArgument, match="'leave' or 'nan'"):
            consumer.datasets(gaps="NaN")  # type: ignore[arg-type]


def test_gaps_in_an_async_loop(blocks: Producer, hub: Hub) -> None:
    async def read(consumer: Consumer) -> list[int]:
        sizes = []
        async for ds in consumer.datasets(timeout=5, gaps="nan", total=9):
            sizes.append(ds.sizes["time"])
            for k in range(10):
                blocks.write(block(k))
        return sizes

    with hub.consumer("ecg") as consumer:
        blocks.write(block(0))
        assert asyncio.run(read(consumer)) == [4, (2 + 8) * 4]


@pytest.mark.parametrize("total", [1, 7, 20])
def test_total_ends_the_iteration_exactly(hub: Hub, total: int) -> None:
    with hub.producer("x", like=1) as p, hub.consumer("x", mode="lossless") as consumer:
        p.write_many(list(range(30)))
        batches = list(consumer.batches(max_slots=6, min_slots=4, timeout=5, total=total))
        assert sum(len(b) for b in batches) == total
        assert consumer.cursor == total  # the rest is still unread
        with pytest.raises(InvalidArgument, match="total"):
            consumer.batches(total=0)


def test_a_progress_bar_counts_slots_and_losses(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    with hub.producer("x", like=1, capacity=8) as p, hub.consumer("x") as consumer:
        batches = consumer.batches(timeout=5, total=9, progress=True)
        p.write(0)
        next(batches)
        p.write_many(list(range(20)))
        assert len(list(batches)) == 1
    line = capsys.readouterr().err.rstrip().rpartition("\r")[2]
    assert line.startswith("x: 100%")
    assert "9/9" in line
    assert "lost=12" in line


def test_a_progress_bar_closes_on_interrupt_and_when_dropped(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with hub.producer("x", like=1) as p, hub.consumer("x") as consumer:
        batches = consumer.batches(timeout=5, progress=True)
        bar = batches._quota._bar
        p.write(1)
        next(batches)
        assert not bar.disable
        with monkeypatch.context() as patch:
            patch.setattr(consumer, "next_batch", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(batches)
        assert bar.disable  # tqdm's word for closed
        batches = consumer.batches(timeout=0, progress=True)
        bar = batches._quota._bar
        with pytest.raises(TimeoutExpired):
            next(batches)
        assert not bar.disable  # the iteration can go on, so the bar stays
        del batches
        assert bar.disable
    assert [t.name for t in threading.enumerate() if "tqdm" in repr(t).lower()] == []


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_arrow_tables(blocks: Producer, hub: Hub) -> None:
    pa = pytest.importorskip("pyarrow", reason="pip install 'labhub[arrow]'")
    like = {"bar": 1.5, "words": ["ab", "cd"], "n": np.int8(3)}
    with hub.producer("pump", like=like, units={"bar": "bar"}) as p:
        p.write((2.5, ["x", "y"], 4))
        table = hub["pump"].snapshot().to_arrow()
        assert table.column_names == ["time", "seq", "bar", "words", "n"]
        assert table.schema.metadata[b"channel"] == b"pump"
        assert Schema.from_json(table.schema.metadata[b"labhub_schema"].decode()) == p.schema
        assert table.schema.field("bar").metadata == {b"units": b"bar", b"labhub_field": b"bar"}
        assert table.schema.field("time").type == pa.timestamp("ns", "UTC")
        row = table.drop_columns(["time"]).to_pylist()
        assert row == [{"seq": 0, "bar": 2.5, "words": ["x", "y"], "n": 4}]
    blocks.write(block(7))
    table = hub["ecg"].snapshot().to_arrow()
    assert table.num_rows == 4
    assert table["value"].to_pylist() == [[7, 7]] * 4
    with hub.producer("z", dtype="c16") as p:
        p.write(1j)
        with pytest.raises(InvalidArgument, match="no place for the field 'value' of complex128"):
            hub["z"].snapshot().to_arrow()


def test_without_pyarrow_the_pip_line(blocks: Producer, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    blocks.write(block(1))
    with pytest.raises(MissingDependency, match=r"pip install 'labhub\[arrow\]'") as caught:
        hub["ecg"].snapshot().to_arrow()
    assert isinstance(caught.value, builtins.ImportError)
    assert caught.value.package == "pyarrow"


def test_everything_shows_itself_as_a_table(blocks: Producer, hub: Hub) -> None:
    blocks.write(block(1))
    with hub.consumer("ecg", start="oldest") as consumer:
        batch = next(consumer.batches())
        shown = {
            "hub": (hub, "connected"),
            "channel": (hub["ecg"], "int16[4, 2]"),
            "nobody": (hub["nobody"], "not there"),
            "consumer": (consumer, "stream"),
            "producer": (blocks, "int16[4, 2]"),
            "schema": (consumer.schema, "1000 per second"),
            "batch": (batch, "seq 0 to 0"),
        }
        for what, (thing, words) in shown.items():
            html = thing._repr_html_()
            assert html.startswith("<b>"), what
            assert words in html, (what, html)
            for first, second in itertools.pairwise((repr(thing), repr(thing))):
                assert first == second
            assert " at 0x" not in repr(thing) + html
    assert "closed" in consumer._repr_html_()


def test_html_is_escaped(hub: Hub) -> None:
    with hub.producer("x", like={"<b>": 1.0}, units="<i>", attrs={"note": "<script>"}) as p:
        p.write((1.0,))
        for thing in (p, p.schema, hub["x"], hub["x"].snapshot()):
            assert "<i>" not in thing._repr_html_()
            assert "<script>" not in thing._repr_html_()
