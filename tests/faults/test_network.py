"""The network between a client and its broker is cut."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults.rounds import Fault

IN_A_NETWORK_NAMESPACE = ["unshare", "--user", "--map-root-user", "--net"]


@pytest.mark.fault(29, quick=1, full=8, p99=5.0)
def test_29_network_cut_between_client_and_broker(fault: Fault) -> None:
    probe = [*IN_A_NETWORK_NAMESPACE, "ip", "link", "set", "lo", "up"]
    tried = subprocess.run(probe, capture_output=True, text=True, check=False, timeout=60)
    if tried.returncode:
        pytest.skip(f"no private network namespace: {' '.join(tried.stderr.split())}")
    command = [*IN_A_NETWORK_NAMESPACE, sys.executable, "-m", "tests.faults.cut_off"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as client:
        for _ in fault.each_round():
            client.stdin.write("cut\n")
            client.stdin.flush()
            took = client.stdout.readline()
            if not took:
                break
            fault.happened()
            fault.recovered(float(took))
        _, errors = client.communicate(timeout=120)
    assert client.returncode == 0, errors
