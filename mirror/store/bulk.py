"""Values on a straight way into a segment: what a backfill brings does not pass through the tail.

The tail would take each value three times: into the table, into its checkpoint, and out again sorted, 1.3 million a
second on two cores. Blocks are sorted within themselves, so that a segment is made of their stretches.
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
"""So many values at once are worth a segment; fewer would leave many small files."""


@dataclass
class Straight:
    """Takes what is large enough once the history has outgrown the tail, or is about to.

    `to_come` is how many values are expected after these. `taken` tells whether there are new segments.
    """

    folder: Path
    tail_values: int
    to_come: int = 0
    taken: bool = False

    def take(self, db: Database, project: ProjectKey, blocks: Sequence[Block], count: int) -> bool:
        """Write the blocks as a segment of the transaction that is open; False where they belong in the tail."""
        if not self._worth_it(db, project, count):
            return False
        self._put(db, project, blocks, replaced=False)
        self.taken = True
        return True

    def take_unseen(self, db: Database, project: ProjectKey, blocks: Sequence[Block], count: int) -> int | None:
        """As `take`, but the values count as replaced; the number of the segment."""
        return self._put(db, project, blocks, replaced=True) if self._worth_it(db, project, count) else None

    def take_staged(self, db: Database, project: ProjectKey, run_id: str, rid: int) -> bool:
        """Write what store.history_staging holds of a run as a segment; False where it belongs in the tail."""
        count = db.value("SELECT count(*) FROM store.history_staging WHERE rid = ?", [rid])
        if not self._worth_it(db, project, count):
            return False
        query = "SELECT ? AS run_id, key, step, value, text FROM store.history_staging WHERE rid = ?"
        path = segments.copy_from(db, self.folder, project, 0, query, [run_id, rid], order="key, step")
        segments.enlist(db, self.folder, project, path, 0, {run_id: count})
        return True

    def _worth_it(self, db: Database, project: ProjectKey, count: int) -> bool:
        return count >= FEWEST and segments.fits(project) and self._outgrown(db, count)

    def _put(self, db: Database, project: ProjectKey, blocks: Sequence[Block], *, replaced: bool) -> int:
        stretches = sorted(_stretches(blocks), key=attrgetter("place"))
        path = segments.place(db, self.folder, project, 0, lambda target: write(target, stretches))
        counts: dict[str, int] = {}
        for block in blocks:
            counts[block.run_id] = counts.get(block.run_id, 0) + block.values.num_rows
        return segments.enlist(db, self.folder, project, path, 0, counts, replaced=replaced)

    def _outgrown(self, db: Database, count: int) -> bool:
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
