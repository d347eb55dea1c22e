"""Compares the mirrored console output of runs with the server's, page by page."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from msgspec import Struct

from mirror.remote import console as remote
from mirror.remote import queries
from mirror.remote.client import Server
from mirror.remote.console import Position
from mirror.store import columns
from mirror.store.reader import Reader
from mirror.store.records import ConsolePage, ProjectKey
from mirror.verify.findings import Finding, Level

AT_ONCE = 10
"""How many runs one request asks for; with console.PAGE_LINES this bounds the memory."""

_LINE = {"line": "BIGINT", "logged_at": "TIMESTAMP", "level": "VARCHAR", "text": "VARCHAR"}


class _Count(Struct):
    """How many lines the mirror and the server have, and how many differ."""

    here: int = 0
    there: int = 0
    differ: int = 0


async def compare(
    server: Server, reader: Reader, project: ProjectKey, run_ids: Sequence[str]
) -> AsyncGenerator[tuple[str, Finding]]:
    """A finding for each run whose console differs from the server's.

    Lines before the first one that the server returns are not compared: it drops very old lines, and older servers
    return only the end.
    """
    for start in range(0, len(run_ids), AT_ONCE):
        counts: dict[str, _Count] = {}
        groups = deque([[Position(run_id) for run_id in run_ids[start : start + AT_ONCE]]])
        while groups:
            positions = groups.popleft()
            following = []
            for position, answer in (await remote.fetch(server, project, positions)).items():
                if answer is None:
                    continue
                if answer.stuck and len(positions) > 1:
                    groups.append([position])
                    continue
                count = counts.setdefault(position.run_id, _Count())
                await asyncio.to_thread(_compare, reader, project, answer.page, not answer.more, count)
                if answer.more:
                    following.append(answer.behind)
            if following:
                groups.append(following)
        part = queries.CONSOLE_PAGES in server.missing_features
        for run_id, count in counts.items():
            if count.differ:
                cause = "pulled before the run was resumed or continued, or changed in the file"
                here, there = f"{count.here:,} lines", f"{count.there:,} lines, {count.differ:,} of them different"
                where = "console, its end" if part else "console"
                yield run_id, Finding(Level.DIFFERS, run_id, where, here, there, cause, flush=(run_id,))


def _compare(reader: Reader, project: ProjectKey, page: ConsolePage, last: bool, count: _Count) -> None:
    """Compare a page with the mirror's lines in its range; after the last page the mirror should have no lines."""
    beyond = page.lines[-1][0] + 1 if page.lines else page.first
    with reader.table("served", columns.table(_LINE, page.lines)):
        [(here, there, differ)] = reader.run(
            """
            SELECT count(h.line), count(t.line), count(*) FILTER (
                WHERE h.line IS NULL OR t.line IS NULL OR h.logged_at IS DISTINCT FROM t.logged_at
                      OR h.level IS DISTINCT FROM t.level OR h.text IS DISTINCT FROM t.text)
            FROM (SELECT line, logged_at, level, text FROM console
                  WHERE entity = ? AND project = ? AND run_id = ? AND line >= ? AND (? OR line < ?)) AS h
            FULL JOIN served AS t USING (line)
            """,
            [project.entity, project.project, page.run_id, page.first, last, beyond],
        )
    count.here += here
    count.there += there
    count.differ += differ
