"""What the shell offers when Tab is pressed: names of running brokers and of live channels."""

from __future__ import annotations

from typing import Annotated, Any

import typer

# A prompt that hangs is worse than one that offers nothing (in seconds).
PATIENCE = 1.0


def broker_names(incomplete: str) -> list[str]:
    """Return the brokers that run here; nothing, silently, if that cannot be found out."""
    from labhub import runtime
    from labhub.errors import LabHubError

    try:
        return [name for name in runtime.names() if name.startswith(incomplete) and runtime.find_live(name)]
    except (LabHubError, OSError):
        return []


def channel_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the channels of the broker on the line; nothing, silently, if it does not answer."""
    from labhub import runtime
    from labhub.errors import LabHubError
    from labhub.messenger import Messenger

    try:
        running = runtime.find_live(ctx.params.get("broker") or "default")
        if running is None:
            return []
        with Messenger() as messenger:
            if not messenger.connect(running.endpoint, running.public_key, timeout=PATIENCE):
                return []
            entries = messenger.list_channels(timeout=PATIENCE)
    except (LabHubError, OSError):
        return []
    return [entry.channel_name for entry in entries if entry.channel_name.startswith(incomplete)]


_named: dict[str, Any] = {"metavar": "NAME", "help": "Name of the broker.", "autocompletion": broker_names}
Broker = Annotated[str, typer.Option("--broker", "-b", **_named)]
Channel = Annotated[str, typer.Argument(metavar="CHANNEL", help="Name of the channel.", autocompletion=channel_names)]
