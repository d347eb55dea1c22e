"""What is mirrored of artifacts, and what failed, from the published file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mirror.settings.values import ArtifactPattern
from mirror.store.artifact_contents import matching

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def status(
    connection: DuckDBPyConnection, most: int, patterns: Sequence[ArtifactPattern] = ()
) -> dict[str, Any] | None:
    """What is mirrored of artifacts; None if nothing is, and nothing was tried.

    `versions` counts those that are not deleted on the server; `unmatched` has those of the patterns that no version
    matches; `errors` why projects could not be listed: project, error; `failed` at most `most` versions whose files are
    not known: artifact, error, attempts, next_try_at (naive UTC).
    """
    import duckdb

    try:
        rows = connection.execute(
            "SELECT count(*) FILTER (deleted_at IS NULL), count(*) FROM store.artifact_records"
        ).fetchall()
        errors = connection.execute(
            "SELECT entity || '/' || project, error FROM store.artifact_listings WHERE error IS NOT NULL ORDER BY 1"
        ).fetchall()
        failed = connection.execute(
            "SELECT entity || '/' || project || '/' || collection || ':v' || version_number, error, attempts, "
            "next_try_at FROM store.artifact_records WHERE error IS NOT NULL AND deleted_at IS NULL "
            "ORDER BY next_try_at, 1 LIMIT ?",
            [most],
        ).fetchall()
        unmatched = [str(pattern) for pattern in patterns if not _matches(connection, pattern)]
    except duckdb.CatalogException:
        # The file was published by a version that did not mirror artifacts.
        return None
    versions, ever = rows[0]
    if not ever and not errors:
        return None
    return {
        "versions": versions,
        "unmatched": unmatched,
        "errors": [dict(zip(("project", "error"), row, strict=True)) for row in errors],
        "failed": [dict(zip(("artifact", "error", "attempts", "next_try_at"), row, strict=True)) for row in failed],
    }


def _matches(connection: DuckDBPyConnection, pattern: ArtifactPattern) -> bool:
    condition, params = matching([pattern])
    found = connection.execute(
        f"SELECT 1 FROM store.artifact_records AS a WHERE {condition} LIMIT 1", params
    ).fetchall()
    return bool(found)
