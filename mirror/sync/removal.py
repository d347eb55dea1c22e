"""Removes projects and runs from the mirror, for `mirror forget`. The server is neither asked nor changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from mirror.errors import UsageError
from mirror.patterns import WILD, nearest_project
from mirror.store import forget, projects, runs
from mirror.store.database import Database
from mirror.store.records import ProjectKey
from mirror.store.transaction import Transaction
from mirror.sync.targets import Pattern, Target


def find(db: Database, patterns: Sequence[Pattern]) -> list[Target]:
    """Return the projects and runs of these paths in the store; see `choose`."""
    return choose(patterns, projects.everything(db), lambda project, run_id: bool(runs.known(db, project, [run_id])))


def choose(
    patterns: Sequence[Pattern], known: Collection[ProjectKey], has_run: Callable[[ProjectKey, str], bool]
) -> list[Target]:
    """Return the mirrored projects and runs of these paths; a whole project includes its runs.

    Raises UsageError for a path of which nothing is mirrored, and for a wildcard: what is removed is named.
    """
    chosen: dict[ProjectKey, list[str] | None] = {}
    for pattern in patterns:
        project = ProjectKey(pattern.entity, pattern.project)
        if project not in known:
            raise UsageError(_unknown(pattern, [str(key) for key in known]))
        if pattern.run_id is None:
            chosen[project] = None
        elif not has_run(project, pattern.run_id):
            raise UsageError(f"no run {pattern.run_id} of {project} is mirrored; nothing was removed")
        elif (listed := chosen.setdefault(project, [])) is not None and pattern.run_id not in listed:
            listed.append(pattern.run_id)
    return [Target(project, tuple(listed or ())) for project, listed in chosen.items()]


def _unknown(pattern: Pattern, known: Sequence[str]) -> str:
    path = f"{pattern.entity}/{pattern.project}"
    if pattern.run_id is None and WILD & set(pattern.project):
        return f"{path}: name each project to remove, without wildcards; `mirror status` lists them"
    near = nearest_project(path, known)
    return f"nothing is mirrored of {path}; {f'did you mean {near}?' if near else '`mirror status` lists projects'}"


def remove(tx: Transaction, target: Target) -> None:
    """Remove a project, or some runs of it, which are mirrored."""
    if target.run_ids:
        forget.runs(tx, target.project, target.run_ids)
    else:
        forget.project(tx, target.project)
