"""Compares the mirrored system metrics with the server's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from mirror.remote import history as remote
from mirror.remote.client import Server
from mirror.remote.json_history import parse_events
from mirror.store.reader import Reader
from mirror.store.records import HistoryPage, ProjectKey
from mirror.sync import request_windows
from mirror.verify.findings import Finding, Level

SAMPLES = 10_000
"""How many lines are requested. If there are more, the server returns a sample, a different one each time."""


async def compare(
    server: Server, reader: Reader, project: ProjectKey, run_ids: Sequence[str]
) -> AsyncGenerator[tuple[str, Finding]]:
    """The findings for runs whose system metrics differ from the server's, one per key."""
    for start in range(0, len(run_ids), request_windows.REQUEST_RUNS):
        names = run_ids[start : start + request_windows.REQUEST_RUNS]
        for run_id, texts in (await remote.fetch_events(server, project, names, SAMPLES)).items():
            page = parse_events(run_id, texts)
            if page.rows >= SAMPLES:
                cause = "the server samples system metrics; they are not compared"
                yield run_id, Finding(Level.NOTE, run_id, "system_metrics", "a sample", "a different sample", cause)
                continue
            for finding in await asyncio.to_thread(_differences, reader, project, run_id, page):
                yield run_id, finding


def _differences(reader: Reader, project: ProjectKey, run_id: str, page: HistoryPage) -> list[Finding]:
    with reader.table("metrics", page.values):
        found = reader.run(
            """
            SELECT key, count(h.step), count(t.step), count(*) FILTER (
                WHERE h.step IS NULL OR t.step IS NULL OR h.value IS DISTINCT FROM t.value
                      OR h.text IS DISTINCT FROM t.text)
            FROM (SELECT step, key, value, text FROM system_metrics
                  WHERE entity = ? AND project = ? AND run_id = ?) AS h
            FULL JOIN (SELECT step, key, last(value) AS value, last(text) AS text FROM metrics GROUP BY step, key) AS t
            USING (step, key) GROUP BY key ORDER BY key
            """,
            [project.entity, project.project, run_id],
        )
    cause = "not pulled again after the run continued, or changed in the file"
    return [
        Finding(
            Level.DIFFERS,
            run_id,
            f"system_metrics.{key}",
            f"{here:,} values",
            f"{there:,} values, {differ:,} of them different",
            cause,
            flush=(run_id,),
        )
        for key, here, there, differ in found
        if differ
    ]
