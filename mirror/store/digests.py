"""Adds digests to segments written before digests were recorded, after reading the segments completely."""

from __future__ import annotations

import time
from pathlib import Path

from mirror.store import files, segment_checks
from mirror.store.database import Database

SECONDS = 2.0
"""How long one pass may spend reading such segments; the next pass continues."""


def fill(db: Database, folder: Path) -> None:
    """Record digests of segments that have none and whose content matches its records, the newest first."""
    started = time.monotonic()
    for number, path, values, size in db.run(
        "SELECT segment_id, path, value_count, bytes FROM store.segments "
        "WHERE digest IS NULL AND retired_at IS NULL ORDER BY segment_id DESC"
    ):
        if time.monotonic() > started + SECONDS:
            return
        noted = dict(db.run("SELECT run_id, value_count FROM store.segment_runs WHERE segment_id = ?", [number]))
        # A damaged segment gets no digest, so that `verify` reports it.
        if files.problem(folder / path, size) or segment_checks.content_problem(folder / path, values, noted):
            continue
        digest = files.digest(folder / path)
        with db.transaction():
            db.run("UPDATE store.segments SET digest = ? WHERE segment_id = ?", [digest, number])
