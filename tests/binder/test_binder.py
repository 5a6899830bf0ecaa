"""The files for Binder: that it can read them, that they lead to the index, and that a small /dev/shm is enough."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BINDER = ROOT / "binder"

# Channels like those of the notebooks, in a /dev/shm as containers have it; prints what they occupy.
SMALL_SHM = """
    import os, shutil, sys
    import numpy as np
    import labhub
    from labhub.datablock.location import segment_directory
    from labhub.hub import named_broker

    assert shutil.disk_usage("/dev/shm").total == 64 * 1024 * 1024
    with named_broker(endpoint="tcp://127.0.0.1:0") as service:
        service.start()
        with labhub.connect() as hub:
            frame = np.ones((160, 160), "u2")
            producers = [hub.producer(f"cam{k}", like=frame) for k in range(20)]
            producers.append(hub.producer("cam", like=frame, capacity=64))
            producers.append(hub.producer("ppg", dtype="i2", shape=10, capacity=1024))
            assert segment_directory().startswith("/dev/shm/labhub-")
            for producer in producers[:-1]:
                for _ in range(producer.capacity + 1):
                    producer.write(frame)
            print(shutil.disk_usage("/dev/shm").used)
"""


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_scripts_are_executable_and_parse(name: str) -> None:
    assert os.access(BINDER / name, os.X_OK)
    subprocess.run(["bash", "-n", str(BINDER / name)], check=True, timeout=60)


def test_the_start_script_hands_over() -> None:
    done = subprocess.run(
        [str(BINDER / "start"), "echo", "a b", "c"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "a b c\n"


def test_the_runtime_is_one_that_labhub_supports() -> None:
    found = re.fullmatch(r"python-3\.(\d+)\n", (BINDER / "runtime.txt").read_text())
    assert found is not None
    assert int(found[1]) >= 11


def test_it_opens_the_index() -> None:
    page = re.search(r'"default_url": "/lab/tree/([^"]+)"', (BINDER / "postBuild").read_text())
    assert page is not None
    assert (ROOT / page[1]).is_file()


def test_the_extras_that_it_installs_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = re.search(r"'\.\[([a-z,]+)\]'", (BINDER / "postBuild").read_text())
    assert wanted is not None
    assert set(wanted[1].split(",")) <= set(extras)


@pytest.mark.skipif(
    importlib.util.find_spec("repo2docker") is None, reason="needs repo2docker: pip install jupyter-repo2docker"
)
def test_repo2docker_reads_them(tmp_path: Path) -> None:
    # A copy of what it looks at: the checkout may have environments in it.
    shutil.copytree(BINDER, tmp_path / "binder")
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", "--user-id", "1000", "--user-name", "me"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False)
    recipe = done.stdout + done.stderr
    assert done.returncode == 0, recipe
    for line in (
        "apt-get install --yes --no-install-recommends g++ make",
        'pip install --no-cache-dir -r "binder/requirements.txt"',
        "RUN ./binder/postBuild",
        'ENV R2D_ENTRYPOINT="${REPO_DIR}/binder/start"',
    ):
        assert line in recipe


def test_rings_fit_a_small_shm_by_themselves(tmp_path: Path) -> None:
    prepare = "mount -t tmpfs -o size=64m,mode=1777 tmpfs /dev/shm"
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, prepare], capture_output=True, timeout=60).returncode
    ):
        pytest.skip("needs the right to mount a tmpfs in a namespace of its own")
    (tmp_path / "run").mkdir(mode=0o700)
    environment = {key: value for key, value in os.environ.items() if key != "LABHUB_SHM_DIR"}
    environment |= {"LABHUB_RUNTIME_DIR": str(tmp_path / "run"), "LABHUB_DATA_DIR": str(tmp_path / "data")}
    command = [*unshare, f'{prepare} && exec "$@"', "sh", sys.executable, "-c", textwrap.dedent(SMALL_SHM)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert 10e6 < int(done.stdout) < 40e6  # rings were there, and left room for others


def test_there_is_a_badge_only_for_a_repository_that_exists() -> None:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    repository = next(
        (url for url in urls.values() if re.match(r"https://(github|gitlab)\.com/[^/]+/[^/]+", url)), None
    )
    for page in (ROOT / "README.md", ROOT / "notebooks" / "index.ipynb"):
        badges = re.findall(r"https://mybinder\.org/v2/\S+", page.read_text())
        if repository is None:
            assert badges == [], page
        for badge in badges:
            assert repository is not None
            assert repository.removeprefix("https://").partition("/")[2] in badge
