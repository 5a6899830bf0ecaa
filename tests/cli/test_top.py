from __future__ import annotations

import json
import os
import re
import signal
import sys
import termios
from dataclasses import replace

import numpy as np
import pexpect
import pytest
from rich.console import Console

from labhub.cli.sampling import Sampler
from labhub.cli.table import fitted, table
from labhub.errors import BrokerUnreachable
from labhub.hub import connect, start_broker, stop_broker
from labhub.words import age, short
from tests.bad_channels import junk_segment, odd_registration

ENTERS, LEAVES = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture
def hub(broker):
    with connect() as hub:
        yield hub


def test_rates_come_from_two_looks_at_the_segment(hub):
    with hub.producer("daq", dtype="f8", shape=(128,), capacity=8) as producer, hub.consumer("daq", "lossless"):
        sampler = Sampler("default", hub.channels)
        (first,) = sampler.look().channels
        assert (first.head, first.newest_s, first.fill, first.slots_per_s) == (0, None, 0.0, None)
        for _ in range(4):
            producer.write(np.zeros(128))
        sample = sampler.look()
        (second,) = sample.channels
        assert second.slots_per_s == pytest.approx(4 / sample.interval_s, rel=0.5)
        assert second.bytes_per_s == pytest.approx(second.slots_per_s * 1024)
        assert (second.head, second.fill, second.where, second.liveness) == (4, 0.5, "here", "alive")
        assert 0 <= second.newest_s < 10
        (reader,) = second.readers
        assert reader == {
            "pid": os.getpid(), "kind": "lossless", "alive": True, "evicted": False, "lag": 4, "received": 0, "lost": 0
        }  # fmt: skip


def test_another_incarnation_has_no_rate_yet(hub):
    sampler = Sampler("default", hub.channels)
    with hub.producer("daq", dtype="f8") as producer:
        for _ in range(5):
            producer.write(1.0)
        sampler.look()
    with hub.producer("daq", dtype="f8") as producer:
        producer.write(1.0)
        (sample,) = sampler.look().channels
    assert (sample.head, sample.slots_per_s, sample.bytes_per_s) == (1, None, None)


def test_channels_elsewhere_and_gone(hub):
    with hub.producer("daq", dtype="f8"):
        (here,) = hub.channels()
    far = replace(here, name="far", directory=None, producer_hostname="beamline")
    sample = Sampler("default", lambda: [far, here]).look()
    assert [(c.name, c.where, c.head) for c in sample.channels] == [("far", "remote", None), ("daq", "gone", None)]
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table(sample))
    console.file.close()
    assert re.search(r"far .* remote beamline", console.export_text())


def test_while_the_broker_is_away_the_segments_are_looked_at_all_the_same(hub):
    with hub.producer("daq", dtype="f8") as producer:
        answers = iter([hub.channels()])

        def listed():
            try:
                return next(answers)
            except StopIteration:
                raise BrokerUnreachable("the broker did not answer") from None

        sampler = Sampler("default", listed)
        assert sampler.look().broker_error == ""
        producer.write(1.0)
        sample = sampler.look()
    assert sample.broker_error == "the broker did not answer"
    assert sample.channels[0].head == 1


def test_the_table_fits_80_columns_and_any_height(hub):
    names = [f"experiment.with.a.long.name.{k:02d}" for k in range(12)]
    producers = [hub.producer(name, dtype="f8") for name in names]
    readers = [hub.consumer(names[0], "lossless") for _ in range(4)]
    sample = Sampler("default", hub.channels).look()
    for height in (12, 24, 100):
        console = Console(width=80, height=height, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
        console.print(fitted(sample, console))
        console.file.close()
        text = console.export_text()
        assert text.count("\n") <= height
        assert "…" not in text
        assert f"{os.getpid()} alive" in text
        assert ("more than fit" in text) == (height < 100)
    assert len(producers) == 12
    assert len(readers) == 4


def test_once_and_json_lines_through_a_pipe(hub, labhub):
    with hub.producer("b", dtype="f8") as producer, hub.producer("a", dtype="f8"):
        producer.write(1.0)
        text = labhub("top", "--once", "--interval", "0.05")
        assert text.returncode == 0, text.stderr
        assert "\x1b" not in text.stdout
        assert re.search(r"^a +0 +0\.0 +0 +- .*\nb +0 +0\.0 +1 +\S+ s ", text.stdout, re.MULTILINE)
        lines = labhub("top", "b", "--json", "--count", "2", "-i", "0.05").stdout.splitlines()
        samples = [json.loads(line) for line in lines]
        assert len(samples) == 2
        assert [[c["name"] for c in s["channels"]] for s in samples] == [["b"], ["b"]]
        assert samples[0]["interval_s"] >= 0.05
        assert samples[0]["channels"][0]["pid"] == os.getpid()
        assert labhub("top", "--count", "1", "-i", "0.05", "--broker", "other").returncode == 3


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda child: child.send("q"), 0),
        (lambda child: child.sendintr(), 130),
        (lambda child: child.kill(signal.SIGTERM), 128 + signal.SIGTERM),
        (lambda child: child.kill(signal.SIGHUP), 128 + signal.SIGHUP),
    ],
    ids=["q", "Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_the_full_screen_gives_the_terminal_back(hub, end, code):
    with hub.producer("pump.pressure", dtype="f8"):
        words = ["-m", "labhub.cli", "top", "--interval", "0.1"]
        with pexpect.spawn(sys.executable, words, timeout=30, dimensions=(24, 80)) as child:
            before = termios.tcgetattr(child.child_fd)
            child.expect_exact(ENTERS)
            child.expect_exact(b"pump.pressure")
            assert termios.tcgetattr(child.child_fd) != before
            end(child)
            child.expect_exact(LEAVES)
            child.expect(pexpect.EOF)
            assert termios.tcgetattr(child.child_fd) == before
    assert child.exitstatus == code
    assert b"Traceback" not in child.before


def test_the_screen_stays_while_the_broker_is_restarted(hub):
    with hub.producer("pump.pressure", dtype="f8"):
        words = ["-m", "labhub.cli", "top", "--interval", "0.1"]
        with pexpect.spawn(sys.executable, words, timeout=30, dimensions=(24, 200)) as child:
            child.expect_exact(b"pump.pressure")
            stop_broker()
            child.expect_exact(b"the broker does not answer")
            start_broker(endpoint="tcp://127.0.0.1:0")
            child.expect(rb"1 channels(?!.*does not answer)")
            child.send("q")
            child.expect(pexpect.EOF)
    assert child.exitstatus == 0


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (7, "7"), (9.87, "9.87"), (9999, "9999"), (12_345, "12.3k"), (999_960, "1000k"), (4.56e6, "4.6M")],
)
def test_numbers_in_short(number, text):
    assert short(number) == text
    assert len(text) <= 6


def test_ages_in_words():
    assert [age(s) for s in (-1, 0.04, 11, 130, 8000, 200_000)] == ["0.0 s", "0.0 s", "11 s", "2 min", "2 h", "2 d"]


def test_one_broken_segment_and_one_odd_registration_leave_the_others_their_lines(hub):
    with hub.producer("a", dtype="f8"), hub.producer("bad", dtype="f8"), hub.producer("z", dtype="f8") as good:
        with junk_segment(hub, "bad"), odd_registration("odd"):
            sampler = Sampler("default", hub.channels)
            sampler.look()
            good.write_many([1.0, 2.0])
            sample = sampler.look()
            found = {channel.name: channel for channel in sample.channels}
            assert list(found) == ["a", "bad", "odd", "z"]
            assert (found["z"].where, found["z"].head) == ("here", 2)
            assert found["z"].slots_per_s > 0
            assert (found["bad"].where, found["bad"].head) == ("unreadable", None)
            assert "too short" in found["bad"].error
            assert found["a"].error == ""
            console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
            console.print(table(sample))
            console.file.close()
            shown = console.export_text()
            assert "unreadable" in shown
            assert "bad cannot be examined: " in shown
        (bad,) = (channel for channel in sampler.look().channels if channel.name == "bad")
        assert bad.where == "here"


def test_whatever_the_broker_answers_the_last_channels_stay_on_the_screen(hub):
    def listed():
        if failing:
            raise failing[0]
        return hub.channels()

    failing = []
    with hub.producer("a", dtype="f8"):
        sampler = Sampler("default", listed)
        assert [c.name for c in sampler.look().channels] == ["a"]
        failing.append(KeyError("odd"))
        sample = sampler.look()
        assert [c.name for c in sample.channels] == ["a"]
        assert sample.broker_error == "KeyError: 'odd'"
