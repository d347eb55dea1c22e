"""Logged values of a run in W&B's form: one JSON text per step.

DuckDB returns the values; orjson makes the texts, in a fraction of the time that DuckDB takes to format numbers
and to join texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from mirror.snapshot import facts
from mirror.snapshot.paths import Project
from mirror.snapshot.rows import align, chunks
from mirror.snapshot.run_query import among
from mirror.snapshot.sampling import DENSE_VALUES, read, restricted, steps_of, steps_of_all
from mirror.snapshot.sampling import sampled as sampled_steps
from mirror.snapshot.series import HistorySource, Numbers, Scope, Series, whole
from mirror.wandb_json import loads

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

AHEAD_VALUES = 250_000
"""How many values are read at once of a history that is requested page by page."""

_IS_RUN = "entity = ? AND project = ? AND run_id = ?"


@dataclass(frozen=True)
class Window:
    """Steps from `low` to `high`, exclusive; if there are more than `samples` rows, that many, evenly spaced."""

    low: int | None = None
    high: int | None = None
    samples: int | None = None

    @property
    def most(self) -> int | None:
        """How many rows to choose; None if that cannot be fewer than all."""
        if self.samples is None:
            return None
        bounded = self.low is not None and self.high is not None
        every = bounded and self.samples >= (self.high or 0) - (self.low or 0)
        return None if every else max(self.samples, 0)


@dataclass(frozen=True)
class Logged:
    """The row counts of a run and of its keys, known before values are read."""

    rid: int
    rows: int
    last_step: int
    counts: Mapping[str, int]

    @property
    def values(self) -> int:
        """The number of values of the run."""
        return sum(self.counts.values())

    def values_between(self, low: int, high: int) -> int:
        """Estimate the number of values from step `low` to `high`, exclusive, as if they were evenly spread."""
        return self.values * (high - low) // (self.last_step + 1) if self.last_step >= 0 else 0

    def values_of(self, wanted: Window) -> int:
        """Estimate the number of values in a window, of which at most `samples` rows are returned."""
        low = max(wanted.low or 0, 0)
        high = self.last_step + 1 if wanted.high is None else min(wanted.high, self.last_step + 1)
        between = self.values_between(low, max(high, low))
        most = between if wanted.samples is None else self.values * max(wanted.samples, 0) // max(self.rows, 1)
        return min(between, most)

    @property
    def dense(self) -> str | None:
        """A key that every row has, such as `_timestamp`: reading it is a quick way to all steps."""
        return next((key for key, count in self.counts.items() if count == self.rows), None)


@dataclass(frozen=True)
class Stretch:
    """The series of a run from step `low` to `high`, exclusive, from one read."""

    low: int
    high: int
    series: list[Series]

    def cut(self, low: int, high: int) -> list[Series] | None:
        """Return a window of it; None if the window is not completely inside."""
        if not self.low <= low <= high <= self.high:
            return None
        return [part for one in self.series if len((part := one.between(low, high)).steps)]


def logged(connection: DuckDBPyConnection, rid: int, rows: int, last_step: int) -> Logged:
    """Return the row counts of a run's keys, sorted by name."""
    found = connection.execute("SELECT key, rows FROM store.history_keys WHERE rid = ? ORDER BY key", [rid]).fetchall()
    return Logged(rid, rows, last_step, dict(found))


def first_step(connection: DuckDBPyConnection, rid: int) -> int | None:
    """Return the first step at which a run logged anything; None for a run without history."""
    found = connection.execute("SELECT min(first_step) FROM store.history_keys WHERE rid = ?", [rid]).fetchall()
    first: int | None = found[0][0]
    return first


def window(source: HistorySource, run: Logged, wanted: Window) -> list[Series]:
    """Return the series of all keys in a window."""
    if wanted.most == 0:
        return []
    dense = run.dense if run.values >= DENSE_VALUES else None
    scope = Scope(first=wanted.low, end=wanted.high, samples=wanted.most, dense=dense)
    return read(source, [run.rid], scope, run.values).get(run.rid, [])


def whole_runs(source: HistorySource, rids: Sequence[int]) -> dict[int, list[Series]]:
    """Return all series of these runs by `rid`; runs without any are left out."""
    return read(source, rids, Scope(), 0)


def stretch(source: HistorySource, run: Logged, low: int, high: int) -> Stretch:
    """Return the series from `low` to `high`, and of later steps up to about AHEAD_VALUES values."""
    end = max(high, low + (run.last_step + 1) * AHEAD_VALUES // max(run.values, 1))
    return Stretch(low, end, window(source, run, Window(low, end)))


def lines(
    connection: DuckDBPyConnection, run: Logged, series: Sequence[Series], exported_to: int | None = None
) -> list[str]:
    """Return the rows of these series as JSON texts by rising step; non-finite numbers are bare tokens.

    The mirror has a dotted key for each nested value, but a key may also have been logged with its dots. So values are
    nested again where the run's summary shows that they were logged nested. Up to the step `exported_to` they stay
    dotted, as they are in the server's exported files.
    """
    nested = _document(connection, run.rid) if any("." in one.key for one in series) else {}
    paths = {one.key: path for one in series if len(path := _path(nested, one.key)) > 1}
    if not paths or exported_to is None:
        return _texts(series, paths)
    exported = [one.between(0, exported_to + 1) for one in series]
    live = [one.between(exported_to + 1, run.last_step + 1) for one in series]
    return [
        text
        for part, dotted in ((exported, True), (live, False))
        for text in _texts([one for one in part if len(one.steps)], {} if dotted else paths)
    ]


def events(source: HistorySource, project: Project, run_id: str, rid: int, samples: int | None) -> list[str]:
    """Return the rows of system metrics."""
    most = None if samples is None else max(samples, 0)
    if most == 0:
        return []
    count = f"SELECT count(*) FROM system_metrics WHERE {_IS_RUN}"
    values = source.connection.execute(count, [*project, run_id]).fetchall()[0][0]
    found = read(source, [rid], Scope(samples=most, system=True), values).get(rid, [])
    return _texts(found, {}, step_key=None)


def latest_events(connection: DuckDBPyConnection, project: Project, run_ids: Sequence[str]) -> dict[str, str]:
    """Return the latest value of each system metric of these runs, as JSON texts by run id."""
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


def sampled(source: HistorySource, run: Logged, keys: Sequence[str], wanted: Window) -> orjson.Fragment | list[Any]:
    """Return the rows that have all of these keys, with only these, as strict JSON: NaN and infinities are strings.

    The key of a nested object selects the whole object.
    """
    asked = [key for key in dict.fromkeys(keys) if key != "_step"]
    if not asked:
        steps = () if wanted.most == 0 else _steps(source, run, wanted)
        return [{"_step": step} if "_step" in keys else {} for step in steps]
    inside = {key: [name for name in run.counts if name.startswith(f"{key}.")] for key in asked}
    nested = _document(source.connection, run.rid) if any(inside.values()) else {}
    below = {
        key: {name: path for name in names if (path := _below(nested, key, name, besides=key in run.counts))}
        for key, names in inside.items()
    }
    groups = [[*([key] if key in run.counts else []), *below[key]] for key in asked]
    if not all(groups) or wanted.most == 0:
        return []
    paths = {name: (key, *path) for key, found in below.items() for name, path in found.items()}
    found = _held_by_all(source, run, groups, wanted)
    pieces = [orjson.dumps(chunk)[1:-1] for chunk in _chunks(found, paths, "_step" if "_step" in keys else None)]
    text = b"[" + b",".join(pieces) + b"]"
    # Lists and objects are stored as the text that was logged, which may contain bare tokens, too.
    return list(_strict(loads(text))) if b"NaN" in text or b"Infinity" in text else orjson.Fragment(text)


def _held_by_all(source: HistorySource, run: Logged, groups: Sequence[Sequence[str]], wanted: Window) -> list[Series]:
    """Return the series of these keys at the steps where every group has a value, or at a sample of these steps."""
    every = tuple(name for names in groups for name in names)
    scope = Scope(keys=every, first=wanted.low, end=wanted.high)
    values = sum(run.counts[name] for name in every)
    if all(len(names) == 1 for names in groups):
        scope = replace(scope, samples=wanted.most, whole=True)
        return read(source, [run.rid], scope, values).get(run.rid, [])
    found = {one.key: one for one in read(source, [run.rid], scope, values).get(run.rid, [])}
    held = [[found[name] for name in names if name in found] for names in groups]
    return restricted(list(found.values()), sampled_steps(steps_of_all(held), wanted.most))


def _steps(source: HistorySource, run: Logged, wanted: Window) -> list[int]:
    """Return the steps of all rows, read from a key that each row has, or from all keys if there is none."""
    scope = Scope((run.dense,) if run.dense else (), wanted.low, wanted.high, wanted.most)
    found: list[Any] = steps_of(read(source, [run.rid], scope, run.values).get(run.rid, [])).to_pylist()
    return found


def described(
    connection: DuckDBPyConnection,
    project: Project,
    runs: Mapping[int, Mapping[str, Any]],
    heavy: Mapping[int, facts.Heavy],
) -> dict[int, dict[str, Any]]:
    """Return `historyKeys` of runs by `rid`; runs without rows are left out.

    Whether a key is monotonic, and the types of keys that are not plain numbers, are as the server returned them; for
    runs that it does not know, and keys that it had not counted yet, they are computed from the values.
    """
    here, params = among(list(runs), exactly=True)
    keys = f"SELECT rid, key, rows, last FROM store.history_keys WHERE {here} ORDER BY rid, key"
    rows = connection.execute(keys, params).fetchall()
    of_server = {rid: orjson.loads(heavy[rid][1] or "{}") for rid in runs if rid in heavy and heavy[rid][1]}
    monotonic = {
        rid: dict.fromkeys(about["falling"], False) | dict.fromkeys(about["monotonic"], True)
        for rid, about in of_server.items()
    }
    found: dict[int, dict[str, Any]] = {}
    unknown: dict[int, list[str]] = {}
    for rid, key, count, last in rows:
        if rid not in found:
            found[rid] = {"keys": {"_step": None}, "lastStep": runs[rid]["last_step"], "sets": []}
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
        entry["keys"]["_step"] = _number_entry(runs[rid]["historyLineCount"], entry["lastStep"], monotonic=True)
    return found


def _number_entry(count: int, last: float | None, *, monotonic: bool) -> dict[str, Any]:
    return {
        "typeCounts": [{"type": "number", "count": count}],
        "monotonic": monotonic,
        "previousValue": _plain(last),
    }


def _described_from_values(
    connection: DuckDBPyConnection, project: Project, run_id: str, keys: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Compute the entries of these keys from their values: the count of each type, and whether they only rose."""
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
            entry["previousValue"] = _plain(last)
    return found


def _document(connection: DuckDBPyConnection, rid: int) -> dict[str, Any]:
    found = connection.execute("SELECT summary FROM store.runs WHERE rid = ?", [rid]).fetchall()
    document = loads(found[0][0]) if found and found[0][0] else {}
    return document if isinstance(document, dict) else {}


def _path(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return the path of a dotted key in the summary; the key itself if it is not there."""
    return _located(document, key) or (key,)


def _below(document: Mapping[str, Any], key: str, name: str, *, besides: bool) -> tuple[str, ...]:
    """Return the path of a dotted name within the object of a key; empty if it was logged with its dots.

    A name that is not in the summary counts as nested, unless the key also has plain values (`besides`).
    """
    path = _located(document, name)
    for place in range(1, len(path or ())):
        assert path is not None
        if ".".join(path[:place]) == key:
            return path[place:]
    return () if besides or path else tuple(name.removeprefix(f"{key}.").split("."))


def _located(document: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    if key in document:
        return (key,)
    for place, letter in enumerate(key):
        below = document.get(key[:place]) if letter == "." else None
        if isinstance(below, dict) and "_type" not in below and (found := _located(below, key[place + 1 :])):
            return (key[:place], *found)
    return None


def _texts(series: Sequence[Series], paths: Mapping[str, tuple[str, ...]], step_key: str | None = "_step") -> list[str]:
    """Return each row as JSON text."""
    return [orjson.dumps(row).decode() for chunk in _chunks(series, paths, step_key) for row in chunk]


def _chunks(
    series: Sequence[Series], paths: Mapping[str, tuple[str, ...]], step_key: str | None
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows for orjson in chunks. `paths` are the paths of nested keys."""
    for chunk in chunks(align(series), step_key, _cells):
        yield [_nested(row, paths) for row in chunk] if paths else chunk


def _nested(row: Mapping[str, Any], paths: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in row.items():
        *above, last = paths.get(key, (key,))
        parent = document
        for name in above:
            parent = parent.setdefault(name, {})
        parent[last] = value
    return document


def _cells(one: Series) -> Numbers | list[Any]:
    """Return the values for orjson: non-finite numbers, and values that are stored as text, are fragments."""
    numbers = one.numbers()
    if numbers is not None and one.finite:
        return Numbers.of(numbers)
    texts = [None] * len(one.steps) if one.texts is None else one.texts.to_pylist()
    values: list[Any] = one.values.to_pylist()
    return [_item(value, text) for value, text in zip(values, texts, strict=True)]


def _item(value: float, text: str | None) -> Any:
    if text is not None:
        return orjson.Fragment(text)
    return whole(value) if value - value == 0 else _not_finite(value)


def _not_finite(value: float) -> orjson.Fragment:
    return orjson.Fragment("NaN" if value != value else "Infinity" if value > 0 else "-Infinity")  # noqa: PLR0124


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
