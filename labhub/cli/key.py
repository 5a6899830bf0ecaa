"""``labhub key``: who may speak to the broker, and the own key on its way to another machine."""

from __future__ import annotations

import sys
from getpass import getpass
from pathlib import Path
from typing import Annotated

import typer

from labhub.cli.exits import EXIT_CODES_HELP, example, write_json
from labhub.cli.output import say

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="Read the passphrase from the first line of a file, or of standard input (-), instead of asking for it.",
    ),
]
# A key may begin with a dash. There are no short options that it could be taken for.
KEY_MAY_BE_ANYTHING = {"ignore_unknown_options": True}
QUOTE = "Put the key in single quotes: it may contain characters that the shell would take for its own."

app = typer.Typer(
    help="Keys: who may speak to the broker. Secret keys are never shown.",
    no_args_is_help=True,
    epilog=EXIT_CODES_HELP,
    rich_markup_mode=None,
)


@app.command(epilog=example("labhub key show"))
def show(as_json: Json = False) -> None:
    """Print this user's public keys: the client's, to be enrolled elsewhere, and the broker's. Made on first use."""
    from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, load_key

    keys = {"client": load_key(CLIENT_KEY).public, "server": load_key(SERVER_KEY).public}
    if as_json:
        write_json(keys)
        return
    for role, key in keys.items():
        say(f"{role}  {key}")


@app.command("list", epilog=example("labhub key list --json"))
def list_keys(as_json: Json = False) -> None:
    """List the client keys that are let in besides this user's own."""
    from labhub.transport.keys import enrolled_keys

    keys = enrolled_keys()
    if as_json:
        write_json([key.to_dict() for key in keys])
        return
    if not keys:
        say("no key is enrolled; only this user's own is let in", err=True)
    for key in keys:
        say("  ".join(filter(None, (key.key, key.name, key.comment))))


@app.command(
    epilog=example("labhub key enroll 'PUBLIC_KEY' --comment 'Ann, beamline 3' --name ann"),
    context_settings=KEY_MAY_BE_ANYTHING,
)
def enroll(
    key: Annotated[str, typer.Argument(metavar="KEY", help=f"Public key of a client. {QUOTE}")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What access rules call it.")] = "",
    comment: Annotated[str, typer.Option("--comment", metavar="TEXT", help="Whose key it is.")] = "",
) -> None:
    """Let a client in, from now on; running brokers need no restart. Twice is harmless, and may give it a name."""
    from labhub.transport.keys import enroll as let_in

    if let_in(key, comment, name):
        say("enrolled")
    else:
        say(f"was enrolled before; its name is {name}" if name else "was enrolled before; nothing changed")


@app.command(epilog=example("labhub key revoke 'PUBLIC_KEY'"), context_settings=KEY_MAY_BE_ANYTHING)
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help=f"Enrolled key, its beginning, or its name. {QUOTE}")],
) -> None:
    """Let a client in no longer; running brokers refuse its next request."""
    from labhub.transport.keys import revoke as shut_out

    gone = shut_out(key)
    noted = ", ".join(filter(None, (gone.name, gone.comment)))
    say(f"revoked {gone.key}" + (f" ({noted})" if noted else ""))


@app.command(epilog=example("labhub key export my.key"))
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="New file to write; an existing one is never touched.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write this user's client key pair to a file that only the passphrase opens."""
    from labhub.transport.keys import export_key

    public = export_key(file, passphrase(passphrase_file, twice=True))
    say(f"exported {public} to {file}; keep the passphrase elsewhere")


@app.command("import", epilog=example("labhub key import my.key"))
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File that `labhub key export` wrote.")],
    passphrase_file: PassphraseFile = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the key that is there; it is kept under a name with the date.")
    ] = False,
) -> None:
    """Make the client key pair of an exported file this user's own."""
    from labhub.transport.keys import import_key

    public, backup = import_key(file, passphrase(passphrase_file, twice=False), force=force)
    say(f"imported {public}")
    if backup is not None:
        say(f"the key before it is kept as {backup}")
        say("a broker of yours that runs knows only that one until it is started again")


def passphrase(file: Path | None, *, twice: bool) -> str:
    """Ask for a passphrase, or read it: never from an argument, which every user of the machine can see."""
    from labhub.errors import InvalidArgument

    if file is not None:
        if str(file) == "-":
            return sys.stdin.readline().rstrip("\r\n")
        with file.open(encoding="utf-8", errors="surrogateescape") as lines:
            return lines.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidArgument("there is no terminal to ask for the passphrase; give it with --passphrase-file")
    while True:
        text = getpass("Passphrase: ")
        if not twice or getpass("Repeat for confirmation: ") == text:
            return text
        say("the two are not the same; once more", err=True)
