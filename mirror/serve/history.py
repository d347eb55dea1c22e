"""Logged values of a run as W&B sends them: one JSON text a step, made by DuckDB."""

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


def lines(connection: DuckDBPyConnection, run: tuple[Project, str], window: Window) -> list[str]:
    """The rows of a window by rising step, all keys; numbers that are not finite are bare tokens.

    Nested values are nested again where the run's summary shows that they were logged so; the mirror itself has a
    dotted key for each, which may also have been logged with its dots.
    """
    counts = _counts(connection, run)
    nested = _document(connection, run) if any("." in key for key in counts) else {}
    parts = [_Part(key, _path(nested, key), place) for place, key in enumerate(counts)]
    return _lines(connection, "history", run, parts, window, _dense(connection, run, counts))


def events(connection: DuckDBPyConnection, run: tuple[Project, str], samples: int | None) -> list[str] | None:
    """The rows of system metrics; None where none are mirrored of the project."""
    project, run_id = run
    mirrored = "SELECT 1 FROM system_metrics WHERE entity = ? AND project = ? LIMIT 1"
    if not connection.execute(mirrored, list(project)).fetchall():
        return None
    found = connection.execute(
        f"SELECT DISTINCT key FROM system_metrics WHERE {_HERE} ORDER BY key", [*project, run_id]
    ).fetchall()
    parts = [_Part(key, (key,), place) for place, (key,) in enumerate(found)]
    return _lines(connection, "system_metrics", run, parts, Window(samples=samples), None, step="")


def sampled(
    connection: DuckDBPyConnection, run: tuple[Project, str], keys: Sequence[str], window: Window
) -> orjson.Fragment | list[Any]:
    """The rows that hold all of these keys, cut down to them, as strict JSON: NaN and infinities are strings.

    A key of a nested object stands for the object.
    """
    asked = [key for key in dict.fromkeys(keys) if key != "_step"]
    counts = _counts(connection, run)
    parts: list[_Part] = []
    for place, key in enumerate(asked):
        below = [key] if key in counts else [name for name in counts if name.startswith(f"{key}.")]
        parts += [
            _Part(name, (key, *name[len(key) + 1 :].split(".")) if name != key else (key,), place) for name in below
        ]
    if len({part.asked for part in parts}) < len(asked):
        return []
    if asked:
        step = "_step" if "_step" in keys else ""
        rows = _lines(connection, "history", run, parts, window, None, whole=len(asked), strict=True, step=step)
    else:
        rows = _steps(connection, run, window, _dense(connection, run, counts))
    text = f"[{','.join(rows)}]"
    # Lists and objects are kept as the text that was logged, which may hold bare tokens.
    if "NaN" in text or "Infinity" in text:
        return list(_strict(loads(text)))
    return orjson.Fragment(text)


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


def _counts(connection: DuckDBPyConnection, run: tuple[Project, str]) -> dict[str, int]:
    """The keys of a run by name, and how many values each has."""
    rows = connection.execute(
        f"SELECT key, rows FROM history_keys WHERE {_HERE} ORDER BY key", [*run[0], run[1]]
    ).fetchall()
    return dict(rows)


def _dense(connection: DuckDBPyConnection, run: tuple[Project, str], counts: Mapping[str, int]) -> str | None:
    """A key that every row has, as `_timestamp`: its steps are all steps, and quick to read."""
    found = connection.execute(f"SELECT history_rows FROM runs WHERE {_HERE}", [*run[0], run[1]]).fetchall()
    rows = found[0][0] if found else -1
    return next((key for key, count in counts.items() if count == rows), None)


def _document(connection: DuckDBPyConnection, run: tuple[Project, str]) -> dict[str, Any]:
    found = connection.execute(f"SELECT summary FROM runs WHERE {_HERE}", [*run[0], run[1]]).fetchall()
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


def _lines(
    connection: DuckDBPyConnection,
    relation: str,
    run: tuple[Project, str],
    parts: Sequence[_Part],
    window: Window,
    dense: str | None,
    *,
    whole: int = 0,
    strict: bool = False,
    step: str = "_step",
) -> list[str]:
    """The JSON texts. `whole` is how many asked keys a row must hold to count; 0 takes every row."""
    if not parts:
        return []
    here, params = _where(run, window)
    chosen, chosen_params = _chosen(relation, here, params, parts, window, dense, whole)
    only = f" AND h.step IN ({chosen})" if chosen else ""
    value = f"coalesce(h.text, {_number(strict=strict)})"
    head = f"'{_label(step)}' || step || ',' || " if step else ""
    names: list[Any] = [part.key for part in parts]
    places = list(range(len(parts)))
    depth = max(len(part.path) for part in parts)
    if depth == 1:
        # Most runs: nothing is nested, and a name is quicker than a list of one.
        labels: list[Any] = [_label(part.path[0]) for part in parts]
        sql = f"""WITH k AS (
                SELECT unnest(?::VARCHAR[]) AS key, unnest(?::VARCHAR[]) AS label, unnest(?::BIGINT[]) AS place
            )
            SELECT '{{' || {head}string_agg(k.label || {value}, ',' ORDER BY k.place) || '}}'
            FROM {relation} AS h JOIN k ON k.key = h.key WHERE {here}{only} GROUP BY h.step ORDER BY h.step"""
    else:
        labels = [[_label(name) for name in part.path] for part in parts]
        levels = "".join(_level(level) for level in range(depth - 1, 0, -1))
        sql = f"""WITH k AS (
                SELECT unnest(?::VARCHAR[]) AS key, unnest(?::VARCHAR[][]) AS path, unnest(?::BIGINT[]) AS place
            ), v{depth} AS (
                SELECT h.step, k.path, k.place, {value} AS value
                FROM {relation} AS h JOIN k ON k.key = h.key WHERE {here}{only}
            ){levels}
            SELECT '{{' || {head}string_agg(path[1] || value, ',' ORDER BY place) || '}}'
            FROM v1 GROUP BY step ORDER BY step"""
    found = connection.execute(sql, [names, labels, places, *params, *chosen_params]).fetchall()
    return [text for (text,) in found]


def _steps(connection: DuckDBPyConnection, run: tuple[Project, str], window: Window, dense: str | None) -> list[str]:
    """The rows as nothing but their steps."""
    here, params = _where(run, window)
    chosen, chosen_params = _chosen("history", here, params, [], window, dense, 0)
    steps = chosen or f"SELECT DISTINCT step FROM history WHERE {here}"
    sql = f"SELECT '{_label('_step')}' || step FROM ({steps}) ORDER BY step"
    return [f"{{{text}}}" for (text,) in connection.execute(sql, chosen_params or params).fetchall()]


def _level(level: int) -> str:
    """What stands deeper than this level, gathered into the objects of this level."""
    return f""", v{level} AS (
        SELECT step, path[:{level}] AS path, min(place) AS place,
               '{{' || string_agg(path[{level + 1}] || value, ',' ORDER BY place) || '}}' AS value
        FROM v{level + 1} WHERE len(path) = {level + 1} GROUP BY step, path[:{level}]
        UNION ALL SELECT step, path, place, value FROM v{level + 1} WHERE len(path) <= {level}
    )"""


def _where(run: tuple[Project, str], window: Window) -> tuple[str, list[Any]]:
    project, run_id = run
    here, params = _HERE, [*project, run_id]
    bounds: list[Any] = []
    for condition, bound in (("step >= ?", window.low), ("step < ?", window.high)):
        if bound is not None:
            here = f"{here} AND {condition}"
            bounds.append(bound)
    return here, [*params, *bounds]


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


def _number(*, strict: bool) -> str:
    """A number as JSON; whole ones without a fraction."""
    quote = '"' if strict else ""
    return f"""CASE
        WHEN h.value = trunc(h.value) AND abs(h.value) <= {EXACT} THEN CAST(CAST(h.value AS BIGINT) AS VARCHAR)
        WHEN isfinite(h.value) THEN CAST(h.value AS VARCHAR) WHEN isnan(h.value) THEN '{quote}NaN{quote}'
        WHEN h.value > 0 THEN '{quote}Infinity{quote}'
        WHEN h.value < 0 THEN '{quote}-Infinity{quote}' ELSE 'null' END"""


def _label(name: str) -> str:
    return orjson.dumps(name).decode() + ":"


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
