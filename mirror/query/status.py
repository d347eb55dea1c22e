"""Reads from the published file how fresh and how complete the mirror is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror.snapshot import artifact_status as of_artifacts
from mirror.snapshot import files, wide
from mirror.snapshot import projects as snapshot
from mirror.snapshot.connection import opened

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from mirror.settings.values import ArtifactPattern

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


def mirror_status(published: Path, patterns: Sequence[ArtifactPattern] = (), most: int = 1000) -> dict[str, Any]:
    """How fresh and how complete everything is, read from one snapshot.

    - projects: as in `project_status`
    - set_aside: as in `runs_set_aside`
    - lists_set_aside: one entry per list of a project, of sweeps or reports, that could not be pulled and is retried
    - files: as in `content_status`
    - artifacts: versions, unmatched, errors, failed; None if none are mirrored. `unmatched` are those of the `patterns`
      that match nothing, `errors` the projects whose artifacts could not be listed, `failed` the versions that will be
      retried
    - wide_faults: one entry per project whose wide relation is incomplete: project and fault, a sentence

    Lists are empty if nothing was mirrored yet. Raises StoreError if the file cannot be read.
    """
    if not published.exists():
        lists: dict[str, Any] = {name: [] for name in ("projects", "set_aside", "lists_set_aside", "wide_faults")}
        return {**lists, "files": None, "artifacts": None}
    with opened(published) as connection:
        return {
            "projects": projects(connection),
            "set_aside": snapshot.runs_set_aside(connection, most),
            "lists_set_aside": snapshot.lists_set_aside(connection),
            "files": files.content_status(connection, most),
            "artifacts": of_artifacts.status(connection, most, patterns),
            "wide_faults": [fault._asdict() for fault in wide.faults(connection)],
        }


def _read(published: Path, fetch: Callable[[DuckDBPyConnection], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    if not published.exists():
        return []
    with opened(published) as connection:
        return fetch(connection)
