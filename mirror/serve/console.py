"""Console lines of a run as W&B pages them, where the mirror holds all that there were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mirror.serve.context import LIVE_STATES, Context, path_of
from mirror.serve.documents import Better, Elsewhere, Field
from mirror.serve.pages import connection, cursor, start_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MOST_LINES = 10_000

Arguments = Mapping[str, Any]
Source = Mapping[str, Any]


def page(run: Source, context: Context, asked: Field, arguments: Arguments) -> dict[str, Any]:
    """`logLines`: the last ones, or a page from the start on.

    Without `useImprovedPagination` servers page from the end and in ways of their own, so that they are asked.
    """
    first, last = arguments.get("first"), arguments.get("last")
    if last is None and not arguments.get("useImprovedPagination"):
        raise Elsewhere("console lines are paged by the server unless useImprovedPagination is asked for")
    total, behind = _taken(context.connection, run)
    if total is None:
        raise Elsewhere(f"the console of {'/'.join(path_of(run))} is not mirrored (sync.console)")
    if behind and (live := run["state"] in LIVE_STATES) + context.alone < 2:
        missing = f"not all console lines of {'/'.join(path_of(run))} are mirrored"
        raise Better(missing) if live else Elsewhere(missing)
    if last is not None:
        start, most = max(total - max(last, 0), 0), min(max(last, 0), MOST_LINES)
        start = max(start, total - most)
    else:
        start, most = start_of(arguments), min(MOST_LINES if first is None else max(first, 0), MOST_LINES)
    nodes = _lines(context.connection, run["rid"], start, most, labels="label" in asked.names("edges", "node"))
    edges = [{"node": node, "cursor": cursor("lines", place)} for place, node in enumerate(nodes, start=start + 1)]
    return connection(edges, start, more=start + len(nodes) < total)


def _taken(connection: DuckDBPyConnection, run: Source) -> tuple[int | None, bool]:
    """How many lines the mirror holds, and whether the server has told of more since.

    None where it does not hold all that there were when it looked.
    """
    rid = run["rid"]
    found = connection.execute("SELECT log_lines FROM store.run_extras WHERE rid = ?", [rid]).fetchall()
    taken = found[0][0] if found else None
    held: int = connection.execute("SELECT count(*) FROM store.console WHERE rid = ?", [rid]).fetchall()[0][0]
    counted = run.get("logLineCount")
    if counted == 0:
        return held, False
    return (None, False) if taken is None else (held, counted is not None and taken < counted)


def _lines(connection: DuckDBPyConnection, rid: int, start: int, most: int, *, labels: bool) -> list[dict[str, Any]]:
    import duckdb

    asked = "SELECT line, logged_at, level, text, {} FROM store.console WHERE rid = ? ORDER BY line LIMIT ? OFFSET ?"
    params = [rid, most, start]
    try:
        rows = connection.execute(asked.format("label"), params).fetchall()
    except duckdb.BinderException:
        # The file was published by an older program.
        rows = connection.execute(asked.format("NULL"), params).fetchall()
    if labels and any(row[4] is None for row in rows):
        raise Elsewhere("the writers of console lines are not mirrored of this run")
    return [
        {
            "number": line,
            # W&B tells these in UTC, without saying so.
            "timestamp": None if logged_at is None else logged_at.isoformat(),
            "level": level or "",
            "label": label,
            "line": text,
        }
        for line, logged_at, level, text, label in rows
    ]
