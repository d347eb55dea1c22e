"""The mirrored artifacts: collections, versions, their files, and which runs used or logged them."""

from __future__ import annotations

import base64
from collections.abc import Collection as Several
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from msgspec import Struct

from mirror.snapshot.paths import Project

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LATEST = "latest"
COMMITTED = "COMMITTED"
SEQUENCE = "ArtifactSequence"
"""The kind of a collection whose versions were logged to it; those of other kinds are links."""

Facts = Mapping[str, Any]


class Collection(Struct, frozen=True):
    """A collection of versions. `facts` is what the server returned beside, by the field names of its API."""

    key: Project
    collection_id: str
    type: str
    name: str
    kind: str
    description: str | None
    created_at: datetime | None
    facts: Facts

    @property
    def is_link(self) -> bool:
        """Whether its versions are links to versions of other collections."""
        return self.kind != SEQUENCE


class Version(Struct, frozen=True):
    """A version in a collection. `facts` is what the server returned beside, by the field names of its API."""

    aid: int
    key: Project
    collection_id: str
    type: str
    collection: str
    number: int
    artifact_id: str
    digest: str | None
    size: int | None
    file_count: int | None
    state: str
    created_at: datetime | None
    updated_at: datetime | None
    run: tuple[str, str, str] | None
    description: str | None
    metadata: str | None
    ttl_s: int | None
    has_entries: bool
    aliases: tuple[str, ...]
    deleted: bool
    facts: Facts

    @property
    def name(self) -> str:
        """The collection and the number, such as `model:v3`."""
        return f"{self.collection}:v{self.number}"

    def __str__(self) -> str:
        return f"{self.key}/{self.name}"


class Entry(Struct, frozen=True):
    """A file of a version, or a reference; `local_path` is its mirrored content, None if it is not mirrored."""

    path: str
    size: int | None
    md5: str | None
    reference: str | None
    birth_id: str | None
    extra: dict[str, Any]
    local_path: Path | None

    @property
    def held(self) -> Path | None:
        """The mirrored content, unless it was deleted since this snapshot was published."""
        return self.local_path if self.local_path is not None and self.local_path.exists() else None


_VERSION = """
SELECT a.aid, a.entity, a.project, a.collection_id, a.type, a.collection, a.version_number, a.artifact_id, a.digest,
       a.size, a.file_count, CASE WHEN a.deleted_at IS NULL THEN a.state ELSE 'DELETED' END, a.created_at, a.updated_at,
       a.run_entity, a.run_project, a.run_id, a.description, a.metadata, a.ttl_s,
       a.entries_of IS NOT NULL AND a.entries_of = coalesce(a.digest, ''),
       (SELECT list(alias ORDER BY position) FROM store.artifact_aliases AS n WHERE n.aid = a.aid),
       a.deleted_at IS NOT NULL, a.facts
FROM store.artifact_records AS a WHERE
"""
_COLLECTION = (
    "SELECT entity, project, collection_id, type, name, kind, description, created_at, facts "
    "FROM store.artifact_collections WHERE entity = ? AND project = ? "
)


def listed_at(connection: DuckDBPyConnection, project: Project) -> datetime | None:
    """Return when all artifacts of the project were last listed; None if they never were."""
    found = _rows(
        connection, "SELECT listed_at FROM store.artifact_listings WHERE entity = ? AND project = ?", [*project]
    )
    return found[0][0] if found else None


def listed(connection: DuckDBPyConnection, project: Project) -> bool:
    """Return True if all artifacts of the project were listed by a pass."""
    return listed_at(connection, project) is not None


def pulled_at(connection: DuckDBPyConnection, rid: int) -> datetime | None:
    """Return when what a run used and logged was last pulled; None if it never was."""
    found = _rows(connection, "SELECT artifacts_at FROM store.run_extras WHERE rid = ?", [rid])
    return found[0][0] if found else None


def collections(connection: DuckDBPyConnection, project: Project, type_name: str | None = None) -> list[Collection]:
    """Return the collections of a project, or only those of a type, the newest first."""
    asked = f"{_COLLECTION} AND (? IS NULL OR type = ?) ORDER BY created_at DESC NULLS LAST, name"
    return [_collection(row) for row in _rows(connection, asked, [*project, type_name, type_name])]


def collection(connection: DuckDBPyConnection, project: Project, name: str) -> Collection | None:
    """Return the collection of this name; None if it is not mirrored."""
    found = _rows(connection, f"{_COLLECTION} AND name = ?", [*project, name])
    return _collection(found[0]) if found else None


def collection_by_id(connection: DuckDBPyConnection, collection_id: str) -> Collection | None:
    """Return the collection with this id; None if it is not mirrored."""
    asked = _COLLECTION.replace("entity = ? AND project = ?", "collection_id = ?")
    found = _rows(connection, asked, [collection_id])
    return _collection(found[0]) if found else None


def versions(connection: DuckDBPyConnection, project: Project, name: str) -> list[Version]:
    """Return the versions of a collection that are not deleted, the newest first."""
    condition = "a.entity = ? AND a.project = ? AND a.collection = ? AND a.deleted_at IS NULL"
    return _versions(connection, f"{condition} ORDER BY a.version_number DESC", [*project, name])


def version(connection: DuckDBPyConnection, project: Project, name: str, *, deleted: bool = False) -> Version | None:
    """Return the version that `collection:v3` or `collection:alias` names; None if it is not mirrored.

    Without an alias it is the latest. With `deleted`, versions that were deleted on the server are found, too.
    """
    collection_name, _, alias = name.partition(":")
    alias = alias or LATEST
    number = alias[1:] if alias.startswith("v") and alias[1:].isdecimal() and alias[1:].isascii() else "-1"
    condition = (
        "a.entity = ? AND a.project = ? AND a.collection = ? AND (a.deleted_at IS NULL OR ?) AND (a.version_number = ? "
        "OR EXISTS (SELECT 1 FROM store.artifact_aliases AS n WHERE n.aid = a.aid AND n.alias = ?)) "
        "ORDER BY a.deleted_at IS NOT NULL, a.version_number = ? LIMIT 1"
    )
    asked = [*project, collection_name, deleted, int(number), alias, int(number)]
    found = _versions(connection, condition, asked)
    return found[0] if found else None


def by_id(connection: DuckDBPyConnection, artifact_id: str) -> Version | None:
    """Return the version with this id in the collection that it was logged to; None if it is not mirrored."""
    found = sources(connection, [artifact_id])
    return found.get(artifact_id)


def sources(connection: DuckDBPyConnection, artifact_ids: Several[str], *, deleted: bool = False) -> dict[str, Version]:
    """Return these versions by id, each in the collection that it was logged to; those not mirrored are left out.

    With `deleted`, versions that were deleted on the server are returned, too.
    """
    condition = (
        "a.artifact_id IN (SELECT unnest(?::VARCHAR[])) AND (a.deleted_at IS NULL OR ?) AND NOT EXISTS "
        "(SELECT 1 FROM store.artifact_collections AS c WHERE c.collection_id = a.collection_id AND c.kind <> ?)"
    )
    found = _versions(connection, condition, [list(artifact_ids), deleted, SEQUENCE])
    return {one.artifact_id: one for one in found}


def entries(connection: DuckDBPyConnection, one: Version, names: Sequence[str] = ()) -> list[Entry] | None:
    """Return the files and references of a version by path, or those with these names; None if not mirrored."""
    if not one.has_entries:
        return None
    among = "AND f.path IN (SELECT unnest(?::VARCHAR[]))" if names else ""
    rows = connection.execute(
        "SELECT f.path, f.size, f.md5, f.reference, e.birth_id, e.extra, f.local_path FROM artifact_files AS f "
        "JOIN store.artifact_entries AS e ON e.aid = ? AND e.path = f.path "
        f"WHERE f.entity = ? AND f.project = ? AND f.collection = ? AND f.version = ? {among} ORDER BY f.path",
        [one.aid, *one.key, one.collection, f"v{one.number}", *([list(names)] if names else [])],
    ).fetchall()
    return [_entry(*row) for row in rows]


class Stored(Struct, frozen=True):
    """Content as the server's addresses name it: its MD5, and the entity of layout V1, or the birth id of V2."""

    md5: bytes
    entity: str
    birth_id: str | None = None


def content(connection: DuckDBPyConnection, stored: Stored) -> Path | None:
    """Return the mirrored content of a file of an artifact; None if it is not mirrored."""
    rows = _rows(
        connection,
        "SELECT f.local_path FROM store.artifact_entries AS e JOIN store.artifact_records AS a ON a.aid = e.aid "
        "JOIN artifact_files AS f ON f.entity = a.entity AND f.project = a.project AND f.collection = a.collection "
        "AND f.version = 'v' || a.version_number AND f.path = e.path "
        "WHERE e.md5 = ? AND e.birth_id IS NOT DISTINCT FROM ? AND a.entity = ? AND f.local_path IS NOT NULL",
        [base64.b64encode(stored.md5).decode(), stored.birth_id, stored.entity],
    )
    return next((path for (text,) in rows if (path := Path(text)).exists()), None)


def of_run(connection: DuckDBPyConnection, rid: int, relation: str) -> list[Version] | None:
    """Return what a run used ("input") or logged ("output"), in the server's order.

    None if that was not pulled, or if one of the versions is not mirrored.
    """
    if pulled_at(connection, rid) is None:
        return None
    asked = "SELECT artifact_id FROM store.artifact_uses WHERE rid = ? AND relation = ? ORDER BY rowid"
    ids = [artifact_id for (artifact_id,) in connection.execute(asked, [rid, relation]).fetchall()]
    # The server still lists versions that were deleted since.
    found = sources(connection, ids, deleted=True)
    return [found[artifact_id] for artifact_id in ids] if found.keys() >= set(ids) else None


def memberships(connection: DuckDBPyConnection, artifact_ids: Several[str]) -> dict[str, list[Version]]:
    """Return these versions by id, in each collection that they are in: logged to it, or linked."""
    condition = "a.artifact_id IN (SELECT unnest(?::VARCHAR[])) AND a.deleted_at IS NULL ORDER BY a.aid"
    found: dict[str, list[Version]] = {}
    for one in _versions(connection, condition, [list(artifact_ids)]):
        found.setdefault(one.artifact_id, []).append(one)
    return found


def projects_of(connection: DuckDBPyConnection, ids: Several[str]) -> list[Project]:
    """Return the projects of these artifacts and collections, named by their ids."""
    asked = (
        "SELECT DISTINCT entity, project FROM store.{} WHERE {} IN (SELECT unnest(?::VARCHAR[]))".format(*names)
        for names in (("artifact_records", "artifact_id"), ("artifact_collections", "collection_id"))
    )
    rows = [row for one in asked for row in _rows(connection, one, [list(ids)])]
    return [Project(*row) for row in dict.fromkeys(rows)]


def users(connection: DuckDBPyConnection, artifact_id: str) -> list[tuple[str, str, str]]:
    """Return the mirrored runs that used an artifact, as entity, project and run id."""
    return connection.execute(
        "SELECT DISTINCT r.entity, r.project, r.run_id FROM store.artifact_uses AS u "
        "JOIN store.run_records AS r ON r.rid = u.rid WHERE u.artifact_id = ? AND u.relation = 'input' "
        "AND r.deleted_at IS NULL ORDER BY ALL",
        [artifact_id],
    ).fetchall()


def _versions(connection: DuckDBPyConnection, condition: str, params: Iterable[Any]) -> list[Version]:
    return [_version(*row) for row in _rows(connection, _VERSION + condition, params)]


def _version(*row: Any) -> Version:
    run_entity, run_project, run_id, description, metadata, ttl_s, known, aliases, deleted, facts = row[14:]
    values = (
        *(row[0], Project(row[1], row[2]), *row[3:14]),
        None if run_id is None else (run_entity, run_project, run_id),
        *(description, metadata, ttl_s, bool(known), tuple(aliases or ()), deleted),
        orjson.loads(facts) if facts else {},
    )
    return Version(*values)


def _collection(row: tuple[Any, ...]) -> Collection:
    entity, project, collection_id, kind_of_version, name, kind, description, created_at, facts = row
    about = (collection_id, kind_of_version, name, kind or SEQUENCE, description, created_at)
    return Collection(Project(entity, project), *about, orjson.loads(facts) if facts else {})


def _entry(path: str, size: int | None, md5: str | None, *rest: Any) -> Entry:
    reference, birth_id, extra, local_path = rest
    held = Path(local_path) if local_path else None
    return Entry(path, size, md5, reference, birth_id, orjson.loads(extra) if extra else {}, held)


def _rows(connection: DuckDBPyConnection, sql: str, params: Iterable[Any]) -> list[Any]:
    """Return the rows of a query; none if the published file is from a version that did not mirror artifacts."""
    import duckdb

    try:
        return connection.execute(sql, list(params)).fetchall()
    except (duckdb.CatalogException, duckdb.BinderException):
        return []
