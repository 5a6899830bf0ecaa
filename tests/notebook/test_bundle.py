"""The JavaScript of the widgets: built, complete, and fetching nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import labhub.notebook
from labhub.notebook.bundle import bundle

FRONTEND = Path(labhub.notebook.__file__).parent / "frontend"


@pytest.mark.parametrize("name", ["live_plot", "live_image", "browser"])
def test_a_bundle_is_one_module_that_fetches_nothing(name):
    module, style = bundle(name)
    assert "export{" in module
    assert not re.search(r"\bimport\s*[({\"'*]|\bfetch\(|XMLHttpRequest|WebSocket|https?://(?!www\.w3\.org/)", module)
    assert not re.search(r"@import|url\(", style)


def test_the_lock_file_pins_every_package_by_its_hash_and_names_no_host():
    text = (FRONTEND / "package-lock.json").read_text()
    assert "://" not in text
    assert "resolved" not in text
    packages = json.loads(text)["packages"]
    assert {name for name in packages if "esbuild" not in name} == {"", "node_modules/uplot"}
    assert all(package["integrity"].startswith("sha512-") for name, package in packages.items() if name)
