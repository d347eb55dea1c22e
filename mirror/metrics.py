"""Logged values as columns: sorted, deduplicated, and summarised by key.

The columns are step (int64), key (string, may be dictionary-encoded), value (double) and text (string).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

STEP = "_step"
"""The key under which W&B logs the step of a row."""

COLUMNS = ("step", "key", "value", "text")


def arrange(values: pa.Table) -> pa.Table:
    """The values sorted by key and step. Of several values at one step and key, the last one is kept."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.table({name: _plain(values[name]) for name in COLUMNS})
    if table.num_rows < 2:
        return table
    # The sort is stable, so the last of several stays the last.
    table = table.take(pc.sort_indices(table, sort_keys=[("key", "ascending"), ("step", "ascending")]))
    key, step = (table[name].combine_chunks() for name in ("key", "step"))
    differs: Any = pc.or_(pc.not_equal(key[1:], key[:-1]), pc.not_equal(step[1:], step[:-1]))
    if pc.all(differs, min_count=0).as_py():
        return table
    return table.filter(pa.concat_arrays([differs, pa.array([True])]))


def summarise(values: pa.Table) -> pa.Table:
    """One row per key, in the order of `values`: key, rows, first_step, last_step, min and max (finite), last (number).

    `values` must be sorted by key and step.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    number = values["value"]
    is_finite: Any = pc.is_finite(number)
    finite_only = pc.if_else(is_finite, number, pa.scalar(None, pa.float64()))
    table = pa.table({"key": _plain(values["key"]), "step": values["step"], "finite": finite_only, "value": number})
    wanted: Any = [
        ("step", "count"),
        ("step", "first"),
        ("step", "last"),
        ("finite", "min"),
        ("finite", "max"),
        ("value", "last"),
    ]
    found = table.group_by("key", use_threads=False).aggregate(wanted)
    names = ["key", "step_count", "step_first", "step_last", "finite_min", "finite_max", "value_last"]
    return found.select(names).rename_columns(["key", "rows", "first_step", "last_step", "min", "max", "last"])


def stretched(names: Sequence[str], lengths: Sequence[int]) -> Any:
    """A dictionary column with each name repeated as often as its length says."""
    import pyarrow as pa
    import pyarrow.compute as pc

    distinct = list(dict.fromkeys(names))
    positions = {name: position for position, name in enumerate(distinct)}
    # An empty stretch would repeat the end of the one before it.
    used = [(positions[name], length) for name, length in zip(names, lengths, strict=True) if length]
    ends = pa.array(accumulate(length for _, length in used), pa.int32())
    kernels: Any = pc
    runs: Any = pa.RunEndEncodedArray.from_arrays(ends, pa.array([position for position, _ in used], pa.int32()))
    indices = kernels.run_end_decode(runs)
    return pa.DictionaryArray.from_arrays(indices, pa.array(distinct, pa.string()))


def _plain(column: Any) -> Any:
    import pyarrow as pa

    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
