"""LivePlot without a browser: what it reads, what it sends, and what it leaves behind."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

import labhub
from labhub.datablock.location import segment_directory
from labhub.errors import ChannelNotFound, InvalidArgument, LabHubError
from labhub.hub import named_broker
from labhub.notebook import live


def readers(channel):
    return labhub.diagnose(channel, segment_directory("default")).readers


def last_picture(frames):
    return next(((meta, buffers) for meta, buffers in reversed(frames) if buffers), (None, None))


def last_value(frames):
    """The newest value of each line."""
    meta, _ = last_picture(frames)
    return None if meta is None else meta["last"]


def numbers(frames, row=0):
    """Every number of a line in the newest picture, oldest first."""
    meta, buffers = last_picture(frames)
    if meta is None:
        return []
    n = meta["n"]
    points = np.roll(np.frombuffer(buffers[0], "f8").reshape(-1, n)[row], -meta["at"])
    return (points[np.isfinite(points)] + int(meta["base"][row])).tolist()


@pytest.fixture
def plot(hub, frames):
    """Make plots that are closed at the end."""
    made = []

    def make(*args, **options):
        made.append(labhub.LivePlot(*args, hub=hub, **options))
        return made[-1]

    yield make
    for widget in made:
        widget.close()
        assert not widget.running


def test_it_shows_what_was_and_what_comes(hub, frames, plot, wait_until):
    with hub.producer("pump.pressure", dtype="f8", units="bar") as producer:
        producer.write(1.0)
        widget = plot("pump.pressure")
        assert repr(widget) == "LivePlot(pump.pressure: value)"
        assert widget.series == [{"channel": "pump.pressure", "name": "value", "label": "pump.pressure", "unit": "bar"}]
        wait_until(lambda: numbers(frames) == [1.0])
        producer.write(2.0)
        wait_until(lambda: last_value(frames) == [2.0])
        assert set(numbers(frames)) == {1.0, 2.0}


def test_a_page_that_was_reloaded_gets_a_picture_without_a_new_slot(hub, frames, plot, wait_until):
    with hub.producer("x", dtype="f8") as producer:
        producer.write(1.0)
        widget = plot("x")
        wait_until(lambda: numbers(frames) == [1.0])
        frames.clear()
        widget._handle_custom_msg({"want": "frame"}, [])
        wait_until(lambda: numbers(frames) == [1.0])


def test_a_message_is_one_frame_and_there_are_at_most_30_a_second(hub, frames, plot, wait_until):
    with hub.producer("x", dtype="f8", shape=(100,), dims="time", sample_rate=100_000) as producer:
        plot("x")
        begin = time.monotonic()
        while time.monotonic() - begin < 1.0:
            producer.write(np.zeros(100))
        elapsed = time.monotonic() - begin
        count = len(frames)
        assert 2 <= count <= 30 * elapsed + 2
        assert [meta["frame"] for meta, _ in frames[:count]] == list(range(1, count + 1))
        assert all(len(buffers) <= 1 for _, buffers in frames)


def test_a_peak_of_one_sample_is_in_the_message(hub, frames, plot, wait_until):
    with hub.producer(
        "fast", dtype="f4", shape=(10_000,), dims="time", sample_rate=1e6, units="V", capacity=200
    ) as producer:
        plot("fast", window=10.0)
        block = np.zeros(10_000, "f4")
        block[4321] = 1.0
        producer.write(block)
        producer.write(np.zeros(10_000, "f4"))
        wait_until(lambda: 1.0 in numbers(frames))


def test_columns_of_blocks_are_lines_named_after_their_dim(hub, frames, plot, wait_until):
    with hub.producer(
        "ecg", dtype="f4", shape=(50, 2), dims=("time", "lead"), sample_rate=1000, units="mV"
    ) as producer:
        widget = plot(("ecg", "lead 1"), window=0.5)
        both = plot("ecg", window=0.5)
        assert repr(widget) == "LivePlot(ecg: lead 1)"
        assert [line["label"] for line in both.series] == ["lead 0", "lead 1"]
        block = np.zeros((50, 2), "f4")
        block[:, 1] = np.arange(50)
        producer.write(block)
        # The two plots send alternately; the lines of both end with it.
        wait_until(lambda: set(numbers(frames, -1)) == set(range(50)))
        assert last_picture(frames)[0]["dt"] == pytest.approx(0.00025)


def test_fields_of_records_and_their_units(hub, frames, plot, wait_until):
    dtype = [("p", "f8"), ("name", "U4"), ("pos", "f4", (3,)), ("on", "?")]
    with hub.producer("rig", dtype=dtype, units={"p": "bar", "pos": "mm"}) as producer:
        widget = plot("rig")
        assert repr(widget) == "LivePlot(rig: p, pos 0, pos 1, pos 2, on)"
        assert [line["unit"] for line in widget.series] == ["bar", "mm", "mm", "mm", ""]
        producer.write((1.5, "abc", (1, 2, 3), True))
        wait_until(lambda: last_value(frames) == [1.5, 1, 2, 3, 1.0])


def test_bad_input_says_what_can_be_drawn(hub, plot):
    with (
        hub.producer("rig", dtype=[("p", "f8"), ("name", "U4")]),
        hub.producer("text", dtype="U8"),
        hub.producer("cam", dtype="u1", shape=(480, 640)),
    ):
        with pytest.raises(InvalidArgument, match=r"field 'name' of 'rig' is not numeric; what can be drawn: p"):
            plot(("rig", "name"))
        with pytest.raises(InvalidArgument, match=r"field 'q' of 'rig' is not there; what can be drawn: p"):
            plot(("rig", "q"))
        with pytest.raises(InvalidArgument, match=r"channel 'text' has no numeric field: value"):
            plot("text")
        with pytest.raises(InvalidArgument, match=r"at most 32"):
            plot("cam")
        with pytest.raises(ChannelNotFound, match=r"Did you mean 'rig'"):
            plot("rigg")
        for bad in ({"window": 0}, {"window": "long"}, {"columns": 3}, {"height": 5}):
            with pytest.raises(InvalidArgument):
                plot("rig", **bad)
        with pytest.raises(InvalidArgument, match="needs a channel"):
            plot()
        assert not readers("rig")


def test_losses_are_marked_exactly(hub, frames, plot, wait_until, monkeypatch):
    with hub.producer("x", dtype="f8", capacity=16) as producer:
        widget = plot("x")
        producer.write(0.0)
        wait_until(lambda: numbers(frames) == [0.0])
        producer.write_many(np.arange(1.0, 1001.0))
        wait_until(lambda: last_value(frames) == [1000.0])
        meta = last_picture(frames)[0]
        # A thread that was awake in the middle of it has lost less; what it has lost, it says.
        received = readers("x")[0].received
        assert received + meta["lost"] == 1001
        assert sum(count for _, count in meta["losses"]) == meta["lost"] > 0
        assert widget.running


def test_a_producer_that_is_gone_and_one_that_returns(hub, frames, plot, wait_until):
    producer = hub.producer("x", dtype="f8")
    plot("x")
    producer.write(1.0)
    wait_until(lambda: numbers(frames) == [1.0])
    producer.close()
    wait_until(lambda: frames[-1][0]["state"] == "gone")
    assert frames[-1][0]["status"] == "x: producer gone (ended)"
    # In another dtype, which is another segment and another line.
    with hub.producer("x", dtype=[("a", "f8"), ("b", "i4")]) as producer:
        producer.write((5.0, 6))
        wait_until(lambda: frames[-1][0]["state"] == "live" and last_value(frames) == [5.0, 6])


def test_a_producer_that_is_killed_and_one_that_takes_over(hub, frames, plot, wait_until):
    program = """
import labhub, sys
producer = labhub.connect().producer("x", dtype="f8")
producer.write(1.0)
print("ready", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        plot("x")
        wait_until(lambda: last_value(frames) == [1.0])
        child.kill()
    wait_until(lambda: frames[-1][0]["status"] == "x: producer gone (died)")
    with hub.producer("x", dtype="f8") as producer:
        assert producer.epoch == 2
        producer.write(2.0)
        wait_until(lambda: last_value(frames) == [2.0] and frames[-1][0]["state"] == "live")


def test_a_broker_that_is_gone_stops_no_plot(frames, wait_until):
    with named_broker(endpoint="tcp://127.0.0.1:0") as service:
        service.start()
        hub = labhub.connect()
        producer = hub.producer("x", dtype="f8")
        widget = labhub.LivePlot("x", hub=hub)
    wait_until(lambda: hub.status != "connected")
    producer.write(5.0)
    wait_until(lambda: last_value(frames) == [5.0])
    producer.close()
    wait_until(lambda: frames[-1][0]["state"] == "gone")
    widget.close()
    assert not widget.running
    hub.close()


def test_a_producer_that_comes_back_without_numbers(hub, frames, plot, wait_until):
    with hub.producer("x", dtype="f8"):
        widget = plot("x")
    with hub.producer("x", dtype="U4") as producer:
        producer.write("abc")
        wait_until(lambda: frames and "no numeric field" in frames[-1][0].get("status", ""))
        assert widget.running
    with hub.producer("x", dtype="f8") as producer:
        producer.write(3.0)
        wait_until(lambda: last_value(frames) == [3.0])


def test_a_closed_plot_leaves_no_reader_and_no_thread(hub, plot, wait_until):
    with hub.producer("x", dtype="f8"):
        usual = sys.getswitchinterval()
        widget = plot("x")
        wait_until(lambda: len(readers("x")) == 1)
        wait_until(lambda: hub.find("x").consumers == 1)
        widget.close()
        assert not widget.running
        assert not readers("x")
        assert sys.getswitchinterval() == usual
        widget.close()
        wait_until(lambda: hub.find("x").consumers == 0)


def test_closing_the_hub_ends_its_plots(hub, frames, plot, wait_until):
    with hub.producer("x", dtype="f8"):
        widget = plot("x")
        hub.close()
    wait_until(lambda: not widget.running)
    assert frames[-1][0]["state"] == "closed"


def test_stop_all_stops_every_plot(hub, plot):
    with hub.producer("x", dtype="f8"):
        widgets = [plot("x"), plot("x")]
        live.stop_all()
        assert not any(widget.running for widget in widgets)
        assert not readers("x")


def test_unloading_the_extension_stops_every_plot(hub, plot):
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "labhub")
    with hub.producer("x", dtype="f8"):
        widget = plot("x")
        shell.run_line_magic("unload_ext", "labhub")
        assert not widget.running
        assert not readers("x")


def test_a_plot_that_is_shown_nowhere_any_more_reads_nothing(hub, frames, plot, wait_until):
    with hub.producer("x", dtype="f8") as producer:
        widget = plot("x")
        assert len(readers("x")) == 1
        widget._view_count = 1
        wait_until(lambda: widget._shown)
        widget._view_count = 0
        wait_until(lambda: not readers("x"))
        producer.write(4.0)
        widget._view_count = 1
        wait_until(lambda: numbers(frames) == [4.0])


def test_the_window_and_the_part_of_it_that_the_page_shows(hub, frames, plot, wait_until):
    with hub.producer("x", dtype="f8") as producer:
        widget = plot("x", window=10)
        producer.write(1.0)
        wait_until(lambda: numbers(frames) == [1.0])
        for state, dt in (({"window": 20.0}, 0.01), ({"share": 0.1}, 0.001), ({"share": 1.0}, 0.01)):
            for name, value in state.items():
                setattr(widget, name, value)
            wait_until(lambda dt=dt: last_picture(frames)[0]["dt"] == pytest.approx(dt))
            assert numbers(frames) == [1.0]
        with pytest.raises(InvalidArgument):
            widget.window = -1


def test_it_is_made_from_a_channel_and_from_a_reader(hub, frames, wait_until):
    with hub.producer("x", dtype="f8"), hub.consumer("x") as consumer:
        for made in (hub["x"].plot(window=3), consumer.plot("value")):
            assert repr(made) == "LivePlot(x: value)"
            made.close()


def test_without_a_browser_a_notebook_shows_its_name_and_its_last_picture(hub, plot):
    with hub.producer("x", dtype="f8"):
        widget = plot("x")
        data, _ = widget._repr_mimebundle_()
        assert data["text/plain"] == "LivePlot(x: value)"
        widget.picture = "data:image/png;base64,QUJD"
        assert widget._repr_mimebundle_()[0]["image/png"] == "QUJD"


def test_a_missing_bundle_is_one_clear_line(hub, plot, monkeypatch, tmp_path):
    from labhub.notebook import bundle

    monkeypatch.setattr(bundle, "STATIC", tmp_path)
    bundle.bundle.cache_clear()
    with hub.producer("x", dtype="f8"), pytest.raises(LabHubError, match=r"^the JavaScript of labhub's widgets is not"):
        plot("x")


def test_importing_labhub_imports_no_widget():
    program = "import labhub, sys; assert not {'anywidget', 'ipywidgets', 'IPython'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
