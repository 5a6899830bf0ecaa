"""A broker's settings file: TOML, read strictly, and followed while the broker runs."""

from __future__ import annotations

import os
import re
import stat
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import platformdirs

from labhub.errors import InvalidSettings
from labhub.names import check_name
from labhub.protocol.access import EVERY, Grants

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]

MOST_NBYTES = 256 * 1024
"""A longer file is none of ours."""
STILL = 3.0
"""For how long a file must not have changed, before it is believed that it takes rules away (in seconds)."""
OPEN = "open"
"""What ``access`` is in a file that says itself that it has no rules."""


class BrokerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table ``[broker]``; a change of it waits for the broker's next start.

    Attributes
    ----------
    listen : str or None
        Where to listen; port 0 is any.
    max_channels_per_key, max_watches_per_key, max_consumers_per_key : int
        As in `labhub.BrokerConfig`.
    """

    listen: str | None = None
    max_channels_per_key: Count = 20_000
    max_watches_per_key: Count = 256
    max_consumers_per_key: Count = 20_000


class MetricsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table ``[metrics]``; a change of it waits for the broker's next start.

    Attributes
    ----------
    port : int or None
        Of the Prometheus endpoint; 0 is any, None is no endpoint.
    address : str
        Where it listens. Whoever reaches it reads the names and numbers of all channels.
    max_channels : int
        So many channels have series of their own, the first ones in the order of their names.
    """

    port: Port | None = None
    address: str = "127.0.0.1"
    max_channels: Count = 1000


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a settings file says.

    Attributes
    ----------
    broker : BrokerSettings
    metrics : MetricsSettings
    access : dict of str to Grants
        What each key may do, as `labhub.protocol.access.Access` takes it.
    says_open : bool
        Whether it says ``access = "open"``: there are no rules, and that is meant.
    """

    broker: BrokerSettings = BrokerSettings()
    metrics: MetricsSettings = MetricsSettings()
    access: dict[str, Grants] = {}
    says_open: bool = False


def settings_path(name: str = "default") -> Path:
    """Return where the settings of a broker are looked for unless it is told otherwise; the file need not be there.

    ``broker-<name>.toml`` in `LABHUB_CONFIG_DIR`, or in the user's configuration directory of labhub.

    Raises
    ------
    InvalidName
        If the name cannot be part of a file name.
    """
    directory = Path(os.environ.get("LABHUB_CONFIG_DIR") or platformdirs.user_config_dir("labhub"))
    return directory / f"broker-{check_name(name, 'broker')}.toml"


def read_settings(path: Path) -> Settings:
    """Read a settings file.

    Raises
    ------
    InvalidSettings
        It is not there, cannot be read or could be written by others, is no TOML, or has a setting that is unknown or
        cannot be what it is.
    """
    return _parsed(path, _text_of(path))


def _text_of(path: Path) -> str:
    try:
        return _read(path)
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}", path=str(path)) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidSettings(f"{path}, line {line}: not UTF-8", path=str(path), line=line) from None


def _parsed(path: Path, text: str) -> Settings:
    try:
        return _converted(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else len(text.splitlines())
        raise InvalidSettings(f"{path}, line {line}: {error}", path=str(path), line=line) from None
    except RecursionError:
        raise InvalidSettings(f"{path}: nested too deeply", path=str(path)) from None
    except _Unusable as error:
        line, field = _line_of(error.place, text), ".".join(error.place)
        where = f"{path}, line {line}" if line else str(path)
        raise InvalidSettings(f"{where}: {field}: {error}", path=str(path), line=line, field=field) from None


def _read(path: Path) -> str:
    """Read a file that decides who may do what: only its reader, or root, can have written it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            raise InvalidSettings(f"{path} is not a regular file of yours", path=str(path))
        if stat.S_IMODE(status.st_mode) & 0o022:
            why = f"can be written by others; look at it, then run: chmod go-w '{path}'"
            raise InvalidSettings(f"{path} {why}", path=str(path))
        if status.st_size > MOST_NBYTES:
            raise InvalidSettings(f"{path} is longer than {MOST_NBYTES} bytes", path=str(path))
        return file.read().decode()


class Unreadable(InvalidSettings):
    """A settings file could not be read, which may pass without a change of the file."""


class _Unusable(Exception):  # never leaves this room
    def __init__(self, what: str, place: tuple[str, ...]) -> None:
        super().__init__(what)
        self.place = place


def _converted(document: dict[str, Any]) -> Settings:
    access = document.pop("access", {})
    if "says_open" in document:  # a name of ours, not of the file's
        raise _Unusable("there is no such setting", ("says_open",))
    settings = _convert(document, Settings)
    if access == OPEN:
        return msgspec.structs.replace(settings, says_open=True)
    if isinstance(access, str):
        raise _Unusable(f"it is {OPEN!r}, or a table for each key, not {access!r}", ("access",))
    rules = _convert(access, dict[str, Any], "access")
    # One by one, because msgspec does not say of which key of a dict it speaks.
    grants = {name: _convert(table, Grants, "access", name) for name, table in rules.items()}
    return msgspec.structs.replace(settings, access=grants)


def _convert(value: object, kind: type[T], *place: str) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        place += tuple(re.findall(r"[^.`\[\]]+(?=[.`\[])", where))
        if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what):
            what, place = "there is no such setting", (*place, unknown[1])
        raise _Unusable(what, place) from None


def _line_of(place: tuple[str, ...], text: str) -> int:
    """Return the line on which a setting begins: with it, the lines so far say something of it; 0 if none does."""
    lines = text.splitlines()
    for begin, line in enumerate(lines):
        if place[-1] not in line:
            continue
        for end in range(begin + 1, len(lines) + 1):  # its value may go on for several lines
            try:
                found: Any = tomllib.loads("\n".join(lines[:end]))
            except tomllib.TOMLDecodeError:
                continue
            for key in place:
                found = found.get(key) if isinstance(found, dict) else None
            if found is not None:
                return begin + 1
            break
    return 0


@dataclass(frozen=True)
class _Doubt:
    """Why a change is not believed, and whether it is once the file has been still for `STILL` seconds."""

    why: str = ""
    passes: bool = False


class SettingsFile:
    """A settings file that is followed: what it says now, or said before it was broken.

    A file that is being written, or was cut off, may be in order and have lost access rules. A change that leaves a key
    without the rules that it had is therefore not believed at once: it has to say so itself, or at least be still.

    Parameters
    ----------
    path : Path
        The file.
    optional : bool
        A file that is not there says nothing; once it was there, it must not go.

    Attributes
    ----------
    current : Settings
        What it said when it was last in order.
    error : str
        Why what is there now is not believed; empty while it is.

    Raises
    ------
    InvalidSettings
        At the first look; as `read_settings`.
    """

    def __init__(self, path: Path, *, optional: bool = False) -> None:
        self.path = path
        self.error = ""
        self._stamp = self._stamp_now()
        self._text = "" if optional and self._stamp is None else _text_of(path)
        self.current = _parsed(path, self._text)
        self._waits_since: float | None = None  # in doubt, and on the clock of `refresh`
        self._unread = False

    def refresh(self, now: float | None = None, *, force: bool = False) -> bool:
        """Look whether the file has changed, and read it if so, or if `force`d; whether there is something new of it.

        What it says is in `current` then; if it is not believed, `error` says why, and `current` stays.

        Parameters
        ----------
        now : float, optional
            The time on any clock that does not run back (in seconds); that of this machine unless given.
        force : bool
            Read it also if it has not changed.
        """
        now = time.monotonic() if now is None else now
        stamp = self._stamp_now()
        changed, seen, self._stamp = stamp != self._stamp, self._stamp, stamp
        if changed:
            self._waits_since = None
        if seen is None and stamp is None and not self.error:
            return False  # an optional file that never was there
        settled = self._waits_since is not None and now - self._waits_since >= STILL
        if not (changed or force or settled or self._unread):
            return False
        before = self.current, self.error
        self._read_again(now, settled=settled)
        return changed or force or (self.current, self.error) != before

    def _read_again(self, now: float, *, settled: bool) -> None:
        self._unread = False
        try:
            text = _text_of(self.path)
            new = _parsed(self.path, text)
        except InvalidSettings as error:
            self._waits_since, self._unread = None, isinstance(error, Unreadable)
            self.error = str(error)
            return
        doubt = self._doubt_of(new, text)
        if doubt.why and not (doubt.passes and settled):
            self.error = f"{self.path} {doubt.why}"
            if not doubt.passes:
                self._waits_since = None
            elif self._waits_since is None:
                self._waits_since = now
            return
        self.current, self.error, self._text, self._waits_since = new, "", text, None

    def _doubt_of(self, new: Settings, text: str) -> _Doubt:
        """Doubt a change with which a key that had rules has none: it may do everything then."""
        lost = sorted(self.current.access.keys() - new.access.keys())
        if not lost or EVERY in new.access:
            return _Doubt()
        names = ", ".join(repr(name) for name in lost)
        waits = f"it is believed once the file has been still for {STILL:g} s"
        if not new.access:
            if new.says_open:
                return _Doubt(f'drops all access rules, and says access = "{OPEN}": {waits}', passes=True)
            return _Doubt(
                f"has no access rules any more, so those before hold: a file that is being written, or was cut off, "
                f'looks so. To let every key do everything, write this line into it: access = "{OPEN}"'
            )
        if self._text.startswith(text.rstrip()):
            return _Doubt(
                f"ends where the access rules for {names} began, so those before hold: it may have been cut off. If "
                "they are to go, put a comment in their place"
            )
        return _Doubt(f"has no access rules for {names} any more: {waits}", passes=True)

    def _stamp_now(self) -> tuple[int, ...] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
