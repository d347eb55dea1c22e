"""Manifests of artifacts: the list of their files, as JSON that may have 100,000 entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mirror.errors import CommError
from mirror.wandb_json import UNREADABLE, dumps, loads, unreadable

if TYPE_CHECKING:
    import pyarrow as pa

VERSIONS = (1, 2)

MOST_BYTES = 1 << 30
"""The largest manifest that is read: some five million files."""

_TEXTS = (("md5", "digest"), ("reference", "ref"), ("birth_id", "birthArtifactID"))


def parse(content: bytes) -> pa.Table:
    """Return the entries of a manifest as columns: path, size, md5, reference, birth_id and extra (JSON).

    Raises CommError for a manifest that cannot be read completely, or that has a version of the future.
    """
    import pyarrow as pa

    try:
        document = loads(content)
        version = document.get("version")
        if version not in VERSIONS:
            raise CommError(f"its manifest has version {version}; this program reads {VERSIONS[0]} and {VERSIONS[1]}")
        contents: dict[str, dict[str, Any]] = document["contents"]
        entries = list(contents.values())
        columns: dict[str, pa.Array[Any]] = {
            "path": pa.array(list(contents), pa.string()),
            "size": pa.array([entry.get("size") for entry in entries], pa.int64()),
        }
        for name, key in _TEXTS:
            columns[name] = pa.array([entry.get(key) for entry in entries], pa.string())
        extras = [dumps(extra) if (extra := entry.get("extra")) else None for entry in entries]
        columns["extra"] = pa.array(extras, pa.string())
        return pa.table(columns)
    except UNREADABLE as error:
        raise unreadable("a manifest", error) from error
