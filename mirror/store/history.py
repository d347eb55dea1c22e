"""Logged values, appended to the mirrored history of their runs, and the cursors that cover them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mirror.store import bulk, history_cursors, rids
from mirror.store.database import Database
from mirror.store.history_blocks import add_to_keys, as_table, new_blocks
from mirror.store.history_cursors import Cursor
from mirror.store.records import HistoryMark, HistoryPage, ProjectKey
from mirror.store.transaction import Transaction


def append(
    tx: Transaction,
    project: ProjectKey,
    pages: Sequence[HistoryPage],
    *,
    to_come: int = 0,
    drafted: bulk.Draft | None = None,
) -> bool:
    """Add the values after each run's last step, to the tail or, a large batch, to a new segment; move the cursors.

    Returns True if it was a segment; that is the `drafted` one where it has exactly the values to be added.

    Values that are already mirrored are left out. `to_come` is how many more values are expected: large batches of a
    history that will exceed the tail are written directly to a segment. Earlier failures of these runs are forgotten,
    and doubts: the caller compared the last mirrored line. Raises StoreError for a run whose record was never written.
    """
    db = tx.db
    cursors = history_cursors.find(db, project, {page.run_id for page in pages})
    blocks = new_blocks(cursors, pages)
    in_segment = False
    if blocks:
        in_segment = bulk.append(tx, project, blocks, to_come=to_come, drafted=drafted)
        if not in_segment:
            with db.table("incoming", as_table(blocks)):
                db.run("INSERT INTO store.history_tail SELECT rid, step, key, value, text FROM incoming")
        add_to_keys(db, blocks)
    history_cursors.clear_failures(tx, cursors.values())
    for cursor in cursors.values():
        cursor.doubted = False
    history_cursors.save(db, cursors.values())
    return in_segment


def hide_segments(tx: Transaction, project: ProjectKey, run_ids: Iterable[str]) -> None:
    """Have views leave out the values of these runs in segments."""
    hidden = tx.db.value(
        "UPDATE store.segment_runs SET replaced = true "
        "WHERE run_id IN (SELECT unnest(?::VARCHAR[])) AND NOT replaced AND segment_id IN "
        "(SELECT segment_id FROM store.segments WHERE entity = ? AND project = ? AND retired_at IS NULL)",
        [list(run_ids), project.entity, project.project],
    )
    tx.views_outdated |= bool(hidden)


def replace_system_metrics(tx: Transaction, project: ProjectKey, page: HistoryPage) -> None:
    """Replace all system metrics of the page's run. Of two values at one step and key, the later one is kept."""
    here = [project.entity, project.project, page.run_id]
    tx.db.run("DELETE FROM store.system_values WHERE entity = ? AND project = ? AND run_id = ?", here)
    append_system_metrics(tx, project, page)


def append_system_metrics(tx: Transaction, project: ProjectKey, page: HistoryPage) -> None:
    """Add the page to the system metrics of its run."""
    here = [project.entity, project.project, page.run_id]
    cursors = history_cursors.find(tx.db, project, {page.run_id})
    from_start = {page.run_id: Cursor(cursors[page.run_id].rid)}
    if blocks := new_blocks(from_start, [page]):
        with tx.db.table("incoming", as_table(blocks)):
            tx.db.run("INSERT INTO store.system_values SELECT ?, ?, ?, step, key, value, text FROM incoming", here)


def drop_system_metrics(tx: Transaction, project: ProjectKey, run_ids: Sequence[str]) -> None:
    """Delete the system metrics of these runs."""
    tx.db.run(
        "DELETE FROM store.system_values WHERE entity = ? AND project = ? AND run_id IN (SELECT unnest(?::VARCHAR[]))",
        [project.entity, project.project, list(run_ids)],
    )


MARKED_KEYS = 16
"""How many values identify a line. W&B's own keys come first; of these the time alone is enough."""


def marks(db: Database, project: ProjectKey, run_ids: Sequence[str], table: str = "run_keys") -> dict[str, HistoryMark]:
    """The last mirrored line of each of these runs that has any values; the last staged one with `staged_keys`."""
    numbers = rids.find(db, project, run_ids)
    condition, params = rids.among(numbers.values())
    rows = db.run(
        f"""
        SELECT rid, last_step, key, last, count(*) OVER (PARTITION BY rid) FROM (
            SELECT rid, key, last, last_step FROM store.{table} WHERE {condition}
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
