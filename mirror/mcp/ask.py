"""One call of a tool: the mirror that it reads, and its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from mirror.errors import UsageError
from mirror.filters import DEFAULT_ORDER
from mirror.mcp import freshness
from mirror.mcp.answers import clean
from mirror.query import box
from mirror.snapshot import run_rows
from mirror.snapshot.paths import Project, find_projects, find_run
from mirror.snapshot.run_query import RunQuery

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class Run(Struct, frozen=True):
    """A run by its number in this mirror, its address and its display name."""

    rid: int
    project: Project
    run_id: str
    name: str
    deleted: bool = False

    @property
    def path(self) -> str:
        """`entity/project/run_id`."""
        return f"{self.project}/{self.run_id}"

    @property
    def address(self) -> list[str]:
        """Entity, project and run id, for statements over the published relations."""
        return [*self.project, self.run_id]


class Ask(Struct, frozen=True):
    """A connection to one snapshot, checked arguments, and the default entity for projects without one."""

    connection: DuckDBPyConnection
    arguments: Mapping[str, Any]
    entity: str | None = None

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def answer(self, text: str, projects: set[Project] | None = None, notes: list[str] | None = None) -> str:
        """The text of an answer, then a line for each note, then how fresh and complete these projects are."""
        remarks = [f"note: {note}" for note in notes or ()]
        return "\n".join([text.rstrip("\n"), *remarks, freshness.line(self.connection, projects)])

    def project(self) -> Project:
        """The one project of the argument `project`. Raises QueryError, naming the nearest."""
        found = find_projects(self.connection, [self["project"]], self.entity)
        if len(found) > 1:
            raise UsageError(f"project must be one project; {self['project']} matches {', '.join(map(str, found))}")
        return found[0]

    def matching(self, *, default_order: str | None = None) -> RunQuery:
        """The runs of the arguments `project` and `filter`, in the order of `order`."""
        conditions = self["filter"]
        if isinstance(conditions, str):
            conditions = box.conditions(conditions)
        return RunQuery.build(
            self.connection,
            conditions,
            order=self.arguments.get("order") or default_order or DEFAULT_ORDER,
            projects=[self["project"]] if self["project"] else [],
            entity=self.entity,
        )

    def named(self, texts: list[str]) -> list[Run]:
        """The runs of these paths, ids or names, each once. Raises QueryError, naming the nearest."""
        paths = dict.fromkeys(find_run(self.connection, text, self.entity) for text in texts)
        found = {path: run_rows.find(self.connection, *path) for path in paths}
        runs = self.runs({there[0]: path for path, there in found.items() if there})
        deleted = {there[0] for there in found.values() if there and there[1] is not None}
        return [replace(run, deleted=run.rid in deleted) for run in runs]

    def runs(self, rids: Mapping[int, tuple[Project, str]]) -> list[Run]:
        """The runs with these numbers, in this order."""
        if not rids:
            return []
        names = {rid: name for rid, _, name in run_rows.named(self.connection, list(rids))}
        return [
            Run(rid, project, run_id, " ".join(clean(names[rid] or run_id).split()))
            for rid, (project, run_id) in rids.items()
        ]

    def chosen(self, query: RunQuery) -> list[Run]:
        """The runs of a query, in its order."""
        rows = query.rows(["entity", "project", "run_id"]).texts()
        paths = [(Project(entity or "", name or ""), run_id or "") for entity, name, run_id in rows]
        return self.runs(dict(zip(query.rids(), paths, strict=True)))


def deletions(runs: Sequence[Run]) -> list[str]:
    """A note if some of these runs were deleted on the server."""
    names = [run.run_id for run in runs if run.deleted]
    return [f"deleted on the server: {', '.join(names)}"] if names else []


PICKED = """SELECT unnest(?::BIGINT[]) AS rid, unnest(?::VARCHAR[]) AS entity, unnest(?::VARCHAR[]) AS project,
    unnest(?::VARCHAR[]) AS run_id"""
"""A query for runs, which statements over the published relations join; its parameters are those of `picked`."""


def picked(runs: Sequence[Run]) -> list[Any]:
    """The parameters of PICKED: rids, entities, projects and run ids."""
    return [
        [run.rid for run in runs],
        [run.project.entity for run in runs],
        [run.project.project for run in runs],
        [run.run_id for run in runs],
    ]
