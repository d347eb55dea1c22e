"""Pages of runs: what a poll sees of them, and whole records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from mirror.errors import AuthError, CommError
from mirror.remote import facts, queries
from mirror.remote.about import About
from mirror.remote.client import FeatureMissing, NotFound, Server, TooMuch, Unreachable
from mirror.remote.lenient import loads, numbers, spells_numbers
from mirror.store.records import ProjectKey, RunFacts, RunRecord

MOST_RUNS = 1000
"""Runs in the largest page that servers are known to answer."""

PAGE_BYTES = 4 << 20
"""How large an answer should grow; pages of heavy runs shrink towards it."""


@dataclass(frozen=True)
class RunHead:
    """What a poll sees of a run; enough to know whether it changed."""

    run_id: str
    state: str
    created_at: datetime | None
    heartbeat_at: datetime | None
    updated_at: datetime | None
    server_rows: int


Item = TypeVar("Item", RunHead, RunRecord)


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some runs, and how many runs the scope has in all."""

    runs: list[Item]
    total: int


def moment(text: Any) -> datetime | None:
    """A time of the W&B API as naive UTC; zone-less texts are UTC. None for none or for what is no time."""
    if not isinstance(text, str) or not text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed.astimezone(UTC).replace(tzinfo=None) if parsed.tzinfo else parsed


class PageSize:
    """How many runs to ask for at once: grows and shrinks so that an answer stays near PAGE_BYTES."""

    def __init__(self, start: int = 100) -> None:
        self.runs = start

    def learn(self, runs: int, size: int) -> None:
        """Take note of an answer of `size` bytes that held `runs` runs."""
        if runs:
            fitting = int(PAGE_BYTES / max(1.0, size / runs))
            self.runs = max(1, min(MOST_RUNS, fitting, self.runs * 4))

    def shrink(self) -> bool:
        """Ask for a quarter from now on; False when it cannot get smaller."""
        smaller = self.runs > 1
        self.runs = max(1, self.runs // 4)
        return smaller


async def heads(
    server: Server,
    project: ProjectKey,
    *,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    about: About | None = None,
) -> AsyncIterator[Page[RunHead]]:
    """Pages of what a poll sees of every run that matches `filters`, oldest first; `about` comes with the first."""
    size = PageSize(MOST_RUNS)
    async for nodes, total in _pages(server, project, queries.HEAD_FIELDS, scope, filters, size, about):
        yield Page([_head(node) for node in nodes], total)


async def records(
    server: Server,
    project: ProjectKey,
    *,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    size: PageSize,
    about: About | None = None,
) -> AsyncIterator[Page[RunRecord]]:
    """Pages of whole records of every run that matches `filters`, oldest first; `about` comes with the first."""
    async for nodes, total in _with_optional(server, project, queries.RUN_FIELDS, scope, filters, size, about):
        yield Page([_record(server, project, node) for node in nodes], total)


async def run_facts(
    server: Server, project: ProjectKey, *, filters: Mapping[str, Any], size: PageSize
) -> AsyncIterator[dict[str, RunFacts]]:
    """Pages of what is kept for clients of the API, of every run that matches `filters`, by run id."""
    async for nodes, _ in _with_optional(server, project, queries.KEPT_FIELDS, {}, filters, size, None):
        yield {node["name"]: facts.of(node) for node in nodes}


async def _with_optional(
    server: Server,
    project: ProjectKey,
    needed: str,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    size: PageSize,
    about: About | None,
) -> AsyncIterator[tuple[list[dict[str, Any]], int]]:
    """Pages of these fields and of the optional ones, as far as the server has them."""
    while True:
        optional = {queries.DURATION_FIELD: queries.DURATION_FIELD, **queries.OPTIONAL_FIELDS}
        asked = {name: field for name, field in optional.items() if name not in server.lacks}
        fields = " ".join([needed, *asked.values()])
        try:
            async for page in _pages(server, project, fields, scope, filters, size, about):
                yield page
        except FeatureMissing as error:
            # A server may have the field but not all that is asked for in it; then its type is named, `RunInfo`.
            refused = {name for name in asked if name.lower() in str(error).lower()}
            if not refused:
                raise
            server.lacks |= refused
        else:
            return


async def history_keys(server: Server, project: ProjectKey) -> AsyncIterator[dict[str, dict[str, int | None] | None]]:
    """Pages of the keys that each run ever logged, with the number of values where the server tells it.

    None for a run of which it does not tell the keys. Raises FeatureMissing on a server that has no such list.
    """
    async for nodes, _ in _pages(server, project, queries.KEYS_FIELDS, {}, {}, PageSize()):
        yield {node["name"]: _keys(node["historyKeys"]) for node in nodes}


def _keys(told: Any) -> dict[str, int | None] | None:
    described = loads(told) if isinstance(told, str) else told
    keys = described.get("keys") if isinstance(described, dict) else None
    if not isinstance(keys, dict):
        return None
    counts = {key: _type_counts(about) for key, about in keys.items() if key != "_step"}
    # An object is mirrored as the keys inside, which are not told here.
    if any("map" in types for types in counts.values()):
        return None
    return {
        key: sum(types.values()) if all(isinstance(count, int) for count in types.values()) and types else None
        for key, types in counts.items()
    }


def _type_counts(about: Any) -> dict[str, Any]:
    counts = about.get("typeCounts") if isinstance(about, dict) else None
    listed = counts if isinstance(counts, list) else []
    return {str(entry.get("type")): entry.get("count") for entry in listed if isinstance(entry, dict)}


async def _pages(
    server: Server,
    project: ProjectKey,
    fields: str,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    size: PageSize,
    about: About | None = None,
) -> AsyncIterator[tuple[list[dict[str, Any]], int]]:
    async def ask(after: str | None) -> tuple[list[dict[str, Any]], int, str | None]:
        """One page, how many runs there are, and where the next page begins."""
        while True:
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
            besides = about.asked(server) if about and after is None else None
            try:
                data = await server.graphql("MirrorRuns", queries.runs(fields, *(besides or ())), variables)
            except TooMuch:
                if not size.shrink():
                    raise
                continue
            except CommError as error:
                if about is None or isinstance(error, Unreachable | AuthError | NotFound):
                    raise
                if besides is None:
                    about.not_to_blame()
                    raise
                if not about.refused(server, error):
                    raise
                continue
            if about is not None and after is None:
                about.answered(server, data, asked=besides is not None)
            found = data.get("project")
            if found is None:
                raise NotFound(f"{project} is not on {server.base_url}, or the key may not read it; check the spelling")
            connection = found["runs"]
            nodes = [edge["node"] for edge in connection["edges"]]
            size.learn(len(nodes), server.bytes_received - before)
            info = connection["pageInfo"]
            more = info["hasNextPage"] and nodes and info["endCursor"] != after
            return nodes, int(found["runCount"]), info["endCursor"] if more else None

    # The next page is asked for while this one is worked on.
    coming = asyncio.create_task(ask(None))
    try:
        while True:
            nodes, total, after = await coming
            if after is not None:
                coming = asyncio.create_task(ask(after))
            yield nodes, total
            if after is None:
                return
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


async def project_names(server: Server, entity: str) -> list[str]:
    """The names of all projects of an entity that the key may see."""
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


def _head(node: Mapping[str, Any]) -> RunHead:
    return RunHead(
        run_id=node["name"],
        state=node["state"] or "unknown",
        created_at=moment(node["createdAt"]),
        heartbeat_at=moment(node["heartbeatAt"]),
        updated_at=moment(node["updatedAt"]),
        server_rows=int(node["historyLineCount"] or 0),
    )


def _document(server: Server, project: ProjectKey, node: Mapping[str, Any], field: str) -> dict[str, Any]:
    text = node[field]
    if not text:
        return {}
    try:
        value = loads(text)
    except ValueError as error:
        message = f"{server.base_url} sent a {field} of {project}/{node['name']} that is no JSON ({error})"
        raise CommError(message, error) from error
    return value if isinstance(value, dict) else {}


def _record(server: Server, project: ProjectKey, node: Mapping[str, Any]) -> RunRecord:
    config = {
        key: entry["value"] if isinstance(entry, dict) and "value" in entry else entry
        for key, entry in _document(server, project, node, "config").items()
    }
    config_meta = config.pop("_wandb", None)
    config.pop("wandb_version", None)
    summary = _document(server, project, node, "summaryMetrics")
    if summary and spells_numbers(node["summaryMetrics"]):
        summary = numbers(summary)
    head = _head(node)
    seconds = node.get(queries.DURATION_FIELD)
    info = _info(node)
    lived = (head.heartbeat_at - head.created_at) if head.heartbeat_at and head.created_at else None
    return RunRecord(
        entity=project.entity,
        project=project.project,
        run_id=head.run_id,
        storage_id=node["id"],
        name=node["displayName"],
        state=head.state,
        created_at=head.created_at,
        heartbeat_at=head.heartbeat_at,
        updated_at=head.updated_at,
        duration_s=float(seconds) if seconds else (lived.total_seconds() if lived else None),
        username=(node["user"] or {}).get("username"),
        group_name=node["group"],
        job_type=node["jobType"],
        sweep=node["sweepName"],
        notes=node["notes"],
        description=node["description"],
        tags=tuple(node["tags"] or ()),
        git_commit=node["commit"] or ((info or {}).get("git") or {}).get("commit"),
        host=node["host"],
        url=_url(server.base_url, project, head.run_id),
        config=config,
        config_meta=config_meta,
        summary=summary,
        server_rows=head.server_rows,
        server_last_step=_last_step(node, summary, head.server_rows),
        server_keys=_key_counts(node),
        server_events=node.get("eventsLineCount"),
        server_log_lines=node.get("logLineCount"),
        info=info,
        facts=facts.of(node),
    )


def _info(node: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the server tells of how the run was started, under the names that the run's file has for it.

    None where this server does not tell, which is not the same as a run of which nothing is known.
    """
    if "runInfo" not in node:
        return None
    told = dict(node["runInfo"] or {})
    for name, own in (("gpuCount", "gpu_count"), ("cpuCount", "cpu_count")):
        told[own] = told.pop(name, None)
    told["git"] = {key: value for key, value in (told.get("git") or {}).items() if value is not None}
    return {key: value for key, value in told.items() if value not in (None, {}, [])}


def _last_step(node: Mapping[str, Any], summary: Mapping[str, Any], rows: int) -> int | None:
    """The highest logged step as far as the server says: `historyKeys.lastStep`, or the summary's `_step`."""
    if not rows:
        return None
    keys = _history_keys(node)
    told = [keys.get("lastStep"), summary.get("_step")]
    steps = [int(step) for step in told if isinstance(step, int | float) and step >= 0]
    return max(steps, default=None)


def _history_keys(node: Mapping[str, Any]) -> dict[str, Any]:
    keys = node["historyKeys"]
    if isinstance(keys, str):
        keys = loads(keys)
    return keys if isinstance(keys, dict) else {}


def _key_counts(node: Mapping[str, Any]) -> dict[str, int] | None:
    """The values of each key, of whichever type: `historyKeys.keys.K.typeCounts`. Keys without counts are left out."""
    keys = _history_keys(node).get("keys")
    if not isinstance(keys, dict):
        return None
    counts = {}
    for key, entry in keys.items():
        found = entry.get("typeCounts") if isinstance(entry, dict) else None
        if isinstance(found, list):
            counts[key] = sum(int(kind.get("count") or 0) for kind in found if isinstance(kind, dict))
    return counts


def _url(base_url: str, project: ProjectKey, run_id: str) -> str:
    """The page of a run for people."""
    return f"{_project_url(base_url, project)}/runs/{quote(run_id)}"


@lru_cache
def _project_url(base_url: str, project: ProjectKey) -> str:
    """The page of a project; the hosted service shows it on another host than its API."""
    site = "https://wandb.ai" if base_url == "https://api.wandb.ai" else base_url
    return "/".join([site, quote(project.entity), quote(project.project)])
