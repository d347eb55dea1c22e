"""What is to be mirrored: the paths and patterns that people write, as projects and runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mirror.addresses import path_of
from mirror.errors import AuthError, CommError, UsageError
from mirror.patterns import WILD, fitting
from mirror.remote.client import Server, Unreachable
from mirror.remote.runs import project_names
from mirror.store.records import ProjectKey
from mirror.sync.context import PassResult


@dataclass(frozen=True)
class Target:
    """A project, or some of its runs."""

    project: ProjectKey
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pattern:
    """`entity/project`, where the project may be a glob, or `entity/project/run_id`, where nothing is one."""

    entity: str
    project: str
    run_id: str | None = None

    @property
    def wild(self) -> bool:
        """Whether the project may be a glob: the server knows whether there is one that is called so."""
        return self.run_id is None and bool(WILD & set(self.project))


def parse(path: str, entity: str | None = None) -> Pattern:
    """Read a path as people write it; a project alone belongs to `entity`. Raises UsageError for anything else."""
    parts = path_of(path).strip("/").split("/")
    if len(parts) == 1 and entity:
        parts = [entity, *parts]
    # The address of a run's page has one part more: entity/project/runs/run_id.
    if len(parts) == 4 and parts[2] == "runs":
        parts = [parts[0], parts[1], parts[3]]
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise UsageError(f"{path!r} is no path; write entity/project or entity/project/run_id")
    pattern = Pattern(*parts)
    # A project or run may be called `a*b`, but not with a question mark, and hardly `*`.
    globbed = pattern.run_id and ("?" in path or "*" in (pattern.project, pattern.run_id))
    if WILD & set(pattern.entity) or globbed:
        raise UsageError(f"{path!r}: only the project may hold a wildcard, as in entity/*")
    return pattern


async def expand(
    server: Server, patterns: Iterable[Pattern], failed: dict[str, CommError] | None = None
) -> list[Target]:
    """Ask the server which projects fit the globs; one that is called exactly so goes before them.

    Runs of one project become one target; a whole project wins.

    An entity whose projects the server does not list goes into `failed` with the reason, and the others go on; without
    `failed`, or where nothing can be had at all, its CommError is raised.
    """
    runs: dict[ProjectKey, list[str] | None] = {}
    listed: dict[str, Sequence[str]] = {}
    for pattern in patterns:
        if pattern.wild:
            if pattern.entity not in listed:
                listed[pattern.entity] = await _listed(server, pattern.entity, failed)
            names = fitting(pattern.project, listed[pattern.entity])
        else:
            names = [pattern.project]
        for name in names:
            project = ProjectKey(pattern.entity, name)
            if pattern.run_id is None:
                runs[project] = None
            elif (held := runs.setdefault(project, [])) is not None and pattern.run_id not in held:
                held.append(pattern.run_id)
    return [Target(project, tuple(run_ids or ())) for project, run_ids in runs.items()]


async def _listed(server: Server, entity: str, failed: dict[str, CommError] | None) -> Sequence[str]:
    try:
        return await project_names(server, entity)
    except (Unreachable, AuthError):
        raise
    except CommError as error:
        if failed is None:
            raise
        failed[entity] = error
        return []


def not_listed(failed: dict[str, CommError]) -> list[PassResult]:
    """A failed pass for each entity whose projects could not be listed."""
    return [
        PassResult(ProjectKey(entity, "*"), error=str(error), exit_code=error.exit_code, failure=error)
        for entity, error in failed.items()
    ]
