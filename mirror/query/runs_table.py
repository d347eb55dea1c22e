"""The histories of several runs as one table: below each other, or side by side with a column per run.

Like the table of one run, both are read piece by piece, so that memory use depends on neither steps nor runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mirror.errors import QueryError, UsageError
from mirror.metrics import STEP
from mirror.query import run_table
from mirror.query.batches import Batches, written
from mirror.query.run_table import AS_TEXT, CELLS_AT_ONCE, VALUES_AT_ONCE, RunTable, chosen_keys, stretches
from mirror.snapshot import history_keys, series
from mirror.snapshot.history_keys import Sizes
from mirror.snapshot.paths import Project
from mirror.snapshot.result import guarded
from mirror.snapshot.segments import segmented
from mirror.snapshot.series import HistorySource, Scope, Series
from mirror.snapshot.spread import spread_sql

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

Warn = Callable[[str], object]


class Named(NamedTuple):
    """A run: its number in this mirror, its address, and its display name."""

    rid: int
    project: Project
    run_id: str
    name: str | None


def below(
    connection: DuckDBPyConnection,
    runs: Sequence[Named],
    keys: Sequence[str] = (),
    *,
    samples: int | None = None,
    x: str | None = None,
    warn: Warn = lambda _: None,
) -> Batches:
    """The tables of `run_table.table` below each other, each row with `run_id` and `name`, also `project` if several.

    The columns are those of all runs; what a run never logged is empty. A key that is text in any run is text. `warn`
    is called for keys that none of the runs logged, and with how many runs logged none of the keys. Raises QueryError
    if all runs did not.
    """
    import pyarrow as pa

    source = HistorySource(connection, segmented(connection))
    logged = run_table.logged(source, {run.rid: (run.project, run.run_id) for run in runs}, ())
    known = sorted({key for run in logged.values() for key in run.keys})
    chosen = chosen_keys(keys, known, "none of the runs logged", warn) if keys else known
    axis = None if x is None or (x in (STEP, "step", "none") and x not in known) else x
    if axis is not None:
        axis = chosen_keys([axis], known, "none of the runs logged", warn)[0]
    parts: list[tuple[Named, RunTable]] = []
    for run in runs:
        held = set(logged[run.rid].keys)
        mine = [key for key in chosen if key in held]
        if mine and (axis is None or axis in held):
            given = mine if keys else ()
            one = run_table.prepared(source, logged[run.rid], given, samples=samples, x=axis or x, warn=warn)
            parts.append((run, one))
    _warn_without(len(runs) - len(parts), len(runs), axis, warn)
    if not parts:
        raise QueryError("none of the runs has history" if not keys else "none of the runs logged these keys")
    names = _Names.of([(run, one.schema) for run, one in parts], chosen, several=len({run.project for run in runs}) > 1)
    texts = {field.name for _, one in parts for field in one.schema if field.type == pa.string()}
    schema = pa.schema(
        [
            *(pa.field(name, pa.string()) for name in names.labels),
            *(
                pa.field(name, pa.int64() if name == names.step else pa.string() if name in texts else pa.float64())
                for name in names.columns
            ),
        ]
    )
    # Every key is read without naming it, which is faster.
    wanted = () if len(chosen) == len(known) else tuple(dict.fromkeys([*chosen, *([axis] if axis else [])]))
    together = _Together(source, wanted, samples if axis is None else None)

    def read(most: int | None) -> Iterator[pa.RecordBatch]:
        pieces = ((run, batch) for run, batch in together.rows(parts, most))
        fitted = (names.fitted(connection, batch, schema, run) for run, batch in pieces)
        yield from _joined(fitted, max(1, CELLS_AT_ONCE // len(schema)))

    return Batches(connection, schema, read, lambda: together.count(parts))


class _Together(NamedTuple):
    """Reads the rows of many runs, as many at a time as VALUES_AT_ONCE allows: one query costs as much as for one."""

    source: HistorySource
    keys: tuple[str, ...]
    samples: int | None

    def rows(self, parts: Sequence[tuple[Named, RunTable]], most: int | None) -> Iterator[tuple[Named, pa.RecordBatch]]:
        """The rows of each run, in order, at least `most` of them if there are so many."""
        sizes = history_keys.sizes(self.source.connection, [run.rid for run, _ in parts], self.keys)
        left, start = most, 0
        while start < len(parts) and (left is None or left > 0):
            end = self._end(parts, start, sizes, left)
            group = parts[start:end]
            found = self._alone(*group[0], left) if end - start == 1 else self._group(group, sizes)
            for run, batch in found:
                yield run, batch
                left = None if left is None else left - batch.num_rows
            start = end

    def _end(
        self, parts: Sequence[tuple[Named, RunTable]], start: int, sizes: Mapping[int, Sizes], left: int | None
    ) -> int:
        """The end of the runs that are read together from this one on; it is alone if its axis is text."""
        values = rows = 0
        end = start
        while end < len(parts) and (left is None or rows < left):
            size = sizes[parts[end][0].rid]
            values += min(size.values, size.values if self.samples is None else self.samples * size.keys)
            if end > start and (values > VALUES_AT_ONCE or parts[end][1].rows.x_textual):
                break
            rows += size.rows if self.samples is None else min(self.samples, size.rows)
            end += 1
            if parts[start][1].rows.x_textual:
                break
        return end

    def _alone(self, run: Named, one: RunTable, most: int | None) -> Iterator[tuple[Named, pa.RecordBatch]]:
        for batch in one.batches().read(most):
            yield run, batch

    def _group(
        self, group: Sequence[tuple[Named, RunTable]], sizes: Mapping[int, Sizes]
    ) -> Iterator[tuple[Named, pa.RecordBatch]]:
        rids = [run.rid for run, _ in group]
        values = sum(sizes[rid].values for rid in rids)
        found = self._read(rids, Scope(keys=self.keys, samples=self.samples), values)
        axes = tuple(dict.fromkeys(axis for _, one in group for axis in one.rows.carried))
        carried = self._read(rids, Scope(keys=axes), 0) if axes else {}
        for run, one in group:
            for batch in one.of_series(found.get(run.rid, []), carried.get(run.rid, [])):
                yield run, batch

    def _read(self, rids: Sequence[int], scope: Scope, values: int) -> dict[int, list[Series]]:
        own = self.source._replace(connection=self.source.connection.cursor())
        return guarded(own.connection, lambda: series.read(own, rids, scope, values))

    def count(self, parts: Sequence[tuple[Named, RunTable]]) -> int:
        """How many rows there are."""
        if any(one.rows.x is not None for _, one in parts):
            return sum(one.rows.count() for _, one in parts)
        cursor = self.source.connection.cursor()
        condition, params = series.one_of(self.keys) if self.keys else ("TRUE", {})
        steps = f"SELECT DISTINCT rid, step FROM {series.values_of(self.source, [run.rid for run, _ in parts])}"
        sql = f"SELECT count(*) FROM ({steps} WHERE {condition}) GROUP BY rid"
        counts = guarded(cursor, lambda: cursor.execute(sql, params or None).fetchall())
        return sum(count if self.samples is None else min(count, self.samples) for (count,) in counts)


def _joined(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of at least so many: writing each batch has a cost of its own."""
    waiting: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        waiting.append(batch)
        held += batch.num_rows
        if held >= rows:
            yield _one(waiting)
            waiting, held = [], 0
    if waiting:
        yield _one(waiting)


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    import pyarrow as pa

    if len(batches) == 1:
        return batches[0]
    schema = batches[0].schema
    columns = [pa.concat_arrays([batch.column(index) for batch in batches]) for index in range(len(schema))]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class _Names(NamedTuple):
    """The columns of the runs' addresses, of the step, and of everything that was logged."""

    labels: list[str]
    step: str
    columns: list[str]

    @classmethod
    def of(cls, parts: Sequence[tuple[Named, pa.Schema]], chosen: Sequence[str], *, several: bool) -> _Names:
        """Names for the tables of these runs, in the order of these keys. Names that runs logged keep their names."""
        leading: dict[str, None] = {}
        steps = set()
        logged = set(chosen)
        for _, one in parts:
            steps |= (whole := {name for name, kind in zip(one.names, one.types, strict=True) if str(kind) == "int64"})
            leading |= dict.fromkeys(name for name in one.names if name not in logged | whole)
        # A run whose axis is a key `step` has another name for the step, too.
        step = STEP if "step" in chosen or STEP in steps else "step"
        first = parts[0][1]
        # With --x, that axis is the first column of each table.
        x = [first.names[0]] if str(first.types[0]) != "int64" else []
        axes = [name for name in leading if name not in x]
        columns = [*x, step, *axes, *(key for key in chosen if key not in (*x, *axes))]
        labels = [*(["project"] if several else []), "run_id", "name"]
        return cls([_unused(label, columns) for label in labels], step, columns)

    def fitted(
        self, connection: DuckDBPyConnection, batch: pa.RecordBatch, schema: pa.Schema, run: Named
    ) -> pa.RecordBatch:
        """The rows of one run with the columns of all."""
        import pyarrow as pa

        cells = [*([str(run.project)] if len(self.labels) == 3 else []), run.run_id, run.name]
        arrays: list[Any] = [pa.repeat(pa.scalar(text, pa.string()), batch.num_rows) for text in cells]
        held = {
            self.step if str(kind) == "int64" else name: batch.column(index)
            for index, (name, kind) in enumerate(zip(batch.schema.names, batch.schema.types, strict=True))
        }
        for field in list(schema)[len(arrays) :]:
            column = held.get(field.name)
            if column is None:
                column = pa.nulls(batch.num_rows, field.type)
            elif column.type != field.type:
                column = written(connection, "CAST(v AS VARCHAR)", pa.table({"v": column}))
            arrays.append(column)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def beside(
    connection: DuckDBPyConnection,
    runs: Sequence[Named],
    keys: Sequence[str],
    *,
    samples: int | None = None,
    warn: Warn = lambda _: None,
) -> Batches:
    """One row per step at which any run logged the key, and one column per run, called as the run is.

    Names that several runs have are followed by the id. For several keys there is a column per key and run, such as
    `loss of bright-sky-12`. Runs that logged none of the keys are left out, with a warning.
    """
    import pyarrow as pa

    if not keys:
        raise UsageError("--wide needs --keys: one column per run is the values of one key, as in --keys loss")
    logged = history_keys.names_of(connection, [run.rid for run in runs])
    known = sorted({key for names in logged.values() for key in names})
    chosen = chosen_keys(keys, known, "none of the runs logged", warn)
    held = [run for run in runs if not set(chosen).isdisjoint(logged[run.rid])]
    _warn_without(len(runs) - len(held), len(runs), None, warn)
    source = HistorySource(connection, segmented(connection))
    rids = [run.rid for run in held]
    texts = {(rid, key) for rid, found in run_table.textual(source, rids, chosen).items() for key in found}
    places = [(run, key) for key in chosen for run in held if key in logged[run.rid]]
    schema = pa.schema(
        [
            pa.field("step", pa.int64()),
            *(
                pa.field(label, pa.string() if (run.rid, key) in texts else pa.float64())
                for label, (run, key) in zip(_labels(held, places, several=len(chosen) > 1), places, strict=True)
            ),
        ]
    )
    values = series.values_of(source, rids)
    condition, params = series.one_of(chosen)
    sql = f"SELECT step, count(*) AS held FROM {values} WHERE {condition} GROUP BY step"
    if samples is not None:
        sql = spread_sql(sql, "step, held", "$samples")
        params["samples"] = samples

    def run_sql(statement: str) -> pa.Table:
        cursor = connection.cursor()
        found: pa.Table = guarded(cursor, lambda: cursor.sql(statement, params=params).to_arrow_table())
        return found

    def read(most: int | None) -> Iterator[pa.RecordBatch]:
        import pyarrow.compute as pc

        limit = "" if most is None else f" LIMIT {most:d}"
        found = run_sql(f"SELECT * FROM ({sql}) ORDER BY step{limit}")
        for start, end in stretches(found["held"], VALUES_AT_ONCE):
            steps: Any = found["step"].slice(start, end - start).combine_chunks()
            scope = Scope(
                keys=tuple(chosen),
                first=steps[0].as_py(),
                end=steps[-1].as_py() + 1,
                steps=tuple(steps.to_pylist()) if samples is not None else None,
            )
            count = int(pc.sum(found["held"].slice(start, end - start)).as_py())
            own = source._replace(connection=connection.cursor())
            got = guarded(own.connection, lambda: series.read(own, rids, scope, count))  # noqa: B023
            by_place = {(rid, one.key): one for rid, each in got.items() for one in each}
            yield from _side_by_side(connection, schema, steps, places, by_place)

    return Batches(connection, schema, read, lambda: int(run_sql(f"SELECT count(*) AS n FROM ({sql})")["n"][0].as_py()))


def _side_by_side(
    connection: DuckDBPyConnection,
    schema: pa.Schema,
    steps: pa.Array[Any],
    places: Sequence[tuple[Named, str]],
    found: dict[tuple[int, str], Series],
) -> Iterator[pa.RecordBatch]:
    """The values of these steps, in batches of CELLS_AT_ONCE."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: list[Any] = []
    for (run, key), field in zip(places, list(schema)[1:], strict=True):
        one = found.get((run.rid, key))
        columns.append(None if one is None else (one.steps, _typed(connection, one, textual=field.type == pa.string())))
    lines = max(1, CELLS_AT_ONCE // len(schema))
    for start in range(0, len(steps), lines):
        here = steps.slice(start, lines)
        arrays: list[Any] = [here]
        last: Any = None
        for column, field in zip(columns, list(schema)[1:], strict=True):
            if column is None:
                arrays.append(pa.nulls(len(here), field.type))
                continue
            at, values = column
            # Runs mostly have the same steps, which are looked up once.
            if last is None or not last[0].equals(at):
                last = at, pc.index_in(here, value_set=at)
            arrays.append(values.take(last[1]))
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _typed(connection: DuckDBPyConnection, one: Series, *, textual: bool) -> pa.Array[Any]:
    import pyarrow as pa

    if not textual:
        return one.values
    texts = pa.nulls(len(one.steps), pa.string()) if one.texts is None else one.texts
    return written(connection, AS_TEXT, pa.table({"value": one.values, "text": texts}))


def _labels(runs: Sequence[Named], places: Sequence[tuple[Named, str]], *, several: bool) -> list[str]:
    """The names of the columns, which differ from each other and from `step`."""
    counts = Counter(run.name or run.run_id for run in runs)
    unclear = {name for name, count in counts.items() if count > 1 or name == "step"}
    projects = len({run.project for run in runs}) > 1

    def label(run: Named) -> str:
        name = run.name or run.run_id
        if name not in unclear:
            return name
        return f"{name} ({f'{run.project}/' if projects else ''}{run.run_id})"

    return [f"{key} of {label(run)}" if several else label(run) for run, key in places]


def _warn_without(without: int, runs: int, axis: str | None, warn: Warn) -> None:
    if without and without < runs:
        what = f"no {axis}" if axis else "none of the keys"
        warn(f"{without:,} of {runs:,} runs logged {what} and {'is' if without == 1 else 'are'} left out")


def _unused(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name = f"_{name}"
    return name
