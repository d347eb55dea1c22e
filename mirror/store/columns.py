"""Python values as Arrow columns, the way they are handed to DuckDB."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_TYPES = {"VARCHAR": "string", "BIGINT": "int64", "DOUBLE": "float64", "BOOLEAN": "bool_"}


def table(columns: dict[str, str], rows: Iterable[Sequence[Any]]) -> pa.Table:
    """Rows as columns of the named DuckDB types. Half of a surrogate pair, which UTF-8 can't say, becomes U+FFFD."""
    import pyarrow as pa

    taken = list(rows)
    values: Iterable[Sequence[Any]] = zip(*taken, strict=True) if taken else [()] * len(columns)
    arrays = [_array(kind, column) for kind, column in zip(columns.values(), values, strict=True)]
    return pa.table(arrays, names=list(columns))


def _array(kind: str, values: Sequence[Any]) -> pa.Array[Any]:
    import pyarrow as pa

    arrow: Any = pa.timestamp("us") if kind == "TIMESTAMP" else getattr(pa, _TYPES[kind])()
    array: pa.Array[Any]
    try:
        array = pa.array(values, arrow)
    except UnicodeEncodeError:
        array = pa.array([value if value is None else _whole(value) for value in values], arrow)
    return array


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
