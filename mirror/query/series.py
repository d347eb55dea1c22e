"""History in bulk: each key of a run as a column of steps and a column of values, outside of Python's interpreter."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

CHUNK_ROWS = 500
"""Rows that are made at once: short-lived dictionaries are taken from memory that is used again and again."""

MAKERS = 256
"""Sets of keys whose rows have a function of their own."""

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
    names = None if scope.system else _names(connection, rids, scope.keys)
    sql, params = _query(connection, rids, scope, "key" if names is None else "hash(key) AS key")
    return _cut(connection.sql(sql, params=params or None).to_arrow_table(), names, scope.keys)


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


def _query(connection: DuckDBPyConnection, rids: Sequence[int], scope: Scope, key: str) -> tuple[str, dict[str, Any]]:
    params: dict[str, Any] = {}
    runs = _among(rids)
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
    sql = f"SELECT rid, {key}, step, value, text FROM {source} WHERE {where}"
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


def _cut(table: pa.Table, names: Mapping[int, str] | None, order: Sequence[str]) -> dict[int, list[Series]]:
    """Cut the columns where the run or the key changes, and put the pieces of each key together.

    `names` are the keys by their hash, where the column holds hashes.
    """
    import pyarrow.compute as pc

    encode = getattr(pc, "run_end_encode")  # noqa: B009 - the published types lack it
    pieces: dict[tuple[int, Any], list[_Piece]] = {}
    # Batch by batch: to bring them together first would copy every value.
    for batch in table.to_batches():
        rids, keys, steps, values, texts = (batch.column(place) for place in range(5))
        by_key, by_rid = encode(keys), encode(rids)
        ends = sorted({*by_key.run_ends.to_pylist(), *by_rid.run_ends.to_pylist()})
        falls: list[Any] = pc.indices_nonzero(pc.less_equal(steps[1:], steps[:-1])).to_pylist()
        rising = {place + 1 for place in falls} <= set(ends)
        plain = texts.null_count == len(texts)
        for start, end in pairwise([0, *ends]):
            cut = (start, end - start)
            piece = steps.slice(*cut), values.slice(*cut), None if plain else texts.slice(*cut), rising
            pieces.setdefault((rids[start].as_py(), keys[start].as_py()), []).append(piece)
    found: dict[int, list[Series]] = {}
    for (rid, key), parts in pieces.items():
        found.setdefault(rid, []).append(_series(key if names is None else names[key], parts))
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


class _Numbers:
    """An int64 or double column without nulls whose slices are lists, in a fifth of the time of `to_pylist`.

    Slices of a few hundred are used up while they are still in the processor's cache.
    """

    def __init__(self, view: memoryview[int] | memoryview[float]) -> None:
        self._view = view

    @classmethod
    def of(cls, array: pa.Array[Any]) -> _Numbers | list[Any]:
        """The column, or all of it as a list where it holds nulls."""
        import pyarrow as pa

        buffer = array.buffers()[1]
        if buffer is None or array.null_count:
            return list(array.to_pylist())
        view = memoryview(buffer).cast("B").cast("q" if pa.types.is_int64(array.type) else "d")
        return cls(view[array.offset : array.offset + len(array)])

    def __getitem__(self, places: slice) -> list[Any]:
        return self._view[places].tolist()


def _cells(one: Series) -> _Numbers | list[Any]:
    """The values, to be cut into slices that are lists."""
    numbers = one.numbers()
    return one.python() if numbers is None else _Numbers.of(numbers)


def plain_list(array: pa.Array[Any]) -> list[Any]:
    """An int64 or double column without nulls as a list."""
    return _Numbers.of(array)[:]


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
    return chain.from_iterable(chunks(aligned, step_key))


def chunks(aligned: Aligned, step_key: str | None = "_step") -> Iterator[list[dict[str, Any]]]:
    """The rows, CHUNK_ROWS at a time."""
    everywhere = [(one.key, _cells(one)) for one, places in aligned.series if places is None]
    if step_key is not None:
        everywhere.insert(0, (step_key, _Numbers.of(aligned.steps)))
    elsewhere: list[tuple[str, list[Any], list[Any]]] = [
        (one.key, places.to_pylist(), one.python()) for one, places in aligned.series if places is not None
    ]
    made = _maker(tuple(name for name, _ in everywhere))
    for start in range(0, len(aligned.steps), CHUNK_ROWS):
        end = min(start + CHUNK_ROWS, len(aligned.steps))
        columns = [cells[start:end] for _, cells in everywhere]
        chunk = made(zip(*columns, strict=True)) if columns else [{} for _ in range(end - start)]
        for name, places, values in elsewhere:
            low, high = bisect_left(places, start), bisect_left(places, end)
            for place, value in zip(places[low:high], values[low:high], strict=True):
                chunk[place - start][name] = value
        yield chunk


@lru_cache(MAKERS)
def _maker(names: tuple[str, ...]) -> Callable[[Iterable[tuple[Any, ...]]], list[dict[str, Any]]]:
    """A function that makes dictionaries with these keys of tuples of their values.

    Written out as one display of constant keys, a dictionary takes half the time of `dict(zip(names, values))`, since
    it is made in its final size. The names enter as literals that `repr` quotes, and nothing else does.
    """
    values = [f"v{place}" for place in range(len(names))]
    items = ", ".join(f"{name!r}: {value}" for name, value in zip(names, values, strict=True))
    made: Callable[[Iterable[tuple[Any, ...]]], list[dict[str, Any]]] = eval(  # noqa: S307
        f"lambda rows: [{{{items}}} for {', '.join(values)}, in rows]", {"__builtins__": {}}
    )
    return made


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
