"""Answers for the console of a run: pages from the start, the last lines, and the pages of servers before 0.77.

Source: query_run_console_logs.graphql and runhandler.go of the official client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mirror.sandbox.files import LogLine
from mirror.sandbox.listing import cursor, place
from mirror.sandbox.run import Run

MOST_LINES = 10_000
"""Lines in the largest answer."""

OLD_PAGE = 500
"""Lines per page of servers before 0.77, whatever `first` is."""


def answer(run: Run, arguments: Mapping[str, Any], page_bytes: int) -> dict[str, Any]:
    """Return a connection of lines. A page that is cut at `page_bytes` reports no next page, although there is one."""
    lines = run.kept_console()
    if arguments.get("last") is not None:
        return _connection(lines[max(len(lines) - min(arguments["last"], MOST_LINES), 0) :], len(run.console), False)
    if not arguments.get("useImprovedPagination"):
        return _old_page(lines, arguments.get("after"), len(run.console))
    gone = len(run.console) - len(lines)
    after = arguments.get("after")
    start = max(place(after) - gone, 0) if after else 0
    wanted = arguments.get("first")
    first = min(MOST_LINES if wanted is None else max(wanted, 0), MOST_LINES)
    found = lines[start : start + first]
    fitting = _fitting(found, page_bytes)
    more = fitting == len(found) and start + first < len(lines)
    return _connection(found[:fitting], gone + start + fitting, more)


def _fitting(lines: Sequence[LogLine], most_bytes: int) -> int:
    size = 0
    for index, line in enumerate(lines):
        size += len(line.line.encode())
        if size > most_bytes and index:
            return index
    return len(lines)


def _old_page(lines: Sequence[LogLine], after: str | None, total: int) -> dict[str, Any]:
    """Return an old server's page: `first` is ignored, `after` counts from the end, `hasNextPage` is always true."""
    behind = int(after) if after and after.isdigit() else 0
    end = max(len(lines) - behind, 0)
    found = _connection(lines[max(end - OLD_PAGE, 0) : end], total, True)
    found["pageInfo"]["endCursor"] = str(behind + OLD_PAGE)
    return found


def _connection(lines: Sequence[LogLine], end: int, more: bool) -> dict[str, Any]:
    fields = ("number", "timestamp", "level", "label", "line")
    edges = [{"node": {name: getattr(line, name) for name in fields}} for line in lines]
    start = end - len(lines)
    info = {
        "startCursor": cursor(start) if edges else None,
        "endCursor": cursor(end - 1) if edges else None,
        "hasNextPage": more,
        "hasPreviousPage": start > 0,
    }
    return {"edges": edges, "pageInfo": info}
