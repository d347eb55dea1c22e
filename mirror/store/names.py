"""Names and texts that people chose, made safe to stand in SQL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_UPPER_TO_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def identifier(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | Path) -> str:
    """The text as a quoted SQL string, for the few places that take no bound parameter."""
    return "'" + str(text).replace("'", "''") + "'"


def folded(name: str) -> str:
    """The name as DuckDB compares identifiers: A to Z are a to z, and no other letter is another one."""
    return name.translate(_UPPER_TO_LOWER)


def told_apart(names: Sequence[str]) -> list[str]:
    """The names, each of them told apart by DuckDB.

    The first of those that differ in case alone stays as it is; the others get `_2`, `_3` and so on, whatever is next
    that is no other's own name. A name that differs from all others always stays as it is.
    """
    own = {folded(name) for name in names}
    taken: set[str] = set()
    given = []
    for name in names:
        free, number = name, 2
        while folded(free) in (taken if free == name else own | taken):
            free, number = f"{name}_{number}", number + 1
        taken.add(folded(free))
        given.append(free)
    return given


def escaped(path: Path) -> str:
    """The path as a pattern that matches it alone, since `read_parquet` takes `*`, `?` and `[` for patterns."""
    return re.sub(r"[*?\[]", lambda found: f"[{found[0]}]", str(path))


def pattern(path: Path) -> str:
    """The path as a quoted SQL string for `read_parquet`."""
    return literal(escaped(path))
