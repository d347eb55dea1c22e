"""Pages of a run's console lines in W&B's form, where the mirror holds all lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mirror.serve.context import Context, path_of
from mirror.serve.documents import Field, NotServed, ServerKnowsBetter
from mirror.serve.pages import connection, cursor, start_of
from mirror.states import LIVE_STATES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MOST_LINES = 10_000

Arguments = Mapping[str, Any]
Source = Mapping[str, Any]


def page(run: Source, context: Context, field: Field, arguments: Arguments) -> dict[str, Any]:
    """Return `logLines`: the last lines, or a page counted from the start.

    Without `useImprovedPagination` servers page from the end, each in its own way, so the request is forwarded.
    """
    first, last = arguments.get("first"), arguments.get("last")
    if last is None and not arguments.get("useImprovedPagination"):
        raise NotServed("console lines are paged by the server unless useImprovedPagination is set")
    total, behind = _mirrored_lines(context.connection, run)
    if total is None:
        raise NotServed(f"the console of {'/'.join(path_of(run))} is not mirrored (sync.console)")
    if behind and (live := run["state"] in LIVE_STATES) + context.without_server < 2:
        missing = f"not all console lines of {'/'.join(path_of(run))} are mirrored"
        raise ServerKnowsBetter(missing) if live else NotServed(missing)
    if last is not None:
        start, most = max(total - max(last, 0), 0), min(max(last, 0), MOST_LINES)
        start = max(start, total - most)
    else:
        start, most = start_of(arguments), min(MOST_LINES if first is None else max(first, 0), MOST_LINES)
    nodes = _lines(context.connection, run["rid"], start, most, labels="label" in field.names("edges", "node"))
    edges = [{"node": node, "cursor": cursor("lines", place)} for place, node in enumerate(nodes, start=start + 1)]
    return connection(edges, start, more=start + len(nodes) < total)


def _mirrored_lines(connection: DuckDBPyConnection, run: Source) -> tuple[int | None, bool]:
    """Return how many lines the mirror holds, and whether the server has reported more since.

    The number is None if the mirror does not hold all lines that existed when they were pulled.
    """
    rid = run["rid"]
    rows = connection.execute("SELECT log_lines FROM store.run_extras WHERE rid = ?", [rid]).fetchall()
    pulled = rows[0][0] if rows else None
    held: int = connection.execute("SELECT count(*) FROM store.console WHERE rid = ?", [rid]).fetchall()[0][0]
    reported = run.get("logLineCount")
    if reported == 0:
        return held, False
    return (None, False) if pulled is None else (held, reported is not None and pulled < reported)


def _lines(connection: DuckDBPyConnection, rid: int, start: int, most: int, *, labels: bool) -> list[dict[str, Any]]:
    import duckdb

    statement = (
        "SELECT line, logged_at, level, text, {} FROM store.console WHERE rid = ? ORDER BY line LIMIT ? OFFSET ?"
    )
    params = [rid, most, start]
    try:
        rows = connection.execute(statement.format("label"), params).fetchall()
    except duckdb.BinderException:
        # The file was published by an older program.
        rows = connection.execute(statement.format("NULL"), params).fetchall()
    if labels and any(row[4] is None for row in rows):
        raise NotServed("the labels of this run's console lines are not mirrored")
    return [
        {
            "number": line,
            # W&B returns these in UTC, without an offset.
            "timestamp": None if logged_at is None else logged_at.isoformat(),
            "level": level or "",
            "label": label,
            "line": text,
        }
        for line, logged_at, level, text, label in rows
    ]
