"""W&B Tables as Parquet: which files are still to be converted, and what came of the others.

The Parquet of a table is a content like any other, under a name of kind `TABLE`: the digest of the table's own file. So
it is deleted, copied and checked like all content, and made again when it is lost.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from mirror.store import columns, contents
from mirror.store.blobs import Blobs
from mirror.store.contents import ARTIFACT, FILE, OF_PIECES, SOURCE, TABLE
from mirror.store.database import Database
from mirror.store.records import ProjectKey
from mirror.store.table_pieces import CLIENT_URL
from mirror.store.transaction import Transaction

FILES = "*.table.json"
"""The names of the files of tables."""

_SOURCES = f"""
    SELECT kind, owner, digest AS source FROM store.content_names WHERE kind <> '{TABLE}' AND digest IS NOT NULL
    UNION ALL
    SELECT n.kind, n.owner, {SOURCE} FROM store.content_names AS n
    WHERE n.kind <> '{TABLE}' AND n.digest IS NOT NULL AND {OF_PIECES}
"""
"""What may name Parquet, by the run or artifact that has the file."""

_CONVERTED = {
    **dict.fromkeys(("source", "columns", "names", "types"), "VARCHAR"),
    "rows": "BIGINT",
    "error": "VARCHAR",
    "made_by": "BIGINT",
    "made_at": "TIMESTAMP",
    "place": "VARCHAR",
    "absent": "BIGINT",
    "made_of": "VARCHAR",
}
_NAME = {"kind": "VARCHAR", "owner": "BIGINT", "name": "VARCHAR", "digest": "VARCHAR", "size": "BIGINT"}
_CONTENT = {"digest": "VARCHAR", "size": "BIGINT", "stored_at": "TIMESTAMP"}


class Converted(Struct, frozen=True):
    """What became of the file of a table. `digest` and `size` are of its Parquet; `error` says why it has none.

    `place` is the folder of content that its media cells name, if any does; the content of `absent` cells was not here.
    `source` is the digest of its file; of a table of pieces, what `mirror.store.table_pieces` names it, and `made_of`
    is a digest of its pieces.
    """

    source: str
    columns: Sequence[str] = ()
    names: Sequence[str] = ()
    types: Sequence[str] = ()
    rows: int = 0
    digest: str | None = None
    size: int = 0
    error: str | None = None
    place: str | None = None
    absent: int = 0
    made_of: str | None = None


def pending(db: Database, made_by: int, place: str) -> list[str]:
    """The digests of the files of tables without Parquet, or with one that is out of date.

    It is if it was made by another version of the conversion, if its media cells name another folder than `place`, or
    if content of the same artifact was stored since and some of its media was absent.
    """
    rows = db.run(
        f"""
        SELECT DISTINCT n.digest FROM store.content_names AS n
        WHERE n.kind <> '{TABLE}' AND n.digest IS NOT NULL AND n.name GLOB '{FILES}' AND n.digest NOT IN (
            SELECT c.source FROM store.converted_tables AS c
            LEFT JOIN store.content_names AS p ON p.kind = '{TABLE}' AND p.name = c.source
            WHERE c.made_by = $1 AND coalesce(c.place, $2) = $2 AND (c.error IS NOT NULL OR p.digest IS NOT NULL)
            AND NOT (c.absent > 0 AND EXISTS (
                SELECT 1 FROM store.content_names AS t
                JOIN store.content_names AS s ON s.kind = t.kind AND s.owner = t.owner
                JOIN store.contents AS b ON b.digest = s.digest
                WHERE t.kind <> '{TABLE}' AND t.digest = c.source AND b.stored_at > c.made_at
            ))
        ) ORDER BY 1
        """,
        [made_by, place],
    )
    return [digest for (digest,) in rows]


def lost(db: Database, blobs: Blobs) -> list[str]:
    """The digests of Parquet that is not on the disk any more."""
    rows = db.run(
        f"SELECT DISTINCT digest, size FROM store.content_names WHERE kind = '{TABLE}' AND digest IS NOT NULL"
    )
    return [digest for digest, size in rows if not blobs.has(digest, size)]


def drop(tx: Transaction, digests: Collection[str]) -> None:
    """Forget Parquet that was lost, so that it is made again."""
    rows = tx.db.run(
        f"SELECT name FROM store.content_names WHERE kind = '{TABLE}' AND digest IN (SELECT unnest(?::VARCHAR[]))",
        [list(digests)],
    )
    tx.outdated |= _projects(tx.db, [source for (source,) in rows])
    contents.drop(tx, digests)


def save(tx: Transaction, blobs: Blobs, done: Sequence[Converted], made_by: int) -> None:
    """Record what became of the files of tables. The relations that show them are updated by the next publish."""
    db = tx.db
    kept = [one for one in done if one.digest is None or blobs.has(one.digest, one.size)]
    now = datetime.now(UTC).replace(tzinfo=None)
    rows = [
        (
            one.source,
            *_texts(one),
            None if one.error else one.rows,
            one.error,
            made_by,
            now,
            one.place,
            one.absent,
            one.made_of,
        )
        for one in kept
    ]
    names = [(TABLE, 0, one.source, one.digest, one.size) for one in kept if one.digest is not None]
    found = {digest: (digest, size, now) for *_, digest, size in names}
    sources = [[one.source for one in kept]]
    db.run("DELETE FROM store.converted_tables WHERE source IN (SELECT unnest(?::VARCHAR[]))", sources)
    db.run(f"DELETE FROM store.content_names WHERE kind = '{TABLE}' AND name IN (SELECT unnest(?::VARCHAR[]))", sources)
    with (
        db.table("converted", columns.table(_CONVERTED, rows)),
        db.table("named", columns.table(_NAME, names)),
        db.table("found", columns.table(_CONTENT, found.values())),
    ):
        db.run("INSERT INTO store.converted_tables BY NAME SELECT * FROM converted")
        db.run("INSERT INTO store.content_names BY NAME SELECT *, 0 AS attempts FROM named")
        db.run(
            "INSERT INTO store.contents BY NAME SELECT * FROM found "
            "WHERE digest NOT IN (SELECT digest FROM store.contents)"
        )
        db.run(
            "UPDATE store.contents SET unnamed_at = NULL "
            "WHERE unnamed_at IS NOT NULL AND digest IN (SELECT digest FROM found)"
        )
    tx.outdated |= _projects(db, sources[0])


def _texts(one: Converted) -> tuple[str | None, ...]:
    """Columns, names and types as JSON; none of a file that is not a table."""
    lists = (list(one.columns), list(one.names), list(one.types))
    return tuple(None if one.error else json.dumps(texts, ensure_ascii=False) for texts in lists)


def _projects(db: Database, sources: Collection[str]) -> set[ProjectKey]:
    """The projects of runs and of artifacts with these files."""
    rows = db.run(
        f"""
        SELECT DISTINCT entity, project FROM (
            SELECT r.entity, r.project, n.source FROM ({_SOURCES}) AS n
            JOIN store.run_records AS r ON r.rid = n.owner WHERE n.kind = '{FILE}'
            UNION ALL
            SELECT a.entity, a.project, n.source FROM ({_SOURCES}) AS n
            JOIN store.artifact_records AS a ON a.aid = n.owner WHERE n.kind = '{ARTIFACT}'
        ) WHERE source IN (SELECT unnest(?::VARCHAR[]))
        """,
        [list(sources)],
    )
    return {ProjectKey(*row) for row in rows}


def forget_unnamed(db: Database) -> int:
    """Let go of the Parquet of files that nothing names any more. Returns how many there were."""
    sources = f"SELECT source FROM ({_SOURCES})"
    gone = db.value(f"DELETE FROM store.content_names WHERE kind = '{TABLE}' AND name NOT IN ({sources})")
    db.run(f"DELETE FROM store.converted_tables WHERE source NOT IN ({sources})")
    return int(gone)


def unnamed_clients(db: Database, asked_before: datetime) -> list[str]:
    """The ids that clients gave to artifacts with tables, and for which the server's id is not known.

    Empty unless the content of a table is here of an artifact without such an id.
    """
    summarised = f"""
        SELECT substr(key, 1, length(key) - 14) AS key, text FROM store.leaves
        WHERE doc = 'summary' AND element IS NULL AND ends_with(key, '.artifact_path')
        AND starts_with(text, '{CLIENT_URL}')
    """
    # DuckDB fails to plan the statement below over a history that is empty.
    if not _unnamed_artifact(db, summarised, asked_before) or not db.run(f"{summarised} LIMIT 1"):
        return []
    rows = db.run(
        f"""
        WITH summarised AS ({summarised}),
        named AS (
            SELECT text AS url FROM summarised
            UNION ALL
            SELECT json_extract_string(TRY_CAST(text AS JSON), '$.artifact_path') FROM main.history
            WHERE key IN (SELECT key FROM summarised) AND text IS NOT NULL AND contains(text, '{CLIENT_URL}')
        )
        SELECT DISTINCT split_part(substr(url, {len(CLIENT_URL) + 1}), '/', 1) AS client FROM named
        WHERE starts_with(url, '{CLIENT_URL}') AND client <> '' AND client NOT IN (
            SELECT client_id FROM store.artifact_clients WHERE artifact_id IS NOT NULL OR asked_at > ?
        ) ORDER BY 1
        """,
        [asked_before],
    )
    return [client for (client,) in rows]


def _unnamed_artifact(db: Database, summarised: str, asked_before: datetime) -> bool:
    """Return True if an artifact without such an id may be one that values name: nearly always one of type run_table.

    One with a joined table may never have been logged by a run, so there summaries must name one that is not known.
    """
    unnamed = f"""
        SELECT 1 FROM store.content_names AS n JOIN store.artifact_records AS a ON a.aid = n.owner
        WHERE n.kind = '{ARTIFACT}' AND n.digest IS NOT NULL
        AND a.artifact_id NOT IN (SELECT artifact_id FROM store.artifact_clients WHERE artifact_id IS NOT NULL)
    """
    if db.run(f"{unnamed} AND n.name GLOB '{FILES}' AND a.type = 'run_table' LIMIT 1"):
        return True
    return bool(db.run(f"{unnamed} AND {OF_PIECES} LIMIT 1")) and bool(
        db.run(
            f"SELECT 1 FROM ({summarised}) WHERE ends_with(text, '-table.json') "
            f"AND split_part(substr(text, {len(CLIENT_URL) + 1}), '/', 1) NOT IN ("
            "SELECT client_id FROM store.artifact_clients WHERE artifact_id IS NOT NULL OR asked_at > ?) LIMIT 1",
            [asked_before],
        )
    )


def save_clients(tx: Transaction, found: Mapping[str, str | None], asked_at: datetime) -> None:
    """Record what the server calls artifacts that clients gave these ids; None for those that it does not know."""
    rows = [(client, artifact, asked_at) for client, artifact in found.items()]
    shape = {"client_id": "VARCHAR", "artifact_id": "VARCHAR", "asked_at": "TIMESTAMP"}
    with tx.db.table("clients", columns.table(shape, rows)):
        tx.db.run("DELETE FROM store.artifact_clients WHERE client_id IN (SELECT client_id FROM clients)")
        tx.db.run("INSERT INTO store.artifact_clients BY NAME SELECT * FROM clients")
    projects = tx.db.run(
        "SELECT DISTINCT entity, project FROM store.artifact_records "
        "WHERE artifact_id IN (SELECT unnest(?::VARCHAR[]))",
        [[artifact for artifact in found.values() if artifact is not None]],
    )
    tx.outdated |= {ProjectKey(*row) for row in projects}
