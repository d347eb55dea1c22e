"""The types of columns of W&B Tables, as they are stored in Parquet."""

from __future__ import annotations

from collections.abc import Iterable

EMPTY = "NULL"
"""The type of a column without values, which is stored as text."""

WHOLE = "DECIMAL(38,0)"
"""The type of whole numbers past 64 bits."""


def common(types: Iterable[str]) -> str:
    """The narrowest type that holds the values of columns of all these types."""
    found = set(types) - {EMPTY}
    if len(found) < 2:
        return next(iter(found), EMPTY)
    if found == {"BIGINT", WHOLE}:
        return WHOLE
    return "DOUBLE" if found <= {"BIGINT", WHOLE, "DOUBLE"} else "VARCHAR"


def stored(kind: str) -> str:
    """The DuckDB type of a column of this type."""
    return "VARCHAR" if kind == EMPTY else kind
