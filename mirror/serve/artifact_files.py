"""Files of artifacts: their lists and manifests in W&B's form, and their content.

Their addresses are those of the server, at the endpoint: content that is not mirrored is requested from the server.
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import orjson
from starlette.responses import FileResponse, Response

from mirror.serve import ARTIFACTS
from mirror.serve.context import Context
from mirror.serve.documents import Field, NotServed
from mirror.serve.files import HARMLESS
from mirror.serve.pages import connection, cursor, start_of
from mirror.snapshot import artifact_versions, facts
from mirror.snapshot.artifact_versions import Entry, Stored, Version

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

V1, V2, MANIFESTS = ARTIFACTS

MOST = 10_000
"""Files in one page: the official client asks for 5,000."""

_V2_PARTS = 6
"""region, entity, project, collection, then the id of the artifact in newer clients, the birth id, MD5 and name."""

Arguments = Mapping[str, Any]
Source = Mapping[str, Any]


def page(source: Source, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    """`files`"""  # noqa: D400, D415
    version: Version = source["held"]
    names = list(arguments.get("names") or ())
    entries = artifact_versions.entries(context.connection, version, names)
    if entries is None:
        raise _not_mirrored(version)
    start = start_of(arguments)
    first = arguments.get("first")
    end = start + min(MOST if first is None else max(first, 0), MOST)
    edges = [
        {"node": _node(context, version, entry), "cursor": cursor("artifact files", place)}
        for place, entry in enumerate(entries[start:end], start=start + 1)
    ]
    return connection(edges, start, more=end < len(entries), total=len(entries))


def manifest(source: Source, context: Context, *_: Any) -> dict[str, Any]:
    """`currentManifest`"""  # noqa: D400, D415
    version: Version = source["held"]
    if not version.has_entries:
        raise _not_mirrored(version)
    path = f"{MANIFESTS}{base64.urlsafe_b64encode(version.artifact_id.encode()).decode()}"
    return {"file": {"directUrl": f"{context.base_url}{context.sign(path)}"}}


def content(connection: DuckDBPyConnection, path: str) -> Response | None:
    """Return the content at a percent-encoded path, or the part that a Range header asks for; None if not mirrored."""
    if path.startswith(MANIFESTS):
        return _manifest(connection, path.removeprefix(MANIFESTS))
    stored = _stored(path)
    found = artifact_versions.content(connection, stored) if stored is not None else None
    if found is None:
        return None
    return FileResponse(found, headers=HARMLESS, media_type="application/octet-stream")


def _manifest(connection: DuckDBPyConnection, key: str) -> Response | None:
    try:
        artifact_id = base64.urlsafe_b64decode(unquote(key).encode()).decode()
    except ValueError:
        return None
    version = artifact_versions.by_id(connection, artifact_id)
    entries = artifact_versions.entries(connection, version) if version is not None else None
    if entries is None:
        return None
    # Layout V2 names the artifact with which each content was uploaded.
    layout = {} if any(not entry.birth_id and not entry.reference for entry in entries) else {"storageLayout": "V2"}
    document = {
        "version": 1,
        "storagePolicy": "wandb-storage-policy-v1",
        "storagePolicyConfig": layout,
        "contents": {entry.path: _in_manifest(entry) for entry in entries},
    }
    return Response(orjson.dumps(document), media_type="application/json")


def _in_manifest(entry: Entry) -> dict[str, Any]:
    values = {
        "digest": entry.md5,
        "ref": entry.reference,
        "birthArtifactID": entry.birth_id,
        "size": entry.size,
        "extra": entry.extra or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _node(context: Context, version: Version, entry: Entry) -> dict[str, Any]:
    url: str | None = None
    direct: str | None = entry.reference
    if entry.reference is None:
        path = _path(version, entry)
        url, direct = f"{context.base_url}{path}", f"{context.base_url}{context.sign(path)}"
    return {
        "id": facts.own_id("ArtifactFile", version.artifact_id, entry.path),
        "name": entry.path,
        "displayName": entry.path,
        "url": url,
        "directUrl": direct,
        "sizeBytes": entry.size or 0,
        "storagePath": None,
        "mimetype": mimetypes.guess_type(entry.path)[0],
        "updatedAt": version.facts.get("createdAt") or facts.instant(version.created_at),
        "digest": entry.md5,
        "md5": entry.md5 if entry.reference is None else None,
    }


def _path(version: Version, entry: Entry) -> str:
    """Return the path at which the server has the content, too, for those with its key."""
    if entry.md5 is None:
        raise _not_mirrored(version)
    digest = base64.b64decode(entry.md5).hex()
    if not entry.birth_id:
        return f"{V1}{quote(version.key.entity, safe='')}/{digest}"
    name = entry.path.rpartition("/")[2]
    parts = ("default", *version.key, version.collection, entry.birth_id, digest, name)
    return V2 + "/".join(quote(part, safe="") for part in parts)


def _stored(path: str) -> Stored | None:
    """Return what an address names; None for one that cannot name anything."""
    parts = [unquote(part) for part in path.removeprefix(V2).removeprefix(V1).split("/")]
    try:
        if path.startswith(V1) and len(parts) == 2:
            return Stored(bytes.fromhex(parts[1]), parts[0])
        if path.startswith(V2) and len(parts) > _V2_PARTS:
            return Stored(bytes.fromhex(parts[-2]), parts[1], parts[-3])
    except ValueError:
        pass
    return None


def _not_mirrored(version: Version) -> NotServed:
    return NotServed(f"the files of {version} are not mirrored")
