"""Replaces histories: the new history is staged where no reader sees it, and then swapped in as a whole.

Staged values are stored in `store.history_staging` or, if there are many, in segments where they are marked as replaced
until the swap. So pulling a long run again needs no more memory than pulling it the first time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mirror.store import bulk, columns, rids, segment_checks
from mirror.store.database import Database
from mirror.store.history import hide_segments
from mirror.store.history_blocks import add_to_keys, as_table, new_blocks
from mirror.store.history_cursors import Cursor, clear_failures, find, replace, save
from mirror.store.records import HistoryPage, ProjectKey
from mirror.store.transaction import Transaction

Extent = tuple[int, int | None]
"""How many lines of a history there are, and up to which step; None if there is no line."""

TABLES = ("history_staging", "staged_segments", "staged_keys", "staged")

_SUMMARY = """
    SELECT rid, key, count(*) AS rows, min(step) AS first_step, max(step) AS last_step,
           min(value) FILTER (WHERE isfinite(value)) AS min, max(value) FILTER (WHERE isfinite(value)) AS max,
           arg_max(value, step) AS last
    FROM store.history_staging WHERE rid = ? GROUP BY rid, key ORDER BY key
"""

_CURSOR = {"rid": "BIGINT", "rows": "BIGINT", "last_step": "BIGINT"}


def stage(tx: Transaction, project: ProjectKey, pages: Sequence[HistoryPage], *, to_come: int = 0) -> None:
    """Stage values after the staged values of each run. Readers do not see them until `swap`.

    `to_come` is how many more values are expected, as for `history.append`.
    """
    db = tx.db
    cursors = _cursors(db, find(db, project, {page.run_id for page in pages}))
    if blocks := new_blocks(cursors, pages):
        segment = bulk.append_hidden(tx, project, blocks, to_come=to_come)
        if segment is None:
            with db.table("incoming", as_table(blocks)):
                db.run("INSERT INTO store.history_staging SELECT rid, step, key, value, text FROM incoming")
        else:
            numbers = sorted({block.rid for block in blocks})
            db.run("INSERT INTO store.staged_segments SELECT unnest(?::BIGINT[]), ?", [numbers, segment])
        add_to_keys(db, blocks, "staged_keys")
    replace(db, "staged", _CURSOR, [(c.rid, c.rows, c.last_step) for c in cursors.values()])


def staged(db: Database, project: ProjectKey, run_ids: Iterable[str]) -> dict[str, Extent]:
    """How much is staged of each of these runs."""
    found = _cursors(db, find(db, project, run_ids))
    return {run_id: (cursor.rows, cursor.last_step) for run_id, cursor in found.items()}


def _cursors(db: Database, mirrored: Mapping[str, Cursor]) -> dict[str, Cursor]:
    """How far these runs are staged."""
    condition, params = rids.among(cursor.rid for cursor in mirrored.values())
    rows = db.run(f"SELECT rid, rows, last_step FROM store.staged WHERE {condition}", params)
    found = {rid: Cursor(rid, *rest) for rid, *rest in rows}
    return {run_id: found.get(cursor.rid, Cursor(cursor.rid)) for run_id, cursor in mirrored.items()}


def drop(tx: Transaction, numbers: Iterable[int]) -> None:
    """Delete what is staged of these runs."""
    condition, params = rids.among(numbers)
    for table in TABLES:
        tx.db.run(f"DELETE FROM store.{table} WHERE {condition}", params)


def swap(tx: Transaction, project: ProjectKey, extents: Mapping[str, Extent]) -> None:
    """Replace the whole mirrored history of these runs, in the tail and in segments, by what is staged of them.

    `extents` are their lines as counted while they were staged. Earlier failures of the runs are forgotten.
    """
    db = tx.db
    cursors = find(db, project, extents)
    numbers = {cursor.rid: run_id for run_id, cursor in cursors.items()}
    here, params = rids.among(numbers)
    hide_segments(tx, project, extents)
    _show_staged_segments(tx, numbers)
    db.run(f"DELETE FROM store.history_tail WHERE {here}", params)
    if not bulk.move_staged(tx, project, numbers):
        db.run(
            "INSERT INTO store.history_tail "
            f"SELECT rid, step, key, value, text FROM store.history_staging WHERE {here}",
            params,
        )
    db.run(f"DELETE FROM store.run_keys WHERE {here}", params)
    db.run(f"INSERT INTO store.run_keys SELECT * FROM store.staged_keys WHERE {here} ORDER BY rid, key", params)
    newest = dict(db.run(f"SELECT rid, max(last_step) FROM store.staged_keys WHERE {here} GROUP BY rid", params))
    drop(tx, numbers)
    for run_id, (rows, last_step) in extents.items():
        cursor = cursors[run_id]
        cursor.rows, cursor.refresh, cursor.doubted = rows, False, False
        ends = (last_step, newest.get(cursor.rid))
        cursor.last_step = max((step for step in ends if step is not None), default=None)
    clear_failures(tx, cursors.values())
    save(db, cursors.values())


def _show_staged_segments(tx: Transaction, numbers: Mapping[int, str]) -> None:
    """Have views show the values of these runs that were staged in segments."""
    here, params = rids.among(numbers)
    rows = tx.db.run(f"SELECT rid, segment_id FROM store.staged_segments WHERE {here}", params)
    if not rows:
        return
    pairs = [(segment_id, numbers[rid]) for rid, segment_id in rows]
    with tx.db.table("shown", columns.table({"segment_id": "BIGINT", "run_id": "VARCHAR"}, pairs)):
        tx.db.run(
            "UPDATE store.segment_runs SET replaced = false WHERE (segment_id, run_id) IN "
            "(SELECT (segment_id, run_id) FROM shown)"
        )
    tx.views_outdated = True


def cut(tx: Transaction, project: ProjectKey, run_id: str, *, last_step: int) -> None:
    """Delete the run's mirrored values after a step. Raises StoreError if a segment of the run is damaged."""
    if last_step >= 0:
        segment_checks.check_run(tx.db, tx.folder, project, run_id)
    cursor = find(tx.db, project, {run_id})[run_id]
    if cursor.last_step is None or cursor.last_step <= last_step:
        return
    kept = "SELECT ?, step, key, value, text FROM main.history "
    kept += "WHERE entity = ? AND project = ? AND run_id = ? AND step <= ?"
    rows, _ = gather(tx, cursor.rid, kept, [cursor.rid, project.entity, project.project, run_id, last_step])
    swap(tx, project, {run_id: (rows, last_step)})


def gather(tx: Transaction, rid: int, query: str, params: Sequence[object]) -> Extent:
    """Stage only the rows of a query (rid, step, key, value, text) for a run. Returns how many steps, and the last."""
    db = tx.db
    drop(tx, [rid])
    db.run(f"INSERT INTO store.history_staging {query}", params)
    db.run(f"INSERT INTO store.staged_keys {_SUMMARY}", [rid])
    found = db.run("SELECT count(DISTINCT step), max(step) FROM store.history_staging WHERE rid = ?", [rid])
    rows, last = found[0]
    return rows, last
