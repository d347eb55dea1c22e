"""Writes large batches, as a backfill pulls them, straight to Parquet segments, bypassing the tail.

Through the tail, each value would be written three times: to the table, to its checkpoint, and sorted to a segment,
1.3 million a second on two cores. Blocks are already sorted, so a segment is put together from their stretches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

from mirror.store import segment_files
from mirror.store.history_blocks import Block
from mirror.store.records import ProjectKey
from mirror.store.segment_writer import Stretch, write
from mirror.store.transaction import Transaction

FEWEST = 500_000
"""Batches of fewer values go to the tail, since their segments would be many small files."""


def append(tx: Transaction, project: ProjectKey, blocks: Sequence[Block], *, to_come: int = 0) -> bool:
    """Write the blocks as a segment. Returns False if they belong in the tail.

    They go to a segment once the history exceeds the tail's limit, or is about to, with the `to_come` values that are
    expected after them.
    """
    if not _worth_it(tx, project, _count(blocks), to_come):
        return False
    _write_segment(tx, project, blocks, replaced=False)
    tx.views_outdated = True
    return True


def append_hidden(tx: Transaction, project: ProjectKey, blocks: Sequence[Block], *, to_come: int = 0) -> int | None:
    """Like `append`, but no view shows the values. Returns the segment's number; None: they go to the table."""
    if not _worth_it(tx, project, _count(blocks), to_come):
        return None
    return _write_segment(tx, project, blocks, replaced=True)


def move_staged(tx: Transaction, project: ProjectKey, run_id: str, rid: int) -> bool:
    """Write a run's rows of store.history_staging as a segment. Returns False if they belong in the tail."""
    count = tx.db.value("SELECT count(*) FROM store.history_staging WHERE rid = ?", [rid])
    if not _worth_it(tx, project, count):
        return False
    query = "SELECT ? AS run_id, key, step, value, text FROM store.history_staging WHERE rid = ?"
    path = segment_files.copy_from(tx.db, tx.folder, project, 0, query, [run_id, rid], order="key, step")
    segment_files.register(tx.db, tx.folder, project, path, 0, {run_id: count})
    tx.views_outdated = True
    return True


def _count(blocks: Sequence[Block]) -> int:
    return sum(block.values.num_rows for block in blocks)


def _worth_it(tx: Transaction, project: ProjectKey, count: int, to_come: int = 0) -> bool:
    return count >= FEWEST and segment_files.fits(project) and _exceeds_tail(tx, count + to_come)


def _write_segment(tx: Transaction, project: ProjectKey, blocks: Sequence[Block], *, replaced: bool) -> int:
    stretches = sorted(_stretches(blocks), key=attrgetter("sort_key"))
    path = segment_files.create(tx.db, tx.folder, project, 0, lambda target: write(target, stretches))
    counts: dict[str, int] = {}
    for block in blocks:
        counts[block.run_id] = counts.get(block.run_id, 0) + block.values.num_rows
    return segment_files.register(tx.db, tx.folder, project, path, 0, counts, replaced=replaced)


def _exceeds_tail(tx: Transaction, count: int) -> bool:
    sealed = tx.db.value("SELECT coalesce(sum(value_count), 0)::BIGINT FROM store.segments WHERE retired_at IS NULL")
    tail = tx.db.value("SELECT count(*) FROM store.history_tail")
    return bool(sealed + tail + count > tx.tail_values)


def _stretches(blocks: Sequence[Block]) -> Iterator[Stretch]:
    for block in blocks:
        start = 0
        columns = (block.summary[name].to_pylist() for name in ("key", "first_step", "rows"))
        for key, first, rows in zip(*columns, strict=True):
            yield Stretch(key, block.run_id, first, block.values, start, rows)
            start += rows
