"""Replaces histories: the new history is staged where no reader sees it, and then swapped in as a whole.

Staged values are stored in `store.history_staging` or, if there are many, in segments where they are marked as replaced
until the swap. So pulling a long run again needs no more memory than pulling it the first time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mirror.store import rids
from mirror.store.database import Database
from mirror.store.history import Bulk, Cursor, add_to_keys, as_table, find, hide_segments, new_blocks, replace, save
from mirror.store.records import HistoryPage, ProjectKey

TABLES = ("history_staging", "staged_segments", "staged_keys", "staged")

_SUMMARY = """
    SELECT rid, key, count(*) AS rows, min(step) AS first_step, max(step) AS last_step,
           min(value) FILTER (WHERE isfinite(value)) AS min, max(value) FILTER (WHERE isfinite(value)) AS max,
           arg_max(value, step) AS last
    FROM store.history_staging WHERE rid = ? GROUP BY rid, key ORDER BY key
"""

_CURSOR = {"rid": "BIGINT", "rows": "BIGINT", "last_step": "BIGINT"}


def stage(db: Database, project: ProjectKey, pages: Sequence[HistoryPage], bulk: Bulk | None = None) -> None:
    """Stage values, unseen by readers, after the staged values of each run."""
    mirrored = find(db, project, {page.run_id for page in pages})
    cursors = {run_id: staged(db, cursor.rid) for run_id, cursor in mirrored.items()}
    if blocks := new_blocks(cursors, pages):
        count = sum(block.values.num_rows for block in blocks)
        segment = None if bulk is None else bulk.write_hidden(db, project, blocks, count)
        if segment is None:
            with db.table("incoming", as_table(blocks)):
                db.run("INSERT INTO store.history_staging SELECT rid, step, key, value, text FROM incoming")
        else:
            numbers = sorted({block.rid for block in blocks})
            db.run("INSERT INTO store.staged_segments SELECT unnest(?::BIGINT[]), ?", [numbers, segment])
        add_to_keys(db, blocks, "staged_keys")
    replace(db, "staged", _CURSOR, [(c.rid, c.rows, c.last_step) for c in cursors.values()])


def staged(db: Database, rid: int) -> Cursor:
    """How much of a run is staged."""
    rows = db.run("SELECT rows, last_step FROM store.staged WHERE rid = ?", [rid])
    return Cursor(rid, *rows[0]) if rows else Cursor(rid)


def drop(db: Database, numbers: Iterable[int]) -> None:
    """Delete what is staged of these runs."""
    condition, params = rids.among(numbers)
    for table in TABLES:
        db.run(f"DELETE FROM store.{table} WHERE {condition}", params)


def swap(
    db: Database, project: ProjectKey, run_id: str, rows: int, last_step: int | None, bulk: Bulk | None = None
) -> tuple[dict[int, int], bool]:
    """Replace the run's whole mirrored history, in the tail and in segments, by what is staged of it.

    Forgets the failed attempts of the run. Returns how many there were, by rid, and whether views must now show other
    values of segments.
    """
    cursor = find(db, project, {run_id})[run_id]
    rid = cursor.rid
    changed = hide_segments(db, project, run_id)
    changed |= bool(
        db.value(
            "UPDATE store.segment_runs SET replaced = false WHERE run_id = ? AND segment_id IN "
            "(SELECT segment_id FROM store.staged_segments WHERE rid = ?)",
            [run_id, rid],
        )
    )
    db.run("DELETE FROM store.history_tail WHERE rid = ?", [rid])
    if bulk is not None and bulk.write_staged(db, project, run_id, rid):
        changed = True
    else:
        db.run(
            "INSERT INTO store.history_tail SELECT rid, step, key, value, text FROM store.history_staging "
            "WHERE rid = ?",
            [rid],
        )
    db.run("DELETE FROM store.history_keys WHERE rid = ?", [rid])
    db.run("INSERT INTO store.history_keys SELECT * FROM store.staged_keys WHERE rid = ? ORDER BY key", [rid])
    newest = db.value("SELECT max(last_step) FROM store.staged_keys WHERE rid = ?", [rid])
    drop(db, [rid])
    cursor.rows, cursor.refresh = rows, False
    cursor.last_step = max((step for step in (last_step, newest) if step is not None), default=None)
    attempts = {rid: cursor.clear_failures()}
    save(db, [cursor])
    return attempts, changed


def cut(db: Database, project: ProjectKey, run_id: str, last_step: int, bulk: Bulk | None = None) -> bool:
    """Delete a run's values after a step. Returns True if views must now show other values of segments."""
    cursor = find(db, project, {run_id})[run_id]
    if cursor.last_step is None or cursor.last_step <= last_step:
        return False
    kept = "SELECT ?, step, key, value, text FROM main.history "
    kept += "WHERE entity = ? AND project = ? AND run_id = ? AND step <= ?"
    rows, _ = gather(db, cursor.rid, kept, [cursor.rid, project.entity, project.project, run_id, last_step])
    return swap(db, project, run_id, rows, last_step, bulk)[1]


def gather(db: Database, rid: int, query: str, params: Sequence[object]) -> tuple[int, int | None]:
    """Stage only the rows of a query (rid, step, key, value, text) for a run. Returns how many steps, and the last."""
    drop(db, [rid])
    db.run(f"INSERT INTO store.history_staging {query}", params)
    db.run(f"INSERT INTO store.staged_keys {_SUMMARY}", [rid])
    found = db.run("SELECT count(DISTINCT step), max(step) FROM store.history_staging WHERE rid = ?", [rid])
    rows, last = found[0]
    return rows, last
