"""The tool `get_history`: curves of some keys of some runs, each reduced to few points that keep its extremes."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mirror.errors import QueryError, UsageError
from mirror.mcp.answers import Row, number, plural, table
from mirror.mcp.ask import PICKED, Ask, Run, deletions, picked
from mirror.metrics import STEP
from mirror.snapshot import facts, history_keys
from mirror.snapshot.downsample import Curve, curves
from mirror.snapshot.paths import Project, nearest_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MOST_RUNS = 20
MOST_KEYS = 10

Labels = dict[tuple[Project, str], Run]

_FILLED = 0.6
"""Curves are columns of one table if so many of its cells are filled."""


def get_history(ask: Ask) -> str:
    """Curves as a table over the common x axis, or each on its own line."""
    runs = ask.named(ask["runs"])
    if len(runs) > MOST_RUNS:
        raise UsageError(f"at most {MOST_RUNS} runs at once, not {len(runs)}; compare_runs has statistics of many")
    logged = history_keys.names_of(ask.connection, [run.rid for run in runs])
    keys = _keys(ask["keys"], sorted({key for names in logged.values() for key in names}))
    notes = deletions(runs) + _lacking(ask.connection, runs, keys, logged)
    found = curves(
        ask.connection,
        [(run.project, run.run_id) for run in runs],
        keys,
        x=_axis(ask["x"], logged),
        points=ask["points"],
    )
    labels = {(run.project, run.run_id): run for run in runs}
    drawn = [curve for curve in found if curve.x]
    if not drawn:
        raise QueryError(
            f"there are no finite numbers under {', '.join(keys)} in these runs; `query` history shows texts"
        )
    notes += [
        f"{_name(curve, labels)}: {plural(curve.not_finite, 'value')} NaN or infinite, left out"
        for curve in found
        if curve.not_finite
    ]
    parts, left = [], ask["max_chars"]
    for axis in dict.fromkeys(curve.x_key for curve in drawn):
        text = _over(axis, [curve for curve in drawn if curve.x_key == axis], labels, left)
        parts.append(text)
        left -= len(text)
    lacking = [run for run in runs if run.rid in _behind(ask.connection, runs)]
    notes += [f"{run.run_id}: the server has more history than the mirror" for run in lacking]
    names = ", ".join(f"{run.run_id} = {run.path} ({run.name})" for run in runs)
    return ask.answer("\n".join([f"runs: {names}", *parts]), {run.project for run in runs}, notes)


def _keys(globs: Sequence[str], known: Sequence[str]) -> list[str]:
    if not known:
        raise QueryError("these runs have no mirrored history")
    if not globs:
        raise UsageError(f"which keys? these runs logged: {', '.join(known[:40])}")
    chosen: dict[str, None] = {}
    for glob in globs:
        names = [key for key in known if key == glob] or [key for key in known if fnmatchcase(key, glob)]
        if not names:
            raise QueryError(f"none of these runs logged {glob}; {nearest_of(glob, known)}")
        chosen.update(dict.fromkeys(names))
    if len(chosen) > MOST_KEYS:
        raise UsageError(f"at most {MOST_KEYS} keys at once; {', '.join(globs)} selects {len(chosen)}")
    return list(chosen)


def _axis(x: str | None, logged: dict[int, list[str]]) -> str | None:
    if x is None:
        return None
    known = sorted({key for names in logged.values() for key in names})
    if x in ("step", "none") and x not in known:
        return STEP
    if x != STEP and x not in known:
        raise QueryError(f"none of these runs logged {x}, the x axis; {nearest_of(x, [STEP, *known])}")
    return x


def _lacking(
    connection: DuckDBPyConnection, runs: Sequence[Run], keys: Sequence[str], logged: dict[int, list[str]]
) -> list[str]:
    """The keys that single runs did not log, and those under which they logged no numbers."""
    rows = connection.execute(
        f"WITH picked AS ({PICKED}) SELECT picked.rid, k.key FROM history_keys AS k "
        "JOIN picked USING (entity, project, run_id) WHERE k.last IS NULL AND k.key IN (SELECT unnest(?::VARCHAR[]))",
        [*picked(runs), list(keys)],
    ).fetchall()
    texts = set(rows)
    notes = []
    for run in runs:
        if absent := [key for key in keys if key not in logged[run.rid]]:
            notes.append(f"{run.run_id} did not log {', '.join(absent)}")
        if other := [key for key in keys if (run.rid, key) in texts]:
            notes.append(f"{run.run_id}: {', '.join(other)} holds no numbers; query history.text")
    return notes


def _behind(connection: DuckDBPyConnection, runs: Sequence[Run]) -> set[int]:
    projects = dict.fromkeys(run.project for run in runs)
    return {rid for project in projects for rid in facts.without_history(connection, project)}


def _name(curve: Curve, labels: Labels) -> str:
    return f"{curve.key}@{labels[curve.run].run_id}"


def _over(axis: str, drawn: Sequence[Curve], labels: Labels, chars: int) -> str:
    """The curves over one x axis: those with about the same x values beside each other, others on lines alone."""
    lines = [f"x = {axis if axis != STEP else 'step'}"]
    reduced = [curve for curve in drawn if _finite(curve) > len(curve.x)]
    if reduced:
        lines.append("reduced curves have the lowest and highest value of each piece; points=N gives more")
    groups = _alike(drawn, reduced)
    left = chars
    for index, together in enumerate(groups):
        if left <= 0:
            rest = sum(map(len, groups[index:]))
            what = "1 more curve does" if rest == 1 else f"{rest:,} more curves do"
            lines.append(f"({what} not fit: fewer points, keys or runs, or a larger max_chars)")
            break
        share = max(left * len(together) // sum(map(len, groups[index:])), 200)
        lines.append(_beside(together, labels, share) if len(together) > 1 else _line(together[0], labels, share))
        left -= len(lines[-1])
    return "\n".join(lines)


def _finite(curve: Curve) -> int:
    return curve.rows - curve.not_finite


def _alike(drawn: Sequence[Curve], reduced: Sequence[Curve]) -> list[list[Curve]]:
    """Curves that have about the same x values in common, each once; the others alone."""
    found: list[list[Curve]] = []
    for curve in drawn:
        alone = curve in reduced or len(set(curve.x)) < len(curve.x)
        for group in [] if alone else found:
            xs = {x for one in group for x in one.x} | set(curve.x)
            filled = sum(len(one.x) for one in [*group, curve])
            if group[0] not in reduced and filled >= _FILLED * len(xs) * (len(group) + 1):
                group.append(curve)
                break
        else:
            found.append([curve])
    return found


def _beside(together: Sequence[Curve], labels: Labels, chars: int) -> str:
    """A table with one row per x at which any curve has a value."""
    places = [dict(zip(curve.x, curve.y, strict=True)) for curve in together]
    rows: list[Row] = [
        [x, *(values.get(x) for values in places)] for x in sorted({x for values in places for x in values})
    ]
    made = table(["x", *(_name(curve, labels) for curve in together)], rows, chars)
    text = made.text.rstrip("\n")
    if made.shown < len(rows):
        text += f"\n({made.shown} of {len(rows):,} rows fit: fewer points, keys or runs, or a larger max_chars)"
    return text


def _line(curve: Curve, labels: Labels, chars: int) -> str:
    """Pairs of x and value."""
    pairs = [f"{number(x)}:{number(y)}" for x, y in zip(curve.x, curve.y, strict=True)]
    shown = length = 0
    for pair in pairs:
        length += len(pair) + 1
        if length > chars:
            break
        shown += 1
    values = f", {len(pairs):,} of {_finite(curve):,} values" if _finite(curve) > len(pairs) else ""
    cut = ""
    if shown < len(pairs):
        cut = f" (the first {shown} of {len(pairs)} points fit: fewer points, or a larger max_chars)"
    return f"{_name(curve, labels)} (x:value{values}): {' '.join(pairs[:shown])}{cut}"
