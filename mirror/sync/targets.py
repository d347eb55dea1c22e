"""Resolves the paths and patterns that people write to the projects and runs to mirror."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from mirror.addresses import path_of
from mirror.errors import AuthError, CommError, UsageError
from mirror.patterns import WILD, fitting
from mirror.remote.client import Server, Unreachable
from mirror.remote.runs import project_names
from mirror.store.records import ProjectKey
from mirror.sync.context import PassResult


class Target(Struct, frozen=True):
    """A project, or some of its runs."""

    project: ProjectKey
    run_ids: tuple[str, ...] = ()

    def paths(self) -> list[str]:
        """Return the path of the project, or of each of the runs."""
        return [f"{self.project}/{run_id}" for run_id in self.run_ids] or [str(self.project)]


class Pattern(Struct, frozen=True):
    """`entity/project`, where the project may be a glob, or `entity/project/run_id` without globs."""

    entity: str
    project: str
    run_id: str | None = None

    @property
    def path(self) -> str:
        """The path as people write it."""
        return "/".join(part for part in (self.entity, self.project, self.run_id) if part)

    @property
    def wild(self) -> bool:
        """True if the project may be a glob; only the server knows whether a project has exactly this name."""
        return self.run_id is None and bool(WILD & set(self.project))


def expected(patterns: Sequence[Pattern]) -> list[ProjectKey]:
    """Return the project that a sync of these patterns begins with: the first, unless it is a glob or a run."""
    return [ProjectKey(one.entity, one.project) for one in patterns[:1] if not one.wild and one.run_id is None]


def parse(path: str, entity: str | None = None) -> Pattern:
    """Parse a path; a project without an entity belongs to `entity`. Raises UsageError for anything else."""
    parts = path_of(path).strip("/").split("/")
    if len(parts) == 1 and entity:
        parts = [entity, *parts]
    # The address of a run's page has one more part: entity/project/runs/run_id.
    if len(parts) == 4 and parts[2] == "runs":
        parts = [parts[0], parts[1], parts[3]]
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise UsageError(f"{path!r} is not a path; use entity/project or entity/project/run_id")
    pattern = Pattern(*parts)
    # The name of a project or run may contain `*`, but no question mark, and is hardly ever just `*`.
    globbed = pattern.run_id and ("?" in path or "*" in (pattern.project, pattern.run_id))
    if WILD & set(pattern.entity) or globbed:
        raise UsageError(f"{path!r}: only the project may contain a wildcard, as in entity/*")
    return pattern


def selects(pattern: Pattern, target: Target) -> bool:
    """Return True if a pattern of the config selects the project, or one of these runs of it."""
    here = (pattern.entity, *fitting(pattern.project, [target.project.project]))
    return here == (target.project.entity, target.project.project) and (
        pattern.run_id is None or not target.run_ids or pattern.run_id in target.run_ids
    )


async def expand(
    server: Server, patterns: Iterable[Pattern], failed: dict[str, CommError] | None = None
) -> list[Target]:
    """Ask the server which projects match the globs; a project with exactly that name takes precedence.

    Runs of one project become one target; a target for the whole project replaces them.

    An entity whose projects the server does not list is added to `failed` with the error, and the others continue;
    without `failed`, or if the server returns nothing at all, its CommError is raised.
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
            elif (run_ids := runs.setdefault(project, [])) is not None and pattern.run_id not in run_ids:
                run_ids.append(pattern.run_id)
    return [Target(project, tuple(chosen or ())) for project, chosen in runs.items()]


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
    """Return a failed pass for each entity whose projects could not be listed."""
    return [
        PassResult(ProjectKey(entity, "*"), error=str(error), exit_code=error.exit_code, failure=error)
        for entity, error in failed.items()
    ]
