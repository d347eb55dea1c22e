"""Names and texts that people chose, made safe to stand in SQL."""

from __future__ import annotations

import re
from pathlib import Path


def identifier(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | Path) -> str:
    """The text as a quoted SQL string, for the few places that take no bound parameter."""
    return "'" + str(text).replace("'", "''") + "'"


def escaped(path: Path) -> str:
    """The path as a pattern that matches it alone, since `read_parquet` takes `*`, `?` and `[` for patterns."""
    return re.sub(r"[*?\[]", lambda found: f"[{found[0]}]", str(path))


def pattern(path: Path) -> str:
    """The path as a quoted SQL string for `read_parquet`."""
    return literal(escaped(path))
