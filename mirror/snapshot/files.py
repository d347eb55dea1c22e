"""The mirrored lists of runs' files, and where their content is, if it is mirrored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mirror.snapshot.paths import Project

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class Asked(Struct, frozen=True):
    """Which files are wanted: these names, else those that match an SQL LIKE pattern, else all."""

    names: Sequence[str] = ()
    pattern: str | None = None

    @property
    def condition(self) -> tuple[str, list[Any]]:
        """The selection as an SQL condition and its parameters."""
        if self.names:
            return "name IN (SELECT unnest(?::VARCHAR[]))", [list(self.names)]
        if not self.pattern:
            return "true", []
        # A backslash at the end, which escapes nothing, stands for itself.
        unpaired = (len(self.pattern) - len(self.pattern.rstrip("\\"))) % 2
        return "name LIKE ? ESCAPE '\\'", [self.pattern + "\\" * unpaired]


def count(connection: DuckDBPyConnection, rid: int) -> int | None:
    """How many files a run has; None if its list was never pulled."""
    listed_at, number = listed(connection, rid)
    return None if listed_at is None else number


def listed(connection: DuckDBPyConnection, rid: int) -> tuple[datetime | None, int]:
    """When the list of a run's files was last pulled, None for never, and how many files it contains."""
    import duckdb

    try:
        rows = connection.execute(
            "SELECT x.listed_at, (SELECT count(*) FROM store.run_files WHERE rid = x.rid) "
            "FROM store.run_extras AS x WHERE x.rid = ?",
            [rid],
        ).fetchall()
    except (duckdb.CatalogException, duckdb.BinderException):
        # The file was published by a version that did not mirror lists of files.
        return None, 0
    return (rows[0][0], int(rows[0][1])) if rows else (None, 0)


def missing(connection: DuckDBPyConnection, rid: int, names: Sequence[str]) -> bool:
    """Return True if any of these names is not in the list."""
    wanted = set(names)
    count_listed = connection.execute(
        "SELECT count(DISTINCT name) FROM store.run_files WHERE rid = ? AND name IN (SELECT unnest(?::VARCHAR[]))",
        [rid, list(wanted)],
    ).fetchall()
    return int(count_listed[0][0]) < len(wanted)


def page(
    connection: DuckDBPyConnection, rid: int, asked: Asked, first: int, start: int = 0
) -> tuple[list[dict[str, Any]], bool]:
    """At most `first` files of a run by name, from index `start` on, in W&B's format; and whether there are more.

    They have no URLs, since those that the server signs expire after a while.
    """
    condition, params = asked.condition
    rows = connection.execute(
        "SELECT file_id, name, size, mimetype, updated_at, md5 FROM store.run_files "
        f"WHERE rid = ? AND {condition} ORDER BY name LIMIT ? OFFSET ?",
        [rid, *params, first + 1, start],
    ).fetchall()
    return [_node(*row) for row in rows[:first]], len(rows) > first


class Content(Struct, frozen=True):
    """The mirrored content of a file: where it is, its bytes and its MIME type."""

    path: Path
    size: int
    mimetype: str | None


def content(connection: DuckDBPyConnection, address: tuple[str, str, str], name: str) -> Content | None:
    """The content of a file of a run, named by entity, project and run id; None if it is not mirrored.

    Of an older snapshot it may have been deleted since; whoever opens it must expect that.
    """
    import duckdb

    try:
        rows = connection.execute(
            "SELECT local_path, size, mimetype FROM files "
            "WHERE entity = ? AND project = ? AND run_id = ? AND name = ? AND local_path IS NOT NULL",
            [*address, name],
        ).fetchall()
    except duckdb.BinderException:
        # The file was published by a version that did not mirror content.
        return None
    return Content(Path(rows[0][0]), rows[0][1], rows[0][2]) if rows else None


def is_stored(connection: DuckDBPyConnection, digest: str) -> bool:
    """Return True if the content with this SHA-256 is mirrored."""
    import duckdb

    try:
        rows = connection.execute("SELECT 1 FROM store.contents WHERE digest = ?", [digest]).fetchall()
    except duckdb.CatalogException:
        # The file was published by a version that did not mirror content.
        return False
    return bool(rows)


def content_status(connection: DuckDBPyConnection, most: int) -> dict[str, Any] | None:
    """What is mirrored of the content of files; None if nothing is, and nothing was tried.

    `files` and `bytes` count content, once each; `last` is the outcome of the last round of downloads; `failed` has at
    most `most` of the files that failed: file, run or artifact, error, attempts, next_try_at (naive UTC).
    """
    import duckdb

    try:
        count_stored, size = connection.execute(
            "SELECT count(*), coalesce(sum(size), 0)::BIGINT FROM store.contents"
        ).fetchall()[0]
        rows = _failed(connection, most)
        last = connection.execute("SELECT value FROM store.meta WHERE key = 'contents'").fetchall()
    except (duckdb.CatalogException, duckdb.BinderException):
        # The file was published by a version that did not mirror content.
        return None
    rows += _bad_tables(connection, most - len(rows))
    if not count_stored and not rows and not last:
        return None
    return {
        "files": count_stored,
        "bytes": size,
        "last": json.loads(last[0][0]) if last else None,
        "failed": [
            dict(zip(("run", "artifact", "file", "error", "attempts", "next_try_at"), row, strict=True)) for row in rows
        ],
    }


def _bad_tables(connection: DuckDBPyConnection, most: int) -> list[tuple[Any, ...]]:
    """At most `most` of the files of W&B Tables that cannot be read, as `content_status` lists failed files."""
    import duckdb

    try:
        return connection.execute(
            """
            WITH bad AS (SELECT source, error FROM store.converted_tables WHERE error IS NOT NULL),
            named AS (
                SELECT n.kind, n.owner, n.name, b.error FROM bad AS b
                JOIN store.content_names AS n ON n.digest = b.source
                UNION ALL
                -- Joined and partitioned tables are named by the place of their file.
                SELECT n.kind, n.owner, n.name, b.error FROM bad AS b
                JOIN store.content_names AS n ON n.kind || '/' || n.owner || '/' || n.name = b.source
            )
            SELECT r.entity || '/' || r.project || '/' || r.run_id,
                   a.entity || '/' || a.project || '/' || a.collection || ':v' || a.version_number,
                   n.name, n.error, 1, NULL
            FROM named AS n
            LEFT JOIN store.run_records AS r ON n.kind = 'file' AND r.rid = n.owner
            LEFT JOIN store.artifact_records AS a ON n.kind = 'artifact' AND a.aid = n.owner
            WHERE r.rid IS NOT NULL OR a.aid IS NOT NULL ORDER BY 1, 2, 3 LIMIT ?
            """,
            [max(0, most)],
        ).fetchall()
    except duckdb.CatalogException:
        # The file was published by a version that did not know tables.
        return []


def _failed(connection: DuckDBPyConnection, most: int) -> list[tuple[Any, ...]]:
    """The first of the files that could not be downloaded: run, artifact, file, error, attempts, next_try_at."""
    import duckdb

    of_runs = (
        "SELECT r.entity || '/' || r.project || '/' || r.run_id AS run, NULL AS artifact, n.name, n.error, n.attempts, "
        "n.next_try_at FROM store.content_names AS n JOIN store.run_records AS r ON r.rid = n.owner "
        "WHERE n.kind = 'file' AND n.error IS NOT NULL"
    )
    of_artifacts = (
        "SELECT NULL, a.entity || '/' || a.project || '/' || a.collection || ':v' || a.version_number, n.name, "
        "n.error, n.attempts, n.next_try_at "
        "FROM store.content_names AS n JOIN store.artifact_records AS a ON a.aid = n.owner "
        "WHERE n.kind = 'artifact' AND n.error IS NOT NULL"
    )
    order = "ORDER BY next_try_at, run, artifact, name LIMIT ?"
    try:
        return connection.execute(f"{of_runs} UNION ALL {of_artifacts} {order}", [most]).fetchall()
    except duckdb.CatalogException:
        # The file was published by a version that did not mirror artifacts.
        return connection.execute(f"{of_runs} {order}", [most]).fetchall()


def runs_of(connection: DuckDBPyConnection, file_ids: Sequence[str]) -> list[tuple[str, str, str]]:
    """The runs of these files, as entity, project and run id; files that are in no mirrored list are left out."""
    return connection.execute(
        "SELECT DISTINCT r.entity, r.project, r.run_id FROM store.run_files AS f "
        "JOIN store.run_records AS r ON r.rid = f.rid WHERE f.file_id IN (SELECT unnest(?::VARCHAR[]))",
        [list(file_ids)],
    ).fetchall()


def metadata(connection: DuckDBPyConnection, rid: int) -> tuple[str | None, bool]:
    """The content of a run's metadata file as JSON text, and whether the file was looked for (or there is one)."""
    rows = connection.execute(
        "SELECT m.file, e.file FROM store.run_records AS r LEFT JOIN store.metadata_documents AS m ON m.rid = r.rid "
        "LEFT JOIN store.run_extras AS e ON e.rid = r.rid WHERE r.rid = ?",
        [rid],
    ).fetchall()
    text, lookup = rows[0] if rows else (None, None)
    return text, text is not None or lookup == "none"


def metadata_of(connection: DuckDBPyConnection, project: Project, run_id: str) -> str | None:
    """The content of the metadata file of a run that is not deleted, as JSON text; None if it is not mirrored."""
    found = connection.execute(
        "SELECT m.file FROM store.metadata_documents AS m JOIN store.run_records AS r ON r.rid = m.rid "
        "WHERE r.entity = ? AND r.project = ? AND r.run_id = ? AND r.deleted_at IS NULL",
        [*project, run_id],
    ).fetchall()
    return found[0][0] if found else None


def metadata_node(connection: DuckDBPyConnection, rid: int) -> str | None:
    """What the server's list of files has about a run's metadata file, as JSON text; None if it is not mirrored."""
    import duckdb

    try:
        found = connection.execute("SELECT node FROM store.metadata_documents WHERE rid = ?", [rid]).fetchall()
    except duckdb.BinderException:
        # The file was published by an older program.
        return None
    return found[0][0] if found else None


def _node(
    file_id: str, name: str, size: int, mimetype: str | None, updated: datetime | None, md5: str | None
) -> dict[str, Any]:
    return {
        "id": file_id,
        "name": name,
        "sizeBytes": size,
        "mimetype": mimetype,
        "updatedAt": None if updated is None else f"{updated.isoformat()}Z",
        "md5": md5,
    }
