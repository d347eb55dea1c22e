"""Logged values as columns: put in order, freed of doubles, and summed up key by key.

The columns are step (int64), key (string, may be dictionary-encoded), value (double) and text (string).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("step", "key", "value", "text")


def arrange(values: pa.Table) -> pa.Table:
    """The values key by key and by step; of several at one step and key the last one given is kept."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.table({name: _plain(values[name]) for name in COLUMNS})
    if table.num_rows < 2:
        return table
    # The sort is stable, so the last of several stays the last.
    table = table.take(pc.sort_indices(table, sort_keys=[("key", "ascending"), ("step", "ascending")]))
    key, step = (table[name].combine_chunks() for name in ("key", "step"))
    more: Any = pc.or_(pc.not_equal(key[1:], key[:-1]), pc.not_equal(step[1:], step[:-1]))
    if pc.all(more, min_count=0).as_py():
        return table
    return table.filter(pa.concat_arrays([more, pa.array([True])]))


def summarise(values: pa.Table) -> pa.Table:
    """Of each key, in the order of the values: rows, first_step, last_step, min and max (finite), last (number).

    `values` lie key by key and by step.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    number = values["value"]
    finite: Any = pc.is_finite(number)
    some = pc.if_else(finite, number, pa.scalar(None, pa.float64()))
    table = pa.table({"key": _plain(values["key"]), "step": values["step"], "some": some, "value": number})
    wanted: Any = [
        ("step", "count"),
        ("step", "first"),
        ("step", "last"),
        ("some", "min"),
        ("some", "max"),
        ("value", "last"),
    ]
    found = table.group_by("key", use_threads=False).aggregate(wanted)
    names = ["key", "step_count", "step_first", "step_last", "some_min", "some_max", "value_last"]
    return found.select(names).rename_columns(["key", "rows", "first_step", "last_step", "min", "max", "last"])


def stretched(names: Sequence[str], lengths: Sequence[int]) -> Any:
    """A dictionary column in which each name stands as often as its length says, one name behind the other."""
    import pyarrow as pa
    import pyarrow.compute as pc

    different = list(dict.fromkeys(names))
    places = {name: place for place, name in enumerate(different)}
    # An empty stretch has no end of its own.
    some = [(places[name], length) for name, length in zip(names, lengths, strict=True) if length]
    ends = pa.array(accumulate(length for _, length in some), pa.int32())
    kernels: Any = pc
    runs: Any = pa.RunEndEncodedArray.from_arrays(ends, pa.array([place for place, _ in some], pa.int32()))
    indices = kernels.run_end_decode(runs)
    return pa.DictionaryArray.from_arrays(indices, pa.array(different, pa.string()))


def _plain(column: Any) -> Any:
    import pyarrow as pa

    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
