"""Everything about one run that fits a page: fields, config, summary, last rows, files, and how complete it is."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mirror.snapshot.snapshot import Snapshot
from mirror.wandb_json import loads

if TYPE_CHECKING:
    from mirror.snapshot.snapshot import Address

LAST_ROWS = 5
_EXACT = 1e15
"""Whole numbers below this are shown with every digit."""

MOST_KEYS = 8
"""How many keys the last rows show: those that the run logged most often."""

_HERE = "entity = ? AND project = ? AND run_id = ?"


def page(snapshot: Snapshot, address: Address) -> dict[str, Any]:
    """The run: `run` (its path), `fields`, `config`, `summary`, `history`, `files` and `complete`.

    Times are naive UTC. `files` is None if the list of files is not mirrored.
    """
    fields = _fields(snapshot, address)
    config, summary = fields.pop("config"), fields.pop("summary")
    keys = _rows(
        snapshot, address, "SELECT key, rows, last_step, min, max, last FROM history_keys", "ORDER BY rows DESC, key"
    )
    files = None
    if snapshot.files(address.rid, (), None) is not None:
        files = _rows(snapshot, address, "SELECT name, size, updated_at FROM files", "ORDER BY name")
    return {
        "run": str(address),
        "fields": fields,
        "config": loads(config) if config else {},
        "summary": loads(summary) if summary else {},
        "history": {"keys": keys, "last_rows": _last_rows(snapshot, address, [one["key"] for one in keys[:MOST_KEYS]])},
        "files": files,
        "complete": _complete(snapshot, address, fields),
    }


def _fields(snapshot: Snapshot, address: Address) -> dict[str, Any]:
    (fields,) = _rows(snapshot, address, "SELECT * EXCLUDE (entity, project, run_id, run_path) FROM runs")
    # A tag may contain commas, which join the tags of the relation.
    return fields | {"tags": snapshot.tags([address.rid]).get(address.rid, [])}


def _complete(snapshot: Snapshot, address: Address, fields: dict[str, Any]) -> dict[str, Any]:
    """How much of the run is mirrored: rows here and on the server, and which parts are not mirrored at all."""
    on_server = snapshot.column("server_rows", [address.rid])[address.rid]
    console = None
    if snapshot.console(address.rid, 1) is not None:
        console = _rows(snapshot, address, "SELECT count(*) AS lines FROM console")[0]["lines"]
    metrics = None
    if snapshot.has_system_metrics(address):
        metrics = _rows(snapshot, address, "SELECT count(DISTINCT step) AS lines FROM system_metrics")[0]["lines"]
    at = snapshot.successes().get(address.key)
    return {
        "history_rows": fields["history_rows"],
        "server_rows": on_server,
        "last_step": max((one.last_step for one in snapshot.extents([address.rid]).values()), default=-1),
        "error": snapshot.history_error(address.rid),
        "console_lines": console,
        "system_metric_lines": metrics,
        "last_success_at": at and at.astimezone(UTC).replace(tzinfo=None),
    }


def _last_rows(snapshot: Snapshot, address: Address, keys: list[str]) -> list[dict[str, Any]]:
    """The last rows at which any of these keys was logged, oldest first."""
    if not keys:
        return []
    here = f"{_HERE} AND key IN (SELECT unnest(?::VARCHAR[]))"
    params = [address.entity, address.project, address.run_id, keys]
    found = snapshot.cursor.execute(
        f"""SELECT step, key, value, text FROM history WHERE {here} AND step >= (
            SELECT min(step) FROM (SELECT DISTINCT step FROM history WHERE {here} ORDER BY step DESC LIMIT {LAST_ROWS})
        ) ORDER BY step""",
        [*params, *params],
    ).fetchall()
    rows: dict[int, dict[str, Any]] = {}
    for step, key, value, text in found:
        rows.setdefault(step, {"step": step, **dict.fromkeys(keys)})[key] = value if text is None else loads(text)
    return list(rows.values())


def _rows(snapshot: Snapshot, address: Address, sql: str, end: str = "") -> list[dict[str, Any]]:
    params = [address.entity, address.project, address.run_id]
    cursor = snapshot.cursor.execute(f"{sql} WHERE {_HERE} {end}", params)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def as_text(value: Any) -> str:
    """A value as the page shows it: times in UTC to the second, documents as JSON."""
    from mirror.wandb_json import dumps

    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return value if isinstance(value, str) else dumps(value)


def brief(value: Any) -> Any:
    """A number with six digits, or all that stand before its point, for tables that people read; other values as is."""
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    if abs(value) < _EXACT and (value.is_integer() or abs(value) >= 1e6):
        return round(value)
    return float(f"{value:.6g}")
