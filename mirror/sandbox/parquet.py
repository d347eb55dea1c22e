"""History rows as the Parquet files that the server exports: wide, one column per key, nested keys dotted."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mirror.sandbox import jsontext
from mirror.sandbox.history import leaves

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_INT64 = 2**63


def table(lines: Sequence[str]) -> pa.Table:
    """Return the rows as an Arrow table; missing keys are null."""
    columns: dict[str, list[Any]] = {}
    for index, line in enumerate(lines):
        for key, value in leaves(jsontext.read(line)):
            column = columns.get(key)
            if column is None:
                column = columns[key] = [None] * len(lines)
            column[index] = value
    return pa.table({key: _array(values) for key, values in columns.items()})


def file(lines: Sequence[str]) -> bytes:
    """Return the rows as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table(lines), sink, compression="snappy")
    return sink.getvalue()


def _array(values: list[Any]) -> pa.Array[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int} and all(-_INT64 <= value < _INT64 for value in values if value is not None):
        return pa.array(values, pa.int64())
    if (
        kinds & {int, float}
        and kinds <= {int, float, str}
        and all(value in _WORDS for value in values if isinstance(value, str))
    ):
        numbers = [_WORDS[value] if isinstance(value, str) else value for value in values]
        return pa.array([None if value is None else float(value) for value in numbers], pa.float64())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    # A column has one type: a key that changed its type, and any value that is not a scalar, is stored as text.
    texts = [value if value is None or isinstance(value, str) else jsontext.write(value) for value in values]
    return pa.array(texts, pa.string())
