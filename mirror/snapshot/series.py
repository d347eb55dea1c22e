"""Reads history in bulk: each key of a run as Arrow columns of steps and values, without Python objects per value."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from msgspec import Struct

from mirror import nested
from mirror.errors import names_segment, one_line, unreadable_segment
from mirror.snapshot.spread import spread_sql
from mirror.wandb_json import number_word

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

HASHED_VALUES = 50_000
"""From this many values on, keys are read as hashes."""


class Series(Struct, frozen=True):
    """One key of one run: ascending steps and a value at each.

    `texts` is None if all values are numbers; else it has JSON text for each value that is not a number.
    """

    key: str
    steps: pa.Array[Any]
    values: pa.Array[Any]
    texts: pa.Array[Any] | None = None

    def numbers(self) -> pa.Array[Any] | None:
        """The values as int64 if all are whole numbers, else as doubles; None if any value is not a number.

        JSON has only one kind of number, which the mirror stores as a double: 2 and 2.0 are the same.
        """
        import pyarrow as pa

        if self.texts is not None:
            return None
        # Most series have a fraction in their first value, and trying to cast takes as long as the rest of the read.
        if len(self.values) and not self.values[0].as_py().is_integer():
            return self.values
        try:
            return self.values.cast(pa.int64())
        except pa.ArrowInvalid:
            return self.values

    @property
    def finite(self) -> bool:
        """True if every value is a number, and neither NaN nor infinite."""
        import pyarrow.compute as pc

        return self.texts is None and bool(pc.all(pc.is_finite(self.values)).as_py())

    def between(self, low: int, high: int) -> Series:
        """The part of the series from step `low` to `high` (exclusive), without copying."""
        steps = Numbers.of(self.steps)
        ordered = steps.view if isinstance(steps, Numbers) else steps
        start, end = bisect_left(ordered, low), bisect_left(ordered, high)
        texts = None if self.texts is None else self.texts.slice(start, end - start)
        return Series(self.key, self.steps.slice(start, end - start), self.values.slice(start, end - start), texts)

    def python(self) -> list[Any]:
        """The values as Python's JSON parser would return them."""
        numbers = self.numbers()
        if numbers is not None:
            return plain_list(numbers)
        assert self.texts is not None
        texts: list[Any] = self.texts.to_pylist()
        values: list[Any] = self.values.to_pylist()
        return [
            nested.parse(text) if text is not None else whole(value) for text, value in zip(texts, values, strict=True)
        ]


class Scope(Struct, frozen=True):
    """What to read from the history of runs.

    `keys`: the keys (empty means all). `first`, `end`: the range of steps, without `end`. `steps`: only these steps.
    `samples`: at most this many rows, evenly spaced, with the first and the last. `whole`: only rows that have all of
    the keys. `system`: system metrics instead of history. `dense`: a key that every row of the run has, if one is
    known; its steps are fast to read.
    """

    keys: tuple[str, ...] = ()
    first: int | None = None
    end: int | None = None
    samples: int | None = None
    whole: bool = False
    system: bool = False
    dense: str | None = None
    steps: tuple[int, ...] | None = None

    @property
    def picks(self) -> bool:
        """True if rows are selected by more than their keys and steps: by `samples` or `whole`."""
        return self.samples is not None or (self.whole and bool(self.keys))


class HistorySource(NamedTuple):
    """A connection for reading a snapshot's history, and the result of `segments.segmented` for that snapshot."""

    connection: DuckDBPyConnection
    segmented: bool


def read(source: HistorySource, rids: Sequence[int], scope: Scope, values: int) -> dict[int, list[Series]]:
    """The series of each run, by rid, with keys in the order of the scope, else by name. Leaves out runs without any.

    `values` is about how many values these runs have. It only affects speed. Raises StoreError if a segment is lost.
    """
    if not rids:
        return {}
    # For few values, reading their keys is faster than looking up which keys the hashes stand for.
    few = values < HASHED_VALUES or scope.samples is not None
    names = None if few or scope.system else _names(source.connection, rids, scope.keys)
    sql, params = _query(source, rids, scope, "key" if names is None else "hash(key) AS key")
    table = _table(source.connection, sql, params)
    return _cut(table, names, scope.keys, rids[0] if len(rids) == 1 else None)


def _table(connection: DuckDBPyConnection, sql: str, params: Mapping[str, Any]) -> pa.Table:
    import duckdb

    try:
        table: pa.Table = connection.sql(sql, params=params or None).to_arrow_table()
    except duckdb.Error as error:
        if names_segment(str(error)):
            raise unreadable_segment(one_line(str(error))) from error
        raise
    return table


def _names(connection: DuckDBPyConnection, rids: Sequence[int], keys: Sequence[str]) -> dict[int, str] | None:
    """The keys of these runs by hash, or None if two share one. A column of hashes is read in half the time."""
    if keys:
        source, params = "(SELECT unnest(?::VARCHAR[]) AS key)", [list(keys)]
    else:
        source, params = f"(SELECT DISTINCT key FROM store.run_keys WHERE {_among(rids)})", []
    rows = connection.execute(f"SELECT hash(key), key FROM {source}", params).fetchall()
    names = dict(rows)
    return names if len(names) == len({key for _, key in rows}) else None


def _among(rids: Sequence[int]) -> str:
    """A condition for these runs. As literals, rids let DuckDB skip row groups that cannot match."""
    return f"rid IN ({', '.join(str(int(rid)) for rid in rids)})"


def _query(source: HistorySource, rids: Sequence[int], scope: Scope, key: str) -> tuple[str, dict[str, Any]]:
    params: dict[str, Any] = {}
    relation = values_of(source, rids, system=scope.system)
    conditions = ["TRUE"]
    if scope.keys:
        condition, params = one_of(scope.keys)
        conditions.append(condition)
    if scope.first is not None:
        conditions.append("step >= $first")
        params["first"] = scope.first
    if scope.end is not None:
        conditions.append("step < $end")
        params["end"] = scope.end
    if scope.steps is not None:
        conditions.append("step IN (SELECT unnest($steps::BIGINT[]))")
        params["steps"] = list(scope.steps)
    where = " AND ".join(conditions)
    rid = ", rid" if len(rids) > 1 else ""
    sql = f"SELECT {key}, step, value, text{rid} FROM {relation} WHERE {where}"
    if scope.picks:
        steps = f"SELECT rid, step FROM {relation} WHERE {where}"
        if scope.dense and not scope.keys:
            steps += " AND key = $dense"
            params["dense"] = scope.dense
        else:
            steps += " GROUP BY rid, step"
        if scope.whole and scope.keys:
            steps += " HAVING count(*) = $wanted"
            params["wanted"] = len(set(scope.keys))
        if scope.samples is not None:
            steps = spread_sql(steps, "rid, step", "$samples", of="rid")
            params["samples"] = scope.samples
        sql += f" AND (rid, step) IN ({steps})" if len(rids) > 1 else f" AND step IN (SELECT step FROM ({steps}))"
    return sql, params


def one_of(keys: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The condition that a value's key is one of these, and its parameters."""
    # One parameter per key: DuckDB would join with a list, for which it decodes the key of every value.
    bound = {f"key{index}": key for index, key in enumerate(keys)}
    return f"key IN ({', '.join(f'${name}' for name in bound)})", bound


def values_of(source: HistorySource, rids: Sequence[int], *, system: bool = False) -> str:
    """SQL for the logged values of runs, with rids. Reads only the tail if no history was moved to Parquet."""
    runs = _among(rids)
    if not system and not source.segmented:
        return f"(SELECT * FROM store.history_tail WHERE {runs})"
    relation = "main.system_metrics" if system else "main.history"
    return f"""(SELECT r.rid, h.key, h.step, h.value, h.text FROM {relation} AS h
        JOIN store.run_records AS r ON r.entity = h.entity AND r.project = h.project AND r.run_id = h.run_id
        WHERE r.{runs} AND (h.entity, h.project, h.run_id) IN (
            SELECT entity, project, run_id FROM store.run_records WHERE {runs}))"""


def _cut(
    table: pa.Table, names: Mapping[int, str] | None, order: Sequence[str], rid: int | None
) -> dict[int, list[Series]]:
    """Cut the columns where the run or the key changes, and join the pieces of each key.

    `names` maps hashes to keys if the key column contains hashes. `rid` is the run if there is only one.
    """
    import pyarrow.compute as pc

    encode = getattr(pc, "run_end_encode")  # noqa: B009 - the published types lack it
    pieces: dict[tuple[Any, Any], list[_Piece]] = {}
    # Batch by batch, since joining the batches first would copy every value.
    for batch in table.to_batches():
        keys, steps, values, texts, *rids = batch.columns
        ends = sorted({end for column in (keys, *rids) for end in encode(column).run_ends.to_pylist()})
        falls: list[Any] = pc.indices_nonzero(pc.less_equal(steps[1:], steps[:-1])).to_pylist()
        rising = {index + 1 for index in falls} <= set(ends)
        plain = texts.null_count == len(texts)
        for start, end in pairwise([0, *ends]):
            cut = (start, end - start)
            piece = steps.slice(*cut), values.slice(*cut), None if plain else texts.slice(*cut), rising
            pieces.setdefault((rids[0][start].as_py() if rids else rid, keys[start].as_py()), []).append(piece)
    found: dict[int, list[Series]] = {}
    for (owner, key), parts in pieces.items():
        found.setdefault(owner, []).append(_series(key if names is None else names[key], parts))
    position = {key: index for index, key in enumerate(order)}
    for series in found.values():
        series.sort(key=lambda one: (position.get(one.key, len(position)), one.key))
    return found


_Piece = tuple[Any, Any, Any, bool]
"""Steps, values, texts (None if there are none), and whether the steps are in ascending order."""


def _series(key: str, pieces: list[_Piece]) -> Series:
    import pyarrow as pa
    import pyarrow.compute as pc

    steps, values, texts, rising = pieces[0]
    if len(pieces) > 1:
        steps, values = pa.concat_arrays([piece[0] for piece in pieces]), pa.concat_arrays([p[1] for p in pieces])
        if any(piece[2] is not None for piece in pieces):
            texts = pa.concat_arrays(
                [pa.nulls(len(piece[0]), pa.string()) if piece[2] is None else piece[2] for piece in pieces]
            )
    if (len(pieces) > 1 or not rising) and not _rising(steps):
        order = pc.sort_indices(steps)
        steps, values, texts = steps.take(order), values.take(order), None if texts is None else texts.take(order)
    return Series(key, steps, values, None if texts is None or texts.null_count == len(texts) else texts)


def _rising(steps: Any) -> bool:
    import pyarrow.compute as pc

    return len(steps) < 2 or bool(pc.all(pc.greater(steps[1:], steps[:-1])).as_py())


class Numbers:
    """An int64 or double column without nulls whose slices are lists, made in a fifth of the time of `to_pylist`.

    Slices of a few hundred values stay in the processor's cache until they are used.
    """

    def __init__(self, view: memoryview[int] | memoryview[float]) -> None:
        self.view = view

    @classmethod
    def of(cls, array: pa.Array[Any]) -> Numbers | list[Any]:
        """Wrap the column; a column with nulls is returned as a list."""
        import pyarrow as pa

        buffer = array.buffers()[1]
        if buffer is None or array.null_count:
            return list(array.to_pylist())
        view = memoryview(buffer).cast("B").cast("q" if pa.types.is_int64(array.type) else "d")
        return cls(view[array.offset : array.offset + len(array)])

    def __getitem__(self, indexes: slice) -> list[Any]:
        return self.view[indexes].tolist()


def plain_list(array: pa.Array[Any]) -> list[Any]:
    """An int64 or double column without nulls as a list."""
    return Numbers.of(array)[:]


def whole(value: float) -> float | int:
    """A number as in JSON: an int if it has no fraction and fits in int64."""
    return int(value) if value == value and abs(value) < 2.0**63 and value.is_integer() else value  # noqa: PLR0124


def json_value(value: float, text: str | None) -> Any:
    """A logged value for orjson: what is stored as text, and numbers that are not finite, are fragments."""
    if text is not None:
        return orjson.Fragment(text)
    return whole(value) if value - value == 0 else orjson.Fragment(number_word(value))
