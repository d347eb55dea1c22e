"""Groups of runs that are compared: by values of keys, by ranges of many values, or by repeats with seeds."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mirror.errors import UsageError
from mirror.filters import nearest
from mirror.mcp.answers import number, plural
from mirror.mcp.ask import PICKED, picked
from mirror.query.unknown import FIELDS, nearest_field
from mirror.snapshot.series import whole

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from mirror.mcp.ask import Run

SEED = re.compile(r"(?:^|[._/-])(?:seeds?|random_?(?:seed|state)|\w+_seed)$", re.IGNORECASE)
"""The keys whose values tell repeats of the same configuration apart."""

OF_RUNS = {**FIELDS, **{name: name for name in ("git_commit", "host", "tags")}}
"""What runs are grouped by besides keys of the config, and the column of `runs` of each."""

NOT_SET = "not set"
"""The value of a run that lacks the key."""

RANGES = 5
MOST_GROUPS = 200

EXACT = 2.0**53
"""Whole numbers below this are exact as floats."""

_SAME = "CASE WHEN abs(v.number) < 9007199254740992 THEN CAST(v.number AS VARCHAR) ELSE v.value END"
"""A value as text, the same for 1 and 1.0."""

MANY = 12
"""A numeric key with more values than MANY is cut into RANGES."""


class Group(Struct, frozen=True, eq=False):
    """Runs with equal values in the grouping columns; `values` are these as text."""

    values: tuple[str, ...]
    runs: tuple[Run, ...]


class Groups(Struct, frozen=True):
    """The groups in the order of their values, the columns that they differ in, and remarks on how they were made."""

    by: tuple[str, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...]

    def label(self, group: Group) -> str:
        """What a group is called in a sentence."""
        named = (f"{name}={value}" for name, value in zip(self.by, group.values, strict=True))
        return ", ".join(named) or "all runs"

    @property
    def repeated(self) -> bool:
        """Return True if any group has several runs."""
        return any(len(group.runs) > 1 for group in self.groups)


def grouped(connection: DuckDBPyConnection, runs: Sequence[Run], by: Sequence[str]) -> Groups:
    """Group by config keys and fields of runs. Raises UsageError for an unknown one, naming the nearest."""
    columns = {name: _column(connection, runs, name) for name in dict.fromkeys(by)}
    made = _made(runs, columns, [])
    if len(made.groups) > MOST_GROUPS:
        raise UsageError(
            f"{', '.join(columns)} make {len(made.groups):,} groups of {len(runs):,} runs, at most {MOST_GROUPS} are "
            "compared: give group_by keys with fewer values, or a narrower filter"
        )
    return made


def by_configuration(connection: DuckDBPyConnection, runs: Sequence[Run]) -> Groups:
    """Group the runs that have the same config but for seeds, by the keys in which the config differs.

    If no config is repeated, each group is one run and there are no columns. Raises UsageError for too many groups.
    """
    seeds = [key for key in _config_names(connection, runs) if SEED.search(key)]
    configs = _configs(connection, runs, seeds)
    kept = [run for run in runs if run.rid in configs]
    counts = Counter(configs.values())
    if max(counts.values(), default=0) < 2:
        return Groups((), tuple(Group((), (run,)) for run in kept), ())
    notes = []
    if without := len(runs) - len(kept):
        notes.append(f"{plural(without, 'run')} without a config left out")
    if len(counts) > MOST_GROUPS:
        kept = [run for run in kept if counts[configs[run.rid]] > 1]
        single = sum(count == 1 for count in counts.values())
        notes.append(f"{plural(single, 'configuration')} that ran once left out")
        if len(counts) - single > MOST_GROUPS:
            raise UsageError(
                f"{len(counts) - single:,} configurations are repeated, at most {MOST_GROUPS} are compared: "
                "give a narrower filter, or group_by"
            )
    distinct = _config_keys(connection, kept)
    if ignored := [f"config.{key}" for key in seeds if distinct.get(key, 0) > 1]:
        notes.append(f"runs that differ only in {', '.join(ignored)} are repeats of one configuration")
    differ = [f"config.{key}" for key, count in distinct.items() if count > 1 and key not in seeds]
    return _made(kept, {name: _column(connection, kept, name, ranges=False) for name in differ}, notes)


def _configs(connection: DuckDBPyConnection, runs: Sequence[Run], seeds: Sequence[str]) -> dict[int, str]:
    """For each run with a config a text that is the same for equal configs, apart from these keys."""
    rows = connection.execute(
        f"""WITH picked AS ({PICKED})
        SELECT picked.rid, md5(coalesce(string_agg(v.key || '=' || coalesce({_SAME}, ''), chr(0) ORDER BY v.key)
            FILTER (NOT list_contains(?::VARCHAR[], v.key)), ''))
        FROM config_values AS v JOIN picked USING (entity, project, run_id)
        WHERE NOT starts_with(v.key, '_') GROUP BY picked.rid""",
        [*picked(runs), list(seeds)],
    ).fetchall()
    return dict(rows)


def differing(connection: DuckDBPyConnection, runs: Sequence[Run]) -> list[str]:
    """The config keys in which runs differ with their numbers of values, fewest first, without seeds."""
    counts = _config_keys(connection, runs)
    known = {key: count for key, count in counts.items() if count > 1 and not SEED.search(key)}
    return [f"config.{key} ({plural(count, 'value')})" for key, count in sorted(known.items(), key=lambda one: one[1])]


class _Column(Struct, frozen=True):
    """The value of each run as text, by rid; its place among the others; and a remark."""

    values: Mapping[int, str]
    place: Callable[[str], Any]
    note: str = ""


def _made(runs: Sequence[Run], columns: Mapping[str, _Column], notes: list[str]) -> Groups:
    members: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        members.setdefault(tuple(column.values.get(run.rid, NOT_SET) for column in columns.values()), []).append(run)

    def place(values: tuple[str, ...]) -> list[Any]:
        return [column.place(value) for value, column in zip(values, columns.values(), strict=True)]

    ordered = sorted(members, key=place)
    notes = [*notes, *(column.note for column in columns.values() if column.note)]
    return Groups(tuple(columns), tuple(Group(values, tuple(members[values])) for values in ordered), tuple(notes))


def _column(connection: DuckDBPyConnection, runs: Sequence[Run], name: str, *, ranges: bool = True) -> _Column:
    doc, _, key = name.partition(".")
    if name in OF_RUNS:
        sql = f"SELECT picked.rid, CAST(v.{OF_RUNS[name]} AS VARCHAR), NULL FROM runs AS v"
        end, params = "", []
    else:
        sql = "SELECT picked.rid, v.value, v.number FROM config_values AS v"
        end, params = "WHERE v.key = ?", [key if doc == "config" else ""]
    rows = connection.execute(
        f"WITH picked AS ({PICKED}) {sql} JOIN picked USING (entity, project, run_id) {end}", [*picked(runs), *params]
    ).fetchall()
    if not rows:
        known = _config_names(connection, runs)
        near = nearest(key, known) if doc == "config" else None
        near = f"config.{near}" if near else next(iter(get_close_matches(name, OF_RUNS, 1)), None)
        hint = f"did you mean {near}?" if near else nearest_field(name, [("config", one) for one in known])
        raise UsageError(f"group_by {name}: runs have no such field; {hint}")
    # All digits of larger whole numbers are in the text only.
    numbers = {rid: value for rid, _, value in rows if value is not None and abs(value) < EXACT}
    texts = {rid: text for rid, text, _ in rows if text is not None and rid not in numbers}
    distinct = sorted(set(numbers.values()))
    if ranges and len(distinct) > MANY:
        return _ranges(name, numbers, distinct, texts)
    if ranges and len(set(texts.values())) > MANY and (large := _large(rows)):
        return _ranges(name, large, sorted(set(large.values())), {})
    labels = _labels(distinct)
    return _Column({**texts, **{rid: labels[value] for rid, value in numbers.items()}}, _place)


def _large(rows: Sequence[tuple[int, str | None, float | None]]) -> dict[int, float]:
    """The values if all are finite numbers, some of them too large for all their digits."""
    found = {rid: value for rid, _, value in rows if value is not None and math.isfinite(value)}
    return found if len(found) == len(rows) else {}


def _labels(distinct: Sequence[float]) -> dict[float, str]:
    """The numbers with six digits, or with all if some would look the same."""
    short = {value: number(value) for value in distinct}
    return short if len(set(short.values())) == len(short) else {value: repr(whole(value)) for value in distinct}


def _ranges(name: str, numbers: Mapping[int, float], distinct: Sequence[float], others: Mapping[int, str]) -> _Column:
    """Ranges with about equally many runs, cut between values. Values that are no finite numbers stay as they are."""
    ordered = sorted(numbers.values())
    cuts = [ordered[len(ordered) * part // RANGES] for part in range(1, RANGES)]
    parts: dict[int, list[float]] = {}
    for value in distinct:
        parts.setdefault(sum(value >= cut for cut in cuts), []).append(value)
    ends = _labels(sorted({end for values in parts.values() for end in (values[0], values[-1])}))
    labels = {part: f"{ends[values[0]]} to {ends[values[-1]]}" for part, values in parts.items()}
    places = {label: part for part, label in labels.items()}
    texts = {**others, **{rid: labels[sum(value >= cut for cut in cuts)] for rid, value in numbers.items()}}
    note = (
        f"{name} has {len(distinct):,} numbers: runs are grouped into {len(labels)} ranges of about equally many runs"
    )
    return _Column(texts, lambda text: (0, float(places[text]), "") if text in places else _place(text), note)


def _place(text: str) -> tuple[int, float, str]:
    try:
        value = float(text)
    except ValueError:
        return (2 if text == NOT_SET else 1), 0.0, text
    return (0, value, text) if math.isfinite(value) else (1, 0.0, text)


def _config_names(connection: DuckDBPyConnection, runs: Sequence[Run]) -> list[str]:
    sql = "SELECT DISTINCT key FROM config_values JOIN picked USING (entity, project, run_id) ORDER BY key"
    return [key for (key,) in connection.execute(f"WITH picked AS ({PICKED}) {sql}", picked(runs)).fetchall()]


def _config_keys(connection: DuckDBPyConnection, runs: Sequence[Run]) -> dict[str, int]:
    """The leaves of the runs' configs, each with its number of values; not being set is one, but in an empty config."""
    rows = connection.execute(
        f"""WITH picked AS ({PICKED}), v AS MATERIALIZED (
            SELECT key, value, number, run_id, entity, project FROM config_values
            JOIN picked USING (entity, project, run_id) WHERE NOT starts_with(key, '_')
        )
        SELECT v.key, count(DISTINCT coalesce({_SAME}, ''))
            + (count(*) < (SELECT count(DISTINCT (entity, project, run_id)) FROM v))::INT
        FROM v GROUP BY v.key ORDER BY v.key""",
        picked(runs),
    ).fetchall()
    return dict(rows)
