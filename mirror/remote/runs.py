"""Pages of runs: the heads that a poll requests, and full records."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from mirror.addresses import run_page
from mirror.errors import AuthError, CommError
from mirror.remote import facts, queries
from mirror.remote.about import About
from mirror.remote.client import FeatureMissing, NotFound, Server
from mirror.remote.errors import SlowAnswer, Unanswered, Unreachable
from mirror.store.records import ProjectKey, RunFacts, RunRecord
from mirror.wandb_json import UNREADABLE, loads, numbers, spells_numbers

GIVE_UP_AFTER = 4
"""After this many runs in a row without a record, the server, not the runs, is at fault."""

_REFUSED = "refused"
"""Key in a node that only has the fields of a head: the error of the request for the full record."""

MOST_RUNS = 1000
"""The largest number of runs in a page that servers are known to return."""

PAGE_BYTES = 4 << 20
"""The target size of an answer; pages of heavy runs shrink towards it."""


@dataclass(frozen=True)
class RunHead:
    """The fields of a run that a poll requests; enough to know whether it changed."""

    run_id: str
    state: str
    created_at: datetime | None
    heartbeat_at: datetime | None
    updated_at: datetime | None
    server_rows: int


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


def moment(text: Any) -> datetime | None:
    """Parse a time of the W&B API as naive UTC; texts without a zone are UTC. None if missing or not a time."""
    if not isinstance(text, str) or not text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.astimezone(UTC).replace(tzinfo=None) if parsed.tzinfo else parsed
    except (ValueError, OverflowError):
        return None


class PageSize:
    """The number of runs in a page: grows and shrinks so that an answer stays near PAGE_BYTES."""

    def __init__(self, start: int = 100) -> None:
        self.runs = start

    def learn(self, runs: int, size: int) -> None:
        """Record an answer of `size` bytes with `runs` runs."""
        if runs:
            fitting = int(PAGE_BYTES / max(1.0, size / runs))
            self.runs = max(1, min(MOST_RUNS, fitting, self.runs * 4))

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
            yield Page([_head(node) for node in nodes], total, asked_at)


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
            runs = [replace(_record(server, project, node), asked_at=asked_at) for node in nodes]
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
            yield {node["name"]: _keys(node.get("historyKeys")) for node in nodes}


def _keys(history_keys: Any) -> dict[str, int | None] | None:
    try:
        described = loads(history_keys) if isinstance(history_keys, str) else history_keys
    except ValueError:
        return None
    keys = described.get("keys") if isinstance(described, dict) else None
    if not isinstance(keys, dict):
        return None
    counts = {key: _type_counts(about) for key, about in keys.items() if key != "_step"}
    # An object is mirrored as its inner keys, which this list does not contain.
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
                    edge["node"][_REFUSED] = error
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
                raise NotFound(f"{project} is not on {server.base_url}, or the key may not read it; check the spelling")
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


def _head(node: Mapping[str, Any]) -> RunHead:
    return RunHead(
        run_id=node["name"],
        state=node["state"] if isinstance(node["state"], str) and node["state"] else "unknown",
        created_at=moment(node["createdAt"]),
        heartbeat_at=moment(node["heartbeatAt"]),
        updated_at=moment(node["updatedAt"]),
        server_rows=_valid_count(node["historyLineCount"]),
    )


def _valid_count(count: Any) -> int:
    """Return a count of lines; 0 for what is not a count, which the record reports as a flaw."""
    return count if isinstance(count, int) and 0 <= count < 2**63 else 0


def _document(node: Mapping[str, Any], field: str) -> dict[str, Any]:
    text = node[field]
    if not text:
        return {}
    value = loads(text)
    return value if isinstance(value, dict) else {}


_TEXTS = ("displayName", "group", "jobType", "sweepName", "notes", "description", "commit", "host", "state")
_COUNTS = ("historyLineCount", "eventsLineCount", "logLineCount")

_COLUMNS = {
    "config": ("config", "config_meta"),
    "summaryMetrics": ("summary", "server_last_step"),
    "historyKeys": ("server_last_step",),
    "historyLineCount": ("server_rows",),
    "eventsLineCount": ("server_events",),
    "logLineCount": ("server_log_lines",),
    "displayName": ("name",),
    "group": ("group_name",),
    "jobType": ("job_type",),
    "sweepName": ("sweep",),
    "commit": ("git_commit",),
    "user": ("username",),
    "runInfo": (),
    queries.DURATION_FIELD: ("duration_s",),
}
"""The columns that are read from a field, where their names differ."""


def _record(server: Server, project: ProjectKey, node: Mapping[str, Any]) -> RunRecord:
    """Return the record of a run; fields that cannot be read are left out and named in `unread` and `flaw`."""
    if (error := node.get(_REFUSED)) is not None:
        bare = {**dict.fromkeys(queries.RUN_FIELDS.split()), **node}
        everything = [name for name in bare.keys() - node.keys() if name.isalpha()]
        unread = _columns_of(everything)
        return replace(_read(server, project, bare), unread=unread, flaw=str(error), facts=None)
    try:
        if _has_plain_types(node):
            return _read(server, project, node)
    except UNREADABLE:
        pass
    bare = {**dict.fromkeys(node), "name": node["name"], "id": str(node["id"])}
    sound, problems = dict(bare), {}
    for field in node.keys() - {"name", "id"}:
        alone = {**bare, field: node[field]}
        try:
            if not _has_plain_types(alone):
                raise TypeError(f"it contains a value of type {type(node[field]).__name__}")
            _read(server, project, alone)
            sound[field] = node[field]
        except UNREADABLE as error:
            problems[field] = f"{field} ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    what = ", ".join(problems[field] for field in sorted(problems))
    flaw = f"{server.base_url} sent fields of {project}/{node['name']} that cannot be read: {what}"
    readable = facts.of_readable_fields({field: sound[field] for field in sound if field not in problems})
    return replace(_read(server, project, sound), unread=_columns_of(problems), flaw=flaw, facts=readable)


def _columns_of(fields: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({column for field in fields for column in _COLUMNS.get(field, (field,))}))


def _has_plain_types(node: Mapping[str, Any]) -> bool:
    """Return True if texts are texts, counts are 64-bit counts, and tags are a list of texts."""
    tags = node["tags"] or ()
    return (
        all(node[name] is None or isinstance(node[name], str) for name in _TEXTS)
        and all((count := node.get(name)) is None or _valid_count(count) == count for name in _COUNTS)
        and isinstance(tags, list | tuple)
        and all(isinstance(tag, str) for tag in tags)
    )


def _read(server: Server, project: ProjectKey, node: Mapping[str, Any]) -> RunRecord:
    config = {
        key: entry["value"] if isinstance(entry, dict) and "value" in entry else entry
        for key, entry in _document(node, "config").items()
    }
    config_meta = config.pop("_wandb", None)
    config.pop("wandb_version", None)
    summary = _document(node, "summaryMetrics")
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
        url=run_page(server.app_url, project.entity, project.project, head.run_id),
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
    """Return how the run was started, under the names that the run's metadata file uses.

    None if this server does not have the field; an empty dictionary if it has it but knows nothing of the run.
    """
    if "runInfo" not in node:
        return None
    info = dict(node["runInfo"] or {})
    for name, own in (("gpuCount", "gpu_count"), ("cpuCount", "cpu_count")):
        info[own] = info.pop(name, None)
    info["git"] = {key: value for key, value in (info.get("git") or {}).items() if value is not None}
    return {key: value for key, value in info.items() if value not in (None, {}, [])}


def _last_step(node: Mapping[str, Any], summary: Mapping[str, Any], rows: int) -> int | None:
    """Return the highest logged step that the server reports: `historyKeys.lastStep`, or the summary's `_step`."""
    keys = _history_keys(node)
    reported = [keys.get("lastStep"), summary.get("_step")]
    steps = [int(step) for step in reported if isinstance(step, int | float) and step >= 0]
    last = max(steps, default=None)
    if last is not None and last >= 2**63:
        raise OverflowError("a step of more than 64 bits")
    return last if rows else None


def _history_keys(node: Mapping[str, Any]) -> dict[str, Any]:
    keys = node["historyKeys"]
    if isinstance(keys, str):
        keys = loads(keys)
    return keys if isinstance(keys, dict) else {}


def _key_counts(node: Mapping[str, Any]) -> dict[str, int] | None:
    """Return the number of values of each key: the sum of `historyKeys.keys.K.typeCounts`. Others are left out."""
    keys = _history_keys(node).get("keys")
    if not isinstance(keys, dict):
        return None
    counts = {}
    for key, entry in keys.items():
        types = entry.get("typeCounts") if isinstance(entry, dict) else None
        if isinstance(types, list):
            counts[key] = sum(_valid_count(kind.get("count")) for kind in types if isinstance(kind, dict))
    return counts
