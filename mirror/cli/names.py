"""Paths for the server in which a run is named by its display name."""

from __future__ import annotations

import typer

from mirror.cli.invocation import Invocation, invocation
from mirror.errors import MirrorError


def with_ids(ctx: typer.Context, paths: list[str] | None) -> list[str] | None:
    """Return the paths with the ids of runs in place of their names; for the callback of a list of paths."""
    if ctx.resilient_parsing or not paths or not any(path.count("/") >= 2 for path in paths):
        return paths
    return [_with_id(invocation(ctx), path) for path in paths]


def nearest_project(given: Invocation, path: str) -> str | None:
    """Return the mirrored or configured project that was probably meant by the project of this path, if any."""
    from mirror import patterns
    from mirror.settings.settings import configured_projects
    from mirror.snapshot.connection import connected
    from mirror.snapshot.paths import projects

    known = configured_projects(given.home, given.environ)
    if given.home.published.exists():
        with connected(given.home) as connection:
            known += map(str, projects(connection))
    project = "/".join(path.strip("/").split("/")[:2])
    return None if project in known else patterns.nearest_project(project, known)


def _with_id(given: Invocation, path: str) -> str:
    """The path of the mirrored run that has this name; any other path as it is, since only the server knows it.

    Raises QueryError if several runs have the name.
    """
    from mirror.snapshot.connection import connected
    from mirror.snapshot.paths import Ambiguous, find_run

    if path.count("/") < 2 or not given.home.published.exists():
        return path
    try:
        with connected(given.home) as connection:
            project, run_id = find_run(connection, path, given.entity)
    except Ambiguous:
        raise
    except MirrorError:
        # Not mirrored yet, a folder, or a file that this command is about to repair.
        return path
    return f"{project}/{run_id}"
