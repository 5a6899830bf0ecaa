"""Stores that somebody else has made or signed: what `verify` and a replay must stand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import blake3
from nacl.signing import SigningKey

from labhub.recording.manifest import MANIFEST, ROOT, Manifest

STRANGER = SigningKey(b"a key of the tests, no secret...")
"""Whoever has made the store; not the user who reads it."""
STRANGERS_KEY = STRANGER.verify_key.encode().hex()


def signed_anew(store: Path, key: SigningKey = STRANGER, more: Iterable[dict[str, Any]] = ()) -> None:
    """Sign a store as it lies there, with further files that are only claimed."""
    (store / MANIFEST).unlink()
    (store / "b3sums.txt").unlink(missing_ok=True)
    manifest = Manifest(store, key)
    for path in sorted(store.rglob("*")):
        name = str(path.relative_to(store))
        if path.is_file() and not path.is_symlink() and name not in (MANIFEST, ROOT):
            manifest.announce(name, path.read_bytes())
    for entry in more:
        manifest._append_file(entry["file"], entry["blake3"], entry["nbytes"])
    manifest.commit((store / ROOT).read_bytes(), final=False)
    manifest.close()


def claim(name: Any, data: bytes = b"") -> dict[str, Any]:
    """A line of the manifest for a file of this content."""
    return {"file": name, "blake3": blake3.blake3(data).hexdigest(), "nbytes": len(data)}


def emptied(store: Path) -> None:
    """Leave nothing in a store but its manifest and its root metadata, which hold no array."""
    for path in store.iterdir():
        if path.name not in (MANIFEST, ROOT):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    root = json.loads((store / ROOT).read_bytes())
    root["consolidated_metadata"]["metadata"] = {}
    (store / ROOT).write_text(json.dumps(root))
