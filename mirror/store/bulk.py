"""Writes large batches, as a backfill pulls them, straight to Parquet segments, bypassing the tail.

Through the tail, each value would be written three times: to the table, to its checkpoint, and sorted to a segment,
1.3 million a second on two cores. Blocks are already sorted, so a segment is put together from their stretches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from mirror.store import segments
from mirror.store.database import Database
from mirror.store.history import Block
from mirror.store.records import ProjectKey
from mirror.store.segment_writer import Stretch, write

FEWEST = 500_000
"""Batches of fewer values go to the tail, since their segments would be many small files."""


@dataclass
class BulkWriter:
    """Writes large batches as segments once the history exceeds the tail's limit, or is about to.

    `to_come` is how many more values are expected after the batch. `wrote` is True once there are new segments that
    views must show.
    """

    folder: Path
    tail_values: int
    to_come: int = 0
    wrote: bool = False

    def write(self, db: Database, project: ProjectKey, blocks: Sequence[Block], count: int) -> bool:
        """Write the blocks as a segment in the open transaction. Returns False if they belong in the tail."""
        if not self._worth_it(db, project, count):
            return False
        self._write_segment(db, project, blocks, replaced=False)
        self.wrote = True
        return True

    def write_hidden(self, db: Database, project: ProjectKey, blocks: Sequence[Block], count: int) -> int | None:
        """Like `write`, but mark the values as replaced. Returns the segment's number, or None for no segment."""
        return self._write_segment(db, project, blocks, replaced=True) if self._worth_it(db, project, count) else None

    def write_staged(self, db: Database, project: ProjectKey, run_id: str, rid: int) -> bool:
        """Write a run's rows of store.history_staging as a segment. Returns False if they belong in the tail."""
        count = db.value("SELECT count(*) FROM store.history_staging WHERE rid = ?", [rid])
        if not self._worth_it(db, project, count):
            return False
        query = "SELECT ? AS run_id, key, step, value, text FROM store.history_staging WHERE rid = ?"
        path = segments.copy_from(db, self.folder, project, 0, query, [run_id, rid], order="key, step")
        segments.register(db, self.folder, project, path, 0, {run_id: count})
        return True

    def _worth_it(self, db: Database, project: ProjectKey, count: int) -> bool:
        return count >= FEWEST and segments.fits(project) and self._exceeds_tail(db, count)

    def _write_segment(self, db: Database, project: ProjectKey, blocks: Sequence[Block], *, replaced: bool) -> int:
        stretches = sorted(_stretches(blocks), key=attrgetter("sort_key"))
        path = segments.create(db, self.folder, project, 0, lambda target: write(target, stretches))
        counts: dict[str, int] = {}
        for block in blocks:
            counts[block.run_id] = counts.get(block.run_id, 0) + block.values.num_rows
        return segments.register(db, self.folder, project, path, 0, counts, replaced=replaced)

    def _exceeds_tail(self, db: Database, count: int) -> bool:
        sealed = db.value("SELECT coalesce(sum(value_count), 0)::BIGINT FROM store.segments WHERE retired_at IS NULL")
        tail = db.value("SELECT count(*) FROM store.history_tail")
        return bool(sealed + tail + count + self.to_come > self.tail_values)


def _stretches(blocks: Sequence[Block]) -> Iterator[Stretch]:
    for block in blocks:
        start = 0
        columns = (block.summary[name].to_pylist() for name in ("key", "first_step", "rows"))
        for key, first, rows in zip(*columns, strict=True):
            yield Stretch(key, block.run_id, first, block.values, start, rows)
            start += rows
