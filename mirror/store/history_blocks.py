"""New values of runs, sorted and summarised, as one transaction adds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mirror.metrics import arrange, summarise
from mirror.store import rids
from mirror.store.database import Database
from mirror.store.history_cursors import Cursor
from mirror.store.records import HistoryPage

if TYPE_CHECKING:
    import pyarrow as pa


class Block(Struct, frozen=True):
    """New values of one run, sorted by key and step, without duplicates. `summary` has one row per key."""

    rid: int
    run_id: str
    values: pa.Table
    summary: pa.Table


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


def add_to_keys(db: Database, blocks: Sequence[Block], table: str = "run_keys") -> None:
    """Update store.run_keys with blocks whose steps follow all those already counted.

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
