"""History in bulk: each key of a run as a column of steps and a column of values, outside of Python's interpreter."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

CHUNK_ROWS = 1000
"""Rows that are made at once: short-lived dictionaries are taken from memory that is used again and again."""

_PICKED = """SELECT rid, step FROM (
    SELECT rid, step, row_number() OVER (PARTITION BY rid ORDER BY step) - 1 AS i, count(*) OVER (PARTITION BY rid) AS n
    FROM ({steps})
) WHERE n <= $samples OR i = 0 OR i * ($samples - 1) // (n - 1) > (i - 1) * ($samples - 1) // (n - 1)"""


@dataclass(frozen=True)
class Series:
    """One key of one run: rising steps, a value at each.

    `texts` is None for plain numbers; else it has JSON text where the value is no plain number.
    """

    key: str
    steps: pa.Array[Any]
    values: pa.Array[Any]
    texts: pa.Array[Any] | None = None

    def numbers(self) -> pa.Array[Any] | None:
        """The values as int64 where each is a whole number, else as doubles; None where any is no plain number.

        JSON has one kind of number, and the mirror keeps it as a double: 2 and 2.0 are the same.
        """
        import pyarrow as pa

        if self.texts is not None:
            return None
        try:
            return self.values.cast(pa.int64())
        except pa.ArrowInvalid:
            return self.values

    def python(self) -> list[Any]:
        """The values as Python knows them from JSON."""
        numbers = self.numbers()
        if numbers is not None:
            return plain_list(numbers)
        assert self.texts is not None
        texts: list[Any] = self.texts.to_pylist()
        values: list[Any] = self.values.to_pylist()
        return [
            json.loads(text) if text is not None else _whole(value) for text, value in zip(texts, values, strict=True)
        ]


@dataclass(frozen=True)
class Scope:
    """What to read of runs: keys (none means all), steps `first` to `end` exclusive, and how many rows at most.

    With `whole` only rows that hold every one of the keys count. `samples` rows are evenly spaced, the first and the
    last among them.
    """

    keys: tuple[str, ...] = ()
    first: int | None = None
    end: int | None = None
    samples: int | None = None
    whole: bool = False
    system: bool = False


def read(connection: DuckDBPyConnection, rids: Sequence[int], scope: Scope) -> dict[int, list[Series]]:
    """The series of each run, by rid; keys in the order of the scope, else by name. A run without any is left out."""
    if not rids:
        return {}
    sql, params = _query(connection, rids, scope)
    return _cut(connection.sql(sql, params=params or None).to_arrow_table(), scope.keys)


def _query(connection: DuckDBPyConnection, rids: Sequence[int], scope: Scope) -> tuple[str, dict[str, Any]]:
    params: dict[str, Any] = {}
    # Numbers of ours as part of the text let DuckDB skip what cannot match.
    runs = f"rid IN ({', '.join(str(int(rid)) for rid in rids)})"
    source = _source(connection, runs, system=scope.system)
    conditions = ["TRUE"]
    if scope.keys:
        conditions.append("key IN (SELECT unnest($keys::VARCHAR[]))")
        params["keys"] = list(scope.keys)
    if scope.first is not None:
        conditions.append("step >= $first")
        params["first"] = scope.first
    if scope.end is not None:
        conditions.append("step < $end")
        params["end"] = scope.end
    where = " AND ".join(conditions)
    sql = f"SELECT rid, key, step, value, text FROM {source} WHERE {where}"
    if (scope.whole and scope.keys) or scope.samples is not None:
        steps = f"SELECT rid, step FROM {source} WHERE {where} GROUP BY rid, step"
        if scope.whole and scope.keys:
            steps += " HAVING count(*) = $wanted"
            params["wanted"] = len(set(scope.keys))
        if scope.samples is not None:
            steps = _PICKED.format(steps=steps)
            params["samples"] = scope.samples
        sql += f" AND (rid, step) IN ({steps})"
    return sql, params


def _source(connection: DuckDBPyConnection, runs: str, *, system: bool) -> str:
    """The relation of logged values with rids; the tail alone where no history was moved to Parquet."""
    if not system:
        segments = "SELECT count(*) FROM store.segments WHERE retired_at IS NULL"
        if not connection.execute(segments).fetchall()[0][0]:
            return f"(SELECT * FROM store.history_tail WHERE {runs})"
    relation = "main.system_metrics" if system else "main.history"
    return f"""(SELECT r.rid, h.key, h.step, h.value, h.text FROM {relation} AS h
        JOIN store.runs AS r ON r.entity = h.entity AND r.project = h.project AND r.run_id = h.run_id
        WHERE r.{runs} AND (h.entity, h.project, h.run_id) IN (
            SELECT entity, project, run_id FROM store.runs WHERE {runs}))"""


def _cut(table: pa.Table, order: Sequence[str]) -> dict[int, list[Series]]:
    """Cut the columns where the run or the key changes, and put the pieces of each key together."""
    import pyarrow.compute as pc

    if not table.num_rows:
        return {}
    columns = {name: _whole_column(table[name]) for name in table.column_names}
    encode = getattr(pc, "run_end_encode")  # noqa: B009 - the published types lack it
    by_key, by_rid = encode(columns["key"]), encode(columns["rid"])
    ends = sorted({*by_key.run_ends.to_pylist(), *by_rid.run_ends.to_pylist()})
    pieces: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for start, end in pairwise([0, *ends]):
        name = columns["rid"][start].as_py(), columns["key"][start].as_py()
        pieces.setdefault(name, []).append((start, end))
    step: Any = columns["step"]
    falls: list[Any] = pc.indices_nonzero(pc.less_equal(step[1:], step[:-1])).to_pylist()
    rising = {place + 1 for place in falls} <= set(ends)
    found: dict[int, list[Series]] = {}
    for (rid, key), places in pieces.items():
        found.setdefault(rid, []).append(_series(key, columns, places, rising=rising and len(places) == 1))
    place = {key: index for index, key in enumerate(order)}
    for series in found.values():
        series.sort(key=lambda one: (place.get(one.key, len(place)), one.key))
    return found


def _whole_column(column: Any) -> Any:
    """The column as one array, copied only where it comes in several."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _series(key: str, columns: Mapping[str, Any], places: list[tuple[int, int]], *, rising: bool) -> Series:
    import pyarrow as pa
    import pyarrow.compute as pc

    def gathered(name: str) -> Any:
        slices = [columns[name].slice(start, end - start) for start, end in places]
        return slices[0] if len(slices) == 1 else pa.concat_arrays(slices)

    steps, values, texts = gathered("step"), gathered("value"), gathered("text")
    if not rising and not _rising(steps):
        order = pc.sort_indices(steps)
        steps, values, texts = steps.take(order), values.take(order), texts.take(order)
    return Series(key, steps, values, None if texts.null_count == len(texts) else texts)


def _rising(steps: Any) -> bool:
    import pyarrow.compute as pc

    return len(steps) < 2 or bool(pc.all(pc.greater(steps[1:], steps[:-1])).as_py())


def plain_list(array: pa.Array[Any]) -> list[Any]:
    """An int64 or double column without nulls as a list; a fifth of the time that `to_pylist` takes."""
    import pyarrow as pa

    buffer = array.buffers()[1]
    if buffer is None or array.null_count:
        return list(array.to_pylist())
    view = memoryview(buffer).cast("B").cast("q" if pa.types.is_int64(array.type) else "d")
    return view[array.offset : array.offset + len(array)].tolist()


def _whole(value: float) -> float | int:
    return int(value) if value == value and abs(value) < 2.0**63 and value.is_integer() else value  # noqa: PLR0124


@dataclass(frozen=True)
class Aligned:
    """The series of one run over common steps. `places` of a series are where its values stand; None: everywhere."""

    steps: pa.Array[Any]
    series: tuple[tuple[Series, pa.Array[Any] | None], ...]


def align(series: Sequence[Series]) -> Aligned:
    """Bring the series of one run to common steps."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not series:
        return Aligned(pa.array([], pa.int64()), ())
    steps = max((one.steps for one in series), key=len)
    places: list[Any] = []
    for one in series:
        if one.steps.equals(steps):
            places.append(None)
            continue
        at: Any = pc.index_in(one.steps, value_set=steps)
        if at.null_count:
            every: Any = pc.unique(pa.concat_arrays([other.steps for other in series]))
            every = every.take(pc.sort_indices(every))
            return Aligned(every, tuple((other, _places(other, every)) for other in series))
        places.append(at)
    return Aligned(steps, tuple(zip(series, places, strict=True)))


def _places(one: Series, steps: Any) -> Any:
    import pyarrow.compute as pc

    return None if len(one.steps) == len(steps) else pc.index_in(one.steps, value_set=steps)


def rows(aligned: Aligned, step_key: str | None = "_step") -> Iterator[dict[str, Any]]:
    """One dictionary a step, of what was logged there; keys in the order of the series, those of every step first."""
    everywhere = [(one.key, one.python()) for one, places in aligned.series if places is None]
    if step_key is not None:
        everywhere.insert(0, (step_key, plain_list(aligned.steps)))
    elsewhere: list[tuple[str, list[Any], list[Any]]] = [
        (one.key, places.to_pylist(), one.python()) for one, places in aligned.series if places is not None
    ]
    names = [name for name, _ in everywhere]
    for start in range(0, len(aligned.steps), CHUNK_ROWS):
        end = min(start + CHUNK_ROWS, len(aligned.steps))
        columns = [values[start:end] for _, values in everywhere]
        if columns:
            chunk: list[dict[str, Any]] = list(map(dict, map(zip, repeat(names), zip(*columns, strict=True))))
        else:
            chunk = [{} for _ in range(end - start)]
        for name, places, values in elsewhere:
            low, high = bisect_left(places, start), bisect_left(places, end)
            for place, value in zip(places[low:high], values[low:high], strict=True):
                chunk[place - start][name] = value
        yield from chunk


def table(aligned: Aligned, step_key: str | None = "_step") -> pa.Table:
    """A column a key. Numbers are int64 or double; a key of texts or of booleans alone is a column of those.

    Any other key is a column of JSON text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: dict[str, Any] = {} if step_key is None else {step_key: aligned.steps}
    for one, places in aligned.series:
        numbers = one.numbers()
        column = _typed(one) if numbers is None else numbers
        if places is not None:
            back: Any = pc.index_in(aligned.steps, value_set=one.steps)
            column = column.take(back)
        columns[one.key] = column
    return pa.table(columns)


def _typed(one: Series) -> Any:
    """A column of values that are no plain numbers."""
    import pyarrow as pa

    values = one.python()
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {str}:
        return pa.array(values, pa.string())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    assert one.texts is not None
    numbers = [repr(_whole(value)) if value is not None else None for value in one.values.to_pylist()]
    texts: list[str | None] = one.texts.to_pylist()
    return pa.array([text if text is not None else number for text, number in zip(texts, numbers, strict=True)])
