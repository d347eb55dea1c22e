"""The history of one run as a wide table: one row per step, one column per key.

First the rows are found: each step and its number of values. Then ranges of rows are read as series, as in the Python
API, and joined to rows, so that memory use depends neither on the number of keys nor on that of steps. Next to the
step are the x axes that define_metric gave the keys (`mirror.query.axes`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from mirror.errors import QueryError, UsageError
from mirror.metrics import STEP
from mirror.query import axes
from mirror.query.batches import Batches, written
from mirror.snapshot import history_keys, run_rows, series
from mirror.snapshot.paths import Project, nearest_of
from mirror.snapshot.result import guarded
from mirror.snapshot.segments import segmented
from mirror.snapshot.series import HistorySource, Scope, Series
from mirror.snapshot.spread import spread, spread_sql

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

VALUES_AT_ONCE = 1_000_000
"""How many values are read at a time; this bounds the memory."""

CELLS_AT_ONCE = 500_000
"""Cells of a batch of rows, most of which may be empty."""

AS_TEXT = (
    "coalesce(CASE WHEN text LIKE '\"%' AND json_valid(text) THEN text::JSON ->> '$' ELSE text END,"
    " CAST(value AS VARCHAR))"
)
"""A value as text. `text` contains JSON; a JSON string is shown without quotes and escapes."""


def table(
    connection: DuckDBPyConnection,
    project: Project,
    run_id: str,
    keys: Sequence[str] = (),
    *,
    samples: int | None = None,
    x: str | None = None,
    warn: Callable[[str], object] = lambda _: None,
) -> Batches:
    """The steps at which any of the keys was logged, in order, with what was logged there.

    `keys` are names or globs, in the order of the columns; none means all. Keys that only held numbers are numeric;
    others are text. `samples` selects that many rows, evenly spaced, with the first and the last. `warn` is called for
    keys that the run never logged. Raises QueryError if it logged none of them.

    After the step come the axes that define_metric gave `keys`, each once: the value logged at that step, else the
    last finite value before it. Without `keys` the axes are not filled in. `warn` is called for axes without values.

    `x` is another axis for all keys: it comes first and orders the rows; rows before its first value are left out.
    "_step" and "none" mean only the step.
    """
    found = run_rows.find(connection, project, run_id)
    assert found is not None
    rid, _ = found
    source = HistorySource(connection, segmented(connection))
    known = logged(source, {rid: (project, run_id)}, ())[rid]
    return prepared(source, known, keys, samples=samples, x=x, warn=warn).batches()


class Logged(Struct, frozen=True):
    """What must be known of a run before its rows are read: its keys, those that are text, and their x axes."""

    rid: int
    run: axes.Run
    keys: list[str]
    textual: frozenset[str]
    definitions: axes.Definitions

    @property
    def path(self) -> str:
        """The run as entity/project/run_id."""
        return "/".join([str(self.run[0]), self.run[1]])


def logged(source: HistorySource, runs: Mapping[int, axes.Run], keys: Sequence[str]) -> dict[int, Logged]:
    """What is known of these runs, by rid. If `keys` are given, only of these it is known whether they are text."""
    names = history_keys.names_of(source.connection, list(runs))
    texts = textual(source, list(runs), keys)
    defined = axes.definitions(source.connection, list(runs.values()))
    return {
        rid: Logged(rid, run, names[rid], frozenset(texts.get(rid, ())), defined.get(run, axes.Definitions()))
        for rid, run in runs.items()
    }


def prepared(
    source: HistorySource,
    known: Logged,
    keys: Sequence[str],
    *,
    samples: int | None,
    x: str | None,
    warn: Callable[[str], object],
) -> RunTable:
    """The table of one run as in `table`, before its rows are read."""
    import pyarrow as pa

    if samples is not None and samples < 1:
        raise UsageError(f"--samples must be at least 1, not {samples}")
    absent = f"{known.path} has no key"
    chosen = chosen_keys(keys, known.keys, absent, warn)
    x_key = None if x is None or _is_step(x, known.keys) else chosen_keys([x], known.keys, absent, warn)[0]
    over = _axes(source.connection, known, chosen, warn if keys else None) if x is None else []
    columns = [key for key in chosen if key != x_key and key not in over]
    # If the run logged a key `step`, the column of the step gets W&B's own name for it.
    step = STEP if "step" in {x_key, *over, *columns} else "step"
    # An axis that is not among the keys is numeric: only its numbers are used.
    texts = known.textual.intersection(chosen if x_key is None else [*chosen, x_key])
    names = [x_key, step, *columns] if x_key else [step, *over, *columns]
    schema = pa.schema(
        [
            pa.field(name, pa.int64() if name == step else pa.string() if name in texts else pa.float64())
            for name in names
        ]
    )
    rows = _Rows(
        source,
        known.rid,
        keys=tuple(columns if x_key else chosen) or ((x_key,) if x_key else ()),
        every=len({*chosen, x_key} - {None}) == len(known.keys),
        step=step,
        carried=tuple(over) if keys else (),
        x=x_key,
        x_textual=x_key in known.textual,
        samples=samples,
    )
    return RunTable(rows, schema)


class RunTable(Struct, frozen=True):
    """The table of one run."""

    rows: _Rows
    schema: pa.Schema

    def batches(self) -> Batches:
        """The rows, read piece by piece."""
        source = self.rows.source
        return Batches(
            source.connection, self.schema, lambda most: _read(self.rows, self.schema, most), self.rows.count
        )

    def of_series(self, found: Sequence[Series], carried: Sequence[Series]) -> Iterator[pa.RecordBatch]:
        """The rows of series that were read with those of other runs; `carried` are those of the axes beside the step.

        The series are all that the run has of the keys and of the axis `x`, or the samples of them if there is no `x`.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = self.rows
        wanted = [one.steps for one in found if one.key in rows.keys]
        if not wanted:
            return
        steps: Any = pc.unique(pa.concat_arrays(wanted)) if len(wanted) > 1 else wanted[0]
        steps = steps.take(pc.sort_indices(steps))
        xs: dict[str, Any] = {}
        if rows.x is not None:
            values: Any = axes.Carried(rows.source, rows.rid, (rows.x,), found).at(steps)[rows.x]
            placed = pa.table({"x": values.drop_null(), "step": steps.filter(values.is_valid())})
            if rows.samples is not None:
                placed = placed.take(pa.array(spread(len(placed), rows.samples), pa.int64()))
            placed = placed.sort_by([("x", "ascending"), ("step", "ascending")]).combine_chunks()
            steps = pa.chunked_array(placed["step"]).combine_chunks()
            xs = {rows.x: pa.chunked_array(placed["x"]).combine_chunks()}
        yield from _side_by_side(
            rows,
            self.schema,
            {rows.step: steps, **xs},
            axes.Carried(rows.source, rows.rid, rows.carried, carried),
            found,
        )


class _Rows(Struct, frozen=True):
    """Which rows of a run to read, and in which order."""

    source: HistorySource
    rid: int
    keys: tuple[str, ...]
    every: bool
    step: str
    carried: tuple[str, ...]
    x: str | None
    x_textual: bool
    samples: int | None

    @property
    def scope(self) -> Scope:
        """The keys to read; none means all."""
        return Scope(keys=() if self.every else self.keys)

    def count(self) -> int:
        """How many rows there are."""
        if not self.keys:
            return 0
        sql, params = self._sql()
        return int(self._run(f"SELECT count(*) AS n FROM ({sql})", params)["n"][0].as_py())

    def steps(self, most: int | None) -> pa.Table:
        """The step of each row in order, its value of the axis `x` and its number of values; at most `most` rows."""
        sql, params = self._sql()
        limit = "" if most is None else f" LIMIT {most:d}"
        return self._run(f"SELECT * FROM ({sql}) ORDER BY {'x, ' if self.x else ''}step{limit}", params)

    def _run(self, sql: str, params: dict[str, Any]) -> pa.Table:
        cursor = self.source.connection.cursor()
        found: pa.Table = guarded(cursor, lambda: cursor.sql(sql, params=params or None).to_arrow_table())
        return found

    def _sql(self) -> tuple[str, dict[str, Any]]:
        values = series.values_of(self.source, [self.rid])
        condition, params = ("TRUE", {}) if self.every else series.one_of(self.keys)
        if self.x is not None:
            params["axis"] = self.x
            if self.every and self.keys != (self.x,):
                condition = "key <> $axis"
        sql = f"SELECT step, count(*) AS held FROM {values} WHERE {condition} GROUP BY step"
        if self.x is not None:
            x, usable = (AS_TEXT, "TRUE") if self.x_textual else ("value", "isfinite(value)")
            sql = f"""SELECT r.step, r.held, a.x FROM ({sql}) AS r
                ASOF JOIN (SELECT step, {x} AS x FROM {values} WHERE key = $axis AND {usable}) AS a
                ON r.step >= a.step"""
        if self.samples is not None:
            sql = spread_sql(sql, "* EXCLUDE (i, n)", "$samples")
            params["samples"] = self.samples
        return sql, params


def _read(rows: _Rows, schema: pa.Schema, most: int | None) -> Iterator[pa.RecordBatch]:
    """The rows with their values, of which about VALUES_AT_ONCE are read at a time."""
    import pyarrow.compute as pc

    if not rows.keys:
        return
    found = rows.steps(most)
    carried = axes.Carried(rows.source, rows.rid, rows.carried)
    picked = rows.x is not None or rows.samples is not None
    for start, end in stretches(found["held"], VALUES_AT_ONCE):
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
        xs = {rows.x: found["x"].slice(start, end - start).combine_chunks()} if rows.x else {}
        yield from _side_by_side(rows, schema, {rows.step: steps, **xs}, carried, read.get(rows.rid, []))


def stretches(held: Any, most: int) -> Iterator[tuple[int, int]]:
    """Split rows with these numbers of values into ranges of at most `most` values, or of a single row."""
    import pyarrow.compute as pc

    sums = series.Numbers.of(pc.cumulative_sum(held).combine_chunks())
    ends = sums.view if isinstance(sums, series.Numbers) else sums
    start = 0
    while start < len(ends):
        end = max(bisect_right(ends, (ends[start - 1] if start else 0) + most), start + 1)
        yield start, end
        start = end


def _side_by_side(
    rows: _Rows, schema: pa.Schema, known: dict[str, Any], carried: axes.Carried, found: Sequence[Series]
) -> Iterator[pa.RecordBatch]:
    """The values as rows, in batches of CELLS_AT_ONCE. `known` are the columns that are already complete."""
    import pyarrow as pa
    import pyarrow.compute as pc

    connection = rows.source.connection
    by_key = {
        one.key: (one.steps, values) for one, values in zip(found, _typed(connection, schema, found), strict=True)
    }
    lines = max(1, CELLS_AT_ONCE // len(schema))
    for start in range(0, len(known[rows.step]), lines):
        here = {name: column.slice(start, lines) for name, column in known.items()}
        steps = here[rows.step]
        before = carried.at(steps)
        arrays: list[Any] = []
        last: Any = None
        for field in schema:
            if field.name in here:
                arrays.append(here[field.name])
                continue
            column: Any = pa.nulls(len(steps), field.type)
            if field.name in by_key:
                at, values = by_key[field.name]
                # Neighbouring columns mostly have the same steps, which are looked up once.
                if last is None or not last[0].equals(at):
                    last = at, pc.index_in(steps, value_set=at)
                column = values.take(last[1])
            if field.name in before:
                column = pc.coalesce(column, _as(connection, field.type, before[field.name]))
            arrays.append(column)
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _as(connection: DuckDBPyConnection, kind: Any, numbers: pa.Array[Any]) -> pa.Array[Any]:
    """Convert numbers to a column of this type, which may be string."""
    import pyarrow as pa

    return numbers if numbers.type == kind else written(connection, "CAST(v AS VARCHAR)", pa.table({"v": numbers}))


def _typed(connection: DuckDBPyConnection, schema: pa.Schema, found: Sequence[Series]) -> list[pa.Array[Any]]:
    """The values of each series, as texts if its column is a string column."""
    import pyarrow as pa

    string_columns = {field.name for field in schema if field.type == pa.string()}
    textual = [one for one in found if one.key in string_columns]
    if not textual:
        return [one.values for one in found]
    json_texts = [pa.nulls(len(one.steps), pa.string()) if one.texts is None else one.texts for one in textual]
    cells = pa.table({"value": pa.concat_arrays([one.values for one in textual]), "text": pa.concat_arrays(json_texts)})
    texts = written(connection, AS_TEXT, cells)
    ends = [0, *accumulate(len(one.steps) for one in textual)]
    cut = {one.key: texts.slice(start, end - start) for one, (start, end) in zip(textual, pairwise(ends), strict=True)}
    return [cut.get(one.key, one.values) for one in found]


def _is_step(x: str, logged: Sequence[str]) -> bool:
    """Return True if `--x` means only the step. A key that the run logged under such a name takes precedence."""
    return x == STEP or (x in ("step", "none") and x not in logged)


def _axes(
    connection: DuckDBPyConnection, known: Logged, keys: Sequence[str], warn: Callable[[str], object] | None
) -> list[str]:
    """The axes that define_metric gave these keys, each once. Those without values are left out, with a warning."""
    defined = known.definitions.axes(keys)
    wanted = list(dict.fromkeys(defined.values()))
    if not wanted:
        return []
    numeric = history_keys.numeric(connection, known.rid, wanted)
    for axis in wanted:
        if warn is not None and axis not in numeric:
            first = next(key for key in keys if defined.get(key) == axis)
            warn(f"{known.path} never logged a number under {axis}, the x axis of {first}: only the step is shown")
    return numeric


def textual(source: HistorySource, rids: Sequence[int], keys: Sequence[str]) -> dict[int, set[str]]:
    """The keys, of these or of all if none is given, under which anything other than a number was logged, by rid."""
    cursor = source.connection.cursor()
    condition, params = series.one_of(keys) if keys else ("TRUE", {})
    sql = f"SELECT DISTINCT rid, key FROM {series.values_of(source, rids)} WHERE text IS NOT NULL AND {condition}"
    found: dict[int, set[str]] = {}
    for rid, key in guarded(cursor, lambda: cursor.execute(sql, params or None).fetchall()):
        found.setdefault(rid, set()).add(key)
    return found


def chosen_keys(keys: Sequence[str], logged: Sequence[str], absent: str, warn: Callable[[str], object]) -> list[str]:
    """The logged keys that match, in the order of `keys`. An exact name takes precedence over a glob.

    `warn` is called for keys that match none, with a sentence that starts with `absent`; raises QueryError if all of
    them do not.
    """
    if not keys:
        return list(logged)
    names = set(logged)
    found: dict[str, None] = {}
    unknown = []
    for key in keys:
        fitting = [key] if key in names else [name for name in logged if fnmatchcase(name, key)]
        if not fitting:
            unknown.append(f"{absent} {key}; {nearest_of(key, logged)}")
        found.update(dict.fromkeys(fitting))
    if unknown and not found:
        raise QueryError(unknown[0])
    for text in unknown:
        warn(text)
    return list(found)
