"""Logged values of a run in W&B's form: one JSON text per step.

DuckDB returns the values; orjson makes the texts, in a fraction of the time that DuckDB takes to format numbers
and to join texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
from msgspec.structs import replace

from mirror.metrics import STEP
from mirror.snapshot import run_rows
from mirror.snapshot.document_keys import located
from mirror.snapshot.paths import Project
from mirror.snapshot.rows import align, chunks
from mirror.snapshot.sampling import read, restricted, steps_of, steps_of_all
from mirror.snapshot.sampling import sampled as sampled_steps
from mirror.snapshot.series import HistorySource, Numbers, Scope, Series, json_value
from mirror.snapshot.windows import Logged, Window
from mirror.wandb_json import loads, strict

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_IS_RUN = "entity = ? AND project = ? AND run_id = ?"


def lines(
    connection: DuckDBPyConnection, run: Logged, series: Sequence[Series], exported_to: int | None = None
) -> list[str]:
    """Return the rows of these series as JSON texts by rising step; non-finite numbers are bare tokens.

    The mirror has a dotted key for each nested value, but a key may also have been logged with its dots. So values are
    nested again where the run's summary shows that they were logged nested. Up to the step `exported_to` they stay
    dotted, as they are in the server's exported files.
    """
    nested = _summary(connection, run.rid) if any("." in one.key for one in series) else {}
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


def sampled(source: HistorySource, run: Logged, keys: Sequence[str], wanted: Window) -> orjson.Fragment | list[Any]:
    """Return the rows that have all of these keys, with only these, as strict JSON: NaN and infinities are strings.

    The key of a nested object selects the whole object.
    """
    asked = [key for key in dict.fromkeys(keys) if key != STEP]
    if not asked:
        steps = () if wanted.most == 0 else _steps(source, run, wanted)
        return [{STEP: step} if STEP in keys else {} for step in steps]
    inside = {key: [name for name in run.counts if name.startswith(f"{key}.")] for key in asked}
    nested = _summary(source.connection, run.rid) if any(inside.values()) else {}
    below = {
        key: {name: path for name in names if (path := _below(nested, key, name, besides=key in run.counts))}
        for key, names in inside.items()
    }
    groups = [[*([key] if key in run.counts else []), *below[key]] for key in asked]
    if not all(groups) or wanted.most == 0:
        return []
    paths = {name: (key, *path) for key, found in below.items() for name, path in found.items()}
    found = _held_by_all(source, run, groups, wanted)
    chunked = _chunks(found, paths, STEP if STEP in keys else None)
    if STEP in keys[1:]:
        # The columns of a frame are in the order in which the first row has its keys.
        order = dict.fromkeys(keys)
        chunked = ([{key: row[key] for key in order} for row in chunk] for chunk in chunked)
    pieces = [orjson.dumps(chunk)[1:-1] for chunk in chunked]
    text = b"[" + b",".join(pieces) + b"]"
    # Lists and objects are stored as the text that was logged, which may contain bare tokens, too.
    return list(strict(loads(text))) if b"NaN" in text or b"Infinity" in text else orjson.Fragment(text)


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
    dense = run.extent.dense
    scope = Scope((dense,) if dense else (), wanted.low, wanted.high, wanted.most)
    found: list[Any] = steps_of(read(source, [run.rid], scope, run.extent.values).get(run.rid, [])).to_pylist()
    return found


def _summary(connection: DuckDBPyConnection, rid: int) -> dict[str, Any]:
    text = run_rows.summary(connection, rid)
    document = loads(text) if text else {}
    return document if isinstance(document, dict) else {}


def _path(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return the path of a dotted key in the summary; the key itself if it is not there."""
    return located(document, key) or (key,)


def _below(document: Mapping[str, Any], key: str, name: str, *, besides: bool) -> tuple[str, ...]:
    """Return the path of a dotted name within the object of a key; empty if it was logged with its dots.

    A name that is not in the summary counts as nested, unless the key also has plain values (`besides`).
    """
    path = located(document, name)
    for place in range(1, len(path or ())):
        assert path is not None
        if ".".join(path[:place]) == key:
            return path[place:]
    return () if besides or path else tuple(name.removeprefix(f"{key}.").split("."))


def _texts(series: Sequence[Series], paths: Mapping[str, tuple[str, ...]], step_key: str | None = STEP) -> list[str]:
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
    return [json_value(value, text) for value, text in zip(values, texts, strict=True)]
