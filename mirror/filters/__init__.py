"""Compiles W&B's Mongo-style run filters to DuckDB SQL with bound parameters; see docs/filters.md."""

from __future__ import annotations

from mirror.errors import FilterError
from mirror.filters.compile import Clause, Compiled, compile  # noqa: A004
from mirror.filters.explain import explain, missing, nearest, unknown_among, unknown_keys
from mirror.filters.order import DEFAULT_ORDER
from mirror.filters.parse import parse
from mirror.filters.published import inlined

__all__ = [
    "DEFAULT_ORDER",
    "Clause",
    "Compiled",
    "FilterError",
    "compile",
    "explain",
    "inlined",
    "missing",
    "nearest",
    "parse",
    "unknown_among",
    "unknown_keys",
]
