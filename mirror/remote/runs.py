"""Pages of runs: the heads that a poll requests, and full records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Generic, TypeVar

from msgspec import Struct

from mirror.remote import facts, queries
from mirror.remote.about import About
from mirror.remote.client import FeatureMissing, NotFound, Server
from mirror.remote.history_keys import HistoryKeys
from mirror.remote.page_size import MOST_RUNS, PageSize
from mirror.remote.run_pages import Nodes, RunPages
from mirror.remote.run_records import RunHead, head_of, record_of
from mirror.store.records import ProjectKey, RunFacts, RunRecord

RUNS_AT_ONCE = 25
"""Runs whose records are made before others get their turn: about a millisecond."""

Item = TypeVar("Item", RunHead, RunRecord)


class Page(Struct, Generic[Item], frozen=True):
    """Some runs, and the number of runs in the scope.

    `asked_at` is the server's time at the request, None if it does not report a time: every change until then is in
    the page.
    """

    runs: list[Item]
    total: int
    asked_at: datetime | None = None


async def heads(
    server: Server,
    project: ProjectKey,
    *,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    about: About | None = None,
) -> AsyncGenerator[Page[RunHead]]:
    """Yield pages of the heads of every run that matches `filters`; `about` is requested with page 1."""
    size = PageSize(MOST_RUNS)
    listed = RunPages(server, project, queries.HEAD_FIELDS, scope=scope, filters=filters, size=size, about=about)
    async with aclosing(listed.read()) as pages:
        async for page in pages:
            yield Page([head_of(node) for node in page.nodes], page.total, page.asked_at)


async def records(
    server: Server,
    project: ProjectKey,
    *,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    size: PageSize,
    about: About | None = None,
) -> AsyncGenerator[Page[RunRecord]]:
    """Yield pages of records of every run that matches `filters`; `about` is requested with page 1."""
    wanted = _with_optional(server, project, queries.RUN_FIELDS, scope, filters, size, about)
    async with aclosing(wanted) as pages:
        async for page in pages:
            runs: list[RunRecord] = []
            for start in range(0, len(page.nodes), RUNS_AT_ONCE):
                # The request for the next page is sent meanwhile, and a daemon answers others.
                await asyncio.sleep(0)
                part = page.nodes[start : start + RUNS_AT_ONCE]
                runs += [record_of(server, project, node, page.asked_at) for node in part]
            yield Page(runs, page.total, page.asked_at)


async def run_facts(
    server: Server, project: ProjectKey, *, filters: Mapping[str, Any], size: PageSize
) -> AsyncGenerator[dict[str, RunFacts]]:
    """Yield pages of the facts stored for clients of the API, of every run that matches `filters`, by run id."""
    async with aclosing(_with_optional(server, project, queries.KEPT_FIELDS, {}, filters, size, None)) as pages:
        async for page in pages:
            yield {node["name"]: facts.of_readable_fields(node) for node in page.nodes}


async def _with_optional(
    server: Server,
    project: ProjectKey,
    needed: str,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    size: PageSize,
    about: About | None,
) -> AsyncGenerator[Nodes]:
    """Yield pages of the `needed` fields and of those optional ones that the server has."""
    while True:
        optional = {queries.DURATION_FIELD: queries.DURATION_FIELD, **queries.OPTIONAL_FIELDS}
        asked = {name: field for name, field in optional.items() if name not in server.missing_features}
        fields = " ".join([needed, *asked.values()])
        listed = RunPages(server, project, fields, scope=scope, filters=filters, size=size, about=about)
        try:
            async with aclosing(listed.read()) as pages:
                async for page in pages:
                    yield page
        except FeatureMissing as error:
            # A server may have the field but not every requested subfield; then it names the type, `RunInfo`.
            refused = {name for name in asked if error.lacks(name)}
            if not refused:
                raise
            server.missing_features |= refused
        else:
            return


async def history_keys(server: Server, project: ProjectKey) -> AsyncGenerator[dict[str, dict[str, int | None] | None]]:
    """Yield pages of the keys that each run ever logged, with the number of values where the server reports it.

    None for a run whose keys it does not report. Raises FeatureMissing on a server that has no such list.
    """
    listed = RunPages(server, project, queries.KEYS_FIELDS, scope={}, filters={}, size=PageSize())
    async with aclosing(listed.read()) as pages:
        async for page in pages:
            yield {node["name"]: _logged(node.get("historyKeys")) for node in page.nodes}


def _logged(history_keys: Any) -> dict[str, int | None] | None:
    try:
        return HistoryKeys.read(history_keys).logged()
    except ValueError:
        return None


async def project_names(server: Server, entity: str) -> list[str]:
    """Return the names of all projects of an entity that the key may see."""
    names: list[str] = []
    after: str | None = None
    while True:
        data = await server.graphql(
            "MirrorProjects", queries.PROJECTS, {"entity": entity, "after": after, "first": 500}
        )
        connection = data.get("models")
        if connection is None:
            raise NotFound(f"{entity} is not on {server.base_url}, or the key may not read it; check the spelling")
        names += [edge["node"]["name"] for edge in connection["edges"]]
        info = connection["pageInfo"]
        if not info["hasNextPage"] or info["endCursor"] == after:
            return names
        after = info["endCursor"]
