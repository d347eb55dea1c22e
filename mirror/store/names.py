"""Names and texts that people chose, made safe to stand in SQL."""

from __future__ import annotations

from pathlib import Path


def identifier(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | Path) -> str:
    """The text as a quoted SQL string, for the few places that take no bound parameter."""
    return "'" + str(text).replace("'", "''") + "'"
