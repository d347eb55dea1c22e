"""The mirrored console lines of a run."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class Line(NamedTuple):
    """A line of a run's console: its number from 0, and its naive UTC time.

    `level` is "error" for stderr. `label` is None if it was not mirrored.
    """

    number: int
    logged_at: datetime | None
    level: str | None
    text: str
    label: str | None


def pulled(connection: DuckDBPyConnection, rid: int) -> int | None:
    """How many lines the server had when the console of a run was pulled; None if it never was."""
    rows = connection.execute("SELECT log_lines FROM store.run_extras WHERE rid = ?", [rid]).fetchall()
    return rows[0][0] if rows else None


def none_on_server(connection: DuckDBPyConnection, rid: int) -> bool:
    """Return True if the server reported that the run has no lines; then passes pull none."""
    rows = connection.execute("SELECT server_log_lines = 0 FROM store.run_records WHERE rid = ?", [rid]).fetchall()
    return bool(rows and rows[0][0])


def count(connection: DuckDBPyConnection, rid: int) -> int:
    """How many console lines of a run are mirrored."""
    held: int = connection.execute("SELECT count(*) FROM store.console_lines WHERE rid = ?", [rid]).fetchall()[0][0]
    return held


def lines(connection: DuckDBPyConnection, rid: int, start: int = 0, most: int | None = None) -> list[Line]:
    """The console lines of a run in order, at most `most` of them after the first `start`."""
    page, params = ("", []) if most is None else (" LIMIT ? OFFSET ?", [most, start])
    return _read(connection, f"rid = ? ORDER BY line{page}", [rid, *params])


def last_lines(connection: DuckDBPyConnection, rid: int, most: int) -> list[Line]:
    """The last `most` console lines of a run, in order."""
    return _read(connection, "rid = ? ORDER BY line DESC LIMIT ?", [rid, most])[::-1]


def _read(connection: DuckDBPyConnection, condition: str, params: list[int]) -> list[Line]:
    import duckdb

    statement = "SELECT line, logged_at, level, text, {} FROM store.console_lines WHERE {}"
    try:
        rows = connection.execute(statement.format("label", condition), params).fetchall()
    except duckdb.BinderException:
        # The file was published by an older program.
        rows = connection.execute(statement.format("NULL", condition), params).fetchall()
    return [Line(*row) for row in rows]
