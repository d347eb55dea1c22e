"""One wide relation per project: one row per run, one column for each of the most common config and summary leaves.

The leaves of a project are stored in a table `store.wide_<number>`, which is updated run by run. The view over it adds
the columns of `runs`, so that nothing has to be written when only those change.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
from msgspec import Struct

from mirror.store import comments, kernels, meta, views, wide_names
from mirror.store import projects as known_projects
from mirror.store.database import Database, disk_full, is_damage, must_reopen, reason
from mirror.store.leaves import shown, text_of
from mirror.store.names import identifier
from mirror.store.records import ProjectKey
from mirror.store.wide_names import Names

if TYPE_CHECKING:
    import pyarrow as pa

MOST_COLUMNS = 500
"""The most leaf columns of one relation."""

_STAY_FACTOR = 1.1
"""A key loses its column only to a key that is this much more common, so that columns do not come and go."""

_CELLS = 2_000_000
"""How many cells are filled at a time. This bounds the memory."""


FAULT = "wide_fault_"
"""Prefix, before a project's number, of the key in `store.meta` for a fault of its wide relation."""

_COMMENTED = "comments of "
"""Prefix, before a relation's table, of the key in `store.meta` for the view whose comments were last set."""

_NO_NUL = "position(chr(0) IN k.key) = 0"
"""DuckDB ends a name at its first NUL character, so no column can be named like such a key."""

logger = logging.getLogger(__name__)


class Broken(Exception):
    """A fatal error of DuckDB while it built the wide relation of `project`; the file must be reopened."""

    def __init__(self, project: ProjectKey, error: duckdb.Error) -> None:
        super().__init__(reason(error))
        self.project = project


class _Column(Struct, frozen=True):
    doc: str
    key: str
    type: str
    name: str


def refresh(db: Database, projects: Iterable[ProjectKey]) -> None:
    """Bring the wide relations of these projects up to date. Call it outside of a transaction.

    A relation that cannot be built is dropped, and its fault is recorded in `store.meta`; the others are still built.
    Raises Broken if one of them caused a fatal error, and duckdb.Error if the disk is full.
    """
    numbered = [(project, number) for project in projects if (number := known_projects.find(db, project)) is not None]
    _build(db, numbered)
    for project, number in numbered:
        _comment(db, project, number)


def _build(db: Database, numbered: Sequence[tuple[ProjectKey, int]]) -> None:
    if not _refresh_all(db, numbered):
        for project, number in numbered:
            try:
                _refresh_all(db, [(project, number)], alone=True)
            except Broken:
                raise
            except Exception as error:
                if _file_at_fault(error):
                    raise
                leave_out(db, project, reason(error))


def _refresh_all(db: Database, numbered: Sequence[tuple[ProjectKey, int]], *, alone: bool = False) -> bool:
    """Bring these relations up to date in one transaction. If one fails: return False or, with `alone`, raise."""
    project = None
    try:
        with db.transaction():
            names, shared = wide_names.view_names(db), views.run_columns(db)
            for project, number in numbered:
                _refresh(db, project, number, names, shared)
                _note_fault(db, number, _left_out(db, number))
            for project, number in wide_names.renamed(db, names):
                _keep_view(db, project, f"store.wide_{number}", _columns(db, number), names, shared)
    except Exception as error:
        if project is not None and isinstance(error, duckdb.Error) and must_reopen(error) and not _file_at_fault(error):
            raise Broken(project, error) from error
        if alone or _file_at_fault(error):
            raise
        return False
    return True


def _file_at_fault(error: BaseException) -> bool:
    """Return True if the file or its disk is at fault. For an internal error of DuckDB, a relation may be."""
    return disk_full(error) or (is_damage(error) and not isinstance(error, duckdb.InternalException))


def leave_out(db: Database, project: ProjectKey, fault: str) -> None:
    """Drop the wide relation of a project, which cannot be built, and record the reason for `mirror status`."""
    logger.warning('the wide relation "%s" is left out: %s', project, fault)
    number = known_projects.find(db, project)
    assert number is not None
    with db.transaction():
        name = wide_names.noted_name(db, number) or wide_names.view_name(db, project)
        if db.run("SELECT 1 FROM duckdb_views() WHERE schema_name = 'main' AND view_name = ?", [name]):
            db.run(f"DROP VIEW main.{identifier(name)}")
        forget(db, number)
        _note_fault(db, number, f"it could not be built ({fault})")


def forget(db: Database, number: int) -> None:
    """Drop the table of a project's wide relation, so that the next publish rebuilds it."""
    db.run("DELETE FROM store.wide_columns WHERE project_number = ?", [number])
    meta.forget(db, [f"store.wide_{number}"])
    db.run(f"DROP TABLE IF EXISTS store.{identifier(f'wide_{number}')}")


def _left_out(db: Database, number: int) -> str | None:
    """A message about keys that have no column because of a NUL character; None if there are none."""
    sql = f"FROM store.leaf_keys AS k WHERE k.project_number = ? AND NOT ({_NO_NUL})"
    count = db.value(f"SELECT count(*) {sql}", [number])
    if not count:
        return None
    [(doc, key)] = db.run(f"SELECT k.doc, k.key {sql} ORDER BY k.runs DESC, k.doc, k.key LIMIT 1", [number])
    shown = f"{doc}.{key}"[:80].replace("\0", "\\0")
    return (
        f"{count} keys with a NUL character have no column, such as {shown}"
        if count > 1
        else (f"the key {shown} has a NUL character and no column")
    )


def _note_fault(db: Database, number: int, fault: str | None) -> None:
    key = f"{FAULT}{number}"
    if fault:
        meta.put(db, key, fault)
    else:
        meta.forget(db, [key])


def _refresh(db: Database, project: ProjectKey, number: int, names: Names, shared: Sequence[Any]) -> None:
    table = f"store.wide_{number}"
    present = meta.get(db, table) is not None
    before = _columns(db, number)
    columns = _choose(db, number, before)
    stale = _stale(db, project, table if present else None)
    added = [column for column in columns if column not in before]
    if not present or _needs_rebuild(db, number, before, added, stale):
        db.run(f"DROP TABLE IF EXISTS {table}")
        shape = ", ".join(["rid BIGINT", "revision BIGINT", *(f"{identifier(c.name)} {c.type}" for c in columns)])
        db.run(f"CREATE TABLE {table} ({shape})")
        stale = _stale(db, project, None)
    else:
        for column in before:
            if column not in columns:
                db.run(f"ALTER TABLE {table} DROP COLUMN {identifier(column.name)}")
        for column in added:
            db.run(f"ALTER TABLE {table} ADD COLUMN {identifier(column.name)} {column.type}")
        # Only now: DuckDB 1.5 does not commit a table that was altered after rows were deleted.
        db.run(f"DELETE FROM {table} WHERE rid IN (SELECT unnest(?::BIGINT[]))", [stale])
    if set(columns) != set(before):
        _save_columns(db, number, columns)
        before = columns
    _keep_view(db, project, table, before, names, shared)
    _fill(db, table, columns, stale)


def differing(db: Database, project: ProjectKey) -> list[str]:
    """The runs whose row in the wide relation differs from their leaves. Raises duckdb.Error if there is none."""
    number = known_projects.find(db, project)
    assert number is not None
    columns = _columns(db, number)
    names = ", ".join(identifier(name) for name in ("rid", "revision", *(column.name for column in columns)))
    runs = dict(
        db.run(
            "SELECT rid, run_id FROM store.run_records WHERE entity = ? AND project = ? ORDER BY rid",
            [project.entity, project.project],
        )
    )
    rids = list(runs)
    found: set[int] = set()
    step = max(1, _CELLS // max(1, len(columns)))
    for start in range(0, len(rids), step):
        batch = rids[start : start + step]
        kept = f"SELECT {names} FROM store.wide_{number} WHERE rid IN (SELECT unnest(?::BIGINT[]))"
        with db.table("expected", _rows(db, columns, batch)):
            rows = db.run(
                f"SELECT rid FROM ({kept} EXCEPT ALL SELECT {names} FROM expected) "
                f"UNION ALL SELECT rid FROM (SELECT {names} FROM expected EXCEPT ALL {kept})",
                [batch, batch],
            )
        found.update(rid for (rid,) in rows)
    return sorted(runs[rid] for rid in found)


def _columns(db: Database, number: int) -> list[_Column]:
    rows = db.run(
        "SELECT doc, key, type, name FROM store.wide_columns WHERE project_number = ? ORDER BY position", [number]
    )
    return [_Column(*row) for row in rows]


def _choose(db: Database, number: int, before: Sequence[_Column]) -> list[_Column]:
    """The columns that the relation should have, most common first."""
    rows = db.run(
        f"""
        SELECT k.doc, k.key, CASE WHEN k.numbers > 0 AND k.integers + k.nulls = k.runs THEN 'BIGINT'
                                  WHEN k.numbers > 0 AND k.numbers + k.nulls = k.runs THEN 'DOUBLE'
                                  WHEN k.bools > 0 AND k.bools + k.nulls = k.runs THEN 'BOOLEAN' ELSE 'VARCHAR' END,
               k.runs
        FROM store.leaf_keys AS k
        LEFT JOIN store.wide_columns AS c ON c.project_number = k.project_number AND c.doc = k.doc AND c.key = k.key
        WHERE k.project_number = ? AND {_NO_NUL}
        ORDER BY k.runs * CASE WHEN c.name IS NULL THEN 1 ELSE ? END DESC, k.doc, k.key
        LIMIT ?
        """,
        [number, _STAY_FACTOR, MOST_COLUMNS],
    )
    had = {column.name for column in before if column.name == f"{column.doc}.{column.key}"}
    names = wide_names.column_names({f"{doc}.{key}": runs for doc, key, _, runs in rows}, had)
    return [_Column(doc, key, kind, names[f"{doc}.{key}"]) for doc, key, kind, _ in rows]


def _stale(db: Database, project: ProjectKey, table: str | None) -> list[int]:
    """The runs whose row is missing or is older than their documents."""
    current = f"AND NOT EXISTS (SELECT 1 FROM {table} AS w WHERE w.rid = r.rid AND w.revision = r.revision)"
    rows = db.run(
        "SELECT rid FROM store.run_records AS r "
        f"WHERE entity = ? AND project = ? {current if table else ''} ORDER BY rid",
        [project.entity, project.project],
    )
    return [rid for (rid,) in rows]


def _needs_rebuild(
    db: Database, number: int, before: Sequence[_Column], added: Sequence[_Column], stale: Sequence[int]
) -> bool:
    """Return True if rows of other runs would change too: a type changed, or an added key occurs outside of `stale`."""
    had = {(column.doc, column.key) for column in before}
    if any((column.doc, column.key) in had for column in added):
        return True
    if not added:
        return False
    held = db.run(
        "SELECT k.doc, k.key, k.runs, count(l.rid) FROM store.leaf_keys AS k LEFT JOIN store.leaves AS l "
        f"ON l.doc = k.doc AND l.key = k.key AND {shown('l')} "
        "AND l.rid IN (SELECT unnest(?::BIGINT[])) WHERE k.project_number = ? GROUP BY ALL",
        [list(stale), number],
    )
    new = {(column.doc, column.key) for column in added}
    return any(runs != stale_runs for doc, key, runs, stale_runs in held if (doc, key) in new)


def _save_columns(db: Database, number: int, columns: Sequence[_Column]) -> None:
    from mirror.store import columns as arrow

    shape = {"project_number": "BIGINT", "position": "BIGINT"}
    shape |= dict.fromkeys(("doc", "key", "type", "name"), "VARCHAR")
    rows = [(number, position, c.doc, c.key, c.type, c.name) for position, c in enumerate(columns)]
    db.run("DELETE FROM store.wide_columns WHERE project_number = ?", [number])
    with db.table("chosen", arrow.table(shape, rows)):
        db.run("INSERT INTO store.wide_columns BY NAME SELECT * FROM chosen")


def _keep_view(
    db: Database, project: ProjectKey, table: str, columns: Sequence[_Column], names: Names, shared: Sequence[Any]
) -> None:
    """Recreate the view if its columns or their types, which DuckDB stores with it, have changed.

    `names` are those of all views, `shared` describes the columns of `runs`.
    """
    selected = [f"r.{identifier(name)}" for name, *_ in shared] + [f"w.{identifier(c.name)}" for c in columns]
    name = identifier(names[project])
    text = (
        f"CREATE OR REPLACE VIEW main.{name} AS SELECT {', '.join(selected)} "
        f"FROM store.run_rows AS r JOIN {table} AS w ON w.rid = r.rid"
    )
    types = [kind for _, kind, *_ in shared] + [column.type for column in columns]
    digest = hashlib.sha256(" ".join([text, *types]).encode()).hexdigest()
    if meta.put(db, table, digest):
        db.run(text)
    wide_names.note_name(db, project, table, names)


def _comment(db: Database, project: ProjectKey, number: int) -> None:
    """Set the comments of a relation whose view was recreated since they were last set."""
    view, name = meta.get(db, f"store.wide_{number}"), wide_names.noted_name(db, number)
    commented = f"{_COMMENTED}store.wide_{number}"
    if view is None or name is None or meta.get(db, commented) == f"{view} {name}":
        return
    comments.wide(db, name, str(project), [(c.doc, c.key, c.name) for c in _columns(db, number)])
    with db.transaction():
        meta.put(db, commented, f"{view} {name}")


def _fill(db: Database, table: str, columns: Sequence[_Column], rids: Sequence[int]) -> None:
    """Insert the rows of these runs, in batches."""
    step = max(1, _CELLS // max(1, len(columns)))
    for start in range(0, len(rids), step):
        with db.table("filled", _rows(db, columns, rids[start : start + step])):
            db.run(f"INSERT INTO {table} BY NAME SELECT * FROM filled")


def _rows(db: Database, columns: Sequence[_Column], rids: Sequence[int]) -> pa.Table:
    """The wide rows of these runs, built column by column: all leaves of a column are put into their rows at once."""
    import pyarrow as pa

    from mirror.store import columns as arrow

    shape = {"position": "BIGINT", "doc": "VARCHAR", "key": "VARCHAR", "type": "VARCHAR"}
    wanted = arrow.table(shape, [(position, c.doc, c.key, c.type) for position, c in enumerate(columns)])
    with db.table("wanted", wanted):
        leaves = db.arrow(
            f"""
            SELECT w.position, l.rid, l.number,
                   CASE WHEN w.type = 'BIGINT' THEN TRY_CAST(l.text AS BIGINT) END AS whole,
                   CASE WHEN w.type NOT IN ('BIGINT', 'DOUBLE') THEN {text_of("l")} END AS text
            FROM store.leaf_rows AS l JOIN wanted AS w ON w.doc = l.doc AND w.key = l.key
            WHERE l.rid IN (SELECT unnest(?::BIGINT[])) AND {shown("l")}
            ORDER BY w.position
            """,
            [list(rids)],
        ).combine_chunks()
        revisions = db.arrow(
            "SELECT rid, revision FROM store.run_records WHERE rid IN (SELECT unnest(?::BIGINT[])) ORDER BY rid",
            [list(rids)],
        ).combine_chunks()
    tally: Any = kernels.call("value_counts", leaves["position"])
    counts = {entry["values"]: entry["counts"] for entry in tally.to_pylist()}
    arrays: list[Any] = [revisions["rid"], revisions["revision"]]
    start = 0
    for position, column in enumerate(columns):
        count = counts.get(position, 0)
        of_column = leaves.slice(start, count)
        start += count
        at = kernels.index_in(revisions["rid"], of_column["rid"])
        values: Any = of_column[{"BIGINT": "whole", "DOUBLE": "number"}.get(column.type, "text")]
        if column.type == "BOOLEAN":
            values = kernels.call("equal", values, pa.scalar("true"))
        arrays.append(kernels.call("take", values, at))
    return pa.table(arrays, names=["rid", "revision", *(column.name for column in columns)])
