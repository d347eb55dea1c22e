"""Runs a filter on the server and over the mirror, and explains why the results differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from mirror.errors import CommError
from mirror.remote import runs as remote
from mirror.remote.client import FeatureMissing
from mirror.remote.page_size import PageSize
from mirror.snapshot.run_query import RunQuery
from mirror.store.records import ProjectKey, RunRecord
from mirror.wandb_json import dumps

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from mirror.remote.client import Server

Finder = Literal["server", "mirror"]

_AT_ONCE = 500
"""Run ids in one request."""

_STORED = "run_id, state, name, tags, notes, group_name, job_type, config, summary, synced_at, deleted_at"


class Difference(Struct, frozen=True):
    """A run that only the server or only the mirror finds."""

    project: ProjectKey
    run_id: str
    found_by: Finder
    why: str


class Comparison(Struct, frozen=True):
    """What a filter finds on both sides."""

    agreed: int
    differences: list[Difference]


async def compare(
    connection: DuckDBPyConnection,
    server: Server,
    keys: Sequence[ProjectKey],
    conditions: Mapping[str, Any],
    scope: Mapping[str, Any],
) -> Comparison:
    """Ask the server which runs of these projects match, and compare with the mirror.

    `scope` is the filter of the config: runs that do not match it are not mirrored. Raises FilterError for an invalid
    filter, CommError if the server refuses it or cannot be reached.
    """
    agreed = 0
    differences: list[Difference] = []
    for project in keys:
        mirrored = _matching(connection, project, conditions)
        try:
            served = await _served(server, project, conditions)
        except FeatureMissing as error:
            raise CommError(f"there is nothing to compare with: {error}", error) from error
        agreed += len(mirrored & served)
        side = _Side(connection, server, project, conditions, scope)
        differences += await side.only(served - mirrored, "server")
        differences += await side.only(mirrored - served, "mirror")
    return Comparison(agreed, differences)


def parts(conditions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Split a filter into its clauses, all of which must hold, each as a separate filter."""
    if list(conditions) == ["$and"] and isinstance(conditions["$and"], list):
        return [part for clause in conditions["$and"] for part in parts(clause)]
    return [{name: condition} for name, condition in conditions.items()]


class _Side(Struct, frozen=True):
    """Explains differences within one project."""

    connection: DuckDBPyConnection
    server: Server
    project: ProjectKey
    conditions: Mapping[str, Any]
    scope: Mapping[str, Any]

    async def only(self, run_ids: set[str], found_by: Finder) -> list[Difference]:
        """Explain why each of these runs is found only by `found_by`, ordered by run id."""
        wanted = sorted(run_ids)
        found: list[Difference] = []
        for start in range(0, len(wanted), _AT_ONCE):
            why = await self._explain(wanted[start : start + _AT_ONCE], found_by)
            found += [Difference(self.project, run_id, found_by, text) for run_id, text in sorted(why.items())]
        return found

    async def _explain(self, run_ids: Sequence[str], found_by: Finder) -> dict[str, str]:
        here = {"name": {"$in": list(run_ids)}}
        records: dict[str, RunRecord] = {}
        size = PageSize()
        async for page in remote.records(self.server, self.project, scope=here, filters=here, size=size):
            records.update((record.run_id, record) for record in page.runs)
        rows = self._stored(run_ids)
        in_scope = await _served(self.server, self.project, {"$and": [here, self.scope]}) if self.scope else run_ids
        alike = []
        why: dict[str, str] = {}
        for run_id in run_ids:
            row, record = rows.get(run_id), records.get(run_id)
            if record is None:
                why[run_id] = "deleted on the server since it was mirrored; run `mirror sync`"
            elif row is None:
                outside = run_id not in in_scope
                why[run_id] = "outside of sync.filters" if outside else "not yet mirrored; run `mirror sync`"
            elif row["deleted_at"] is not None:
                why[run_id] = "marked as deleted in the mirror, but it is on the server; run `mirror flush` for it"
            elif _as_row(record) != {name: row[name] for name in _as_row(record)}:
                why[run_id] = f"changed on the server since it was mirrored at {row['synced_at']:%Y-%m-%d %H:%M:%S} UTC"
            else:
                alike.append(run_id)
        if alike:
            why |= await self._semantics(alike, found_by)
        return why

    async def _semantics(self, run_ids: Sequence[str], found_by: Finder) -> dict[str, str]:
        """For runs that are equal on both sides: the first clause that, by itself, does not match on one side."""
        why: dict[str, str] = {}
        for part in parts(self.conditions):
            left = [run_id for run_id in run_ids if run_id not in why]
            if not left:
                break
            clause = {"$and": [{"name": {"$in": left}}, part]}
            if found_by == "server":
                agreeing = _matching(self.connection, self.project, clause)
            else:
                agreeing = await _served(self.server, self.project, clause)
            refusing = "mirror" if found_by == "server" else "server"
            text = f"semantics: the {refusing} does not match it with {json.dumps(part, ensure_ascii=False)}"
            why |= dict.fromkeys((run_id for run_id in left if run_id not in agreeing), text)
        whole = "semantics: each clause by itself matches it on both sides"
        return {run_id: why.get(run_id, whole) for run_id in run_ids}

    def _stored(self, run_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        names = _STORED.split(", ")
        rows = self.connection.execute(
            f"SELECT {_STORED} FROM main.runs WHERE entity = ? AND project = ? AND run_id IN (SELECT unnest(?))",
            [self.project.entity, self.project.project, list(run_ids)],
        ).fetchall()
        return {row[0]: dict(zip(names, row, strict=True)) for row in rows}


def _as_row(record: RunRecord) -> dict[str, Any]:
    """The server's record of a run as columns of the relation `runs`."""
    return {
        "state": record.state,
        "name": record.name,
        "tags": ",".join(record.tags),
        "notes": record.notes,
        "group_name": record.group_name,
        "job_type": record.job_type,
        "config": dumps(record.config),
        "summary": dumps(record.summary),
    }


def _matching(connection: DuckDBPyConnection, project: ProjectKey, conditions: Mapping[str, Any]) -> set[str]:
    query = RunQuery.build(connection, conditions, projects=[str(project)])
    return {text for (text,) in query.rows(["run_id"]).texts() if text is not None}


async def _served(server: Server, project: ProjectKey, conditions: Mapping[str, Any]) -> set[str]:
    pages = remote.heads(server, project, scope=conditions, filters=conditions)
    return {head.run_id async for page in pages for head in page.runs}
