"""The crew that gives imports their turns, their inboxes, and their part of the shared memory. No network."""

from __future__ import annotations

import threading

import pytest

from labhub.bridging import inbox, room
from labhub.bridging.crew import Crew, Job
from labhub.bridging.inbox import INBOX, Inbox, Questions
from labhub.bridging.room import NoRoom, Room, ring_nbytes
from labhub.errors import SegmentSpaceError

PATIENCE = 10


@pytest.fixture
def crew():
    crew = Crew("crew of a test", 3)
    yield crew
    crew.close(PATIENCE)
    assert not any(t.name.startswith("crew of a test") for t in threading.enumerate())


def test_many_jobs_have_turns_of_few_threads(crew, wait_until) -> None:
    left = dict.fromkeys(range(50), 4)
    threads: set[str] = set()

    def turn(k: int) -> bool:
        threads.add(threading.current_thread().name)
        left[k] -= 1
        return left[k] > 0

    for k in left:
        crew.wake(Job(str(k), lambda k=k: turn(k)))
    wait_until(lambda: not any(left.values()), PATIENCE)
    assert len(threads) <= 3


def test_a_job_has_one_turn_at_a_time_and_one_more_if_it_was_woken_meanwhile(crew, wait_until) -> None:
    began, go_on, turns = threading.Event(), threading.Event(), []

    def turn() -> bool:
        turns.append("begins")
        began.set()
        assert go_on.wait(PATIENCE)
        turns.append("ends")
        return False

    job = Job("x", turn)
    crew.wake(job)
    assert began.wait(PATIENCE)
    for _ in range(10):
        crew.wake(job)
    go_on.set()
    wait_until(lambda: len(turns) == 4 and not job.running and not job.queued, PATIENCE)
    assert turns == ["begins", "ends"] * 2


def test_a_job_that_was_stopped_has_no_more_turns(crew) -> None:
    turns: list[int] = []
    job = Job("x", lambda: bool(turns.append(1)))
    crew.stop(job, PATIENCE)
    crew.wake(job)
    crew.close(PATIENCE)
    assert turns == []


def test_a_turn_that_fails_ends_neither_the_job_nor_the_thread(crew, wait_until, failures) -> None:
    turns: list[int] = []

    def turn() -> bool:
        turns.append(1)
        raise KeyError("x")

    job = Job("x", turn)
    crew.wake(job)
    wait_until(lambda: len(turns) == 1 and not job.running, PATIENCE)
    crew.wake(job)
    wait_until(lambda: len(turns) == 2, PATIENCE)
    assert crew.error is None
    wait_until(lambda: failures, PATIENCE)


def put_all(box: Inbox[int], n: int, nbytes: int = 1) -> threading.Thread:
    thread = threading.Thread(target=lambda: [box.put(k, nbytes) for k in range(n)])
    thread.start()
    return thread


def taken(box: Inbox[int]) -> list[int]:
    found = []
    while (item := box.take()) is not None:
        found.append(item)
    return found


def test_a_full_inbox_makes_wait_until_somebody_asks(wait_until) -> None:
    questions = Questions()
    box, other = Inbox[int](questions), Inbox[int](questions)
    thread = put_all(box, INBOX + 10)
    wait_until(lambda: len(box.waiting()) == INBOX, PATIENCE)
    assert thread.is_alive()
    other.ask(True)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    other.ask(False)
    assert taken(box) == list(range(INBOX + 10))
    assert questions.held_nbytes == questions.n == 0


def test_there_is_a_limit_and_who_asks_drops_what_is_beyond_it(monkeypatch, wait_until) -> None:
    monkeypatch.setattr(inbox, "HELD_NBYTES", 100)
    questions = Questions()
    asking, other = Inbox[int](questions), Inbox[int](questions)
    asking.ask(True)
    put_all(asking, 120).join(PATIENCE)
    assert (len(asking.waiting()), asking.dropped) == (100, 20)
    thread = put_all(other, INBOX + 1)  # this one waits: nobody sends it again
    wait_until(lambda: len(other.waiting()) == INBOX, PATIENCE)
    assert thread.is_alive()
    asking.clear()
    assert other.take() == 0
    thread.join(PATIENCE)
    assert taken(other) == list(range(1, INBOX + 1))
    assert questions.held_nbytes == questions.n == 0


def test_nobody_waits_for_an_inbox_that_is_closed(wait_until) -> None:
    box = Inbox[int](Questions())
    thread = put_all(box, INBOX + 10)
    wait_until(lambda: len(box.waiting()) == INBOX, PATIENCE)
    box.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert taken(box) == list(range(INBOX))


def test_what_is_put_back_comes_first() -> None:
    box = Inbox[str](Questions())
    for item in "abc":
        box.put(item, 1)
    assert box.take() == "a"
    box.put_back("a", 1)
    assert box.waiting() == ["a", "b", "c"]


def test_room_is_taken_and_given_back(tmp_path, monkeypatch) -> None:
    one = ring_nbytes(100, 8)
    free = [100 * one]
    monkeypatch.setattr(room, "free_nbytes", lambda directory: free[0])
    rings = Room(2 * one, str(tmp_path))
    rings.take("a", 100, 8)
    rings.take("b", 100, 8)
    rings.take("a", 100, 8)  # in its own place
    with pytest.raises(NoRoom, match="max_nbytes"):
        rings.take("c", 100, 8)
    assert not rings.has(one)
    rings.give_back("a")
    assert rings.has(one)
    free[0] = 2 * one
    with pytest.raises(NoRoom, match="half of what others leave"):
        rings.take("c", 100, 8)
    with pytest.raises(SegmentSpaceError, match="give the bridge more"):
        rings.take("d", 1000, 8)
