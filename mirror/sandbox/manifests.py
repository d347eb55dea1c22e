"""Manifests: the list of an artifact's files, as JSON text, and the digest of that list."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from mirror.sandbox import jsontext
from mirror.sandbox.errors import Refused


class Entry(Struct, frozen=True):
    """One file of an artifact, or a reference to one elsewhere."""

    path: str
    digest: str
    """The MD5 of the content in Base64; of a reference its ETag, or its address where nothing better is known."""
    size: int | None = None
    ref: str | None = None
    birth_id: str | None = None
    """The artifact that the content was uploaded for; layout V2 stores it there."""
    extra: Mapping[str, Any] = field(default_factory=dict)


def md5(content: bytes) -> str:
    """Return the MD5 of some content in Base64."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def digest(entries: Mapping[str, Entry]) -> str:
    """Return the digest of an artifact: the MD5 over its sorted paths and their digests, as hexadecimal digits."""
    hasher = hashlib.md5(b"wandb-artifact-manifest-v1\n", usedforsecurity=False)
    for path, entry in sorted(entries.items()):
        hasher.update(f"{path}:{entry.digest}\n".encode())
    return hasher.hexdigest()


def write(entries: Mapping[str, Entry], layout: str) -> bytes:
    """Return the text of a manifest of version 1 with storage layout V1 or V2."""
    contents = {}
    for path, entry in entries.items():
        facts = {
            "digest": entry.digest,
            "size": entry.size,
            "ref": entry.ref,
            "birthArtifactID": entry.birth_id if layout == "V2" else None,
            "extra": dict(entry.extra) or None,
        }
        contents[path] = {name: value for name, value in facts.items() if value is not None}
    return jsontext.write(
        {
            "version": 1,
            "storagePolicy": "wandb-storage-policy-v1",
            "storagePolicyConfig": {"storageLayout": "V2"} if layout == "V2" else {},
            "contents": contents,
        }
    ).encode()


def read(content: bytes) -> tuple[dict[str, Entry], str]:
    """Return the entries of an uploaded manifest, and its storage layout. Refuses what is not a manifest."""
    try:
        document = jsontext.read(content)
        layout = document["storagePolicyConfig"].get("storageLayout", "V1")
        entries = {path: _entry(path, facts) for path, facts in document["contents"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Refused("the manifest is not valid", 400) from None
    return entries, layout


def _entry(path: str, facts: Mapping[str, Any]) -> Entry:
    rest = (facts.get("size"), facts.get("ref"), facts.get("birthArtifactID"), facts.get("extra") or {})
    return Entry(path, facts["digest"], *rest)
