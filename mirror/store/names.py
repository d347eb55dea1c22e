"""Quotes names and texts that people chose, so that they are safe in SQL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_UPPER_TO_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def identifier(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | Path) -> str:
    """The text as a quoted SQL string, for the few places where DuckDB accepts no bound parameter."""
    return "'" + str(text).replace("'", "''") + "'"


def folded(name: str) -> str:
    """The name as DuckDB compares identifiers: with A to Z in lower case, and all other letters unchanged."""
    return name.translate(_UPPER_TO_LOWER)


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, changed where necessary so that DuckDB can tell them apart.

    Of names that differ only in case, the first stays unchanged; the others get the next of `_2`, `_3`, ... that does
    not make them equal to another given name. A name that differs from all others always stays unchanged.
    """
    own = {folded(name) for name in names}
    used: set[str] = set()
    unique = []
    for name in names:
        free, number = name, 2
        while folded(free) in (used if free == name else own | used):
            free, number = f"{name}_{number}", number + 1
        used.add(folded(free))
        unique.append(free)
    return unique


def escaped(path: Path) -> str:
    """The path as a glob that matches only this path, since `read_parquet` interprets `*`, `?` and `[`."""
    return re.sub(r"[*?\[]", lambda found: f"[{found[0]}]", str(path))


def pattern(path: Path) -> str:
    """The path as a quoted SQL string for `read_parquet`."""
    return literal(escaped(path))
