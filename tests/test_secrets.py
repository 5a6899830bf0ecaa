"""A whole session at the log level DEBUG, used well and badly: the secret keys are nowhere in what came of it."""

from __future__ import annotations

import base64
import html
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from zmq.utils import z85

from labhub import runtime
from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, KeyPair, load_key

BROKER = """
import logging, signal, sys
logging.basicConfig(level=logging.DEBUG)
from labhub.hub import named_broker
with named_broker("default", "tcp://127.0.0.1:0") as service:
    signal.signal(signal.SIGTERM, lambda *_: service.stop())
    service.run()
    print(repr(service), vars(service), vars(service.config), vars(service._router))
"""

# What goes wrong on purpose is printed with every local variable of every frame, as %xmode Verbose does.
SESSION = """
import logging, os, traceback
logging.basicConfig(level=logging.DEBUG)
import labhub
from labhub import Messenger, runtime
from labhub.doctor import examine
from labhub.transport import keys
from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, KeyPair, data_directory, load_key, read_key

def refused(do):
    try:
        do()
    except Exception as error:
        print("refused:", *traceback.TracebackException.from_exception(error, capture_locals=True).format())
    else:
        raise AssertionError("it was not refused")

place, own, path = runtime.find(), load_key(CLIENT_KEY), data_directory() / CLIENT_KEY
guest = KeyPair("{public}", "{secret}")
with labhub.connect() as hub, hub.producer("c", like=0.0) as p, hub.consumer("c") as c, Messenger(guest) as other:
    p.write(1.0)
    next(c.batches(timeout=30))
    things = [hub, p, c, hub._messenger, hub._messenger._worker, hub._messenger._worker._dealer, place, own, guest]
    print(*map(repr, things), *(vars(thing) for thing in things[3:6]), hub.channels(), hub.status)
    refused(lambda: other.connect(place.endpoint, place.public_key))
    refused(lambda: other.connect(place.endpoint, "a" * 40))
    refused(lambda: other.connect(place.endpoint, own.public[:-1]))
    keys.enroll(guest.public)
    other.connect(place.endpoint, place.public_key)
    keys.revoke(guest.public)
    refused(other.list_channels)
    file = data_directory().parent / "exported"
    keys.export_key(file, "a good passphrase")
    refused(lambda: keys.export_key(file, "a good passphrase"))
    refused(lambda: keys.import_key(file, "a wrong passphrase"))
    print(file.read_text())
    file.unlink()
    whole = path.read_text()
    for spoil in (lambda: path.chmod(0o644), lambda: path.write_text(whole[1:]), lambda: path.write_text(whole[::-1])):
        spoil()
        refused(lambda: read_key(CLIENT_KEY))
        print(examine())
        path.chmod(0o600)
        path.write_text(whole)
print(runtime.path_of("default").read_text())
"""

CELLS = [
    "import logging\nlogging.basicConfig(level=logging.DEBUG)",
    "%load_ext labhub",
    "%xmode Verbose",
    "%hub_broker status",
    "%hub_connect",
    "import labhub\nhub = labhub.connect()\np = hub.producer('c', like=0.0)\np.write(1.0)\nhub",
    "%hub_info c",
    "%hub_doctor",
    "from labhub.transport.curve import *\npair = load_key(CLIENT_KEY)\npair",
    "labhub.Messenger(KeyPair.random()).connect(*hub._messenger._worker._place)",
    "labhub.connect('x', endpoint=hub._messenger._worker._place[0], public_key='a' * 40)",
    "(data_directory() / CLIENT_KEY).chmod(0o644)\nload_key(CLIENT_KEY)",
    "(data_directory() / CLIENT_KEY).chmod(0o600)\n%hub_doctor",
    "p.close()\nhub.close()",
]


def spellings(secret: str) -> list[bytes]:
    """The ways in which a key could have been written down."""
    raw = z85.decode(secret.encode())
    texts = [secret, html.escape(secret), raw.hex(), raw.hex().upper(), repr(raw)[2:-1]]
    encoded = [code(what) for code in (base64.b64encode, base64.urlsafe_b64encode) for what in (raw, secret.encode())]
    return [raw, *map(str.encode, texts), *(text.rstrip(b"=") for text in encoded)]


@pytest.fixture
def guest() -> KeyPair:
    return KeyPair.random()


@pytest.fixture
def broker(broker_log: Path, wait_until: Callable[..., None]) -> Iterator[subprocess.Popen[bytes]]:
    """A broker that says everything, to its log."""
    with broker_log.open("wb") as log:
        with subprocess.Popen([sys.executable, "-c", BROKER], stdout=log, stderr=log) as process:
            wait_until(runtime.find_live, 60)
            yield process
            process.terminate()


@pytest.fixture
def broker_log(tmp_path: Path) -> Path:
    return tmp_path / "broker.log"


def test_the_spellings_are_found_where_they_are(guest: KeyPair) -> None:
    raw = z85.decode(guest.secret.encode())
    for text in (guest.secret, str(raw), raw.hex(), base64.b64encode(raw).decode(), f"{{'key': {raw!r}}}"):
        assert [form for form in spellings(guest.secret) if form in text.encode()]
    assert not [form for form in spellings(guest.secret) if form in repr(guest).encode()]


def test_no_secret_is_in_anything_that_a_session_leaves(
    guest: KeyPair, broker: subprocess.Popen[bytes], broker_log: Path, private_dirs: Path
) -> None:
    script = SESSION.replace("{public}", guest.public).replace("{secret}", guest.secret)
    done = subprocess.run([sys.executable, "-"], input=script.encode(), capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    shown = done.stdout + done.stderr
    assert shown.count(b"refused: Traceback") == 9
    own, server = load_key(CLIENT_KEY), load_key(SERVER_KEY)
    assert own.public.encode() in shown

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    NotebookClient(notebook, timeout=120, allow_errors=True, kernel_name="python3").execute()
    saved = nbformat.writes(notebook)
    errors = [out["ename"] for cell in notebook.cells for out in cell.outputs if out.output_type == "error"]
    assert errors == ["AuthenticationError"] * 3, saved
    assert guest.public not in saved

    broker.send_signal(signal.SIGTERM)
    assert broker.wait(60) == 0
    logged = broker_log.read_bytes()
    assert b"DEBUG:zmq.auth" in logged
    assert b":labhub." in logged
    assert b"'_socket': <zmq.Socket" in logged  # everything that it has, when it had ended
    kept = [p for d in ("data", "run") for p in (private_dirs / d).rglob("*") if p.name not in (CLIENT_KEY, SERVER_KEY)]
    everything = {"session": shown, "notebook": saved.encode(), "broker": logged}
    everything |= {path.name: path.read_bytes() for path in kept}
    for key in (own, server, guest):
        for form in spellings(key.secret):
            assert not [where for where, text in everything.items() if form in text]
