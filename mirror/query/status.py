"""Reads from the published file how fresh and how complete the mirror is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror.snapshot import files, wide
from mirror.snapshot import projects as snapshot
from mirror.snapshot.connection import opened

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CLOCKS_DIFFER = 60.0
"""Seconds that a time may be ahead of this machine's clock without being an error."""


def projects(connection: DuckDBPyConnection) -> list[dict[str, Any]]:
    """One entry per project, as in `project_status`."""
    result = snapshot.status(connection)
    for project in result:
        # Views of older versions return a negative lag if a clock was set back.
        if project["lag_s"] is not None and project["lag_s"] < 0:
            project["lag_s"] = 0.0 if project["lag_s"] >= -CLOCKS_DIFFER else None
    return result


def project_status(published: Path) -> list[dict[str, Any]]:
    """One entry per project: runs, running, history_rows, last_success_at (naive UTC), lag_s, last_error, set_aside.

    lag_s is None before the first successful pass, and if that pass is dated in the future. Empty if nothing was
    mirrored yet. Raises StoreError if the file cannot be read.
    """
    return _read(published, projects)


def runs_set_aside(published: Path, most: int = 1000) -> list[dict[str, Any]]:
    """One entry per run whose history could not be pulled: run, error, attempts, next_try_at (naive UTC).

    Ordered by next_try_at. Empty if nothing was mirrored yet. Raises StoreError if the file cannot be read.
    """
    return _read(published, lambda connection: snapshot.runs_set_aside(connection, most))


def content_status(published: Path, most: int = 1000) -> dict[str, Any] | None:
    """What is mirrored of the content of files: files, bytes, last, failed; None if nothing is.

    `last` is the outcome of the last round, `failed` the files that will be retried. Raises StoreError if the file
    cannot be read.
    """
    if not published.exists():
        return None
    with opened(published) as connection:
        return files.content_status(connection, most)


def wide_faults(published: Path) -> list[dict[str, Any]]:
    """One entry for each project whose wide relation is incomplete: project and fault, a sentence.

    Empty if nothing was mirrored yet. Raises StoreError if the file cannot be read.
    """
    return _read(published, lambda connection: [fault._asdict() for fault in wide.faults(connection)])


def _read(published: Path, fetch: Callable[[DuckDBPyConnection], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    if not published.exists():
        return []
    with opened(published) as connection:
        return fetch(connection)
