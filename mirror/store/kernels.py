"""Arrow's functions on columns, without the module of their wrappers, whose import is a fiftieth of a first sync."""

from __future__ import annotations

from typing import Any


def call(name: str, *columns: Any, options: Any = None) -> Any:
    """Call one of Arrow's functions, named as in `pyarrow.compute`."""
    return _functions().call_function(name, list(columns), options)


def index_in(column: Any, among: Any) -> Any:
    """Return the position of each value of the column `among` other values, null for one that is not there."""
    return call("index_in", column, options=_functions().SetLookupOptions(value_set=among))


def cast(column: Any, to: Any) -> Any:
    """Return the column as another type; a number that the type cannot hold exactly is rounded."""
    return call("cast", column, options=_functions().CastOptions.unsafe(to))


def _functions() -> Any:
    try:
        from pyarrow import _compute
    except ImportError:
        # The module has no promise to stay; this one has the same names.
        import pyarrow.compute as _compute  # type: ignore[no-redef]
    return _compute
