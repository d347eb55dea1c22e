"""Pages of runs: the heads that a poll requests, and full records."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from mirror.errors import AuthError, CommError
from mirror.remote import facts, queries
from mirror.remote.about import About
from mirror.remote.client import FeatureMissing, NotFound, Server
from mirror.remote.errors import NoProject, SlowAnswer, Unanswered, Unreachable
from mirror.remote.history_keys import HistoryKeys
from mirror.remote.run_records import REFUSED, RunHead, head_of, record_of
from mirror.store.records import ProjectKey, RunFacts, RunRecord

GIVE_UP_AFTER = 4
"""After this many runs in a row without a record, the server, not the runs, is at fault."""

MOST_RUNS = 1000
"""The largest number of runs in a page that servers are known to return."""

PAGE_BYTES = 4 << 20
"""The target size of an answer; pages of heavy runs shrink towards it."""

RUNS_AT_ONCE = 25
"""Runs whose records are made before others get their turn: about a millisecond."""

GROWTH = 10
"""How much larger than the page before a page may be."""


Item = TypeVar("Item", RunHead, RunRecord)


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some runs, and the number of runs in the scope.

    `asked_at` is the server's time at the request, None if it does not report a time: every change until then is in
    the page.
    """

    runs: list[Item]
    total: int
    asked_at: datetime | None = None


class PageSize:
    """The number of runs in a page: grows and shrinks so that an answer stays near PAGE_BYTES.

    The first page is a sample: a thousand runs with large documents are too much for one answer.
    """

    def __init__(self, start: int = 100) -> None:
        self.runs = start

    def learn(self, runs: int, size: int) -> None:
        """Record an answer of `size` bytes with `runs` runs."""
        if runs:
            fitting = int(PAGE_BYTES / max(1.0, size / runs))
            self.runs = max(1, min(MOST_RUNS, fitting, self.runs * GROWTH))

    def shrink(self, parts: int = 4) -> bool:
        """Divide the page size by `parts`; return False if it cannot get smaller."""
        smaller = self.runs > 1
        self.runs = max(1, self.runs // parts)
        return smaller


async def heads(
    server: Server,
    project: ProjectKey,
    *,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    about: About | None = None,
) -> AsyncGenerator[Page[RunHead]]:
    """Yield pages of the heads of every run that matches `filters`, oldest first; `about` is requested with page 1."""
    size = PageSize(MOST_RUNS)
    async with aclosing(_pages(server, project, queries.HEAD_FIELDS, scope, filters, size, about)) as pages:
        async for nodes, total, asked_at in pages:
            yield Page([head_of(node) for node in nodes], total, asked_at)


async def records(
    server: Server,
    project: ProjectKey,
    *,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    size: PageSize,
    about: About | None = None,
) -> AsyncGenerator[Page[RunRecord]]:
    """Yield pages of records of every run that matches `filters`, oldest first; `about` is requested with page 1."""
    wanted = _with_optional(server, project, queries.RUN_FIELDS, scope, filters, size, about)
    async with aclosing(wanted) as pages:
        async for nodes, total, asked_at in pages:
            runs: list[RunRecord] = []
            for start in range(0, len(nodes), RUNS_AT_ONCE):
                # The request for the next page is sent meanwhile, and a daemon answers others.
                await asyncio.sleep(0)
                runs += [record_of(server, project, node, asked_at) for node in nodes[start : start + RUNS_AT_ONCE]]
            yield Page(runs, total, asked_at)


async def run_facts(
    server: Server, project: ProjectKey, *, filters: Mapping[str, Any], size: PageSize
) -> AsyncGenerator[dict[str, RunFacts]]:
    """Yield pages of the facts stored for clients of the API, of every run that matches `filters`, by run id."""
    async with aclosing(_with_optional(server, project, queries.KEPT_FIELDS, {}, filters, size, None)) as pages:
        async for nodes, _, _ in pages:
            yield {node["name"]: facts.of_readable_fields(node) for node in nodes}


async def _with_optional(
    server: Server,
    project: ProjectKey,
    needed: str,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    size: PageSize,
    about: About | None,
) -> AsyncGenerator[tuple[list[dict[str, Any]], int, datetime | None]]:
    """Yield pages of the `needed` fields and of those optional ones that the server has."""
    while True:
        optional = {queries.DURATION_FIELD: queries.DURATION_FIELD, **queries.OPTIONAL_FIELDS}
        asked = {name: field for name, field in optional.items() if name not in server.missing_features}
        fields = " ".join([needed, *asked.values()])
        try:
            async with aclosing(_pages(server, project, fields, scope, filters, size, about)) as pages:
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
    async with aclosing(_pages(server, project, queries.KEYS_FIELDS, {}, {}, PageSize())) as pages:
        async for nodes, _, _ in pages:
            yield {node["name"]: _logged(node.get("historyKeys")) for node in nodes}


def _logged(history_keys: Any) -> dict[str, int | None] | None:
    try:
        return HistoryKeys.read(history_keys).logged()
    except ValueError:
        return None


async def _pages(
    server: Server,
    project: ProjectKey,
    fields: str,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    size: PageSize,
    about: About | None = None,
) -> AsyncGenerator[tuple[list[dict[str, Any]], int, datetime | None]]:
    # Errors of runs in a row that were requested one by one and got no answer.
    refused: list[Unanswered] = []

    async def ask(after: str | None) -> tuple[list[dict[str, Any]], int, str | None, datetime | None]:
        """Return one page, the number of runs, the cursor of the next page, and the server's time at the request."""
        with server.together():
            return await with_shrinking(after)

    async def with_shrinking(after: str | None) -> tuple[list[dict[str, Any]], int, str | None, datetime | None]:
        while True:
            started = time.monotonic()
            first = size.runs
            variables = {
                "entity": project.entity,
                "project": project.project,
                "scope": json.dumps(scope),
                "filters": json.dumps(filters),
                "order": "+created_at",
                "first": first,
                "after": after,
            }
            before = server.bytes_received
            about_fields = about.asked(server) if about and after is None else None
            try:
                document = queries.runs(fields, *(about_fields or ()))
                data = await server.graphql("MirrorRuns", document, variables, divisible=first > 1)
            except Unanswered as error:
                if about is not None and about_fields is not None:
                    about.failed(server)
                # On a slow server each page size costs a whole timeout.
                if size.shrink(32 if isinstance(error, SlowAnswer) else 4):
                    continue
                refused.append(error)
                if fields == queries.HEAD_FIELDS or len(refused) >= GIVE_UP_AFTER:
                    raise
                data = await server.graphql("MirrorRuns", queries.runs(f"id {queries.HEAD_FIELDS}"), variables)
                for edge in (data.get("project") or {"runs": {"edges": ()}})["runs"]["edges"]:
                    edge["node"][REFUSED] = error
                about_fields = None
            except CommError as error:
                if about is None or isinstance(error, Unreachable | AuthError | NotFound):
                    raise
                if about_fields is None:
                    about.not_to_blame()
                    raise
                if not about.refused(server, error):
                    raise
                continue
            else:
                refused.clear()
            if about is not None and after is None:
                about.answered(server, data, asked=about_fields is not None)
            answer = data.get("project")
            if answer is None:
                raise NoProject(str(project), server.base_url)
            connection = answer["runs"]
            nodes = [edge["node"] for edge in connection["edges"]]
            size.learn(len(nodes), server.bytes_received - before)
            info = connection["pageInfo"]
            more = info["hasNextPage"] and nodes and info["endCursor"] != after
            return nodes, int(answer["runCount"]), info["endCursor"] if more else None, server.clock.at(started)

    # The next page is requested while this one is processed.
    coming = asyncio.create_task(ask(None))
    try:
        while True:
            nodes, total, after, asked_at = await coming
            if after is not None:
                coming = asyncio.create_task(ask(after))
            yield nodes, total, asked_at
            if after is None:
                return
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


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
