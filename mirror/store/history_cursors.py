"""How much of each run's history is mirrored, and which runs failed: the table store.run_history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mirror.errors import StoreError
from mirror.store import columns, rids
from mirror.store.database import Database
from mirror.store.records import HistoryPage, ProjectKey
from mirror.store.transaction import Transaction

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
    "doubted": "BOOLEAN",
}


class Cursor(Struct):
    """How much of a run's history is already mirrored or staged."""

    rid: int
    rows: int = 0
    last_step: int | None = None
    refresh: bool = False
    attempts: int = 0
    next_try_at: datetime | None = None
    error: str | None = None
    doubted: bool = False

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


def find(db: Database, project: ProjectKey, run_ids: Iterable[str]) -> dict[str, Cursor]:
    """The history cursor of each run. Raises StoreError for a run whose record was never written."""
    wanted = sorted(set(run_ids))
    numbers = rids.find(db, project, wanted)
    if missing := [run_id for run_id in wanted if run_id not in numbers]:
        raise StoreError(f"the mirror has no run {project}/{missing[0]} to store history for; sync its project first")
    condition, params = rids.among(numbers.values())
    rows = db.run(
        "SELECT rid, rows, last_step, refresh, attempts, next_try_at, error, doubted "
        f"FROM store.run_history WHERE {condition}",
        params,
    )
    cursors = {rid: Cursor(rid, *rest) for rid, *rest in rows}
    return {run_id: cursors[numbers[run_id]] for run_id in wanted}


def save(db: Database, cursors: Iterable[Cursor]) -> None:
    """Replace the cursors of these runs."""
    rows = [(c.rid, c.rows, c.last_step, c.refresh, c.attempts, c.next_try_at, c.error, c.doubted) for c in cursors]
    replace(db, "run_history", _CURSOR, rows)


def replace(db: Database, table: str, shape: dict[str, str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Replace all rows of the runs that occur in `rows`, whose first column is `rid`."""
    condition, params = rids.among(row[0] for row in rows)
    db.run(f"DELETE FROM store.{table} WHERE {condition}", params)
    with db.table("replacement", columns.table(shape, rows)):
        db.run(f"INSERT INTO store.{table} BY NAME SELECT * FROM replacement")


def clear_failures(tx: Transaction, cursors: Iterable[Cursor]) -> None:
    """Forget the failed attempts of these runs; the caller saves the cursors. `record_failures` counts on from them."""
    tx.forgotten |= {cursor.rid: cursor.clear_failures() for cursor in cursors}


def record_failures(tx: Transaction, project: ProjectKey, failures: Mapping[str, tuple[str, datetime]]) -> None:
    """Record that pulling these runs failed: the error of each, and when to retry.

    Adds one to the failed attempts of each, including those that a write in this transaction has just forgotten.
    """
    if not failures:
        return
    cursors = find(tx.db, project, failures)
    for run_id, cursor in cursors.items():
        cursor.attempts = tx.forgotten.pop(cursor.rid, cursor.attempts) + 1
        cursor.error, cursor.next_try_at = failures[run_id]
    save(tx.db, cursors.values())


def doubt(tx: Transaction, project: ProjectKey, run_ids: Iterable[str]) -> None:
    """Have the last mirrored line of these runs compared with the server's; the mark stays until that was done."""
    condition, params = rids.among(rids.find(tx.db, project, run_ids).values())
    tx.db.run(f"UPDATE store.run_history SET doubted = true WHERE {condition}", params)


def forget_failures(tx: Transaction, project: ProjectKey, run_ids: Sequence[str]) -> None:
    """Forget the failed attempts of these runs."""
    cursors = list(find(tx.db, project, run_ids).values())
    for cursor in cursors:
        cursor.clear_failures()
    save(tx.db, cursors)
