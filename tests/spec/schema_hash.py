"""Canonical JSON and layout hash of a schema, from docs/spec/protocol.md (section 6). No labhub in here."""

from __future__ import annotations

import json
from typing import Any

import blake3


def canonical(document: Any) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def layout_hash(schema: str) -> bytes:
    """Hash of the part of a schema's JSON that says where each byte is."""
    document = json.loads(schema)
    return blake3.blake3(canonical({key: document[key] for key in ("dtype", "shape")}).encode()).digest()
