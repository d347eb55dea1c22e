"""The tool `compare_runs`: what differs between runs, and groups of runs with the confidence that repeats allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mirror.errors import QueryError, UsageError
from mirror.mcp import grouping, metrics, welch
from mirror.mcp.answers import Row, number, plural, table
from mirror.mcp.ask import Ask, Run, deletions
from mirror.mcp.grouping import Group, Groups
from mirror.mcp.metrics import Goal, Goals, Metric
from mirror.query import differences
from mirror.query.group_table import Statistics
from mirror.snapshot import run_rows

SIDE_BY_SIDE = 8
"""Up to this many runs, the values in which they differ are listed."""

MOST_METRICS = 3
"""Metrics that are compared if none is named."""

_NOISE = ("summary._", "created_at", "notes", "name")


def compare_runs(ask: Ask) -> str:
    """Differences of runs, and statistics of groups of them."""
    runs, notes = _runs(ask)
    projects = {run.project for run in runs}
    groups = (
        grouping.grouped(ask.connection, runs, ask["group_by"])
        if ask["group_by"]
        else grouping.by_configuration(ask.connection, runs)
    )
    parts = []
    if ask["runs"] and len(runs) <= SIDE_BY_SIDE:
        parts.append(_side_by_side(ask, runs))
        if not groups.repeated and not ask["group_by"]:
            notes.append("each configuration ran once: how much of a difference is chance cannot be computed")
            return ask.answer("\n".join(parts), projects, notes)
    elif not groups.repeated and not ask["group_by"]:
        names = ", ".join(grouping.differing(ask.connection, runs)[:10])
        raise UsageError(
            f"no two of these {len(runs):,} runs have the same config but for seeds: give group_by, of {names}"
        )
    keys = ask["metrics"]
    if not keys:
        keys, count = metrics.usual(ask.connection, runs, ask["value"], MOST_METRICS)
        if count > len(keys):
            notes.append(f"{len(keys)} of {plural(count, 'metric')}: name others in metrics")
    if not keys:
        raise QueryError("none of these runs has a number in its summary: give value=last, min or max for history")
    chars = max(ask["max_chars"] // len(keys), 500)
    chosen = metrics.metrics(ask.connection, runs, keys, ask["value"])
    made = [_of_metric(ask, runs, groups, metric, chars) for metric in chosen]
    parts += [text for text, _ in made]
    notes = [*_method(ask, max(count for _, count in made)), *groups.notes, *notes, *_states(ask, runs)]
    return ask.answer("\n".join(parts), projects, notes)


def _runs(ask: Ask) -> tuple[list[Run], list[str]]:
    if bool(ask["runs"]) == bool(ask["project"]):
        raise UsageError("which runs? give runs, or project with filter, not both")
    if ask["runs"]:
        if ask["filter"]:
            raise UsageError("filter goes with project, not with runs")
        runs = ask.named(ask["runs"])
        notes = deletions(runs)
    else:
        query = ask.matching(default_order="+created_at")
        runs, notes = ask.chosen(query), query.warnings()
    if len(runs) < 2:
        raise UsageError(f"a comparison needs at least two runs; {'one' if runs else 'none'} found")
    return runs, notes


def _side_by_side(ask: Ask, runs: Sequence[Run]) -> str:
    found = differences.table(ask.connection, [(run.project, run.run_id) for run in runs])
    media = tuple(str(row[0]).removesuffix("_type") for row in found.rows if str(row[0]).endswith("._type"))
    rows = [
        [row[0], *(_short(value) for value in row[1:])]
        for row in found.rows
        if not str(row[0]).startswith(_NOISE) and not (media and str(row[0]).startswith(media)) and not _is_media(row)
    ]
    # What people changed comes before what came of it.
    rows.sort(key=lambda row: (str(row[0]).startswith("summary."), not str(row[0]).startswith("config.")))
    names = ", ".join(f"{run.run_id} = {run.name}" for run in runs if run.name != run.run_id)
    made = table(found.columns, rows, ask["max_chars"] // 2)
    rest = len(rows) - made.shown
    text = made.text if rows else "the runs do not differ in fields, config or summary\n"
    cut = (
        f"({plural(rest, 'difference')} more: raise max_chars, or query config_values and summary_values)\n"
        if rest
        else ""
    )
    head = f"runs: {names}\n" if names else ""
    return f"{head}{text}{cut}"


def _is_media(row: Row) -> bool:
    """Return True for a part of an image or histogram, whose `_type` all runs share so that it is no difference."""
    return str(row[0]).endswith((".sha256", ".path", ".size", ".values", ".packedBins.min", ".packedBins.size"))


def _short(value: Any) -> Any:
    """A number with six digits; whole numbers and texts as they are."""
    try:
        return float(value) if isinstance(value, str) and "." in value else value
    except ValueError:
        return value


def _of_metric(ask: Ask, runs: Sequence[Run], groups: Groups, metric: Metric, chars: int) -> tuple[str, int]:
    """The groups and their differences in one metric, and how many groups have a value."""
    goal = Goals.of(ask.connection, runs).goal(metric.key, ask["goal"])
    stats = {
        group: Statistics.of([metric.values[run.rid] for run in group.runs if run.rid in metric.values])
        for group in groups.groups
    }
    compared = [group for group in groups.groups if stats[group].n]
    if not compared:
        return f"## {metric.key}: no finite value; NaN or infinite in {plural(len(metric.not_finite), 'run')}\n", 0
    if goal.lower is not None:
        compared.sort(key=lambda group: (stats[group].mean or 0.0) * (1 if goal.lower else -1))
    base = _baseline(ask["baseline"], groups, compared)
    several = len(compared) > 1
    rows: list[Row] = [
        [*_line(group, stats[group]), *(_difference(stats[group], stats[base], goal, group is base) if several else ())]
        for group in compared
    ]
    rows += [(*group.values, len(group.runs), 0) for group in groups.groups if not stats[group].n]
    columns = [*groups.by, "runs", "n", "mean", "sd", "min", "max", "ci95"]
    made = table([*columns, "difference", "ci95 of it", "verdict"] if several else columns, rows, chars)
    of = {"summary": "value in the summary", "last": "last logged value"}.get(
        ask["value"], f"{ask['value']}imum logged value"
    )
    better = f"; {'lower' if goal.lower else 'higher'} is better, {goal.reason}" if goal.lower is not None else ""
    lines = [f"## {metric.key}: {of}{better}", made.text.rstrip("\n")]
    if made.shown < len(rows):
        lines.append(f"({made.shown} of {len(rows):,} groups: raise max_chars, or group by fewer keys)")
    if metric.not_finite:
        lines.append(f"({plural(len(metric.not_finite), 'run')} with NaN or infinity left out of n)")
    return "\n".join(lines) + "\n", len(compared)


def _line(group: Group, one: Statistics) -> Row:
    assert one.mean is not None
    interval = None if one.ci is None else _interval(one.mean - one.ci, one.mean + one.ci)
    return [*group.values, len(group.runs), one.n, one.mean, one.std, _float(one.min), _float(one.max), interval]


def _difference(one: Statistics, base: Statistics, goal: Goal, is_base: bool) -> Row:
    """The difference from the baseline, its interval, and what follows."""
    if is_base:
        return [None, None, "baseline"]
    found = welch.difference(one, base)
    if found.half is None:
        return [_signed(found.mean), None, found.why]
    if found.low <= 0 <= found.high:
        verdict = "not distinguishable"
    elif goal.lower is None:
        verdict = "differs"
    else:
        verdict = "better" if (found.mean < 0) == goal.lower else "worse"
    return [_signed(found.mean), _interval(found.low, found.high), verdict]


def _interval(low: float, high: float) -> str:
    return f"{number(low)} to {number(high)}"


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _baseline(text: str | None, groups: Groups, compared: Sequence[Group]) -> Group:
    """The group that others are compared with: as given, else the first one whose runs have the keys."""
    if not text:
        return next((group for group in compared if grouping.NOT_SET not in group.values), compared[0])
    for group in compared:
        if text in (groups.label(group), *group.values) or groups.label(group).endswith(f".{text}"):
            return group
    raise UsageError(f"no group {text}; baseline is one of: {'; '.join(groups.label(one) for one in compared[:10])}")


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value)}"


def _method(ask: Ask, compared: int) -> list[str]:
    """What was computed of so many groups, and what it does not say."""
    if compared < 2:
        return ["ci95: Student's 95% interval of the mean"]
    notes = ["ci95: Student's 95% interval of the mean; difference: from the baseline, with Welch's 95% interval"]
    if compared > 2:
        luck = "" if ask["baseline"] else "; the best of several groups is partly luck"
        notes.append(f"intervals are not corrected for {compared - 1} comparisons: 1 in 20 misses by chance{luck}")
    return notes


def _states(ask: Ask, runs: Sequence[Run]) -> list[str]:
    """A warning for runs that have not finished, whose values are not final or end early."""
    states = run_rows.column(ask.connection, "state", [run.rid for run in runs])
    other: dict[str, int] = {}
    for run in runs:
        if states[run.rid] != "finished":
            other[states[run.rid]] = other.get(states[run.rid], 0) + 1
    if not other:
        return []
    listed = ", ".join(f"{count:,} {state}" for state, count in sorted(other.items()))
    return [f"{listed} of {len(runs):,} runs: their values are not those of a complete run; filter state=finished"]
