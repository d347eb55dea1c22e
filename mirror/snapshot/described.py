"""The history keys and the latest system metrics of runs, described in W&B's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from mirror.metrics import STEP
from mirror.snapshot import facts, history_keys
from mirror.snapshot.paths import Project
from mirror.snapshot.series import json_value
from mirror.wandb_json import strict_number

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def described(
    connection: DuckDBPyConnection,
    project: Project,
    runs: Mapping[int, Mapping[str, Any]],
    heavy: Mapping[int, facts.Heavy],
) -> dict[int, dict[str, Any]]:
    """The `historyKeys` of runs in W&B's form, by rid; runs without rows are left out.

    `runs` has, by rid, the `name`, `last_step` and `historyLineCount` of each run, and `heavy` is of `facts.heavy`.
    Whether a key is monotonic, and the types of keys that are not plain numbers, are as the server returned them; for
    runs that it does not know, and keys that it had not counted yet, they are computed from the values.
    """
    rows = history_keys.last_numbers(connection, list(runs))
    of_server = {rid: orjson.loads(heavy[rid][1] or "{}") for rid in runs if rid in heavy and heavy[rid][1]}
    monotonic = {
        rid: dict.fromkeys(about["falling"], False) | dict.fromkeys(about["monotonic"], True)
        for rid, about in of_server.items()
    }
    found: dict[int, dict[str, Any]] = {}
    unknown: dict[int, list[str]] = {}
    for rid, key, count, last in rows:
        if rid not in found:
            found[rid] = {"keys": {STEP: None}, "lastStep": runs[rid]["last_step"], "sets": []}
        about = found[rid]["keys"]
        if rid in of_server and key in of_server[rid]["others"]:
            about[key] = of_server[rid]["others"][key]
        elif rid in monotonic and last is not None and key in monotonic[rid]:
            about[key] = _number_entry(count, last, monotonic=monotonic[rid][key])
        else:
            unknown.setdefault(rid, []).append(key)
    for rid, names in unknown.items():
        found[rid]["keys"] |= _described_from_values(connection, project, runs[rid]["name"], names)
    for rid, entry in found.items():
        entry["keys"][STEP] = _number_entry(runs[rid]["historyLineCount"], entry["lastStep"], monotonic=True)
    return found


def line_count(rows: int | None, server_rows: int | None, *, local: bool) -> int:
    """How many history lines a run has: those that are mirrored or, if it is on the server, that this reported."""
    return rows or 0 if local else max(rows or 0, server_rows or 0)


def _number_entry(count: int, last: float | None, *, monotonic: bool) -> dict[str, Any]:
    return {
        "typeCounts": [{"type": "number", "count": count}],
        "monotonic": monotonic,
        "previousValue": strict_number(last),
    }


def _described_from_values(
    connection: DuckDBPyConnection, project: Project, run_id: str, keys: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The entries of these keys, computed from their values: the count of each type, and whether they only rose."""
    rows = connection.execute(
        """
        WITH typed AS (
            SELECT key, step, value, CASE WHEN text IS NULL THEN 'number' ELSE CASE left(text, 1)
                WHEN '"' THEN 'string' WHEN '[' THEN 'list' WHEN 't' THEN 'boolean' WHEN 'f' THEN 'boolean'
                WHEN 'n' THEN 'nil' WHEN '{' THEN coalesce(TRY_CAST(text AS JSON) ->> '$._type', 'map')
                ELSE 'number' END END AS kind
            FROM history WHERE entity = ? AND project = ? AND run_id = ? AND key IN (SELECT unnest(?::VARCHAR[]))
        ), rising AS (
            SELECT key, step, kind, value, kind = 'number' AND NOT isnan(value)
                AND value >= coalesce(lag(value) OVER (PARTITION BY key ORDER BY step), value) AS rises
            FROM typed
        )
        SELECT key, kind, count(*), bool_and(coalesce(rises, false)), arg_max(value, step), min(step)
        FROM rising GROUP BY key, kind ORDER BY key, min(step)
        """,
        [*project, run_id, list(keys)],
    ).fetchall()
    found: dict[str, dict[str, Any]] = {}
    for key, kind, count, rises, last, _ in rows:
        entry = found.setdefault(key, {"typeCounts": [], "monotonic": True, "previousValue": None})
        entry["typeCounts"].append({"type": kind, "count": count})
        entry["monotonic"] &= rises
        if kind == "number":
            entry["previousValue"] = strict_number(last)
    return found


def latest_events(connection: DuckDBPyConnection, project: Project, run_ids: Sequence[str]) -> dict[str, str]:
    """The latest value of each system metric of these runs, as JSON texts by run id."""
    rows = connection.execute(
        "SELECT run_id, key, arg_max(value, step), arg_max(text, step) FROM system_metrics "
        "WHERE entity = ? AND project = ? AND run_id IN (SELECT unnest(?)) AND NOT starts_with(key, '_') "
        "GROUP BY run_id, key ORDER BY run_id, key",
        [*project, list(run_ids)],
    ).fetchall()
    found: dict[str, dict[str, Any]] = {}
    for run_id, key, value, text in rows:
        found.setdefault(run_id, {})[key] = json_value(value, text)
    return {run_id: orjson.dumps(values).decode() for run_id, values in found.items()}
