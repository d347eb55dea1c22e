"""Logged values, appended to the mirrored history of their runs, and the cursors that cover them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from mirror.errors import StoreError
from mirror.metrics import arrange, summarise
from mirror.store import columns, rids
from mirror.store.database import Database
from mirror.store.records import HistoryMark, HistoryPage, ProjectKey

if TYPE_CHECKING:
    import pyarrow as pa

_CURSOR = {
    "rid": "BIGINT",
    "rows": "BIGINT",
    "last_step": "BIGINT",
    "refresh": "BOOLEAN",
    "attempts": "BIGINT",
    "next_try_at": "TIMESTAMP",
    "error": "VARCHAR",
}


@dataclass(frozen=True)
class Block:
    """New values of one run, sorted by key and step, without duplicates. `summary` has one row per key."""

    rid: int
    run_id: str
    values: pa.Table
    summary: pa.Table


class Bulk(Protocol):
    """Writes large batches straight to Parquet segments, bypassing the tail."""

    def write(self, db: Database, project: ProjectKey, blocks: Sequence[Block], count: int) -> bool:
        """Write all these values, `count` in number. Returns False to leave them to the tail."""

    def write_hidden(self, db: Database, project: ProjectKey, blocks: Sequence[Block], count: int) -> int | None:
        """Write them so that no view shows them. Returns the segment's number, or None to leave them to the table."""

    def write_staged(self, db: Database, project: ProjectKey, run_id: str, rid: int) -> bool:
        """Write a run's rows of the staging table. Returns False to leave them to the tail."""


@dataclass
class Cursor:
    """How much of a run's history is already mirrored or staged."""

    rid: int
    rows: int = 0
    last_step: int | None = None
    refresh: bool = False
    attempts: int = 0
    next_try_at: datetime | None = None
    error: str | None = None

    def advance(self, page: HistoryPage) -> pa.Table | None:
        """Move past the page. Returns its values after the last step, or None if there are none."""
        import pyarrow as pa
        import pyarrow.compute as pc

        values, rows = page.values, page.rows
        ends: Any = pc.min_max(values["step"])
        first, last = ends["min"].as_py(), ends["max"].as_py()
        end = max((step for step in (page.last_step, last) if step is not None), default=None)
        if end is None:
            return None
        if self.last_step is not None:
            if end <= self.last_step:
                return None
            if first is not None and first <= self.last_step:
                seen = pc.less_equal(values["step"], pa.scalar(self.last_step, pa.int64()))
                rows -= pc.count_distinct(values["step"].filter(seen)).as_py()
                values = values.filter(pc.invert(seen))
        self.rows += max(rows, 0)
        self.last_step = end
        return values if values.num_rows else None

    def clear_failures(self) -> int:
        """Forget the failed attempts; return how many there were."""
        attempts = self.attempts
        self.attempts, self.next_try_at, self.error = 0, None, None
        return attempts


def append(db: Database, project: ProjectKey, pages: Sequence[HistoryPage], bulk: Bulk | None = None) -> dict[int, int]:
    """Add the values after each run's last step and move its cursor; values that are already mirrored are left out.

    What `bulk` accepts is written to a segment, the rest to the tail. Forgets the failed attempts of these runs, and
    returns how many there were, by rid.
    """
    cursors = find(db, project, {page.run_id for page in pages})
    blocks = new_blocks(cursors, pages)
    if blocks:
        count = sum(block.values.num_rows for block in blocks)
        if bulk is None or not bulk.write(db, project, blocks, count):
            with db.table("incoming", as_table(blocks)):
                db.run("INSERT INTO store.history_tail SELECT rid, step, key, value, text FROM incoming")
        add_to_keys(db, blocks)
    attempts = {cursor.rid: cursor.clear_failures() for cursor in cursors.values()}
    save(db, cursors.values())
    return attempts


def hide_segments(db: Database, project: ProjectKey, run_id: str) -> bool:
    """Have views leave out a run's values in segments. Returns True if there are any."""
    hidden = db.value(
        "UPDATE store.segment_runs SET replaced = true WHERE run_id = ? AND NOT replaced AND segment_id IN "
        "(SELECT segment_id FROM store.segments WHERE entity = ? AND project = ? AND retired_at IS NULL)",
        [run_id, project.entity, project.project],
    )
    return bool(hidden)


def replace_system_metrics(db: Database, project: ProjectKey, page: HistoryPage) -> None:
    """Replace all system metrics of the page's run. Of two values at one step and key, the later one is kept."""
    here = [project.entity, project.project, page.run_id]
    db.run("DELETE FROM store.system_metrics WHERE entity = ? AND project = ? AND run_id = ?", here)
    append_system_metrics(db, project, page)


def append_system_metrics(db: Database, project: ProjectKey, page: HistoryPage) -> None:
    """Add the page to the system metrics of its run."""
    here = [project.entity, project.project, page.run_id]
    cursors = find(db, project, {page.run_id})
    from_start = {page.run_id: Cursor(cursors[page.run_id].rid)}
    if blocks := new_blocks(from_start, [page]):
        with db.table("incoming", as_table(blocks)):
            db.run("INSERT INTO store.system_metrics SELECT ?, ?, ?, step, key, value, text FROM incoming", here)


def find(db: Database, project: ProjectKey, run_ids: Iterable[str]) -> dict[str, Cursor]:
    """The history cursor of each run. Raises StoreError for a run whose record was never written."""
    wanted = sorted(set(run_ids))
    numbers = rids.find(db, project, wanted)
    if missing := [run_id for run_id in wanted if run_id not in numbers]:
        raise StoreError(f"the mirror has no run {project}/{missing[0]} to store history for; sync its project first")
    condition, params = rids.among(numbers.values())
    rows = db.run(
        f"SELECT rid, rows, last_step, refresh, attempts, next_try_at, error FROM store.run_history WHERE {condition}",
        params,
    )
    cursors = {rid: Cursor(rid, *rest) for rid, *rest in rows}
    return {run_id: cursors[numbers[run_id]] for run_id in wanted}


MARKED_KEYS = 16
"""How many values identify a line. W&B's own keys come first; of these the time alone is enough."""


def marks(db: Database, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, HistoryMark]:
    """The last mirrored line of each of these runs that has any values."""
    numbers = rids.find(db, project, run_ids)
    condition, params = rids.among(numbers.values())
    rows = db.run(
        f"""
        SELECT rid, last_step, key, last, count(*) OVER (PARTITION BY rid) FROM (
            SELECT rid, key, last, last_step FROM store.history_keys WHERE {condition}
            QUALIFY last_step = max(last_step) OVER (PARTITION BY rid)
        )
        QUALIFY row_number() OVER (PARTITION BY rid ORDER BY NOT starts_with(key, '_'), key) <= {MARKED_KEYS}
        """,
        params,
    )
    found: dict[int, HistoryMark] = {}
    for rid, step, key, last, keys in rows:
        mark = found.setdefault(rid, HistoryMark(step, keys, {}))
        if last is not None:
            mark.numbers[key] = last
    return {run_id: found[rid] for run_id, rid in numbers.items() if rid in found}


def save(db: Database, cursors: Iterable[Cursor]) -> None:
    """Replace the cursors of these runs."""
    rows = [(c.rid, c.rows, c.last_step, c.refresh, c.attempts, c.next_try_at, c.error) for c in cursors]
    replace(db, "run_history", _CURSOR, rows)


def replace(db: Database, table: str, shape: dict[str, str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Replace all rows of the runs that occur in `rows`, whose first column is `rid`."""
    condition, params = rids.among(row[0] for row in rows)
    db.run(f"DELETE FROM store.{table} WHERE {condition}", params)
    with db.table("replacement", columns.table(shape, rows)):
        db.run(f"INSERT INTO store.{table} BY NAME SELECT * FROM replacement")


def new_blocks(cursors: dict[str, Cursor], pages: Sequence[HistoryPage]) -> list[Block]:
    """The new values in the pages, sorted and summarised. Moves the cursors."""
    blocks = []
    for page in pages:
        cursor = cursors[page.run_id]
        values = cursor.advance(page)
        if values is None:
            continue
        if page.summary is not None and values is page.values:
            blocks.append(Block(cursor.rid, page.run_id, values, page.summary))
        else:
            values = arrange(values)
            blocks.append(Block(cursor.rid, page.run_id, values, summarise(values)))
    return blocks


def as_table(blocks: Sequence[Block]) -> pa.Table:
    """All blocks as one table (rid, step, key, value, text). One statement per block would cost more than its rows."""
    import pyarrow as pa

    pieces = []
    for block in blocks:
        rid = pa.repeat(pa.scalar(block.rid, pa.int64()), block.values.num_rows)
        # DuckDB reads a dictionary column in half the time of plain strings.
        key: Any = block.values["key"]
        key = key if pa.types.is_dictionary(key.type) else key.dictionary_encode()
        columns = [rid, block.values["step"], key, block.values["value"], block.values["text"]]
        pieces.append(pa.table(columns, names=["rid", "step", "key", "value", "text"]))
    return pa.concat_tables(pieces).unify_dictionaries().combine_chunks()


def add_to_keys(db: Database, blocks: Sequence[Block], table: str = "history_keys") -> None:
    """Update store.history_keys with blocks whose steps follow all those already counted.

    `table` may be another table with the same columns. The few rows are merged in Arrow, because planning the same in
    SQL takes longer than doing it.
    """
    import pyarrow as pa

    condition, params = rids.among({block.rid for block in blocks})
    counted = db.arrow(f"SELECT * FROM store.{table} WHERE {condition}", params)
    rows = [
        block.summary.add_column(0, "rid", pa.repeat(pa.scalar(block.rid, pa.int64()), block.summary.num_rows))
        for block in blocks
    ]
    both = pa.concat_tables([counted, *(row.select(counted.column_names) for row in rows)])
    how: Any = {"rows": "sum", "first_step": "min", "last_step": "max", "min": "min", "max": "max", "last": "last"}
    merged = both.group_by(["rid", "key"], use_threads=False).aggregate(list(how.items()))
    with db.table("merged", merged.select(["rid", "key", *(f"{name}_{by}" for name, by in how.items())])):
        db.run(f"DELETE FROM store.{table} WHERE {condition}", params)
        db.run(f"INSERT INTO store.{table} SELECT * FROM merged ORDER BY rid, key")
