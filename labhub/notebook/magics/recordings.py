"""``%hub_record`` and ``%hub_replay``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.error import UsageError
from IPython.core.magic import line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from labhub.notebook.magics.common import SessionMagics, broker_name, checked_action, one_line_errors, uninterrupted

if TYPE_CHECKING:
    from labhub.recording import Recording
    from labhub.replaying import Replay

RECORD_ACTIONS = ("start", "stop", "mark", "status")
REPLAY_ACTIONS = ("start", "stop", "status")


@magics_class
class RecordingMagics(SessionMagics):
    """The magics about recordings; each is a parse, one call and a display. One runs at a time, and one replay."""

    @magic_arguments()
    @argument("action", nargs="?", default="status", metavar="|".join(RECORD_ACTIONS), help="status unless given")
    @argument("words", nargs="*", help="start: the store and the channels, or patterns; mark: what happened")
    @argument(
        "--compression", default="zstd", choices=("zstd", "none"), help="how chunks are packed; zstd unless given"
    )
    @argument("--title", default="", help="what the recording is called, under the signature")
    @broker_name()
    @line_magic
    @one_line_errors
    @uninterrupted
    def hub_record(self, line: str) -> Recording:
        """Record channels into a Zarr store, while cells run; note what happens; stop.

        The recording goes on when a cell is interrupted, and ends in order with %hub_record stop and %unload_ext. A
        kernel that just ends costs at most the last second, as a killed one does.

        Examples
        --------
        ``%hub_record start run42.zarr pump.* cam``, ``%hub_record mark valve open``, ``%hub_record stop``
        """
        options = parse_argstring(self.hub_record, line)
        running = self.session.recording
        match checked_action("hub_record", options.action, RECORD_ACTIONS):
            case "start":
                if len(options.words) < 2:
                    raise UsageError(
                        "%hub_record start takes a store and channels: %hub_record start run42.zarr pump.*"
                    )
                if running is not None and running.running:
                    raise UsageError(f"{running.path} is being recorded; end it with: %hub_record stop")
                store, *channels = options.words
                hub = self.session.hub(options.name)
                self.session.recording = hub.record(
                    *channels, store=store, title=_unquoted(options.title), compression=options.compression
                )
                return self.session.recording
            case "mark":
                recording = self._needed(running)
                recording.mark(" ".join(options.words))
                return recording
            case "stop":
                recording = self._needed(running)
                recording.stop()
                return recording
            case _:
                return self._needed(running)

    @magic_arguments()
    @argument("action", nargs="?", default="status", metavar="|".join(REPLAY_ACTIONS), help="status unless given")
    @argument("words", nargs="*", help="start: the recording (or a CSV or Parquet file), and channels or patterns")
    @argument("--speed", default="1", metavar="X", help="so many times as fast as it was; max: as its readers read")
    @argument("--key", default=None, metavar="HEX", help="who signed it, if it was not you; any: whoever did")
    @argument("--prefix", default="", metavar="P", help="what to put before each name")
    @argument("--time-unit", default=None, metavar="U", help="s, ms, us or ns: what numbers in a column of times count")
    @broker_name()
    @line_magic
    @one_line_errors
    @uninterrupted
    def hub_replay(self, line: str) -> Replay:
        """Turn a recording into live channels again, while cells run.

        Examples
        --------
        ``%hub_replay start run42.zarr --speed 10 --prefix replay.``, ``%hub_replay stop``
        """
        from labhub.replaying import replay

        options = parse_argstring(self.hub_replay, line)
        running = self.session.replay
        match checked_action("hub_replay", options.action, REPLAY_ACTIONS):
            case "start":
                if not options.words:
                    raise UsageError("%hub_replay start takes a recording: %hub_replay start run42.zarr")
                if running is not None:
                    running.stop()
                source, *channels = options.words
                hub, speed = self.session.hub(options.name), _speed(options.speed)
                more = {"prefix": options.prefix, "key": options.key, "time_unit": options.time_unit}
                self.session.replay = replay(source, *channels, hub=hub, speed=speed, **more)
                return self.session.replay
            case "stop" if running is not None:
                running.stop()
                return running
            case _ if running is not None:
                return running
        raise UsageError("nothing is replayed; begin with: %hub_replay start run42.zarr")

    def _needed(self, recording: Recording | None) -> Recording:
        if recording is None:
            raise UsageError("nothing is recorded; begin with: %hub_record start run42.zarr pump.*")
        return recording


def _unquoted(text: str) -> str:
    """Return a text without the quotes around it, which IPython leaves where they are."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _speed(text: str) -> float | None:
    try:
        return None if text == "max" else float(text)
    except ValueError:
        raise UsageError(f"%hub_replay --speed takes a number or max, not {text}") from None
