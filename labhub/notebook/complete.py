"""Completion of sub-commands, options, channels and fields behind the magics' names."""

from __future__ import annotations

import contextlib
import re
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import TYPE_CHECKING

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from labhub.errors import LabHubError
from labhub.notebook.magics import broker, producers, recordings
from labhub.runtime import find_live
from labhub.tasks import contained

if TYPE_CHECKING:
    from labhub.hub import ChannelInfo
    from labhub.notebook.session import Session

PATIENCE = 0.15
"""How long a completion waits for the broker (in seconds); beyond that it offers what it knew before."""

LINE = re.compile(r"(?:^|=)\s*(%{0,2})(hub_\w+)\s(.*)$")


@dataclass(frozen=True)
class Words:
    """What can follow the name of a magic.

    Attributes
    ----------
    actions : tuple of str
        Sub-commands, for the first word.
    options : tuple of str
    names : {"", "channel", "producer"}
        What the first word behind the sub-command names.
    """

    actions: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    names: str = ""


MAGICS = {
    "hub_broker": Words(broker.ACTIONS, ("--name", "--endpoint", "--here")),
    "hub_connect": Words(options=("--start", "--endpoint", "--public-key")),
    "hub_discover": Words(options=("--wait", "--name"), names="channel"),
    "hub_doctor": Words(),
    "hub_info": Words(options=("--name",), names="channel"),
    "hub_plot": Words(options=("--fields", "--window", "--name"), names="channel"),
    "hub_producer": Words(options=("--restart",), names="producer"),
    "hub_producers": Words(producers.ACTIONS, ("-n",), names="producer"),
    "hub_record": Words(recordings.RECORD_ACTIONS, ("--title", "--compression", "--name")),
    "hub_replay": Words(recordings.REPLAY_ACTIONS, ("--speed", "--prefix", "--key", "--time-unit", "--name")),
    "hub_tail": Words(options=("-n", "--name"), names="channel"),
}


class MagicCompleter:
    """Completes the lines of labhub's magics; its `matcher` goes to IPython's completer.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._worker = ThreadPoolExecutor(1, "labhub-completion")
        self._asked: Future[list[ChannelInfo]] | None = None
        self._known: list[ChannelInfo] = []

        @context_matcher(identifier="labhub", priority=100)  # type: ignore[untyped-decorator]
        def matcher(context: CompletionContext) -> SimpleMatcherResult:
            return self._match(context.text_until_cursor)

        self.matcher = matcher

    def close(self) -> None:
        """End the thread that asks the broker."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _match(self, line: str) -> SimpleMatcherResult:
        found = LINE.search(line)
        if found is None or found[2] not in MAGICS:
            return {"completions": []}
        words = found[3].split(" ")
        *before, fragment = (word for k, word in enumerate(words) if word or k == len(words) - 1)
        offers = [
            SimpleCompletion(text, type=kind)
            for text, kind in self._offers(MAGICS[found[2]], before, fragment)
            if text.startswith(fragment)
        ]
        return {"completions": offers, "matched_fragment": fragment, "suppress": True, "ordered": True}

    def _offers(self, magic: Words, before: list[str], fragment: str) -> list[tuple[str, str]]:
        """What may stand where the cursor is, with its kind."""
        if fragment.startswith("-"):
            return [(option, "option") for option in magic.options if option not in before]
        positional = [word for word in before if not word.startswith("-")]
        if "--fields" in before:
            return [(field, "field") for field in self._fields(positional[0] if positional else "")]
        if magic.actions and not positional:
            return [(action, "command") for action in magic.actions]
        if len(positional) > bool(magic.actions):
            return []
        if magic.names == "producer":
            return [(producer.name, "producer") for producer in self._session.producers]
        if magic.names == "channel":
            return [(channel.name, "channel") for channel in self._channels()]
        return []

    def _fields(self, name: str) -> list[str]:
        schemas = [channel.schema for channel in self._channels() if channel.name == name]
        return list(schemas[0].fields) if schemas and schemas[0] is not None else []

    def _channels(self) -> list[ChannelInfo]:
        """The channels, as the broker answers within `PATIENCE`, or as they were known before."""
        if find_live() is None:
            return []
        if self._asked is None or self._asked.done():
            self._asked = self._worker.submit(lambda: self._session.hub("default").channels())
        # A completion never says anything.
        with contained("labhub-completion", "channels"), contextlib.suppress(LabHubError, FutureTimeout):
            self._known = self._asked.result(PATIENCE)
        return self._known
