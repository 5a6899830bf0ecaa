"""Channels to and from other machines, over Eclipse Zenoh. Only here is zenoh imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from labhub.arguments import checked_flag, checked_path, checked_several, checked_text
from labhub.errors import MissingDependency
from labhub.hub.connecting import given_or_default

if TYPE_CHECKING:
    from labhub.bridging.span import Bridge
    from labhub.hub import Hub

DEFAULT_BUFFER_NBYTES = 64 * 1024 * 1024
DEFAULT_MAX_CHANNELS = 256
DEFAULT_MAX_NBYTES = 4 * 1024 * 1024 * 1024


def bridge(
    exports: str | Sequence[str] = (),
    imports: str | Sequence[str] = (),
    *,
    connect: str | Sequence[str] = (),
    listen: str | Sequence[str] = (),
    config: str | Path | None = None,
    site: str | None = None,
    hub: Hub | None = None,
    reexport: bool = False,
    buffer_nbytes: int = DEFAULT_BUFFER_NBYTES,
    max_channels: int = DEFAULT_MAX_CHANNELS,
    max_nbytes: int = DEFAULT_MAX_NBYTES,
) -> Bridge:
    """Join this machine's hub with others over the network.

    An exported channel appears in the broker of each machine that imports it, as a local channel with the same schema,
    capacity, seqs and timestamps. What is lost on the way is lost to the readers there, and counted; the producer never
    notices any of it.

    Parameters
    ----------
    exports : str or sequence of str
        Shell patterns of the channels to offer, such as ``"camera.*"``; those to come are included.
    imports : str or sequence of str
        Patterns of the channels to bring here, as ``"SITE/CHANNEL"``, such as ``"beamline/camera.*"``; without a slash
        those of every site.
    connect, listen : str or sequence of str
        Zenoh endpoints, such as ``"tcp/host-a:7447"`` or ``"tls/0.0.0.0:7447"``: whom to call, and where to be called.
    config : path, optional
        Zenoh's own configuration file (JSON5), for routers, discovery, TLS and access control.
    site : str, optional
        What this machine is called by the others; its host name unless given.
    hub : Hub, optional
        The hub to join; that of `labhub.connect` unless given.
    reexport : bool
        Offer channels that were imported, too.
    buffer_nbytes : int
        How much of each lossless channel to keep for a network that stalls or is cut (in bytes).
    max_channels : int
        Most channels to import at a time; others are left out until one ends, which `Bridge.status` shows.
    max_nbytes : int
        Most shared memory for all imported channels (in bytes); they never take more than half of what others leave.

    Returns
    -------
    Bridge
        A context manager that ends it.

    Raises
    ------
    MissingDependency
        eclipse-zenoh is not installed.
    InvalidArgument
        It is told neither whom to call nor where to listen, or a pattern, endpoint or the configuration is none.
    BridgeError
        The network cannot be opened: an address is taken, a certificate cannot be read.
    BrokerUnreachable

    Examples
    --------
    >>> with labhub.bridge(exports="camera.*", listen="tcp/0.0.0.0:7447"):  # doctest: +SKIP
    ...     acquire()
    """
    endpoints = {"connect": _several("connect", connect), "listen": _several("listen", listen)}
    patterns = _several("exports", exports), _several("imports", imports)
    if config is not None:
        checked_path("config", config)
    checked_flag("reexport", reexport)
    try:
        from labhub.bridging.span import Bridge
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "zenoh":
            raise
        raise MissingDependency(
            "a bridge needs eclipse-zenoh: pip install 'labhub[bridge]'", package="eclipse-zenoh"
        ) from None
    return Bridge(
        *patterns,
        **endpoints,
        config=config,
        site=site,
        hub=given_or_default(hub),
        reexport=reexport,
        buffer_nbytes=buffer_nbytes,
        max_channels=max_channels,
        max_nbytes=max_nbytes,
    )


def _several(name: str, words: str | Sequence[str]) -> tuple[str, ...]:
    found = (words,) if isinstance(words, str) else checked_several(name, words, "a text, or several")
    return tuple(checked_text(f"each of {name}", word) for word in found)
