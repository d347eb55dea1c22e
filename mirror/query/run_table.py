"""The history of one run as a wide table: a row a step, a column a key.

The rows are found first, a step and how many values stand there. Then some at a time are read as series, as the Python
API reads them, and laid side by side, so that neither the number of keys nor that of steps is one of the memory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from mirror.errors import QueryError, UsageError
from mirror.query.batches import Batches, written
from mirror.snapshot import series
from mirror.snapshot.paths import Project, nearest_of
from mirror.snapshot.result import guarded
from mirror.snapshot.series import HistorySource, Scope, Series

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

VALUES_AT_ONCE = 1_000_000
"""Values that are read at a time; this bounds the memory."""

CELLS_AT_ONCE = 500_000
"""Cells of a batch of rows, most of which may be empty."""

# Text is JSON text; a text that is a JSON string is shown as what it says.
_AS_TEXT = (
    "coalesce(CASE WHEN text LIKE '\"%' AND json_valid(text) THEN text::JSON ->> '$' ELSE text END,"
    " CAST(value AS VARCHAR))"
)


def table(
    connection: DuckDBPyConnection,
    project: Project,
    run_id: str,
    keys: Sequence[str] = (),
    *,
    samples: int | None = None,
    x: str | None = None,
) -> Batches:
    """The steps at which any of the keys was logged, in order, with what was logged there.

    `keys` are names or globs, in the order of the columns; none means all. A key that was always a number is a
    number; one that was not is text. `samples` takes that many rows, evenly spaced, the first and the last among
    them. `x` puts another key first and leaves out the rows without it. Raises QueryError for a key that the run
    never logged.
    """
    import pyarrow as pa

    if samples is not None and samples < 1:
        raise UsageError(f"--samples must be at least 1, not {samples}")
    address = [project.entity, project.project, run_id]
    ((rid,),) = connection.execute(
        "SELECT rid FROM store.runs WHERE entity = ? AND project = ? AND run_id = ?", address
    ).fetchall()
    logged = _logged(connection, rid)
    chosen = _chosen(keys, logged, f"{project}/{run_id}")
    x_key = _chosen([x], logged, f"{project}/{run_id}")[0] if x and x not in ("step", "_step") else None
    columns = [key for key in chosen if key != x_key]
    wanted = [x_key, *columns] if x_key else columns
    source = HistorySource(connection, series.segmented(connection))
    textual = _textual(source, rid)
    # Whoever logs a key `step` gets W&B's own name for the step beside it.
    fields: list[pa.Field[Any]] = [pa.field(key, pa.string() if key in textual else pa.float64()) for key in wanted]
    fields.insert(1 if x_key else 0, pa.field("_step" if "step" in wanted else "step", pa.int64()))
    every = len(wanted) == len(logged)
    rows = _Rows(source, rid, tuple(wanted), every, x_key, x_key in textual, samples)
    schema = pa.schema(fields)
    return Batches(connection, schema, lambda most: _read(rows, schema, most), rows.count)


@dataclass(frozen=True)
class _Rows:
    """Which rows of a run are wanted, in which order."""

    source: HistorySource
    rid: int
    keys: tuple[str, ...]
    every: bool
    x: str | None
    x_textual: bool
    samples: int | None

    @property
    def scope(self) -> Scope:
        """The keys to read; none means all."""
        return Scope(keys=() if self.every else self.keys)

    def count(self) -> int:
        """How many there are."""
        if not self.keys:
            return 0
        sql, params = self._sql()
        return int(self._run(f"SELECT count(*) AS n FROM ({sql})", params)["n"][0].as_py())

    def steps(self, most: int | None) -> pa.Table:
        """The step of each row in order, and how many values it holds; `most` of them."""
        sql, params = self._sql()
        limit = "" if most is None else f" LIMIT {most:d}"
        return self._run(f"SELECT step, held FROM ({sql}) ORDER BY {'x, ' if self.x else ''}step{limit}", params)

    def _run(self, sql: str, params: dict[str, Any]) -> pa.Table:
        cursor = self.source.connection.cursor()
        found: pa.Table = guarded(cursor, lambda: cursor.sql(sql, params=params or None).to_arrow_table())
        return found

    def _sql(self) -> tuple[str, dict[str, Any]]:
        values = series.values_of(self.source, [self.rid])
        condition, params = ("TRUE", {}) if self.every else series.one_of(self.keys)
        axis, having = "", ""
        if self.x is not None:
            axis = f", any_value({_AS_TEXT if self.x_textual else 'value'}) FILTER (key = $axis) AS x"
            having = "HAVING bool_or(key = $axis)"
            params["axis"] = self.x
        sql = f"SELECT step, count(*) AS held{axis} FROM {values} WHERE {condition} GROUP BY step {having}"
        if self.samples is not None:
            sql = f"""SELECT * FROM (
                SELECT *, row_number() OVER (ORDER BY step) - 1 AS i, count(*) OVER () AS n FROM ({sql})
            ) WHERE n <= $samples OR i = 0 OR i * ($samples - 1) // (n - 1) > (i - 1) * ($samples - 1) // (n - 1)"""
            params["samples"] = self.samples
        return sql, params


def _read(rows: _Rows, schema: pa.Schema, most: int | None) -> Iterator[pa.RecordBatch]:
    """The rows with their values, those of VALUES_AT_ONCE read at a time."""
    import pyarrow.compute as pc

    if not rows.keys:
        return
    found = rows.steps(most)
    picked = rows.x is not None or rows.samples is not None
    for start, end in _stretches(found["held"], VALUES_AT_ONCE):
        steps: Any = found["step"].slice(start, end - start).combine_chunks()
        bounds: Any = pc.min_max(steps)
        scope = replace(
            rows.scope,
            first=bounds["min"].as_py(),
            end=bounds["max"].as_py() + 1,
            steps=tuple(steps.to_pylist()) if picked else None,
        )
        held = int(pc.sum(found["held"].slice(start, end - start)).as_py())
        cursor = rows.source.connection.cursor()
        source = rows.source._replace(connection=cursor)
        read = guarded(cursor, lambda: series.read(source, [rows.rid], scope, held))  # noqa: B023
        axis = 1 if rows.x else 0
        yield from _side_by_side(rows.source.connection, schema, axis, steps, read.get(rows.rid, []))


def _stretches(held: Any, most: int) -> Iterator[tuple[int, int]]:
    """Where to cut rows that hold so many values each: into stretches of `most` at most, or of one row."""
    import pyarrow.compute as pc

    sums = series.Numbers.of(pc.cumulative_sum(held).combine_chunks())
    ends = sums.view if isinstance(sums, series.Numbers) else sums
    start = 0
    while start < len(ends):
        end = max(bisect_right(ends, (ends[start - 1] if start else 0) + most), start + 1)
        yield start, end
        start = end


def _side_by_side(
    connection: DuckDBPyConnection, schema: pa.Schema, axis: int, steps: pa.Array[Any], found: Sequence[Series]
) -> Iterator[pa.RecordBatch]:
    """The values of these steps as rows, in batches of CELLS_AT_ONCE; the column at `axis` is the step."""
    import pyarrow as pa
    import pyarrow.compute as pc

    by_key = {
        one.key: (one.steps, values) for one, values in zip(found, _typed(connection, schema, found), strict=True)
    }
    lines = max(1, CELLS_AT_ONCE // len(schema))
    for start in range(0, len(steps), lines):
        here = steps.slice(start, lines)
        arrays: list[Any] = []
        last: Any = None
        for place, field in enumerate(schema):
            if place == axis:
                arrays.append(here)
            elif field.name not in by_key:
                arrays.append(pa.nulls(len(here), field.type))
            else:
                at, values = by_key[field.name]
                # Neighbours mostly have the same steps, which are looked up once.
                if last is None or not last[0].equals(at):
                    last = at, pc.index_in(here, value_set=at)
                arrays.append(values.take(last[1]))
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _typed(connection: DuckDBPyConnection, schema: pa.Schema, found: Sequence[Series]) -> list[pa.Array[Any]]:
    """The values of each series, as texts where its column is one of texts."""
    import pyarrow as pa

    textual = {field.name for field in schema if field.type == pa.string()}
    odd = [one for one in found if one.key in textual]
    if not odd:
        return [one.values for one in found]
    empty = [pa.nulls(len(one.steps), pa.string()) if one.texts is None else one.texts for one in odd]
    cells = pa.table({"value": pa.concat_arrays([one.values for one in odd]), "text": pa.concat_arrays(empty)})
    texts = written(connection, _AS_TEXT, cells)
    ends = [0, *accumulate(len(one.steps) for one in odd)]
    cut = {one.key: texts.slice(start, end - start) for one, (start, end) in zip(odd, pairwise(ends), strict=True)}
    return [cut.get(one.key, one.values) for one in found]


def _logged(connection: DuckDBPyConnection, rid: int) -> list[str]:
    """The keys of a run, by name."""
    rows = connection.execute("SELECT key FROM store.history_keys WHERE rid = ? ORDER BY key", [rid]).fetchall()
    return [key for (key,) in rows]


def _textual(source: HistorySource, rid: int) -> set[str]:
    """The keys under which something else than a number was logged."""
    cursor = source.connection.cursor()
    sql = f"SELECT DISTINCT key FROM {series.values_of(source, [rid])} WHERE text IS NOT NULL"
    return {key for (key,) in guarded(cursor, lambda: cursor.execute(sql).fetchall())}


def _chosen(keys: Sequence[str], logged: Sequence[str], run: str) -> list[str]:
    """The logged keys that are named, in the order of their naming; a name comes before a glob."""
    if not keys:
        return list(logged)
    names = set(logged)
    found: dict[str, None] = {}
    for key in keys:
        fitting = [key] if key in names else [name for name in logged if fnmatchcase(name, key)]
        if not fitting:
            raise QueryError(f"{run} has no key {key}; {nearest_of(key, logged)}")
        found.update(dict.fromkeys(fitting))
    return list(found)
