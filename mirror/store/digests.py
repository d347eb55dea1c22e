"""Digests of segments that were written before digests were kept: noted once the segment was read through."""

from __future__ import annotations

import time
from pathlib import Path

from mirror.store import checks, files
from mirror.store.database import Database

SECONDS = 2.0
"""How long one pass may take to read such segments; the next one goes on."""


def fill(db: Database, folder: Path) -> None:
    """Note the digests of segments that have none and hold what was noted of them, the newest first."""
    started = time.monotonic()
    for number, path, values, size in db.run(
        "SELECT segment_id, path, value_count, bytes FROM store.segments "
        "WHERE digest IS NULL AND retired_at IS NULL ORDER BY segment_id DESC"
    ):
        if time.monotonic() > started + SECONDS:
            return
        noted = dict(db.run("SELECT run_id, value_count FROM store.segment_runs WHERE segment_id = ?", [number]))
        # What is damaged stays without one: `verify` names it.
        if checks.file_problem(folder / path, size) or checks.content_problem(folder / path, values, noted):
            continue
        digest = files.digest(folder / path)
        with db.transaction():
            db.run("UPDATE store.segments SET digest = ? WHERE segment_id = ?", [digest, number])
