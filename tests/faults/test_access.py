"""Faults 19, 20, 21 and 30: keys that are wrong, revoked or not asked for, and other users."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import labhub
from labhub import BrokerConfig, BrokerService, Messenger, ProducerInfo
from labhub.errors import AuthenticationError, LabHubError, SegmentAccessError
from labhub.hub import start_broker, stop_broker
from labhub.transport import keys
from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, KeyPair, data_directory, load_key, read_key
from labhub.transport.dealer import Dealer
from tests.faults.rounds import Fault
from tests.faults.security_nobody import NOBODY
from tests.faults.security_peers import ANY_PORT, broker_process, tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user, or give a file away")


def rename_server_key(to: str, now: str = SERVER_KEY) -> None:
    (data_directory() / now).rename(data_directory() / to)


def asked(messenger: Messenger) -> BaseException | None:
    """What asking raises, but for the moment in which nobody is there."""
    try:
        messenger.list_channels()
    except LabHubError as error:
        return error
    return None


@pytest.mark.fault(19, quick=1, full=8, share=0.4, p99=2.0)
def test_19_broker_comes_back_with_another_key(fault: Fault, wait_until: Callable[..., None]) -> None:
    place = start_broker(endpoint=ANY_PORT)
    try:
        with Messenger() as given, labhub.connect() as found:
            assert given.connect(place.endpoint, place.public_key)
            for number in fault.each_round():
                stop_broker()
                rename_server_key("right")
                other = start_broker(endpoint=place.endpoint)
                assert (other.endpoint, other.public_key != place.public_key) == (place.endpoint, True)
                fault.happened()
                with fault.recovery(), pytest.raises(AuthenticationError, match="does not answer to the public key"):
                    given.list_channels()
                assert given.status == "unauthorized"
                wait_until(lambda: asked(found._messenger) is None, 30, "following the connection file")
                stop_broker()
                rename_server_key(f"wrong.{number}")
                rename_server_key(SERVER_KEY, "right")
                start_broker(endpoint=place.endpoint)
                wait_until(lambda: given.status == "connected", 30, "the way back to the right broker")
                assert given.list_channels() == []
    finally:
        stop_broker()


@pytest.mark.fault(19, quick=4, full=20, share=0.2, p99=2.0)
def test_19_wrong_server_key_or_client_key(fault: Fault) -> None:
    with broker_process() as place:
        cases = itertools.cycle(
            [
                (None, KeyPair.random().public, "does not answer to the public key"),
                (KeyPair.random(), place.public_key, "refused this client's key"),
            ]
        )
        for _ in fault.each_round():
            key, server_key, which = next(cases)
            with Messenger(key) as messenger, fault.recovery(), pytest.raises(AuthenticationError, match=which):
                messenger.connect(place.endpoint, server_key)
            fault.happened()


def stopped(broker: BrokerService) -> None:
    """As when it was never there: nobody answers on its socket."""
    assert broker._router is not None
    assert broker._router._authenticator is not None
    broker._router._authenticator.stop()


def hung(broker: BrokerService) -> Callable[[], None]:
    """Its socket is there, and nobody answers on it; what lets it end."""
    released = threading.Event()
    entered = threading.Event()

    class Hangs:
        def callback(self, _domain: str, _key: bytes) -> bool:
            entered.set()
            return released.wait(60) and False

    assert broker._router is not None
    assert broker._router._authenticator is not None
    broker._router._authenticator.configure_curve_callback(domain="labhub", credentials_provider=Hangs())
    with Dealer(broker.endpoint, broker.public_key, KeyPair.random()) as dealer:
        with contextlib.suppress(AuthenticationError):
            dealer.handshake(0.5)
    assert entered.wait(10)
    return released.set


@pytest.mark.fault(20, quick=2, full=6, share=0.2)
def test_20_dead_authenticator_lets_nobody_in(fault: Fault) -> None:
    ways = itertools.cycle([stopped, hung])
    for _ in fault.each_round():
        with BrokerService(BrokerConfig(endpoint=ANY_PORT)) as broker, Messenger() as before:
            assert before.connect(broker.endpoint, broker.public_key)
            release = next(ways)(broker) or (lambda: None)
            for key in (load_key(CLIENT_KEY), KeyPair.random()):
                with Dealer(broker.endpoint, broker.public_key, key) as dealer:
                    with contextlib.suppress(AuthenticationError):  # refused is as good as not let in
                        assert not dealer.handshake(1.0)
                    fault.happened()
            assert before.list_channels() == []  # whoever is in stays in
            release()


@pytest.mark.fault(21, quick=1, full=8, share=0.2)
def test_21_key_revoked_in_mid_session(fault: Fault) -> None:
    for _ in fault.each_round():
        guest = KeyPair.random()
        keys.enroll(guest.public, "guest")
        with broker_process() as place, Messenger(guest) as session, Messenger() as owner:
            assert session.connect(place.endpoint, place.public_key)
            assert owner.connect(place.endpoint, place.public_key)
            session.register_producer("theirs", ProducerInfo("theirs", os.getpid(), bytes(32), 1)).result(30)
            heard: list[object] = []
            session.watch("*", heard.append)
            heard.clear()
            assert keys.revoke(guest.public).key == guest.public
            owner.register_producer("ours", ProducerInfo("ours", os.getpid(), bytes(32), 1)).result(30)
            for refused in (session.list_channels, lambda: session.deregister_producer("theirs").result(30)):
                with pytest.raises(AuthenticationError, match="allow-list"):
                    refused()
                fault.happened()
            assert heard == []  # its watch has ended, too
            assert [entry.channel_name for entry in owner.list_channels()] == ["ours", "theirs"]
        with broker_process() as place, Messenger(guest) as session:
            with pytest.raises(AuthenticationError, match="refused this client's key"):
                session.connect(place.endpoint, place.public_key)


def opened_to_nobody(base: Path) -> list[str]:
    """Let others walk up to the three directories, so that these have to keep them out; the files below them."""
    base.chmod(0o711)
    return sorted(os.path.relpath(path, base) for path in tree(base) if os.path.isfile(path))


def as_nobody(*words: str) -> dict[str, tuple[list[str], str]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.security_nobody", *words],
        capture_output=True, text=True, timeout=120, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stderr == ""
    return json.loads(done.stdout)


@needs_root
@pytest.mark.fault(30, quick=1, full=3, share=0.2)
def test_30_another_user_tries_everything(fault: Fault, private_dirs: Path) -> None:
    secrets = [load_key(name).secret for name in (CLIENT_KEY, SERVER_KEY)]
    for _ in fault.each_round():
        with broker_process() as place, labhub.connect() as hub, hub.producer("c", like=0.0) as producer:
            producer.write(1.0)
            names = opened_to_nobody(private_dirs)
            assert {Path(name).parts[0] for name in names} == {"shm", "run", "data"}
            before = tree(private_dirs)
            found = as_nobody(str(private_dirs), place.endpoint, place.public_key, *names)
            for what, (kinds, message) in found.items():
                assert "PermissionError" in kinds, (what, kinds, message)
                typed = not what.startswith(("open ", "unlink ", "list ", "write "))
                assert not typed or "LabHubError" in kinds, (what, kinds, message)
                assert not [secret for secret in secrets if secret in message]
                fault.happened()
            assert tree(private_dirs) == before
            assert hub["c"].latest().data == 1.0


def link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def unlink(path: Path) -> None:
    path.unlink()
    path.with_name("real").rename(path)


SPOILED: list[tuple[Callable[[Path], object], Callable[[Path], object]]] = [
    (link, unlink),
    (lambda path: path.chmod(0o777), lambda path: path.chmod(0o700)),
    (lambda path: os.chown(path, NOBODY, -1), lambda path: os.chown(path, os.geteuid(), -1)),
]


def use_segments() -> None:
    labhub.create_datablock_producer("c", labhub.DataBlockPolicy.SINGLE).close()


USES: dict[str, Callable[[], object]] = {
    "shm": use_segments,
    "shm/default": use_segments,
    "run": lambda: start_broker(endpoint=ANY_PORT),
    "data": lambda: load_key(CLIENT_KEY),
}


@needs_root
@pytest.mark.fault(30, quick=12, full=12, share=0.05)
def test_30_directories_that_are_not_ours_alone(fault: Fault, private_dirs: Path) -> None:
    (private_dirs / "shm" / "default").mkdir(mode=0o700)
    load_key(CLIENT_KEY)
    for name, (spoil, mend) in fault.each((n, s) for n in USES for s in SPOILED):
        path = private_dirs / name
        spoil(path)
        before = tree(private_dirs)
        with pytest.raises(SegmentAccessError, match=str(path)):
            USES[name]()
        assert tree(private_dirs) == before
        fault.happened()
        mend(path)
    use_segments()


@pytest.mark.fault(30, quick=10, full=10, share=0.05)
def test_30_key_files_that_others_can_read(fault: Fault) -> None:
    names = (CLIENT_KEY, SERVER_KEY)
    secrets = [load_key(name).secret for name in names]
    for name, mode in fault.each((n, m) for n in names for m in (0o640, 0o604, 0o644, 0o610, 0o601)):
        path = data_directory() / name
        path.chmod(mode)
        for read in (read_key, load_key):
            with pytest.raises(AuthenticationError, match="chmod 600") as caught:
                read(name)
            assert not [secret for secret in secrets if secret in str(caught.value)]
        fault.happened()
        path.chmod(0o600)
