"""What the widgets have in common: a thread that sends frames to the browser and waits for nobody."""

from __future__ import annotations

import contextvars
import sys
import threading
import time
import weakref
from functools import partial
from typing import Any, ClassVar

import anywidget
import traitlets

from labhub.bound import Bound
from labhub.ending import at_exit
from labhub.errors import ClosedError, LabHubError
from labhub.hub import Hub
from labhub.logs import event, get_logger
from labhub.notebook.bundle import bundle
from labhub.tasks import Task, words
from labhub.words import visible

FRAME_RATE = 30.0
"""Most frames per second."""

HEARTBEAT = 1.0
"""How often the browser hears that the kernel is there, if nothing else is new (in seconds)."""

RETRY_INTERVAL = 1.0
"""How long after an error the channels are opened again (in seconds)."""

LOOK_INTERVAL = 0.2
"""How often it is looked whether the producers are there (in seconds)."""

SWITCH_INTERVAL = 0.001
"""How long a busy cell keeps the GIL while a widget's thread wants it (in seconds); Python's own is five times that."""

JOIN_TIMEOUT = 3.0

_log = get_logger(__name__)
_live: weakref.WeakSet[LiveWidget] = weakref.WeakSet()
_running = 0
_usual_switch_interval = 0.0
_running_lock = threading.Lock()


class LiveWidget(Bound, anywidget.AnyWidget):
    """Base of the widgets. A subclass opens and releases what it reads, and makes one frame at a time.

    Everything flows from the kernel to the browser, one message per frame, from a daemon thread: a cell that is busy
    does not hold it up, and a browser that is slow does not, either. A widget that was shown and is shown nowhere any
    more reads nothing.

    An error does not end the thread. What cannot be read is opened again every second, and the page says why. What was
    read but cannot be drawn is skipped: `note`, the page and the log of labhub say what was wrong with it.

    Attributes
    ----------
    note : str
        What is odd about what it shows; empty if nothing is. The page shows it, too.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    # None would leave it uncounted.
    _view_count = traitlets.Int(0, allow_none=True).tag(sync=True)
    picture = traitlets.Unicode(help="what it last showed, as a data URL; the browser fills it in").tag(sync=True)
    title = traitlets.Unicode(help="what is written above it").tag(sync=True)
    note = traitlets.Unicode(help="what is odd about what it shows").tag(sync=True)

    NAME: ClassVar[str]
    RATE: ClassVar[float] = FRAME_RATE

    def __init__(self, hub: Hub, **state: Any) -> None:
        module, style = bundle(self.NAME)
        super().__init__(_esm=module, _css=style, **state)
        self._hub = hub
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._shown = False
        self._wanted = True  # a picture of what is there, even if nothing new comes
        self._frame = 0
        self._trouble = ""
        self._skipped = 0
        self._skipped_why = ""
        self._sent_at = 0.0
        self._sent_state = ("", "")
        self._looked_at = 0.0
        self._found_gone = ""
        self.on_msg(self._answer)
        self._thread = Task(partial(contextvars.copy_context().run, self._run), f"labhub-{self.NAME}")

    # ------------------------------------------------------------------------------------------- for the subclasses

    def _open(self) -> None:
        """Attach to what is read."""
        raise NotImplementedError

    def _release(self) -> None:
        """Let go of what was attached; any number of times."""
        raise NotImplementedError

    def _update(self) -> tuple[dict[str, Any], list[bytes]] | None:
        """Read what is new, without waiting, and return a frame; None if nothing is new.

        Raises
        ------
        ClosedError
            What it reads was closed: the thread ends.
        """
        raise NotImplementedError

    def _picture_again(self) -> tuple[dict[str, Any], list[bytes]] | None:
        """The newest frame once more, for a page that has none."""
        raise NotImplementedError

    def _gone(self) -> str:
        """What is wrong with what is read, in words; empty if nothing is."""
        raise NotImplementedError

    def _odd(self) -> str:
        """What is odd about what is shown, in words; empty if nothing is."""
        return ""

    def _begin(self) -> None:
        """Open in the caller's thread, which gets the errors, then start the widget's own."""
        try:
            self._open()
        except BaseException:
            self._release()
            super().close()
            raise
        _live.add(self)
        self._thread.start()

    # ------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        _count_running(+1)
        due = time.monotonic()
        try:
            while not self._stop.is_set():
                try:
                    self._wait_for_viewer()
                    if self._stop.is_set():
                        return
                    self._step()
                except ClosedError:
                    raise
                except Exception as error:  # noqa: BLE001  nothing that a frame or a comm does ends the thread
                    self._skip(error)
                    self._stop.wait(RETRY_INTERVAL)
                due = max(due + 1 / self.RATE, time.monotonic())
                self._stop.wait(due - time.monotonic())
        except ClosedError:
            pass
        finally:
            _count_running(-1)
            self._release()
            if not self._stop.is_set():
                self._emit({"state": "closed", "status": "closed"})

    def _step(self) -> None:
        frame, gone = None, ""
        try:
            if self._trouble:
                self._open()
                self._trouble, self._wanted = "", True
            frame = self._frame_or_skip()
            gone = self._look_whether_gone()
        except ClosedError:
            raise
        except Exception as error:  # noqa: BLE001  kept, shown and tried again
            if not isinstance(error, LabHubError):
                _log.warning("a widget could not read", exc_info=error, extra=event("widget_trouble", widget=self.NAME))
            self._trouble = gone = _in_words(error)
            frame = None
            self._release()
        self._publish(frame, gone)
        if self._trouble:
            self._stop.wait(RETRY_INTERVAL)

    def _frame_or_skip(self) -> tuple[dict[str, Any], list[bytes]] | None:
        """A frame; none, and a note, if what was read cannot be drawn."""
        wanted, self._wanted = self._wanted, False
        try:
            frame = self._update()
            if frame is None and wanted:
                frame = self._picture_again()
        except LabHubError:  # of what it reads
            raise
        except Exception as error:  # noqa: BLE001  kept, shown and logged
            self._skip(error)
            return None
        return frame

    def _skip(self, error: Exception) -> None:
        self._skipped += 1
        self._skipped_why = _in_words(error)
        _log.warning(
            "a widget skipped what it could not draw", exc_info=error, extra=event("widget_skipped", widget=self.NAME)
        )

    def _noted(self) -> str:
        skipped = f"{self._skipped} not drawn, the last because of {self._skipped_why}" if self._skipped else ""
        return ", ".join(filter(None, (self._odd(), skipped)))

    def _look_whether_gone(self) -> str:
        """What is wrong with what is read, now or a moment ago: the look is a system call for each channel."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_INTERVAL:
            self._looked_at, self._found_gone = now, self._gone()
        return self._found_gone

    def _publish(self, frame: tuple[dict[str, Any], list[bytes]] | None, gone: str) -> None:
        note = self._noted()
        if note != self.note:
            self.note = note
        now = time.monotonic()
        if frame is None and (gone, note) == self._sent_state and now - self._sent_at < HEARTBEAT:
            return
        meta, buffers = frame or ({}, [])
        self._emit({**meta, "state": "gone" if gone else "live", "status": gone, "note": note}, buffers)
        self._sent_at, self._sent_state = now, (gone, note)

    def _emit(self, meta: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        self._frame += 1
        self.send({"frame": self._frame, **meta}, buffers)

    def _wait_for_viewer(self) -> None:
        """Hold on to nothing while the widget, once shown, is shown nowhere."""
        if self._view_count:
            self._shown = True
        if not self._shown or self._view_count != 0:
            return
        self._release()
        self._trouble = "not shown"  # whence it is opened again
        while not self._view_count and not self._stop.is_set():
            self._wake.wait(0.5)
            self._wake.clear()

    @traitlets.observe("_view_count")
    def _viewers_changed(self, change: dict[str, Any]) -> None:
        if change["new"]:
            self._wanted = True
            self._wake.set()

    def _answer(self, widget: LiveWidget, content: dict[str, Any], buffers: list[memoryview]) -> None:
        self._wanted = self._wanted or content.get("want") == "frame"

    # ------------------------------------------------------------------------------------------------- the user's

    @property
    def running(self) -> bool:
        """Whether its thread is there."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop reading; what it shows stays. Twice is harmless."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(JOIN_TIMEOUT)

    def close(self) -> None:
        """Stop reading and remove it from the page. Twice is harmless."""
        if hasattr(self, "_thread"):
            self.stop()
            self._view_count = None  # else the page reports a view less through the comm that is closed, and throws
        super().close()

    def _instead(self) -> str:
        return "make another one in the notebook that is to show it"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget, and what shows where there are no widgets: its last picture, else its name."""
        found = super()._repr_mimebundle_(**kwargs)
        data, metadata = found if isinstance(found, tuple) else (found or {}, {})
        data["text/plain"] = repr(self)
        if self.picture.startswith("data:image/png;base64,"):
            data["image/png"] = self.picture.partition(",")[2]
        return data, metadata


def stop_all() -> None:
    """Stop every widget of this process; they stay where they are shown."""
    for widget in list(_live):
        widget.stop()


def _in_words(error: Exception) -> str:
    """The first line of an error, without what a page could take for an order."""
    return visible(next(iter(words(error).splitlines()), ""))


def _count_running(change: int) -> None:
    """Shorten the time for which a busy cell keeps the GIL, while there is a widget that wants it."""
    global _running, _usual_switch_interval
    with _running_lock:
        if _running == 0:
            _usual_switch_interval = sys.getswitchinterval()
            sys.setswitchinterval(min(_usual_switch_interval, SWITCH_INTERVAL))
        _running += change
        if _running == 0:
            sys.setswitchinterval(_usual_switch_interval)


at_exit(stop_all)
