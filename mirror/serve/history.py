"""Logged values of a run as W&B sends them: one JSON text a step.

DuckDB finds the values; the texts are made by orjson, in a fraction of the time that DuckDB takes to write numbers
and to join texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from mirror.query.paths import Project
from mirror.remote.lenient import loads

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

EXACT = 2**53
"""Whole numbers up to here are written without a fraction, as the clients log them."""

_HERE = "entity = ? AND project = ? AND run_id = ?"


@dataclass(frozen=True)
class Window:
    """Steps from `low` on, to `high` exclusive; of more than `samples` rows that many, evenly spaced."""

    low: int | None = None
    high: int | None = None
    samples: int | None = None


@dataclass(frozen=True)
class _Part:
    """A mirrored key, where its value stands in the row, and which asked key it belongs to."""

    key: str
    path: tuple[str, ...]
    asked: int


@dataclass(frozen=True)
class Logged:
    """What is known of a run's keys before its values are read: how many rows each has, and where to find the run."""

    project: Project
    run_id: str
    rows: int
    counts: Mapping[str, int]

    @property
    def dense(self) -> str | None:
        """A key that every row has, as `_timestamp`: its steps are all steps, and quick to read."""
        return next((key for key, count in self.counts.items() if count == self.rows), None)

    @property
    def place(self) -> list[Any]:
        """The run's address, as SQL takes it."""
        return [*self.project, self.run_id]


def logged(connection: DuckDBPyConnection, project: Project, run_id: str, rid: int) -> Logged:
    """The keys of a run, by name."""
    found = connection.execute(
        "SELECT k.key, k.rows, h.rows FROM store.history_keys AS k JOIN store.run_history AS h ON h.rid = k.rid "
        "WHERE k.rid = ? ORDER BY k.key",
        [rid],
    ).fetchall()
    return Logged(project, run_id, found[0][2] if found else 0, {key: count for key, count, _ in found})


def first_step(connection: DuckDBPyConnection, rid: int) -> int | None:
    """The first step at which a run logged anything; None for a run without history."""
    found = connection.execute("SELECT min(first_step) FROM store.history_keys WHERE rid = ?", [rid]).fetchall()
    first: int | None = found[0][0]
    return first


def lines(connection: DuckDBPyConnection, run: Logged, window: Window) -> list[str]:
    """The rows of a window by rising step, all keys; numbers that are not finite are bare tokens.

    Nested values are nested again where the run's summary shows that they were logged so; the mirror itself has a
    dotted key for each, which may also have been logged with its dots.
    """
    nested = _document(connection, run) if any("." in key for key in run.counts) else {}
    parts = [_Part(key, _path(nested, key), place) for place, key in enumerate(run.counts)]
    return [orjson.dumps(row).decode() for row in _rows(connection, run, parts, window, run.dense)]


def events(connection: DuckDBPyConnection, project: Project, run_id: str, samples: int | None) -> list[str] | None:
    """The rows of system metrics; None where none are mirrored of the project."""
    if not has_events(connection, project):
        return None
    found = connection.execute(
        f"SELECT key, count(*) FROM system_metrics WHERE {_HERE} GROUP BY key ORDER BY key", [*project, run_id]
    ).fetchall()
    run = Logged(project, run_id, 0, dict(found))
    parts = [_Part(key, (key,), place) for place, key in enumerate(run.counts)]
    rows = _rows(connection, run, parts, Window(samples=samples), None, relation="system_metrics", step=False)
    return [orjson.dumps(row).decode() for row in rows]


def has_events(connection: DuckDBPyConnection, project: Project) -> bool:
    """Whether system metrics are mirrored of the project."""
    mirrored = "SELECT 1 FROM system_metrics WHERE entity = ? AND project = ? LIMIT 1"
    return bool(connection.execute(mirrored, list(project)).fetchall())


def latest_events(connection: DuckDBPyConnection, project: Project, run_ids: Sequence[str]) -> dict[str, str]:
    """The latest value of each system metric of these runs, as JSON texts."""
    if not has_events(connection, project):
        return {}
    rows = connection.execute(
        "SELECT run_id, key, arg_max(value, step), arg_max(text, step) FROM system_metrics "
        "WHERE entity = ? AND project = ? AND run_id IN (SELECT unnest(?)) AND NOT starts_with(key, '_') "
        "GROUP BY run_id, key ORDER BY run_id, key",
        [*project, list(run_ids)],
    ).fetchall()
    found: dict[str, dict[str, Any]] = {}
    for run_id, key, value, text in rows:
        found.setdefault(run_id, {})[key] = _item(value, text)
    return {run_id: orjson.dumps(values).decode() for run_id, values in found.items()}


def sampled(
    connection: DuckDBPyConnection, run: Logged, keys: Sequence[str], window: Window
) -> orjson.Fragment | list[Any]:
    """The rows that hold all of these keys, cut down to them, as strict JSON: NaN and infinities are strings.

    A key of a nested object stands for the object.
    """
    asked = [key for key in dict.fromkeys(keys) if key != "_step"]
    parts: list[_Part] = []
    for place, key in enumerate(asked):
        if key in run.counts:
            parts.append(_Part(key, (key,), place))
        else:
            below = [name for name in run.counts if name.startswith(f"{key}.")]
            parts += [_Part(name, (key, *name.removeprefix(f"{key}.").split(".")), place) for name in below]
    if len({part.asked for part in parts}) < len(asked):
        return []
    if asked:
        rows = _rows(connection, run, parts, window, None, whole=len(asked), step="_step" in keys)
    else:
        rows = _steps(connection, run, window)
    text = orjson.dumps(rows)
    # Lists and objects are kept as the text that was logged, which may hold bare tokens, too.
    return list(_strict(loads(text))) if b"NaN" in text or b"Infinity" in text else orjson.Fragment(text)


def described(connection: DuckDBPyConnection, project: Project, runs: Mapping[int, str]) -> dict[int, dict[str, Any]]:
    """What `historyKeys` answers for runs by their number; nothing for a run without rows."""
    rows = connection.execute(
        """
        SELECT k.rid, k.key, k.rows, k.last, h.last_step
        FROM store.history_keys AS k JOIN store.run_history AS h ON h.rid = k.rid
        WHERE k.rid IN (SELECT unnest(?)) ORDER BY k.rid, k.key
        """,
        [list(runs)],
    ).fetchall()
    odd = sorted({key for _, key, _, last, _ in rows if last is None})
    kinds = _kinds(connection, project, sorted({runs[row[0]] for row in rows if row[3] is None}), odd) if odd else {}
    found: dict[int, dict[str, Any]] = {}
    for rid, key, count, last, last_step in rows:
        told = found.setdefault(rid, {"keys": {"_step": None}, "lastStep": last_step, "sets": []})
        kind = "number" if last is not None else kinds.get((runs[rid], key), "string")
        told["keys"][key] = {"typeCounts": [{"type": kind, "count": count}], "previousValue": _plain(last)}
    for told in found.values():
        told["keys"]["_step"] = {
            "typeCounts": [
                {
                    "type": "number",
                    "count": max(
                        entry["typeCounts"][0]["count"] for key, entry in told["keys"].items() if key != "_step"
                    ),
                }
            ],
            "monotonic": True,
            "previousValue": told["lastStep"],
        }
    return found


def _kinds(
    connection: DuckDBPyConnection, project: Project, run_ids: Sequence[str], keys: Sequence[str]
) -> dict[tuple[str, str], str]:
    """The type of what is no number, told by one value of each key."""
    rows = connection.execute(
        """
        SELECT run_id, key, any_value(CASE left(text, 1)
            WHEN '"' THEN 'string' WHEN '[' THEN 'list' WHEN 't' THEN 'boolean' WHEN 'f' THEN 'boolean'
            WHEN 'n' THEN 'nil' WHEN '{' THEN coalesce(TRY_CAST(text AS JSON) ->> '$._type', 'map') ELSE 'number' END)
        FROM history WHERE entity = ? AND project = ? AND run_id IN (SELECT unnest(?)) AND key IN (SELECT unnest(?))
        GROUP BY run_id, key
        """,
        [*project, list(run_ids), list(keys)],
    ).fetchall()
    return {(run_id, key): kind for run_id, key, kind in rows}


def _document(connection: DuckDBPyConnection, run: Logged) -> dict[str, Any]:
    found = connection.execute(f"SELECT summary FROM store.runs WHERE {_HERE}", run.place).fetchall()
    document = loads(found[0][0]) if found and found[0][0] else {}
    return document if isinstance(document, dict) else {}


def _path(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Where a dotted key stands in the summary; the key itself where it is not found there."""
    return _located(document, key) or (key,)


def _located(document: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    if key in document:
        return (key,)
    for place, letter in enumerate(key):
        below = document.get(key[:place]) if letter == "." else None
        if isinstance(below, dict) and "_type" not in below and (found := _located(below, key[place + 1 :])):
            return (key[:place], *found)
    return None


def _rows(
    connection: DuckDBPyConnection,
    run: Logged,
    parts: Sequence[_Part],
    window: Window,
    dense: str | None,
    *,
    whole: int = 0,
    relation: str = "history",
    step: bool = True,
) -> list[dict[str, Any]]:
    """The rows by rising step. `whole` is how many asked keys a row must hold to count; 0 takes every row."""
    if not parts:
        return []
    here, params = _where(run, window)
    chosen, chosen_params = _chosen(relation, here, params, parts, window, dense, whole)
    only = f" AND h.step IN ({chosen})" if chosen else ""
    places = {part.key: part.path for part in parts}
    if len(places) < len(run.counts):
        only = f"{only} AND h.key IN ({', '.join('?' * len(places))})"
        chosen_params = [*chosen_params, *places]
    # Not sorted by DuckDB, which would double the time; nor joined with the keys, which takes long to plan.
    found = connection.execute(
        f"""SELECT h.step, h.key, h.value, h.text,
            CASE WHEN h.value = trunc(h.value) AND abs(h.value) <= {EXACT} THEN CAST(h.value AS BIGINT) END
        FROM {relation} AS h WHERE {here}{only}""",
        [*params, *chosen_params],
    ).fetchall()
    nested = any(len(path) > 1 for path in places.values())
    rows: dict[int, dict[str, Any]] = {}
    for at, key, value, text, whole_number in found:
        row = rows.get(at)
        if row is None:
            row = rows[at] = {"_step": at} if step else {}
        if nested:
            path = places[key]
            for name in path[:-1]:
                row = row.setdefault(name, {})
            key = path[-1]  # noqa: PLW2901
        if text is not None:
            row[key] = orjson.Fragment(text)
        elif whole_number is not None:
            row[key] = whole_number
        else:
            row[key] = value if value - value == 0 else _not_finite(value)
    return [rows[at] for at in sorted(rows)]


def _item(value: float, text: str | None) -> Any:
    if text is not None:
        return orjson.Fragment(text)
    return value if value - value == 0 else _not_finite(value)


def _not_finite(value: float) -> orjson.Fragment:
    return orjson.Fragment("NaN" if value != value else "Infinity" if value > 0 else "-Infinity")  # noqa: PLR0124


def _steps(connection: DuckDBPyConnection, run: Logged, window: Window) -> list[dict[str, Any]]:
    """The rows as nothing but their steps."""
    here, params = _where(run, window)
    chosen, chosen_params = _chosen("history", here, params, [], window, run.dense, 0)
    steps = chosen or f"SELECT DISTINCT step FROM history WHERE {here}"
    found = connection.execute(f"SELECT step FROM ({steps}) ORDER BY step", chosen_params or params).fetchall()
    return [{"_step": step} for (step,) in found]


def _where(run: Logged, window: Window) -> tuple[str, list[Any]]:
    here, params = _HERE, run.place
    for condition, bound in (("step >= ?", window.low), ("step < ?", window.high)):
        if bound is not None:
            here, params = f"{here} AND {condition}", [*params, bound]
    return here, params


def _chosen(
    relation: str,
    here: str,
    params: list[Any],
    parts: Sequence[_Part],
    window: Window,
    dense: str | None,
    whole: int,
) -> tuple[str, list[Any]]:
    """Which steps to take, as a query; an empty one where that is all of them."""
    bounded = window.low is not None and window.high is not None
    every = window.samples is None or (bounded and window.samples >= (window.high or 0) - (window.low or 0))
    if every and not whole:
        return "", []
    if whole:
        member = "SELECT unnest(?::VARCHAR[]) AS key, unnest(?::BIGINT[]) AS asked"
        steps = (
            f"SELECT h.step FROM {relation} AS h JOIN ({member}) AS a ON a.key = h.key WHERE {here} "
            "GROUP BY h.step HAVING count(DISTINCT a.asked) = ?"
        )
        found: list[Any] = [[part.key for part in parts], [part.asked for part in parts], *params, whole]
    else:
        only = " AND key = ?" if dense else ""
        steps = f"SELECT DISTINCT step FROM {relation} WHERE {here}{only}"
        found = [*params, *([dense] if dense else [])]
    if every:
        return steps, found
    most = max(window.samples or 0, 0)
    # As `mirror history --samples`: the first and the last row are among them.
    return (
        f"""SELECT step FROM (
            SELECT step, row_number() OVER (ORDER BY step) - 1 AS i, count(*) OVER () AS n FROM ({steps})
        ) WHERE ? > 0 AND (n <= ? OR i = 0 OR i * (? - 1) // (n - 1) > (i - 1) * (? - 1) // (n - 1))""",
        [*found, most, most, most, most],
    )


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return _plain(value)
    if isinstance(value, dict):
        return {key: _strict(entry) for key, entry in value.items()}
    return [_strict(entry) for entry in value] if isinstance(value, list) else value


def _plain(value: float | None) -> float | str | None:
    if value is None or value - value == 0:
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124
