"""The tool `diagnose_run`: what in a run's records explains how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mirror.mcp import ending, signs
from mirror.mcp.answers import clean, number, plural
from mirror.mcp.ask import Ask, Run
from mirror.mcp.metrics import Goals
from mirror.mcp.signs import FEWEST, PIECES, Piece, Sign
from mirror.snapshot import console

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

OF_ROWS = ("NaN", "gap in steps", "standstill")
OF_METRICS = ("divergence", "worse after its best", "spike", "plateau")
"""Kinds of signs that are looked for in all rows, and in metrics with a known direction."""

MOST_METRICS = 8
FAR = 5
"""A distance between steps of so many times the usual one is a gap."""

STILL = 10
"""The same for times between rows, of at least STILL_SECONDS."""

STILL_SECONDS = 60.0

_HERE = "entity = ? AND project = ? AND run_id = ?"


def diagnose_run(ask: Ask) -> str:
    """Facts about the end of a run, signs in its history, and the end of its console."""
    (run,) = ask.named([ask["run"]])
    found, judged, unjudged = _history(ask.connection, run)
    lines = [*ending.lines(ask.connection, run), *(f"- {one.kind}: {one.text}" for one in found)]
    kinds = {one.kind for one in found}
    checked = [*(OF_ROWS if judged or unjudged else ()), *(OF_METRICS if judged else ())]
    if absent := [kind for kind in checked if kind not in kinds]:
        lines.append(f"checked and not found: {', '.join(absent)}")
    notes = []
    for way, lower in (("lower", True), ("higher", False)):
        if keys := [key for key, is_lower in judged.items() if is_lower == lower]:
            notes.append(f"{way} is taken as better: {', '.join(keys)}")
    if unjudged:
        listed = ", ".join(unjudged[:8]) + (f" and {len(unjudged) - 8} more" if len(unjudged) > 8 else "")
        notes.append(f"only checked for NaN, as they have no known direction or fewer than {FEWEST} values: {listed}")
    used = sum(map(len, lines)) + sum(map(len, notes))
    lines += _console(ask.connection, run, ask["console_lines"], max(ask["max_chars"] - used, 400))
    return ask.answer("\n".join(lines), {run.project}, notes)


def _history(connection: DuckDBPyConnection, run: Run) -> tuple[list[Sign], dict[str, bool], list[str]]:
    """The signs in the history, the metrics that were judged, True where lower is better, and the other keys."""
    counts = connection.execute(
        f"""SELECT key, count(value), count(*) FILTER (isfinite(value)), min(step) FILTER (NOT isfinite(value)),
            arg_max(value, step) FILTER (isfinite(value)), max(step) FILTER (isfinite(value)),
            arg_min(value, step) FILTER (NOT isfinite(value))
        FROM history WHERE {_HERE} AND value IS NOT NULL GROUP BY key ORDER BY key""",
        run.address,
    ).fetchall()
    found = [_not_finite(*row) for row in counts if row[1] > row[2]]
    of_project = Goals.of(connection, [run])
    goals = {row[0]: of_project.goal(row[0]) for row in counts if not row[0].startswith("_")}
    directed = {row[0]: goals[row[0]].lower for row in counts if row[0] in goals and row[2] >= FEWEST}
    judged = dict([(key, lower) for key, lower in directed.items() if lower is not None][:MOST_METRICS])
    pieces = _pieces(connection, run, list(judged))
    for key, lower in judged.items():
        found += signs.of_metric(key, pieces[key], lower=lower)
    found += _gaps(connection, run)
    return found, judged, [key for key in goals if key not in judged]


def _not_finite(
    key: str, numbers: int, finite: int, first: int, last: float | None, last_step: int | None, value: float
) -> Sign:
    word = {"nan": "NaN"}.get(number(value), number(value))
    before = "no finite value at all"
    if last is not None:
        before = f"last finite value {number(last)} at step {last_step:,}"
    return Sign(
        "NaN",
        f"{key} is {word} at step {first:,} first; {numbers - finite:,} of {numbers:,} values are not finite; {before}",
    )


def _pieces(connection: DuckDBPyConnection, run: Run, keys: Sequence[str]) -> dict[str, list[Piece]]:
    rows = connection.execute(
        f"""SELECT key, min(step), max(step), median(value), min(value), max(value),
            quantile_cont(value, 0.75) - quantile_cont(value, 0.25), count(*),
            arg_min(step, value), arg_max(step, value)
        FROM (
            SELECT key, step, value, ntile({PIECES}) OVER (PARTITION BY key ORDER BY step) AS piece
            FROM history WHERE {_HERE} AND key IN (SELECT unnest(?::VARCHAR[])) AND isfinite(value)
        ) GROUP BY key, piece ORDER BY key, piece""",
        [*run.address, list(keys)],
    ).fetchall()
    found: dict[str, list[Piece]] = {}
    for key, *values in rows:
        found.setdefault(key, []).append(Piece(*values))
    return found


def _gaps(connection: DuckDBPyConnection, run: Run) -> list[Sign]:
    steps = f"SELECT DISTINCT step AS place, step FROM history WHERE {_HERE}"
    times = f"SELECT value AS place, step FROM history WHERE {_HERE} AND key = '_timestamp' AND isfinite(value)"
    found = []
    usual, before, size, count = _largest(connection, steps, FAR, 0, run.address)
    if count:
        found.append(
            Sign(
                "gap in steps",
                f"no rows between steps {before:,} and {before + size:,}, where {number(usual)} is the usual distance"
                f" ({plural(count, 'gap')} in all)",
            )
        )
    usual, before, size, count = _largest(connection, times, STILL, STILL_SECONDS, run.address)
    if count:
        found.append(
            Sign(
                "standstill",
                f"{timedelta(seconds=round(size))} without a row after step {before:,}; {number(usual)} s is usual"
                f" ({plural(count, 'such pause')} in all)",
            )
        )
    return found


def _largest(
    connection: DuckDBPyConnection, sql: str, times: int, least: float, params: list[str]
) -> tuple[Any, Any, Any, int]:
    """The usual distance of `place` in step order, and what is known of the far larger ones.

    These are the step before the largest one, its size, and how many there are.
    """
    return connection.execute(
        f"""WITH d AS (SELECT step, lead(place) OVER (ORDER BY step) - place AS gap FROM ({sql})),
            usual AS (SELECT median(gap) AS usual FROM d WHERE gap IS NOT NULL HAVING count(*) >= 10)
        SELECT any_value(usual), arg_max(step, gap), max(gap), count(*)
        FROM d, usual WHERE gap > {times} * usual AND gap >= {least}""",
        params,
    ).fetchall()[0]


def _console(connection: DuckDBPyConnection, run: Run, most: int, chars: int) -> list[str]:
    """The last lines of the console, from the last traceback on if there is one among them."""
    if most == 0:
        return []
    if console.pulled(connection, run.rid) is None and not console.count(connection, run.rid):
        return ["console: nothing of it is mirrored; that needs [sync] console = true in the config"]
    count = console.count(connection, run.rid)
    if not count:
        return ["console: empty"]
    last = console.last_lines(connection, run.rid, 400)
    starts = [index for index, line in enumerate(last) if line.text.startswith("Traceback (most recent call last)")]
    shown = last[starts[-1] :] if starts else last[-most:]
    what = "from its last traceback on" if starts else f"last {len(shown):,} of {plural(count, 'line')}"
    lines = [clean(line.text)[:300] for line in shown]
    # The end says why a run ended, so the beginning is cut.
    cut = 0
    while len(lines) > 1 and sum(len(line) + 1 for line in lines) > chars:
        del lines[0]
        cut += 1
    before = f"; {plural(cut, 'line')} before are cut, raise max_chars" if cut else ""
    return [f"console, {what}{before}:", *lines]
