"""Writes large batches, as a backfill pulls them, straight to Parquet segments, bypassing the tail.

Through the tail, each value would be written three times: to the table, to its checkpoint, and sorted to a segment,
1.3 million a second on two cores. Blocks are already sorted, so a segment is put together from their stretches.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path

from msgspec import Struct

from mirror.store import files, rids, segment_files
from mirror.store.history_blocks import Block
from mirror.store.records import HistoryPage, ProjectKey
from mirror.store.segment_writer import Stretch, write
from mirror.store.transaction import Transaction

FEWEST = 500_000
"""Batches of fewer values go to the tail, since their segments would be many small files."""


class Draft(Struct, frozen=True):
    """A segment's file that no transaction has taken yet, with all values of these pages."""

    path: Path
    pages: Sequence[HistoryPage]

    def holds(self, blocks: Sequence[Block]) -> bool:
        """Return True if the file has the values of these blocks and no others."""
        mine = [page.values for page in self.pages if page.values.num_rows]
        return len(mine) == len(blocks) and all(block.values is values for block, values in zip(blocks, mine))  # noqa: B905 - compared before

    def discard(self) -> None:
        """Delete the file, unless a transaction took it; the next opening of the store does what fails now."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def draft(folder: Path, project: ProjectKey, pages: Sequence[HistoryPage]) -> Draft | None:
    """Write the file of a segment with these pages into the folder of segments, before the transaction, in any thread.

    Returns None if the transaction would write none for them, or has to sort them first, and where it cannot be
    written, as the transaction reports. The next opening of the store deletes a file that was never taken.
    """
    few = sum(page.values.num_rows for page in pages) < FEWEST
    if few or not segment_files.fits(project) or any(page.summary is None for page in pages):
        return None
    blocks = [Block(0, page.run_id, page.values, page.summary) for page in pages if page.summary is not None]
    path = folder / segment_files.partition(project) / f"{uuid.uuid4().hex}.part"
    written = Draft(path, pages)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(path, sorted(_stretches(blocks), key=attrgetter("sort_key")))
        files.sync_file(path)
    except Exception:  # noqa: BLE001 - the transaction meets the same again, and reports it or leaves a run out
        written.discard()
        return None
    return written


def append(
    tx: Transaction, project: ProjectKey, blocks: Sequence[Block], *, to_come: int = 0, drafted: Draft | None = None
) -> bool:
    """Write the blocks as a segment, or take the `drafted` one. Returns False if they belong in the tail.

    They go to a segment once the history exceeds the tail's limit, or is about to, with the `to_come` values that are
    expected after them.
    """
    if not _worth_it(tx, project, _count(blocks), to_come):
        return False
    _write_segment(tx, project, blocks, replaced=False, drafted=drafted)
    tx.views_outdated = True
    return True


def append_hidden(tx: Transaction, project: ProjectKey, blocks: Sequence[Block], *, to_come: int = 0) -> int | None:
    """Like `append`, but no view shows the values. Returns the segment's number; None: they go to the table."""
    if not _worth_it(tx, project, _count(blocks), to_come):
        return None
    return _write_segment(tx, project, blocks, replaced=True)


def move_staged(tx: Transaction, project: ProjectKey, run_ids: Mapping[int, str]) -> bool:
    """Write the rows of store.history_staging of these runs, which are given by `rid`, as a segment.

    Returns False if they belong in the tail.
    """
    here, params = rids.among(run_ids)
    counted = tx.db.run(f"SELECT rid, count(*) FROM store.history_staging WHERE {here} GROUP BY rid", params)
    counts = {run_ids[rid]: count for rid, count in counted}
    if not _worth_it(tx, project, sum(counts.values())):
        return False
    query = (
        "SELECT r.run_id, s.key, s.step, s.value, s.text FROM store.history_staging AS s "
        f"JOIN store.run_records AS r USING (rid) WHERE {here}"
    )
    path = segment_files.copy_from(tx.db, tx.folder, project, 0, query, params)
    segment_files.register(tx.db, tx.folder, project, path, 0, counts)
    tx.views_outdated = True
    return True


def _count(blocks: Sequence[Block]) -> int:
    return sum(block.values.num_rows for block in blocks)


def _worth_it(tx: Transaction, project: ProjectKey, count: int, to_come: int = 0) -> bool:
    return count >= FEWEST and segment_files.fits(project) and _exceeds_tail(tx, count + to_come)


def _write_segment(
    tx: Transaction, project: ProjectKey, blocks: Sequence[Block], *, replaced: bool, drafted: Draft | None = None
) -> int:
    def fill(target: Path) -> None:
        if drafted is not None and drafted.holds(blocks):
            drafted.path.rename(target)
        else:
            write(target, sorted(_stretches(blocks), key=attrgetter("sort_key")))

    path = segment_files.create(tx.db, tx.folder, project, 0, fill)
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
