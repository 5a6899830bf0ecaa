"""A bounded number of threads that do the work of any number of channels, a turn at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from labhub.tasks import Task, contained


class Job:
    """What has turns.

    Parameters
    ----------
    name : str
        Whose job it is, for the log.
    turn : callable
        Does some of the work, and says whether there is more.
    """

    def __init__(self, name: str, turn: Callable[[], bool]) -> None:
        self.name = name
        self.turn = turn
        self.queued = self.running = self.again = self.stopped = False


class Crew:
    """Threads that give jobs their turns. A job has one turn at a time, and waits in line for the next one.

    Threads are started when they are needed, up to a number.

    Parameters
    ----------
    name : str
        Each thread is called that, and a number.
    most : int
        How many threads there may be.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._line: deque[Job] = deque()
        self._threads: list[Task] = []
        self._idle = 0
        self._closed = False
        self._changed = threading.Condition()

    def wake(self, job: Job) -> None:
        """Give a job a turn, soon; if it has one now, another one after that."""
        with self._changed:
            if job.running:
                job.again = True
            elif not job.queued:
                self._queue(job)

    def _queue(self, job: Job) -> None:
        if self._closed or job.stopped:
            return
        job.queued = True
        self._line.append(job)
        if self._idle >= len(self._line) or len(self._threads) >= self._most:
            self._changed.notify_all()
            return
        thread = Task(self._work, f"{self._name} {len(self._threads) + 1}")
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            more = False
            with contained(self._name, job.name):
                more = job.turn()
            with self._changed:
                job.running = False
                if more or job.again:
                    self._queue(job)
                self._changed.notify_all()

    def _next(self) -> Job | None:
        """Wait for the job whose turn it is; None at the end."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._line or self._closed)
            self._idle -= 1
            if self._closed:
                return None
            job = self._line.popleft()
            job.queued = job.again = False
            job.running = True
            return job

    def stop(self, job: Job, timeout: float) -> None:
        """Give a job no more turns, and wait for the end of the one that it has (timeout in seconds)."""
        with self._changed:
            job.stopped = True
            if job.queued:
                self._line.remove(job)
                job.queued = False
            self._changed.wait_for(lambda: not job.running, timeout)

    @property
    def error(self) -> BaseException | None:
        """What ended one of the threads; None if nothing did."""
        return next((thread.error for thread in self._threads if thread.error is not None), None)

    def close(self, timeout: float) -> None:
        """End the threads, and wait for that (timeout in seconds, for each)."""
        with self._changed:
            self._closed = True
            self._line.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.wait(timeout)
