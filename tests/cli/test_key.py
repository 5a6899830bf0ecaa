"""Keys: in and out of the allow-list, to another machine and back, and never a secret on any output."""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pexpect
import pytest

from labhub import BrokerConfig, BrokerService, Messenger
from labhub.errors import AuthenticationError, InvalidArgument, LabHubError
from labhub.transport import keys
from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, KeyPair, data_directory, load_key
from labhub.transport.enrolled import ENROLLED, EnrolledKey, parse_enrolled

ANY_PORT = "tcp://127.0.0.1:0"
PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key derivation that takes a millisecond."""
    monkeypatch.setattr(keys, "OPSLIMIT", 1)
    monkeypatch.setattr(keys, "MEMLIMIT", 8192)


def secrets(*names: str) -> list[str]:
    return [load_key(name).secret for name in names or (CLIENT_KEY, SERVER_KEY)]


def key_beginning_with(character: str) -> str:
    while not (key := KeyPair.random().public).startswith(character):
        pass
    return key


def test_show_prints_public_keys_and_no_secret(labhub):
    text, document = labhub("key", "show"), labhub("key", "show", "--json")
    public = {"client": load_key(CLIENT_KEY).public, "server": load_key(SERVER_KEY).public}
    assert text.stdout == f"client  {public['client']}\nserver  {public['server']}\n"
    assert json.loads(document.stdout) == public
    shown = text.stdout + text.stderr + document.stdout + document.stderr
    assert not any(secret in shown for secret in secrets())


@pytest.mark.parametrize("character", ["-", "=", "%", "*"])
def test_a_key_may_begin_with_any_character(labhub, character):
    key = key_beginning_with(character)
    assert labhub("key", "enroll", key, "--comment", "Ann").stdout == "enrolled\n"
    assert json.loads(labhub("key", "list", "--json").stdout) == [{"key": key, "comment": "Ann", "name": ""}]
    assert labhub("key", "revoke", key).stdout == f"revoked {key} (Ann)\n"
    assert json.loads(labhub("key", "list", "--json").stdout) == []


def test_enrolling_is_atomic_private_and_idempotent(labhub):
    first, second = KeyPair.random().public, KeyPair.random().public
    (data_directory() / ENROLLED).write_text("# guests")  # without an end of line
    assert labhub("key", "enroll", first, "--comment", f"two\nlines {second}").returncode == 0
    assert labhub("key", "enroll", second).returncode == 0
    before = (data_directory() / ENROLLED).read_bytes()
    again = labhub("key", "enroll", first, "--comment", "other")
    assert (again.returncode, again.stdout) == (0, "was enrolled before; nothing changed\n")
    assert (data_directory() / ENROLLED).read_bytes() == before
    assert before.decode() == f"# guests\n{first} two lines {second}\n{second}\n"
    assert stat.S_IMODE((data_directory() / ENROLLED).stat().st_mode) == 0o600
    assert [p.name for p in data_directory().iterdir()] == [ENROLLED]


def test_revoking_takes_a_unique_prefix_and_leaves_the_notes(labhub):
    one, two = "a" * 40, "b" * 40
    path = data_directory() / ENROLLED
    path.write_text(f"# notes\n{one} x\n\n{two}\n{'ab' * 20}\n")
    ambiguous = labhub("key", "revoke", "a")
    assert (ambiguous.returncode, ambiguous.stderr) == (
        1,
        "labhub: 2 enrolled keys begin with 'a'; give more of it\n",
    )
    assert labhub("key", "revoke", "").returncode == 1
    assert "no enrolled key begins with 'c'" in labhub("key", "revoke", "c").stderr
    assert labhub("key", "revoke", "aa").stdout == f"revoked {one} (x)\n"
    assert path.read_text() == f"# notes\n\n{two}\n{'ab' * 20}\n"


def test_a_running_broker_follows_both():
    guest = KeyPair.random()
    with BrokerService(BrokerConfig(endpoint=ANY_PORT)) as broker, Messenger(guest) as messenger:
        with pytest.raises(AuthenticationError, match="refused this client's key"):
            messenger.connect(broker.endpoint, broker.public_key)
        assert keys.enroll(guest.public, "guest")
        assert messenger.connect(broker.endpoint, broker.public_key)
        assert messenger.list_channels() == []
        assert keys.revoke(guest.public) == EnrolledKey(guest.public, "guest")
        with pytest.raises(AuthenticationError, match="allow-list"):
            messenger.list_channels()


@pytest.mark.parametrize("mode", [0o666, 0o620])
def test_an_enrolled_file_that_others_can_write_lets_nobody_in(labhub, mode):
    guest = KeyPair.random()
    keys.enroll(guest.public)
    (data_directory() / ENROLLED).chmod(mode)
    refused = labhub("key", "list")
    assert refused.returncode == 4
    assert "chmod 600" in refused.stderr
    with BrokerService(BrokerConfig(endpoint=ANY_PORT)) as broker, Messenger(guest) as messenger:
        with pytest.raises(AuthenticationError):
            messenger.connect(broker.endpoint, broker.public_key)


def test_an_enrolled_file_that_is_a_link_lets_nobody_in(labhub):
    guest = KeyPair.random()
    real = data_directory() / "real"
    real.write_text(guest.public)
    (data_directory() / ENROLLED).symlink_to(real)
    assert labhub("key", "list").returncode == 4
    with BrokerService(BrokerConfig(endpoint=ANY_PORT)) as broker, Messenger(guest) as messenger:
        with pytest.raises(AuthenticationError):
            messenger.connect(broker.endpoint, broker.public_key)


def test_garbage_in_the_enrolled_file_ends_no_broker():
    guest = KeyPair.random()
    with BrokerService(BrokerConfig(endpoint=ANY_PORT)) as broker, Messenger() as messenger:
        assert messenger.connect(broker.endpoint, broker.public_key)
        (data_directory() / ENROLLED).write_bytes(b"\xff\xfe\x00\n" + guest.public.encode())
        assert messenger.list_channels() == []
        with Messenger(guest) as other:
            assert other.connect(broker.endpoint, broker.public_key)


def test_what_is_a_key_and_what_a_note():
    key = KeyPair.random().public
    text = f"{key} a  b \n# {key}\n#{key}\n{'#' + key[1:]}\nshort\n{'~' * 40}\n"
    assert parse_enrolled(text) == [EnrolledKey(key, "a  b")]


@pytest.mark.parametrize("key", ["", "short", "x" * 41, "~" * 40, "#" * 40, "\udcff" * 40])
def test_what_is_no_key_is_not_enrolled(key):
    with pytest.raises(InvalidArgument, match="40 characters"):
        keys.enroll(key)
    with pytest.raises(InvalidArgument, match="at most 200"):
        keys.enroll("a" * 40, "x" * 201)
    assert list(data_directory().iterdir()) == []


def test_export_and_import_between_two_users(labhub, tmp_path, private_dirs, monkeypatch):
    file, words = tmp_path / "my.key", tmp_path / "words"
    words.write_text(f"{PASSPHRASE}\nsecond line\n")
    pair = load_key(CLIENT_KEY)
    out = labhub("key", "export", str(file), "--passphrase-file", str(words))
    assert out.returncode == 0, out.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    document = json.loads(file.read_text())
    assert (document["format"], document["version"], document["kdf"]) == ("labhub-key", 1, "argon2id13")
    again = labhub("key", "export", str(file), "--passphrase-file", str(words))
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert json.loads(file.read_text()) == document

    elsewhere = private_dirs / "elsewhere"
    monkeypatch.setenv("LABHUB_DATA_DIR", str(elsewhere))
    came = labhub("key", "import", str(file), "--passphrase-file", "-", input=PASSPHRASE + "\n")
    assert (came.returncode, came.stdout) == (0, f"imported {pair.public}\n"), came.stderr
    assert load_key(CLIENT_KEY) == pair
    assert [p.name for p in elsewhere.iterdir()] == [CLIENT_KEY]
    shown = "".join(r.stdout + r.stderr for r in (out, again, came)) + file.read_text()
    for secret in (pair.secret, PASSPHRASE, base64.b64encode(pair.secret.encode()).decode()):
        assert secret not in shown


@pytest.mark.usefixtures("cheap")
def test_another_key_is_replaced_only_by_force_and_kept(tmp_path):
    keys.export_key(tmp_path / "k", PASSPHRASE)
    exported = load_key(CLIENT_KEY)
    assert keys.import_key(tmp_path / "k", PASSPHRASE) == (exported.public, None)  # it is there already
    (data_directory() / CLIENT_KEY).unlink()
    other = load_key(CLIENT_KEY)
    with pytest.raises(LabHubError, match="--force"):
        keys.import_key(tmp_path / "k", PASSPHRASE)
    assert load_key(CLIENT_KEY) == other
    public, backup = keys.import_key(tmp_path / "k", PASSPHRASE, force=True)
    assert (public, load_key(CLIENT_KEY)) == (exported.public, exported)
    assert backup is not None
    assert backup.read_text().split() == [other.public, other.secret]
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert sorted(p.name for p in data_directory().iterdir()) == sorted([CLIENT_KEY, backup.name])


@pytest.mark.usefixtures("cheap")
def test_a_wrong_passphrase_and_damage_are_one_line(labhub, tmp_path):
    file = tmp_path / "k"
    keys.export_key(file, PASSPHRASE)
    secret = load_key(CLIENT_KEY).secret
    document = json.loads(file.read_text())
    box = bytearray(base64.b64decode(document["box"]))
    box[-1] ^= 1
    damaged = {
        "a flipped bit": document | {"box": base64.b64encode(box).decode()},
        "no box": {k: v for k, v in document.items() if k != "box"},
        "another version": document | {"version": 2},
        "a greedy header": document | {"memlimit": 1 << 40},
        "a mad header": document | {"opslimit": "x"},
        "other parameters": document | {"opslimit": 2},
        "another salt": document | {"salt": base64.b64encode(bytes(16)).decode()},
        "a short salt": document | {"salt": ""},
        "a list": [],
    }
    for what, changed in damaged.items():
        file.write_text(json.dumps(changed))
        with pytest.raises(AuthenticationError) as caught:
            keys.import_key(file, PASSPHRASE)
        assert secret not in str(caught.value), what
    for garbage in (b"", b"\xff", b"[" * 10_000, b" " * 20_000):
        file.write_bytes(garbage)
        with pytest.raises(AuthenticationError):
            keys.import_key(file, PASSPHRASE)
    file.write_text(json.dumps(document))
    shown = labhub("key", "import", str(file), "--passphrase-file", "-", input="wrong\n")
    assert (shown.returncode, shown.stdout) == (4, "")
    assert shown.stderr == f"labhub: the passphrase is wrong, or {file} is damaged\n"
    with pytest.raises(InvalidArgument, match="at least 8"):
        keys.export_key(tmp_path / "other", "short")
    assert not (tmp_path / "other").exists()


def test_the_passphrase_is_asked_for_twice_and_not_shown(tmp_path):
    file = tmp_path / "my.key"
    with pexpect.spawn(sys.executable, ["-m", "labhub.cli", "key", "export", str(file)], timeout=30) as child:
        for answer in (PASSPHRASE, "another phrase", PASSPHRASE, PASSPHRASE):
            child.expect(["Passphrase: ", "Repeat for confirmation: "])
            child.sendline(answer)
        child.expect("exported")
        child.expect(pexpect.EOF)
    assert child.exitstatus == 0
    assert keys.import_key(file, PASSPHRASE) == (load_key(CLIENT_KEY).public, None)


def test_without_a_terminal_it_does_not_hang(labhub, tmp_path):
    shown = labhub("key", "export", str(tmp_path / "k"), stdin=-3)
    assert shown.returncode == 1
    assert "--passphrase-file" in shown.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_repr_shows_a_secret():
    pair = load_key(CLIENT_KEY)
    assert pair.secret not in repr(pair)
    assert pair.secret not in repr(keys.enrolled_keys())


def test_a_maker_killed_in_mid_write_leaves_a_key_that_can_be_made():
    """Its temporary file is unlocked then, which is how the doctor knows it for an orphan."""
    path = data_directory() / CLIENT_KEY
    pid = os.fork()
    if pid == 0:
        from labhub.transport.curve import write_private

        write_private(path, "half")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(list(data_directory().glob(".client.key.*"))) == 1
    pair = load_key(CLIENT_KEY)
    assert Path(path).read_text() == f"{pair.public}\n{pair.secret}\n"


def test_two_that_enroll_at_once_do_not_undo_each_other():
    guests = [KeyPair.random().public for _ in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(keys.enroll, guests))
    assert {known.key for known in keys.enrolled_keys()} == set(guests)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keys.revoke, guests[1:]))
    assert [known.key for known in keys.enrolled_keys()] == guests[:1]


def test_no_command_and_no_log_shows_a_secret(labhub, broker, tmp_path):
    """Every command that has to do with keys, well used and badly, and everything that is written beside the keys."""
    file, words = str(tmp_path / "k"), tmp_path / "words"
    words.write_text(PASSPHRASE)
    guest = KeyPair.random()
    commands = [
        ["key", "show"], ["key", "show", "--json"], ["key", "enroll", guest.public], ["key", "list"],
        ["key", "list", "--json"], ["key", "revoke", guest.public], ["key", "revoke", "zz"],
        ["key", "export", file, "--passphrase-file", str(words)], ["key", "import", file, "--passphrase-file", file],
        ["key", "import", file, "--passphrase-file", str(words), "--force"], ["doctor"], ["doctor", "--json"],
        ["broker", "status", "--json"], ["channels", "--json"],
    ]  # fmt: skip
    shown = "".join(done.stdout + done.stderr for done in (labhub(*words) for words in commands))
    (data_directory() / CLIENT_KEY).chmod(0o644)
    shown += "".join(done.stdout + done.stderr for done in (labhub("key", "show"), labhub("doctor")))
    (data_directory() / CLIENT_KEY).chmod(0o600)
    shown += Path(file).read_text()
    shown += "".join(p.read_text() for p in data_directory().iterdir() if p.name not in (CLIENT_KEY, SERVER_KEY))
    assert load_key(CLIENT_KEY).public in shown
    for secret in (*secrets(), PASSPHRASE):
        assert secret not in shown


def test_ctrl_c_at_the_question_is_130(tmp_path):
    words = ["-m", "labhub.cli", "key", "export", str(tmp_path / "k")]
    with pexpect.spawn(sys.executable, words, timeout=30) as child:
        child.expect("Passphrase: ")
        child.sendintr()
        child.expect(pexpect.EOF)
    assert child.exitstatus == 130
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_given_changed_and_used(labhub):
    ann, bob = KeyPair.random().public, KeyPair.random().public
    assert labhub("key", "enroll", ann, "--name", "ann", "--comment", "Ann, beamline 3").stdout == "enrolled\n"
    assert labhub("key", "enroll", bob, "--comment", "Bob").stdout == "enrolled\n"
    taken = labhub("key", "enroll", bob, "--name", "ann")
    assert (taken.returncode, "another key is enrolled as 'ann'" in taken.stderr) == (1, True)
    again = labhub("key", "enroll", bob, "--name", "bob.laptop", "--comment", "other")
    assert again.stdout == "was enrolled before; its name is bob.laptop\n"
    assert labhub("key", "list").stdout == f"{ann}  ann  Ann, beamline 3\n{bob}  bob.laptop  Bob\n"
    assert (data_directory() / ENROLLED).read_text() == f"{ann} @ann Ann, beamline 3\n{bob} @bob.laptop Bob\n"
    assert labhub("key", "revoke", "ann").stdout == f"revoked {ann} (ann, Ann, beamline 3)\n"
    assert [entry.name for entry in keys.enrolled_keys()] == ["bob.laptop"]


@pytest.mark.parametrize("name", ["", "../x", "a b", "@ann", "x" * 129, "ä"])
def test_a_name_that_is_none(name):
    key = KeyPair.random().public
    if name:
        with pytest.raises(InvalidArgument, match="cannot name a key"):
            keys.enroll(key, name=name)
    with pytest.raises(InvalidArgument, match="does not begin with @"):
        keys.enroll(key, comment=f"@{name}")
    assert keys.enrolled_keys() == []
