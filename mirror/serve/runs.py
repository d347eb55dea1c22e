"""Projects and runs in W&B's form: listed, paged, and completed with their documents."""

from __future__ import annotations

import re
import threading
import uuid
from array import array
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from msgspec import Struct, field

from mirror.protocol import LIVE_STATES
from mirror.snapshot import facts, run_rows
from mirror.snapshot.described import line_count
from mirror.snapshot.paths import Project
from mirror.snapshot.prefetch import Memory, Walks, together
from mirror.wandb_json import dumps, loads

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MOST_RUNS = 1000
"""Runs in one page, as on the real server."""

KEPT_LISTS = 64
KEPT_FACTS = 5000
KEPT_BLOCKS = 20
KEPT_STRETCHES = 4
KEPT_AHEAD = 200

BLOCK = 500
"""How many runs of a list are read together: a client that requests a page mostly requests the next one, too."""

T = TypeVar("T")

Ask = Callable[[str, Mapping[str, Any]], bytes]
"""Sends one of `mirror.query.questions` to a worker and returns its answer."""

_PLAIN = {
    "id": "storage_id",
    "name": "run_id",
    "displayName": "name",
    "state": "state",
    "group": "group_name",
    "jobType": "job_type",
    "sweepName": "sweep",
    "notes": "notes",
    "description": "description",
    "commit": "git_commit",
    "host": "host",
    "createdAt": "created_at",
    "heartbeatAt": "heartbeat_at",
    "updatedAt": "updated_at",
    "computeSeconds": "duration_s",
    "eventsLineCount": "server_events",
    "logLineCount": "server_log_lines",
}
"""The columns of plain fields of a run."""

_OWN = ("username", "deleted_at", "server_rows", "server_last_step")
_COLUMNS = (*_OWN, *_PLAIN.values())

_DOCUMENTS = {"config": ("config", "config_meta"), "wandbConfig": ("config_meta",), "summaryMetrics": ("summary",)}
_TIMES = ("createdAt", "heartbeatAt", "updatedAt")
_COUNTS = ("eventsLineCount", "logLineCount")
"""Fields that some servers do not return."""

_FIELDS = {column: (name,) for name, column in _PLAIN.items()} | {
    "config": ("config", "wandbConfig"),
    "config_meta": ("config", "wandbConfig"),
    "summary": ("summaryMetrics",),
    "username": ("user",),
    "server_rows": ("historyLineCount",),
}
"""The fields whose values are in a column."""


_KEY_BYTES = 500

_NOT_FINITE = re.compile("NaN|Infinity")


class Listing(Struct, frozen=True):
    """The runs that matched a filter, in order, when the first page was requested."""

    name: str
    rids: array[int]


class Listings(Struct):
    """The latest lists, kept so that pages of one list stay consistent while the mirror changes. Thread-safe."""

    facts: Memory = field(default_factory=lambda: Memory(KEPT_FACTS))
    blocks: Memory = field(default_factory=lambda: Memory(KEPT_BLOCKS))
    exported: Memory = field(default_factory=lambda: Memory(KEPT_FACTS))
    stretches: Memory = field(default_factory=lambda: Memory(KEPT_STRETCHES))
    ahead: Memory = field(default_factory=lambda: Memory(KEPT_AHEAD))
    walks: Walks = field(default_factory=lambda: Walks(KEPT_LISTS))
    _kept: OrderedDict[str, Listing] = field(default_factory=OrderedDict)
    _known: dict[tuple[Any, ...], str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(
        self,
        ask: Ask,
        version: str,
        project: Project,
        filters: str | None,
        order: str | None,
        names: Sequence[str] = (),
    ) -> Listing:
        """Return the list for this snapshot, cached if possible. Raises FilterError for an invalid filter or order."""
        key = (version, project, filters, order, tuple(names))
        with self._lock:
            kept = self._kept.get(self._known.get(key, ""))
            if kept is not None:
                self._kept.move_to_end(kept.name)
                return kept

        conditions = _among(filters, names) if names else filters
        listing = Listing(uuid.uuid4().hex[:12], array("q"))
        listing.rids.frombytes(ask("rids", {"project": list(project), "conditions": conditions, "order": order}))
        with self._lock:
            self._kept[listing.name] = listing
            self._known[key] = listing.name
            while len(self._kept) > KEPT_LISTS:
                gone, _ = self._kept.popitem(last=False)
                self._known = {asked: name for asked, name in self._known.items() if name != gone}
        return listing

    def following(
        self, version: str, what: str, run: Mapping[str, Any], weight: Callable[[Mapping[str, Any]], int], most: int
    ) -> Sequence[Mapping[str, Any]]:
        """Return this run and, if a client loops over its list asking for `what`, the next runs of the list.

        The runs weigh at most `most` together, by `weight`.
        """
        if "place" not in run:
            return [run]
        listing, place = run["place"]
        block = self.blocks.peek(version, (listing, place // BLOCK)) or {}
        if not self.walks.follows(what, listing, place):
            return [run]
        return together([run, *(other for other in block.values() if other["place"][1] > place)], weight, most)

    def read_alone(self, run: Mapping[str, Any]) -> None:
        """From now on read the runs of this run's list, if it is in one, one at a time: they have too much data."""
        if "place" in run:
            self.walks.stop(run["place"][0])

    def kept(self, name: str) -> Listing | None:
        """Return the list of an earlier page; None if too many others were requested since."""
        with self._lock:
            return self._kept.get(name)


def _among(filters: str | None, names: Sequence[str]) -> str | None:
    """Restrict a filter to runs of these names; an invalid filter is returned unchanged, to be refused later."""
    try:
        others = [orjson.loads(filters)] if filters else []
    except orjson.JSONDecodeError:
        return filters
    return orjson.dumps({"$and": [*others, {"name": {"$in": list(names)}}]}).decode()


def rows_of(connection: DuckDBPyConnection, project: Mapping[str, Any], rids: Sequence[int]) -> list[dict[str, Any]]:
    """Return these runs in this order, without their documents; runs that no longer exist are left out."""
    if not rids:
        return []
    found = {row["rid"]: row for row in _rows(connection, project, run_rows.plain(connection, _COLUMNS, rids))}
    return [found[rid] for rid in rids if rid in found]


def row_of(connection: DuckDBPyConnection, project: Mapping[str, Any], run_id: str) -> dict[str, Any] | None:
    """Return one run by its id, without its documents; None if it is not mirrored, or deleted."""
    rows = _rows(connection, project, run_rows.plain_of(connection, _COLUMNS, project["key"], run_id))
    return rows[0] if rows else None


def is_live(connection: DuckDBPyConnection, run: tuple[str, str, str]) -> bool:
    """Return True if the mirror has this run as one that is running."""
    found = run_rows.plain_of(connection, ("state",), Project(*run[:2]), run[2])
    return bool(found) and found[0][2] in LIVE_STATES


def with_documents(
    connection: DuckDBPyConnection, rows: Sequence[Mapping[str, Any]], fields: Collection[str]
) -> list[dict[str, Any]]:
    """Return copies of these rows with the documents that the fields need, which may be megabytes."""
    columns = list(dict.fromkeys(column for name, needed in _DOCUMENTS.items() if name in fields for column in needed))
    if not columns or not rows:
        return [dict(row) for row in rows]
    found = run_rows.documents(connection, columns, [row["rid"] for row in rows])
    return [{**row, **dict(zip(columns, found[row["rid"]], strict=True))} for row in rows if row["rid"] in found]


def weight(row: Mapping[str, Any], described: Mapping[str, Any] | None) -> int:
    """Estimate how many bytes the documents of a row and the description of its keys take."""
    documents = sum(len(row.get(column) or "") for needed in _DOCUMENTS.values() for column in needed)
    return documents + _KEY_BYTES * len(described["keys"] if described else ())


def _rows(
    connection: DuckDBPyConnection, project: Mapping[str, Any], found: Sequence[tuple[Any, ...]]
) -> list[dict[str, Any]]:
    """Complete rows with `rid`, `unread` and _COLUMNS from the other relations."""
    if not found:
        return []
    names = ("rid", "unread", *_OWN, *_PLAIN)
    rows = [dict(zip(names, row, strict=True)) for row in found]
    rids = [row["rid"] for row in rows]
    logged = run_rows.history_sizes(connection, rids)
    tags = run_rows.tags(connection, rids)
    server_facts = facts.of_runs(connection, rids)
    for row in rows:
        row["project"] = project
        row["local"] = not row["id"]
        row["tags"] = tags.get(row["rid"], [])
        count, last_step = logged.get(row["rid"], (0, None))
        row["rows"], row["last_step"] = count or 0, -1 if last_step is None else last_step
        row["historyLineCount"] = line_count(row["rows"], row["server_rows"], local=row["local"])
        for name in _TIMES:
            row[name] = facts.instant(row[name])
        if row["computeSeconds"] is not None:
            row["computeSeconds"] = int(row["computeSeconds"])
        row.update(_local(project, row) if row["local"] else server_facts.get(row["rid"], {}))
        row["unreadable"] = unreadable(row["unread"]) | set(row.get("untold", ()))
        for name in (*row["unreadable"], *(name for name in _COUNTS if row[name] is None)):
            row.pop(name, None)
    return rows


def unreadable(unread: str | None) -> frozenset[str]:
    """Return the fields whose values could not be read, from `unread`, the names of their columns."""
    columns = unread.split(",") if unread else ()
    return frozenset(name for column in columns for name in _FIELDS.get(column, (column,)))


def _local(project: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a run that the server does not know because it was read from a local file."""
    name = row["username"]
    return {
        "id": facts.own_id("Run", row["name"], *reversed(project["key"])),
        "projectId": facts.internal_number(project) or facts.NO_PROJECT,
        "user": None if name is None else {"id": name, "name": name, "username": name},
        "readOnly": False,
        "stopped": False,
        "systemMetrics": None,
    }


def config_text(row: Mapping[str, Any], keys: Collection[str] | None) -> str | None:
    """Return the config in W&B's form: each value wrapped, with `_wandb` beside them; None for a run without one."""
    if row.get("noConfig"):
        return None
    values: dict[str, Any] = loads(row["config"]) if row["config"] else {}
    wrapped: dict[str, Any] = {key: {"value": value, "desc": None} for key, value in values.items()}
    if beside := row.get("configBeside"):
        for key, description in beside["descriptions"].items():
            if key in wrapped:
                wrapped[key]["desc"] = description
        wrapped |= beside["entries"]
    if row["config_meta"]:
        wrapped["_wandb"] = {"value": loads(row["config_meta"])}
    if keys is not None:
        wrapped = {key: entry for key, entry in wrapped.items() if key in keys}
    if _NOT_FINITE.search(row["config"] or "") or _NOT_FINITE.search(row["config_meta"] or ""):
        return dumps(wrapped)
    try:
        # Nulls make `dumps` slow, since they may stand for non-finite numbers; here there are none.
        return orjson.dumps(wrapped).decode()
    except TypeError:
        return dumps(wrapped)


def meta_text(row: Mapping[str, Any], keys: Collection[str] | None) -> str | None:
    """Return W&B's own entry of the config."""
    value = loads(row["config_meta"]) if row["config_meta"] else None
    return _cut(value, keys) if isinstance(value, dict) else None


def summary_text(row: Mapping[str, Any], keys: Collection[str] | None) -> str | None:
    """Return the summary as JSON text; None for a run without one."""
    if row.get("noSummary"):
        return None
    text: str = row["summary"] or "{}"
    return text if keys is None else _cut(loads(text), keys)


def _cut(document: Mapping[str, Any], keys: Collection[str] | None) -> str:
    return dumps({key: value for key, value in document.items() if keys is None or key in keys})
