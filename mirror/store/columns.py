"""Converts Python values to Arrow columns, in which form they are passed to DuckDB."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_TYPES = {"VARCHAR": "string", "BIGINT": "int64", "DOUBLE": "float64", "BOOLEAN": "bool_"}


def table(columns: dict[str, str], rows: Iterable[Sequence[Any]]) -> pa.Table:
    """Rows as columns of the named DuckDB types. A lone surrogate, which UTF-8 cannot encode, becomes U+FFFD."""
    import pyarrow as pa

    listed = list(rows)
    values: Iterable[Sequence[Any]] = zip(*listed, strict=True) if listed else [()] * len(columns)
    arrays = [_array(kind, column) for kind, column in zip(columns.values(), values, strict=True)]
    return pa.table(arrays, names=list(columns))


def _array(kind: str, values: Sequence[Any]) -> pa.Array[Any]:
    import pyarrow as pa

    arrow: Any = pa.timestamp("us") if kind == "TIMESTAMP" else getattr(pa, _TYPES[kind])()
    array: pa.Array[Any]
    try:
        array = pa.array(values, arrow)
    except UnicodeEncodeError:
        array = pa.array([value if value is None else _without_surrogates(value) for value in values], arrow)
    return array


def _without_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
