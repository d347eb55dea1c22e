"""Logged values: appended behind what is mirrored, or gathered aside and swapped in as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mirror.errors import StoreError
from mirror.store import columns, rids
from mirror.store.database import Database
from mirror.store.records import HistoryPage, ProjectKey

if TYPE_CHECKING:
    import pyarrow as pa

_SUMMARY = """
    SELECT rid, key, count(*) AS rows, min(step) AS first_step, max(step) AS last_step,
           min(value) FILTER (WHERE isfinite(value)) AS min, max(value) FILTER (WHERE isfinite(value)) AS max,
           arg_max(value, step) AS last
    FROM {source} GROUP BY rid, key
"""

_CURSOR = {
    "rid": "BIGINT",
    "rows": "BIGINT",
    "last_step": "BIGINT",
    "refresh": "BOOLEAN",
    "attempts": "BIGINT",
    "next_try_at": "TIMESTAMP",
    "error": "VARCHAR",
}


@dataclass
class Cursor:
    """How much of a run's history is there already, mirrored or gathered."""

    rid: int
    rows: int = 0
    last_step: int | None = None
    refresh: bool = False
    attempts: int = 0
    next_try_at: datetime | None = None
    error: str | None = None

    def take(self, page: HistoryPage) -> pa.Table | None:
        """Move on over the page, and give what of it lies behind the last step; None when nothing does."""
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

    def succeeded(self) -> int:
        """Forget the failures before, and tell how many there were."""
        attempts = self.attempts
        self.attempts, self.next_try_at, self.error = 0, None, None
        return attempts


def append(db: Database, project: ProjectKey, pages: Sequence[HistoryPage]) -> dict[int, int]:
    """Add the values behind each run's last step, and move its cursor; values that are there already are left out.

    Forgets the failed attempts of these runs and tells how many there were, by rid.
    """
    cursors = find(db, project, {page.run_id for page in pages})
    batch = _told(cursors, pages)
    with _gathered(db, cursors, pages) as any_values:
        if any_values:
            db.run("INSERT INTO store.history_tail SELECT rid, step, key, value, text FROM incoming")
            if batch is None:
                batch = db.arrow(_SUMMARY.format(source="incoming"))
            _add_to_keys(db, batch, [cursor.rid for cursor in cursors.values()])
    attempts = {cursor.rid: cursor.succeeded() for cursor in cursors.values()}
    save(db, cursors.values())
    return attempts


def stage(db: Database, project: ProjectKey, pages: Sequence[HistoryPage]) -> None:
    """Gather values unseen by readers, behind what is gathered already of each run."""
    found = find(db, project, {page.run_id for page in pages})
    cursors = {run_id: staged(db, cursor.rid) for run_id, cursor in found.items()}
    with _gathered(db, cursors, pages) as any_values:
        if any_values:
            db.run("INSERT INTO store.history_staging SELECT rid, step, key, value, text FROM incoming")
    shape = {name: _CURSOR[name] for name in ("rid", "rows", "last_step")}
    _replace(db, "staged", shape, [(c.rid, c.rows, c.last_step) for c in cursors.values()])


def staged(db: Database, rid: int) -> Cursor:
    """How much of a run is gathered."""
    rows = db.run("SELECT rows, last_step FROM store.staged WHERE rid = ?", [rid])
    return Cursor(rid, *rows[0]) if rows else Cursor(rid)


def drop_staged(db: Database, numbers: Iterable[int]) -> None:
    """Forget what is gathered of these runs."""
    condition, params = rids.among(numbers)
    for table in ("history_staging", "staged"):
        db.run(f"DELETE FROM store.{table} WHERE {condition}", params)


def swap(
    db: Database, project: ProjectKey, run_id: str, rows: int, last_step: int | None
) -> tuple[dict[int, int], bool]:
    """Put what is gathered of the run in place of all that is mirrored of it, in the tail and in segments.

    Forgets the failed attempts of the run and tells how many there were, by rid; also tells whether segments hold
    values of the run, which the views then have to leave out.
    """
    cursor = find(db, project, {run_id})[run_id]
    db.run("DELETE FROM store.history_tail WHERE rid = ?", [cursor.rid])
    hidden = db.value(
        "UPDATE store.segment_runs SET replaced = true WHERE run_id = ? AND NOT replaced AND segment_id IN "
        "(SELECT segment_id FROM store.segments WHERE entity = ? AND project = ? AND retired_at IS NULL)",
        [run_id, project.entity, project.project],
    )
    gathered = "(SELECT * FROM store.history_staging WHERE rid = ?)"
    db.run(f"INSERT INTO store.history_tail SELECT rid, step, key, value, text FROM {gathered}", [cursor.rid])
    db.run("DELETE FROM store.history_keys WHERE rid = ?", [cursor.rid])
    db.run(f"INSERT INTO store.history_keys {_SUMMARY.format(source=gathered)} ORDER BY key", [cursor.rid])
    newest = db.value(f"SELECT max(step) FROM {gathered}", [cursor.rid])
    drop_staged(db, [cursor.rid])
    cursor.rows, cursor.refresh = rows, False
    cursor.last_step = max((step for step in (last_step, newest) if step is not None), default=None)
    attempts = {cursor.rid: cursor.succeeded()}
    save(db, [cursor])
    return attempts, hidden > 0


def replace_system_metrics(db: Database, project: ProjectKey, page: HistoryPage) -> None:
    """Put the page in place of all system metrics of its run; of two values at one step and key the later one holds."""
    here = [project.entity, project.project, page.run_id]
    cursors = find(db, project, {page.run_id})
    db.run("DELETE FROM store.system_metrics WHERE entity = ? AND project = ? AND run_id = ?", here)
    afresh = {page.run_id: Cursor(cursors[page.run_id].rid)}
    with _gathered(db, afresh, [page]) as any_values:
        if any_values:
            db.run("INSERT INTO store.system_metrics SELECT ?, ?, ?, step, key, value, text FROM incoming", here)


def find(db: Database, project: ProjectKey, run_ids: Iterable[str]) -> dict[str, Cursor]:
    """The history cursor of each run. Raises StoreError for a run whose record was never written."""
    wanted = sorted(set(run_ids))
    numbers = rids.find(db, project, wanted)
    if missing := [run_id for run_id in wanted if run_id not in numbers]:
        raise StoreError(f"the mirror has no run {project}/{missing[0]} to keep history of; sync its project first")
    condition, params = rids.among(numbers.values())
    rows = db.run(
        f"SELECT rid, rows, last_step, refresh, attempts, next_try_at, error FROM store.run_history WHERE {condition}",
        params,
    )
    cursors = {rid: Cursor(rid, *rest) for rid, *rest in rows}
    return {run_id: cursors[numbers[run_id]] for run_id in wanted}


def save(db: Database, cursors: Iterable[Cursor]) -> None:
    """Write the cursors in place of the former ones."""
    rows = [(c.rid, c.rows, c.last_step, c.refresh, c.attempts, c.next_try_at, c.error) for c in cursors]
    _replace(db, "run_history", _CURSOR, rows)


def _replace(db: Database, table: str, shape: dict[str, str], rows: Sequence[tuple[Any, ...]]) -> None:
    condition, params = rids.among(row[0] for row in rows)
    db.run(f"DELETE FROM store.{table} WHERE {condition}", params)
    with db.table("replacement", columns.table(shape, rows)):
        db.run(f"INSERT INTO store.{table} BY NAME SELECT * FROM replacement")


@contextmanager
def _gathered(db: Database, cursors: dict[str, Cursor], pages: Sequence[HistoryPage]) -> Iterator[bool]:
    """Let statements read what is new in the pages as `incoming` (rid, step, key, value, text).

    Moves the cursors. Gives False when there is nothing new. One table for all pages: a statement for each would cost
    more than its rows.
    """
    import pyarrow as pa

    pieces = []
    for page in pages:
        values = cursors[page.run_id].take(page)
        if values is not None:
            count = values.num_rows
            rid = pa.repeat(pa.scalar(cursors[page.run_id].rid, pa.int64()), count)
            # A dictionary goes into DuckDB and through its groupings in half the time of a text for each value.
            key: Any = values["key"]
            key = key if pa.types.is_dictionary(key.type) else key.dictionary_encode()
            rest = [values["step"], key, values["value"], values["text"]]
            pieces.append(pa.table([rid, *rest], names=["rid", "step", "key", "value", "text"]))
    if not pieces:
        yield False
        return
    incoming = pa.concat_tables(pieces).unify_dictionaries().combine_chunks()
    if not all(page.distinct for page in pages) and not _plainly_distinct(incoming):
        with db.table("incoming", incoming):
            doubled = _doubled(db)
        if doubled:
            incoming = _last_of_each(db, incoming)
    with db.table("incoming", incoming):
        yield True


def _plainly_distinct(incoming: pa.Table) -> bool:
    """Whether steps only rise within each stretch of one run and key, and no run and key has two stretches.

    False says nothing. Metrics come a column at a time, so this spares most pages a grouping that costs 20 times more.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    rid, step = (incoming[name].combine_chunks() for name in ("rid", "step"))
    keys: Any = incoming["key"].combine_chunks()
    key = keys.indices
    fresh = pc.or_(pc.not_equal(rid[1:], rid[:-1]), pc.not_equal(key[1:], key[:-1]))
    rises = pc.greater(step[1:], step[:-1])
    if not pc.all(pc.or_(fresh, rises), min_count=0).as_py():
        return False
    stretches = len(pc.indices_nonzero(fresh)) + 1
    places = pa.table({"rid": rid, "key": key})
    return bool(places.group_by(["rid", "key"]).aggregate([]).num_rows == stretches)


def _doubled(db: Database) -> bool:
    return bool(db.run("SELECT 1 FROM incoming GROUP BY rid, key, step HAVING count(*) > 1 LIMIT 1"))


def _last_of_each(db: Database, incoming: pa.Table) -> pa.Table:
    """Without the values that a later one at the same run, key and step replaces."""
    import pyarrow as pa

    numbered = incoming.append_column("place", pa.array(range(incoming.num_rows), pa.int64()))
    with db.table("numbered", numbered):
        kept = db.arrow("SELECT max(place) AS place FROM numbered GROUP BY rid, key, step ORDER BY place")
    return incoming.take(kept["place"])


def _told(cursors: dict[str, Cursor], pages: Sequence[HistoryPage]) -> pa.Table | None:
    """What the pages tell of their keys, in the shape of store.history_keys.

    None where a page does not tell, or where some of its lines are there already. Ask before the cursors move.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    ends = {run_id: cursor.last_step for run_id, cursor in cursors.items()}
    pieces = []
    for page in pages:
        end, first = ends[page.run_id], pc.min(page.values["step"]).as_py()
        if page.summary is None or (end is not None and first is not None and first <= end):
            return None
        ends[page.run_id] = page.last_step
        rid = pa.repeat(pa.scalar(cursors[page.run_id].rid, pa.int64()), page.summary.num_rows)
        pieces.append(page.summary.add_column(0, "rid", rid))
    return pa.concat_tables(pieces) if pieces else None


def _add_to_keys(db: Database, batch: pa.Table, numbers: Iterable[int]) -> None:
    """Bring store.history_keys up to date with a batch whose steps lie behind all that is counted already.

    Few rows are merged here, since planning the same in SQL takes longer than doing it.
    """
    import pyarrow as pa

    condition, params = rids.among(numbers)
    counted = db.arrow(f"SELECT * FROM store.history_keys WHERE {condition}", params)
    both = pa.concat_tables([counted, batch])
    how: Any = {"rows": "sum", "first_step": "min", "last_step": "max", "min": "min", "max": "max", "last": "last"}
    merged = both.group_by(["rid", "key"], use_threads=False).aggregate(list(how.items()))
    with db.table("merged", merged.select(["rid", "key", *(f"{name}_{by}" for name, by in how.items())])):
        db.run(f"DELETE FROM store.history_keys WHERE {condition}", params)
        db.run("INSERT INTO store.history_keys SELECT * FROM merged ORDER BY rid, key")
