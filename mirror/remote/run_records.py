"""Reads a run's fields as the server sends them; a field that cannot be read does not spoil the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from mirror.addresses import run_page
from mirror.metrics import STEP
from mirror.remote import facts, queries
from mirror.remote.client import Server
from mirror.remote.history_keys import HistoryKeys, valid_count
from mirror.store.records import ProjectKey, RunRecord
from mirror.wandb_json import UNREADABLE, loads, numbers, spells_numbers

REFUSED = "refused"
"""Key in a node that only has the fields of a head: the error of the request for the full record."""


class RunHead(Struct, frozen=True):
    """The fields of a run that a poll requests; enough to know whether it changed."""

    run_id: str
    state: str
    created_at: datetime | None
    heartbeat_at: datetime | None
    updated_at: datetime | None
    server_rows: int


def moment(text: Any) -> datetime | None:
    """Parse a time of the W&B API as naive UTC; texts without a zone are UTC. None if missing or not a time."""
    if not isinstance(text, str) or not text:
        return None
    try:
        # Without its zone, a time of UTC is read in half the time.
        parsed = datetime.fromisoformat(text.removesuffix("Z"))
        return parsed if parsed.tzinfo is None else parsed.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def head_of(node: Mapping[str, Any]) -> RunHead:
    """Return the head of a run."""
    return RunHead(
        run_id=node["name"],
        state=node["state"] if isinstance(node["state"], str) and node["state"] else "unknown",
        created_at=moment(node["createdAt"]),
        heartbeat_at=moment(node["heartbeatAt"]),
        updated_at=moment(node["updatedAt"]),
        server_rows=valid_count(node["historyLineCount"]),
    )


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


def record_of(
    server: Server, project: ProjectKey, node: Mapping[str, Any], asked_at: datetime | None = None
) -> RunRecord:
    """Return the record of a run; fields that cannot be read are left out and named in `unread` and `flaw`."""
    if (error := node.get(REFUSED)) is not None:
        bare = {**dict.fromkeys(queries.RUN_FIELDS.split()), **node}
        everything = [name for name in bare.keys() - node.keys() if name.isalpha()]
        unread = _columns_of(everything)
        return replace(_read(server, project, bare, asked_at), unread=unread, flaw=str(error), facts=None)
    try:
        if _has_plain_types(node):
            return _read(server, project, node, asked_at)
    except UNREADABLE:
        pass
    bare = {**dict.fromkeys(node), "name": node["name"], "id": str(node["id"])}
    sound, problems = dict(bare), {}
    for field in node.keys() - {"name", "id"}:
        alone = {**bare, field: node[field]}
        try:
            if not _has_plain_types(alone):
                raise TypeError(f"it contains a value of type {type(node[field]).__name__}")
            _read(server, project, alone, asked_at)
            sound[field] = node[field]
        except UNREADABLE as error:
            problems[field] = f"{field} ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    what = ", ".join(problems[field] for field in sorted(problems))
    flaw = f"{server.base_url} sent fields of {project}/{node['name']} that cannot be read: {what}"
    readable = facts.of_readable_fields({field: sound[field] for field in sound if field not in problems})
    return replace(_read(server, project, sound, asked_at), unread=_columns_of(problems), flaw=flaw, facts=readable)


def _columns_of(fields: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({column for field in fields for column in _COLUMNS.get(field, (field,))}))


def _has_plain_types(node: Mapping[str, Any]) -> bool:
    """Return True if texts are texts, counts are 64-bit counts, and tags are a list of texts."""
    for name in _TEXTS:
        if (text := node[name]) is not None and not isinstance(text, str):
            return False
    for name in _COUNTS:
        if (count := node.get(name)) is not None and valid_count(count) != count:
            return False
    tags = node["tags"] or ()
    return isinstance(tags, list | tuple) and all(isinstance(tag, str) for tag in tags)


def _read(server: Server, project: ProjectKey, node: Mapping[str, Any], asked_at: datetime | None) -> RunRecord:
    config = _values(_document(node, "config"))
    config_meta = config.pop("_wandb", None)
    config.pop("wandb_version", None)
    summary = _document(node, "summaryMetrics")
    if summary and spells_numbers(node["summaryMetrics"]):
        summary = numbers(summary)
    keys = HistoryKeys.read(node["historyKeys"])
    head = head_of(node)
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
        server_last_step=_last_step(keys, summary, head.server_rows),
        server_keys=keys.counts(),
        server_events=node.get("eventsLineCount"),
        server_log_lines=node.get("logLineCount"),
        info=info,
        asked_at=asked_at,
        facts=facts.of(node, keys),
    )


def _values(config: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a config, whose entries are objects with a `value`; another entry is a value itself."""
    try:
        # Nearly every config has such entries only, and is read in half the time then.
        return {key: entry["value"] for key, entry in config.items()}
    except (TypeError, KeyError):
        return {
            key: entry["value"] if isinstance(entry, dict) and "value" in entry else entry
            for key, entry in config.items()
        }


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


def _last_step(keys: HistoryKeys, summary: Mapping[str, Any], rows: int) -> int | None:
    """Return the highest logged step that the server reports: `historyKeys.lastStep`, or the summary's `_step`."""
    reported = [keys.last_step, summary.get(STEP)]
    steps = [int(step) for step in reported if isinstance(step, int | float) and step >= 0]
    last = max(steps, default=None)
    if last is not None and last >= 2**63:
        raise OverflowError("a step of more than 64 bits")
    return last if rows else None
