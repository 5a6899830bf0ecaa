"""A broker's settings file: TOML, read strictly, and followed while the broker runs."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import platformdirs

from labhub.errors import InvalidSettings
from labhub.names import check_name
from labhub.protocol.access import Grants

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]

MOST_NBYTES = 256 * 1024
"""A longer file is none of ours."""


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
    """

    broker: BrokerSettings = BrokerSettings()
    metrics: MetricsSettings = MetricsSettings()
    access: dict[str, Grants] = {}


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
    try:
        text = _read(path)
    except OSError as error:
        raise InvalidSettings(f"{path} cannot be read: {error.strerror}", path=str(path)) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidSettings(f"{path}, line {line}: not UTF-8", path=str(path), line=line) from None
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


class _Unusable(Exception):  # never leaves this room
    def __init__(self, what: str, place: tuple[str, ...]) -> None:
        super().__init__(what)
        self.place = place


def _converted(document: dict[str, Any]) -> Settings:
    access = document.pop("access", {})
    settings = _convert(document, Settings)
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


class SettingsFile:
    """A settings file that is followed: what it says now, or said before it was broken.

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
        self.current = Settings() if optional and self._stamp is None else read_settings(path)

    def refresh(self, *, force: bool = False) -> bool:
        """Look whether the file has changed, and read it if so, or if `force`d; whether it was read.

        What it says is in `current` then; if it is broken, `error` says why, and `current` stays.
        """
        stamp = self._stamp_now()
        if stamp == self._stamp and not force:
            return False
        seen, self._stamp = self._stamp, stamp
        if seen is None and stamp is None:
            return False  # an optional file that never was there
        try:
            self.current, self.error = read_settings(self.path), ""
        except InvalidSettings as error:
            self.error = str(error)
        return True

    def _stamp_now(self) -> tuple[int, ...] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
