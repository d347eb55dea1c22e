"""Artifacts: collections and their versions, the entries of manifests, and what runs used and logged.

`aid` is this mirror's own number for a version of a collection. Versions that the server deleted stay, with their
files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mirror.store import columns, retries, rids
from mirror.store.artifact_records import Collection, Pending, Use, Version
from mirror.store.database import Database
from mirror.store.records import ProjectKey
from mirror.store.transaction import Transaction

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = ("artifact_listings", "artifact_collections", "artifact_records")
"""The tables that name a project by entity and project."""

OF_VERSIONS = ("artifact_aliases", "artifact_entries")
"""The tables that name a version by its aid."""

_HERE = "entity = ? AND project = ?"

_TIMES = ("created_at", "updated_at", "seen_at")
_COLLECTION = {
    **dict.fromkeys(("entity", "project", "collection_id", "type", "name", "kind", "description"), "VARCHAR"),
    "created_at": "TIMESTAMP",
    **dict.fromkeys(("mark", "facts"), "VARCHAR"),
    "seen_at": "TIMESTAMP",
}
_VERSION = {
    **dict.fromkeys(("entity", "project", "collection_id", "type", "collection"), "VARCHAR"),
    "version_number": "BIGINT",
    **dict.fromkeys(("artifact_id", "digest"), "VARCHAR"),
    **dict.fromkeys(("size", "file_count"), "BIGINT"),
    "state": "VARCHAR",
    **dict.fromkeys(_TIMES[:2], "TIMESTAMP"),
    **dict.fromkeys(("run_entity", "run_project", "run_id", "description", "metadata"), "VARCHAR"),
    "ttl_s": "BIGINT",
    "facts": "VARCHAR",
    "seen_at": "TIMESTAMP",
}
_ALIAS = {"collection_id": "VARCHAR", "version_number": "BIGINT", "alias": "VARCHAR", "position": "BIGINT"}
_USE = {
    "rid": "BIGINT",
    **dict.fromkeys(("relation", "artifact_entity", "artifact_project", "type", "collection"), "VARCHAR"),
    "version_number": "BIGINT",
    "artifact_id": "VARCHAR",
}
_FAILURE = {"aid": "BIGINT", "attempts": "BIGINT", "next_try_at": "TIMESTAMP", "error": "VARCHAR"}

_SAME = (
    "a.entity = l.entity AND a.project = l.project AND a.collection_id = l.collection_id "
    "AND a.version_number = l.version_number"
)


class Listing(Struct, frozen=True):
    """How far the artifacts of a project are known. `unexplained` collections are counted, but never listed."""

    listed_at: datetime | None = None
    unexplained: int = 0
    collections: int = 0


def listing(db: Database, project: ProjectKey) -> Listing:
    """How far the artifacts of the project are known; an empty listing if they were never listed."""
    here = [project.entity, project.project]
    known = db.value(f"SELECT count(*) FROM store.artifact_collections WHERE {_HERE}", here)
    found = db.run(f"SELECT listed_at, coalesce(unexplained, 0) FROM store.artifact_listings WHERE {_HERE}", here)
    listed_at, unexplained = found[0] if found else (None, 0)
    return Listing(listed_at, unexplained, known)


def set_listing(tx: Transaction, project: ProjectKey, *, listed_at: datetime | None, unexplained: int) -> None:
    """Record that all artifacts of the project were listed, or with None that they are to be listed again."""
    _forget_listing(tx, project)
    tx.db.run(
        "INSERT INTO store.artifact_listings VALUES (?, ?, ?, ?, NULL)",
        [project.entity, project.project, listed_at, unexplained],
    )


def set_error(tx: Transaction, project: ProjectKey, error: str | None) -> None:
    """Record why the artifacts of the project could not be looked at; None if they could."""
    here = [project.entity, project.project]
    known = tx.db.run(f"SELECT error FROM store.artifact_listings WHERE {_HERE}", here)
    if known:
        tx.db.run(f"UPDATE store.artifact_listings SET error = ? WHERE {_HERE}", [error, *here])
    elif error is not None:
        tx.db.run("INSERT INTO store.artifact_listings VALUES (?, ?, NULL, 0, ?)", [*here, error])


def failed(db: Database, project: ProjectKey) -> str | None:
    """Why the last look at the project's artifacts failed; None if it did not."""
    error: str | None = db.value(
        f"SELECT max(error) FROM store.artifact_listings WHERE {_HERE}", [project.entity, project.project]
    )
    return error


def _forget_listing(tx: Transaction, project: ProjectKey) -> None:
    tx.db.run(f"DELETE FROM store.artifact_listings WHERE {_HERE}", [project.entity, project.project])


def marks(db: Database, project: ProjectKey, collection_ids: Sequence[str]) -> dict[str, str]:
    """The marks of those of these collections that are known."""
    rows = db.run(
        f"SELECT collection_id, mark FROM store.artifact_collections WHERE {_HERE} "
        "AND collection_id IN (SELECT unnest(?::VARCHAR[]))",
        [project.entity, project.project, list(collection_ids)],
    )
    return dict(rows)


def collections(db: Database, project: ProjectKey, names: Iterable[tuple[str, str]]) -> list[Collection]:
    """Those of these collections, given by type and name, that are known."""
    rows = db.run(
        "SELECT collection_id, type, name, kind, description, created_at, mark, facts FROM store.artifact_collections "
        f"WHERE {_HERE} AND name IN (SELECT unnest(?::VARCHAR[])) ORDER BY type, name",
        [project.entity, project.project, sorted({name for _, name in names})],
    )
    wanted = set(names)
    return [found for row in rows if ((found := Collection(*row)).type, found.name) in wanted]


def unfinished(db: Database, project: ProjectKey, now: datetime) -> list[tuple[str, str]]:
    """The collections, by type and name, with a version that was not complete when it was listed and is due again."""
    return db.run(
        f"SELECT DISTINCT type, collection FROM store.artifact_records WHERE {_HERE} AND deleted_at IS NULL "
        f"AND state <> 'COMMITTED' AND {retries.due('next_try_at')} ORDER BY ALL",
        [project.entity, project.project, now],
    )


def lacking(db: Database, project: ProjectKey, since: datetime) -> list[tuple[str, str]]:
    """The collections of the project, by type and name, with a version that a run used or logged and that is missing.

    Looks at the runs whose artifacts were pulled since then.
    """
    return db.run(
        """
        SELECT DISTINCT u.type, u.collection
        FROM store.artifact_uses AS u JOIN store.run_extras AS x ON x.rid = u.rid
        WHERE x.artifacts_at >= ? AND u.artifact_entity = ? AND u.artifact_project = ? AND NOT EXISTS (
            SELECT 1 FROM store.artifact_records AS a
            WHERE a.artifact_id = u.artifact_id AND a.collection = u.collection
            AND a.entity = u.artifact_entity AND a.project = u.artifact_project
        ) ORDER BY ALL
        """,
        [since, project.entity, project.project],
    )


def numbers(db: Database, project: ProjectKey, collection_id: str) -> set[int]:
    """The numbers of the versions of a collection that are mirrored, complete and not deleted."""
    rows = db.run(
        f"SELECT version_number FROM store.artifact_records WHERE {_HERE} AND collection_id = ? "
        "AND deleted_at IS NULL AND state = 'COMMITTED'",
        [project.entity, project.project, collection_id],
    )
    return {number for (number,) in rows}


def put(
    tx: Transaction, project: ProjectKey, listed: Sequence[tuple[Collection, Sequence[Version]]], seen_at: datetime
) -> None:
    """Add or replace these collections and versions. An alias moves to the version that has it now."""
    db = tx.db
    found = {collection.collection_id: (collection, versions) for collection, versions in listed}
    collection_rows, version_rows, alias_rows = [], [], []
    for one, versions in found.values():
        here = (project.entity, project.project, one.collection_id, one.type, one.name)
        collection_rows.append((*here, one.kind, one.description, one.created_at, one.mark, one.facts, seen_at))
        for version in {version.number: version for version in versions}.values():
            version_rows.append((*here, *_version_row(version), seen_at))
            alias_rows += [
                (one.collection_id, version.number, alias, place) for place, alias in enumerate(version.aliases)
            ]
    with (
        db.table("collected", columns.table(_COLLECTION, collection_rows)),
        db.table("listed", columns.table(_VERSION, version_rows)),
        db.table("named", columns.table(_ALIAS, alias_rows)),
    ):
        db.run(
            "DELETE FROM store.artifact_collections AS c USING collected AS l "
            "WHERE c.entity = l.entity AND c.project = l.project AND c.collection_id = l.collection_id"
        )
        db.run("INSERT INTO store.artifact_collections BY NAME SELECT * FROM collected")
        _drop_replaced(db)
        _put_versions(db)
        _put_aliases(db)


def _version_row(version: Version) -> tuple[Any, ...]:
    return (
        *(version.number, version.artifact_id, version.digest, version.size, version.file_count, version.state),
        *(version.created_at, version.updated_at, *version.run, version.description, version.metadata, version.ttl_s),
        version.facts,
    )


def _drop_replaced(db: Database) -> None:
    """Remove versions whose name and number belong to another collection now, one that was created again."""
    replaced = db.run(
        "SELECT a.aid FROM store.artifact_records AS a JOIN listed AS l ON a.entity = l.entity "
        "AND a.project = l.project AND a.collection = l.collection AND a.version_number = l.version_number "
        "AND a.collection_id <> l.collection_id"
    )
    for table in ("artifact_records", *OF_VERSIONS) if replaced else ():
        db.run(f"DELETE FROM store.{table} WHERE aid IN (SELECT unnest(?::BIGINT[]))", [[aid for (aid,) in replaced]])


def _put_versions(db: Database) -> None:
    """Add or replace the versions in the table `listed`. What failed for one that changed is tried again at once."""
    replaced = ", ".join(f"{name} = l.{name}" for name in list(_VERSION)[3:] if name != "version_number")
    unchanged = "a.state = l.state AND a.digest IS NOT DISTINCT FROM l.digest"
    now = datetime.now(UTC).replace(tzinfo=None)
    db.run(
        f"""
        UPDATE store.artifact_records AS a SET {replaced},
            deleted_at = CASE WHEN l.state = 'DELETED' THEN coalesce(a.deleted_at, ?) END,
            attempts = CASE WHEN {unchanged} THEN a.attempts ELSE 0 END,
            next_try_at = CASE WHEN {unchanged} THEN a.next_try_at END,
            error = CASE WHEN {unchanged} THEN a.error END
        FROM listed AS l WHERE {_SAME}
        """,
        [now],
    )
    db.run(
        f"""
        INSERT INTO store.artifact_records BY NAME
        SELECT row_number() OVER (ORDER BY l.collection, l.version_number)
                   + (SELECT coalesce(max(aid), 0) FROM store.artifact_records) AS aid, l.*,
               CASE WHEN l.state = 'DELETED' THEN ?::TIMESTAMP END AS deleted_at, 0 AS attempts
        FROM listed AS l WHERE NOT EXISTS (SELECT 1 FROM store.artifact_records AS a WHERE {_SAME})
        """,
        [now],
    )


def _put_aliases(db: Database) -> None:
    """Replace the aliases of the versions in the table `listed`, and remove those in `named` from other versions."""
    db.run(
        f"""
        DELETE FROM store.artifact_aliases WHERE aid IN (
            SELECT a.aid FROM store.artifact_records AS a JOIN listed AS l ON {_SAME}
        )
        """
    )
    here = "a.entity = c.entity AND a.project = c.project AND a.collection_id = c.collection_id"
    db.run(
        f"""
        DELETE FROM store.artifact_aliases AS s USING store.artifact_records AS a, collected AS c, named AS n
        WHERE s.aid = a.aid AND {here} AND n.collection_id = c.collection_id AND n.alias = s.alias
        """
    )
    db.run(
        f"""
        INSERT INTO store.artifact_aliases BY NAME
        SELECT a.aid, n.alias, n.position FROM named AS n JOIN collected AS c ON c.collection_id = n.collection_id
        JOIN store.artifact_records AS a ON {here} AND a.version_number = n.version_number
        """
    )


def mark_missing(
    tx: Transaction,
    project: ProjectKey,
    seen_at: datetime,
    collection_ids: Sequence[str] | None = None,
    unread: Sequence[str] = (),
) -> int:
    """Mark the versions that were not `put` with this time as deleted: of these collections, or of all if None.

    It is compared for equality, so that a clock that is set back or forward neither deletes nor keeps anything.
    Those of the `unread` collections stay as they are. Returns how many there were.
    """
    here: list[Any] = [project.entity, project.project]
    now = datetime.now(UTC).replace(tzinfo=None)
    among, more = ("true", []) if collection_ids is None else _among(collection_ids)
    gone = tx.db.value(
        f"UPDATE store.artifact_records SET deleted_at = ? WHERE {_HERE} AND {among} "
        "AND deleted_at IS NULL AND seen_at <> ? AND collection_id NOT IN (SELECT unnest(?::VARCHAR[]))",
        [now, *here, *more, seen_at, list(unread)],
    )
    if collection_ids is None:
        tx.db.run(f"DELETE FROM store.artifact_collections WHERE {_HERE} AND seen_at <> ?", [*here, seen_at])
    return int(gone)


def _among(collection_ids: Sequence[str]) -> tuple[str, list[Any]]:
    return "collection_id IN (SELECT unnest(?::VARCHAR[]))", [list(collection_ids)]


def put_uses(tx: Transaction, project: ProjectKey, uses: Mapping[str, Sequence[Use]]) -> None:
    """Replace what these runs used and logged. Runs that are not mirrored are left out."""
    numbers = rids.find(tx.db, project, uses)
    condition, params = rids.among(numbers.values())
    rows = [
        (rid, use.relation, use.entity, use.project, use.type, use.collection, use.number, use.artifact_id)
        for run_id, rid in numbers.items()
        for use in uses[run_id]
    ]
    tx.db.run(f"DELETE FROM store.artifact_uses WHERE {condition}", params)
    with tx.db.table("used", columns.table(_USE, rows)):
        tx.db.run("INSERT INTO store.artifact_uses BY NAME SELECT * FROM used")


def without_files(db: Database, project: ProjectKey, now: datetime) -> list[Pending]:
    """The versions whose manifest is to be pulled now, in the order in which they were mirrored."""
    rows = db.run(
        "SELECT aid, artifact_id, entity || '/' || project || '/' || collection || ':v' || version_number, attempts, "
        f"coalesce(file_count, 0) FROM store.artifact_records WHERE {_HERE} AND deleted_at IS NULL "
        "AND state = 'COMMITTED' AND (entries_of IS NULL OR entries_of <> coalesce(digest, '')) "
        f"AND {retries.due('next_try_at')} ORDER BY aid",
        [project.entity, project.project, now],
    )
    return [Pending(*row) for row in rows]


def not_committed(db: Database, project: ProjectKey, now: datetime) -> list[tuple[Pending, str]]:
    """The versions that are not complete on the server and have no error yet, or are due again; with their state."""
    rows = db.run(
        "SELECT aid, artifact_id, entity || '/' || project || '/' || collection || ':v' || version_number, attempts, "
        f"state FROM store.artifact_records WHERE {_HERE} AND deleted_at IS NULL AND state <> 'COMMITTED' "
        f"AND {retries.due('next_try_at')} ORDER BY aid",
        [project.entity, project.project, now],
    )
    return [(Pending(*row[:4]), row[4]) for row in rows]


def put_entries(tx: Transaction, entries: Mapping[int, pa.Table]) -> None:
    """Replace the entries of these versions: columns path, size, md5, reference, birth_id, extra."""
    import pyarrow as pa

    db = tx.db
    aids = list(entries)
    tables = [
        table.append_column("aid", pa.array([aid] * table.num_rows, pa.int64())) for aid, table in entries.items()
    ]
    if not tables:
        return
    db.run("DELETE FROM store.artifact_entries WHERE aid IN (SELECT unnest(?::BIGINT[]))", [aids])
    with db.table("entries", pa.concat_tables(tables)):
        # The project may have been removed from the mirror meanwhile.
        db.run(
            "INSERT INTO store.artifact_entries BY NAME SELECT * FROM entries "
            "WHERE aid IN (SELECT aid FROM store.artifact_records)"
        )
    db.run(
        "UPDATE store.artifact_records SET entries_of = coalesce(digest, ''), attempts = 0, next_try_at = NULL, "
        "error = NULL WHERE aid IN (SELECT unnest(?::BIGINT[]))",
        [aids],
    )


def put_failures(tx: Transaction, failures: Sequence[tuple[Pending, str, datetime]]) -> None:
    """Record why the files of these versions are not known, and when to try again."""
    rows = [(one.aid, one.attempts + 1, next_try_at, error) for one, error, next_try_at in failures]
    with tx.db.table("failures", columns.table(_FAILURE, rows)):
        tx.db.run(
            "UPDATE store.artifact_records AS a SET attempts = f.attempts, next_try_at = f.next_try_at, "
            "error = f.error FROM failures AS f WHERE f.aid = a.aid"
        )


def request(tx: Transaction, project: ProjectKey) -> None:
    """Have all artifacts of the project listed again, and everything that failed tried again at once."""
    here = [project.entity, project.project]
    tx.db.run(f"UPDATE store.artifact_listings SET listed_at = NULL WHERE {_HERE}", here)
    tx.db.run(
        f"UPDATE store.artifact_records SET next_try_at = NULL, entries_of = NULL WHERE {_HERE} AND deleted_at IS NULL",
        here,
    )


def forget(tx: Transaction, project: ProjectKey) -> None:
    """Remove everything about the project's artifacts but what names their content."""
    here = [project.entity, project.project]
    for table in OF_VERSIONS:
        tx.db.run(
            f"DELETE FROM store.{table} WHERE aid IN (SELECT aid FROM store.artifact_records WHERE {_HERE})", here
        )
    for table in TABLES:
        tx.db.run(f"DELETE FROM store.{table} WHERE {_HERE}", here)
