"""History in bulk: each key of a run as a column of steps and a column of values, outside of Python's interpreter."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from mirror import nested

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

HASHED_VALUES = 50_000
"""How many values there must be for their keys to be read as hashes."""

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
        # Most series have a fraction in their first value; an attempt at all of them takes as long as all the rest.
        if len(self.values) and not self.values[0].as_py().is_integer():
            return self.values
        try:
            return self.values.cast(pa.int64())
        except pa.ArrowInvalid:
            return self.values

    @property
    def finite(self) -> bool:
        """Whether each value is a number, and neither NaN nor infinite."""
        import pyarrow.compute as pc

        return self.texts is None and bool(pc.all(pc.is_finite(self.values)).as_py())

    def between(self, low: int, high: int) -> Series:
        """What it holds from step `low` on, to `high` exclusive; nothing is copied."""
        steps = Numbers.of(self.steps)
        ordered = steps.view if isinstance(steps, Numbers) else steps
        start, end = bisect_left(ordered, low), bisect_left(ordered, high)
        texts = None if self.texts is None else self.texts.slice(start, end - start)
        return Series(self.key, self.steps.slice(start, end - start), self.values.slice(start, end - start), texts)

    def python(self) -> list[Any]:
        """The values as Python knows them from JSON."""
        numbers = self.numbers()
        if numbers is not None:
            return plain_list(numbers)
        assert self.texts is not None
        texts: list[Any] = self.texts.to_pylist()
        values: list[Any] = self.values.to_pylist()
        return [
            nested.parse(text) if text is not None else whole(value) for text, value in zip(texts, values, strict=True)
        ]


@dataclass(frozen=True)
class Scope:
    """What to read of runs: keys (none means all), steps `first` to `end` exclusive, and how many rows at most.

    With `whole` only rows that hold every one of the keys count. `samples` rows are evenly spaced, the first and the
    last among them. `dense` is a key that every row of the run has, where one is known: its steps are quick to read.
    `steps` are the only ones that are wanted.
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
        """Whether some rows are left out although their keys and steps are wanted."""
        return self.samples is not None or (self.whole and bool(self.keys))


class HistorySource(NamedTuple):
    """Where the history of a snapshot is read: a connection, and what `segmented` told of it once."""

    connection: DuckDBPyConnection
    segmented: bool


def segmented(connection: DuckDBPyConnection) -> bool:
    """Whether some history lies in Parquet segments; else all of it is in one table."""
    sql = "SELECT 1 FROM store.segments WHERE retired_at IS NULL LIMIT 1"
    return bool(connection.execute(sql).fetchall())


def read(source: HistorySource, rids: Sequence[int], scope: Scope, values: int) -> dict[int, list[Series]]:
    """The series of each run, by rid; keys in the order of the scope, else by name. A run without any is left out.

    `values` is how many values these runs hold, about; the answer does not depend on it.
    """
    if not rids:
        return {}
    # The keys of few values are read sooner than what their hashes mean.
    few = values < HASHED_VALUES or scope.samples is not None
    names = None if few or scope.system else _names(source.connection, rids, scope.keys)
    sql, params = _query(source, rids, scope, "key" if names is None else "hash(key) AS key")
    table = source.connection.sql(sql, params=params or None).to_arrow_table()
    return _cut(table, names, scope.keys, rids[0] if len(rids) == 1 else None)


def _names(connection: DuckDBPyConnection, rids: Sequence[int], keys: Sequence[str]) -> dict[int, str] | None:
    """The keys of these runs by their hash, which is read in half the time; None where two share one."""
    if keys:
        source, params = "(SELECT unnest(?::VARCHAR[]) AS key)", [list(keys)]
    else:
        source, params = f"(SELECT DISTINCT key FROM store.history_keys WHERE {_among(rids)})", []
    rows = connection.execute(f"SELECT hash(key), key FROM {source}", params).fetchall()
    found = dict(rows)
    return found if len(found) == len({key for _, key in rows}) else None


def _among(rids: Sequence[int]) -> str:
    """A condition; numbers of ours as part of the text let DuckDB skip what cannot match."""
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
            steps = _PICKED.format(steps=steps)
            params["samples"] = scope.samples
        sql += f" AND (rid, step) IN ({steps})" if len(rids) > 1 else f" AND step IN (SELECT step FROM ({steps}))"
    return sql, params


def one_of(keys: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The condition that a value is of one of these keys, and its parameters."""
    # One by one: a list would be joined with, for which every key is written out.
    bound = {f"key{place}": key for place, key in enumerate(keys)}
    return f"key IN ({', '.join(f'${name}' for name in bound)})", bound


def values_of(source: HistorySource, rids: Sequence[int], *, system: bool = False) -> str:
    """The relation of logged values of runs, with rids; the tail alone where no history was moved to Parquet."""
    runs = _among(rids)
    if not system and not source.segmented:
        return f"(SELECT * FROM store.history_tail WHERE {runs})"
    relation = "main.system_metrics" if system else "main.history"
    return f"""(SELECT r.rid, h.key, h.step, h.value, h.text FROM {relation} AS h
        JOIN store.runs AS r ON r.entity = h.entity AND r.project = h.project AND r.run_id = h.run_id
        WHERE r.{runs} AND (h.entity, h.project, h.run_id) IN (
            SELECT entity, project, run_id FROM store.runs WHERE {runs}))"""


def _cut(
    table: pa.Table, names: Mapping[int, str] | None, order: Sequence[str], rid: int | None
) -> dict[int, list[Series]]:
    """Cut the columns where the run or the key changes, and put the pieces of each key together.

    `names` are the keys by their hash, where the column holds hashes. `rid` is the run, where there is only one.
    """
    import pyarrow.compute as pc

    encode = getattr(pc, "run_end_encode")  # noqa: B009 - the published types lack it
    pieces: dict[tuple[Any, Any], list[_Piece]] = {}
    # Batch by batch: to bring them together first would copy every value.
    for batch in table.to_batches():
        keys, steps, values, texts, *rids = batch.columns
        ends = sorted({end for column in (keys, *rids) for end in encode(column).run_ends.to_pylist()})
        falls: list[Any] = pc.indices_nonzero(pc.less_equal(steps[1:], steps[:-1])).to_pylist()
        rising = {place + 1 for place in falls} <= set(ends)
        plain = texts.null_count == len(texts)
        for start, end in pairwise([0, *ends]):
            cut = (start, end - start)
            piece = steps.slice(*cut), values.slice(*cut), None if plain else texts.slice(*cut), rising
            pieces.setdefault((rids[0][start].as_py() if rids else rid, keys[start].as_py()), []).append(piece)
    found: dict[int, list[Series]] = {}
    for (owner, key), parts in pieces.items():
        found.setdefault(owner, []).append(_series(key if names is None else names[key], parts))
    place = {key: index for index, key in enumerate(order)}
    for series in found.values():
        series.sort(key=lambda one: (place.get(one.key, len(place)), one.key))
    return found


_Piece = tuple[Any, Any, Any, bool]
"""Steps, values, texts or None for none, and whether the steps rise."""


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
    """An int64 or double column without nulls whose slices are lists, in a fifth of the time of `to_pylist`.

    Slices of a few hundred are used up while they are still in the processor's cache.
    """

    def __init__(self, view: memoryview[int] | memoryview[float]) -> None:
        self.view = view

    @classmethod
    def of(cls, array: pa.Array[Any]) -> Numbers | list[Any]:
        """The column, or all of it as a list where it holds nulls."""
        import pyarrow as pa

        buffer = array.buffers()[1]
        if buffer is None or array.null_count:
            return list(array.to_pylist())
        view = memoryview(buffer).cast("B").cast("q" if pa.types.is_int64(array.type) else "d")
        return cls(view[array.offset : array.offset + len(array)])

    def __getitem__(self, places: slice) -> list[Any]:
        return self.view[places].tolist()


def plain_list(array: pa.Array[Any]) -> list[Any]:
    """An int64 or double column without nulls as a list."""
    return Numbers.of(array)[:]


def whole(value: float) -> float | int:
    """A number as JSON would show it: without a fraction where it has none."""
    return int(value) if value == value and abs(value) < 2.0**63 and value.is_integer() else value  # noqa: PLR0124
