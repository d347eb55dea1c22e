"""One wide relation a project: a run a row, with a column for each of its most common config and summary leaves.

The leaves of a project stand in a table `store.wide_<number>`, which is kept current run by run. The view over it adds
the columns of `runs`, so that nothing has to be written when only those change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mirror.store import projects as known_projects
from mirror.store.database import Database
from mirror.store.names import identifier
from mirror.store.records import ProjectKey

if TYPE_CHECKING:
    import pyarrow as pa

MOST_COLUMNS = 500
"""Leaf columns of one relation."""

_STAY = 1.1
"""A key gives up its column only to one that is this much more common, so that columns do not come and go."""

_CELLS = 2_000_000
"""Cells that are filled at a time; this bounds the memory."""


@dataclass(frozen=True)
class _Column:
    doc: str
    key: str
    type: str
    name: str


def refresh(db: Database, projects: Iterable[ProjectKey]) -> None:
    """Bring the wide relations of these projects up to date. Call it within a transaction."""
    for project in projects:
        number = known_projects.find(db, project)
        if number is not None:
            _refresh(db, project, number)
            _note_problem(db, number, None)


def _refresh(db: Database, project: ProjectKey, number: int) -> None:
    table = f"store.wide_{number}"
    present = _exists(db, f"wide_{number}")
    before = _columns(db, number)
    columns = _choose(db, number, before)
    stale = _stale(db, project, table if present else None)
    added = [column for column in columns if column not in before]
    if not present or _needs_rebuild(db, number, before, added, stale):
        db.run(f"DROP TABLE IF EXISTS {table}")
        db.run(f"CREATE TABLE {table} (rid BIGINT, revision BIGINT)")
        added, stale = columns, _stale(db, project, None)
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
    _keep_view(db, project, table, before)
    _fill(db, table, columns, stale)


def drop(db: Database, project: ProjectKey, reason: str) -> None:
    """Have no relation rather than a wrong one, and note why. Call it within a transaction."""
    number = known_projects.find(db, project)
    if number is None:
        return
    db.run(f"DROP VIEW IF EXISTS main.{identifier(view_name(db, project))}")
    db.run(f"DROP TABLE IF EXISTS store.wide_{number}")
    db.run("DELETE FROM store.wide_columns WHERE project_number = ?", [number])
    db.run("DELETE FROM store.meta WHERE key = ?", [f"store.wide_{number}"])
    _note_problem(db, number, reason)


def _note_problem(db: Database, number: int, reason: str | None) -> None:
    """What `mirror status` tells of the relation."""
    key = f"store.wide_{number}.problem"
    if db.run("SELECT value FROM store.meta WHERE key = ?", [key]) == ([] if reason is None else [(reason,)]):
        return
    db.run("DELETE FROM store.meta WHERE key = ?", [key])
    if reason is not None:
        db.run("INSERT INTO store.meta VALUES (?, ?)", [key, reason])


def differing(db: Database, project: ProjectKey) -> list[str]:
    """The runs whose row in the wide relation is not what their leaves say. Raises duckdb.Error where it lacks."""
    number = known_projects.find(db, project)
    assert number is not None
    columns = _columns(db, number)
    names = ", ".join(identifier(name) for name in ("rid", "revision", *(column.name for column in columns)))
    runs = dict(
        db.run(
            "SELECT rid, run_id FROM store.runs WHERE entity = ? AND project = ? ORDER BY rid",
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


def _exists(db: Database, table: str) -> bool:
    return bool(
        db.run(
            "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'store' "
            "AND table_name = ?",
            [table],
        )
    )


def _columns(db: Database, number: int) -> list[_Column]:
    rows = db.run(
        "SELECT doc, key, type, name FROM store.wide_columns WHERE project_number = ? ORDER BY position", [number]
    )
    return [_Column(*row) for row in rows]


def _choose(db: Database, number: int, before: Sequence[_Column]) -> list[_Column]:
    """The columns that there should be, most common first. A name is kept as long as its column is there.

    A key with a NUL in it has none: Arrow ends the names of columns there.
    """
    had = {(column.doc, column.key): column for column in before}
    with_names = db.run(
        """
        SELECT k.doc, k.key, CASE WHEN k.numbers > 0 AND k.numbers + k.nulls = k.runs THEN 'DOUBLE'
                                  WHEN k.bools > 0 AND k.bools + k.nulls = k.runs THEN 'BOOLEAN' ELSE 'VARCHAR' END
        FROM store.leaf_keys AS k
        LEFT JOIN store.wide_columns AS c ON c.project_number = k.project_number AND c.doc = k.doc AND c.key = k.key
        WHERE k.project_number = ?
              AND NOT contains(k.key, chr(0))
        ORDER BY k.runs * CASE WHEN c.name IS NULL THEN 1 ELSE ? END DESC, k.doc, k.key
        LIMIT ?
        """,
        [number, _STAY, MOST_COLUMNS],
    )
    taken = {had[doc, key].name.casefold() for doc, key, _ in with_names if (doc, key) in had}
    columns = []
    for doc, key, kind in with_names:
        old = had.get((doc, key))
        columns.append(_Column(doc, key, kind, old.name if old else _free_name(f"{doc}.{key}", taken)))
    return columns


def _free_name(name: str, taken: set[str]) -> str:
    """The name, with a number behind it when another one differs only in upper and lower case, as SQL sees none."""
    free, number = name, 2
    while free.casefold() in taken:
        free, number = f"{name}_{number}", number + 1
    taken.add(free.casefold())
    return free


def _stale(db: Database, project: ProjectKey, table: str | None) -> list[int]:
    """The runs whose row is missing or older than their documents."""
    current = f"AND NOT EXISTS (SELECT 1 FROM {table} AS w WHERE w.rid = r.rid AND w.revision = r.revision)"
    rows = db.run(
        f"SELECT rid FROM store.runs AS r WHERE entity = ? AND project = ? {current if table else ''} ORDER BY rid",
        [project.entity, project.project],
    )
    return [rid for (rid,) in rows]


def _needs_rebuild(
    db: Database, number: int, before: Sequence[_Column], added: Sequence[_Column], stale: Sequence[int]
) -> bool:
    """Whether rows that are not stale would change: by another type, or by a key that was less common so far."""
    had = {(column.doc, column.key) for column in before}
    if any((column.doc, column.key) in had for column in added):
        return True
    if not added:
        return False
    held = db.run(
        "SELECT k.doc, k.key, k.runs, count(l.rid) FROM store.leaf_keys AS k LEFT JOIN store.leaves AS l "
        "ON l.doc = k.doc AND l.key = k.key AND l.element IS NULL AND (l.kind <> 'object' OR l.text IS NOT NULL) "
        "AND l.rid IN (SELECT unnest(?::BIGINT[])) WHERE k.project_number = ? GROUP BY ALL",
        [list(stale), number],
    )
    new = {(column.doc, column.key) for column in added}
    return any(runs != stale_runs for doc, key, runs, stale_runs in held if (doc, key) in new)


def _save_columns(db: Database, number: int, columns: Sequence[_Column]) -> None:
    from mirror.store import columns as arrow

    shape = {"project_number": "BIGINT", "position": "BIGINT"}
    shape |= dict.fromkeys(("doc", "key", "type", "name"), "VARCHAR")
    rows = [(number, place, c.doc, c.key, c.type, c.name) for place, c in enumerate(columns)]
    db.run("DELETE FROM store.wide_columns WHERE project_number = ?", [number])
    with db.table("chosen", arrow.table(shape, rows)):
        db.run("INSERT INTO store.wide_columns BY NAME SELECT * FROM chosen")


def _keep_view(db: Database, project: ProjectKey, table: str, columns: Sequence[_Column]) -> None:
    """Make the view anew where its columns or their types, which it remembers, are not what they should be."""
    shared = [(name, kind) for name, kind, *_ in db.run("DESCRIBE main.runs")]
    selected = [f"r.{identifier(name)}" for name, _ in shared] + [f"w.{identifier(c.name)}" for c in columns]
    name = identifier(view_name(db, project))
    text = (
        f"CREATE OR REPLACE VIEW main.{name} AS SELECT {', '.join(selected)} "
        f"FROM store.run_rows AS r JOIN {table} AS w ON w.rid = r.rid"
    )
    types = [kind for _, kind in shared] + [column.type for column in columns]
    digest = hashlib.sha256(" ".join([text, *types]).encode()).hexdigest()
    if db.run("SELECT value FROM store.meta WHERE key = ?", [table]) != [(digest,)]:
        db.run(text)
        db.run("DELETE FROM store.meta WHERE key = ?", [table])
        db.run("INSERT INTO store.meta VALUES (?, ?)", [table, digest])


def view_name(db: Database, project: ProjectKey) -> str:
    """The name of the wide relation: the project's address.

    Of projects that differ only in upper and lower case, the later ones get a number.
    """
    taken: set[str] = set()
    for entity, name in db.run("SELECT entity, project FROM store.projects ORDER BY number"):
        found = _free_name(f"{entity}/{name}", taken)
        if ProjectKey(entity, name) == project:
            return found
    raise AssertionError(project)


def _fill(db: Database, table: str, columns: Sequence[_Column], rids: Sequence[int]) -> None:
    """Insert the rows of these runs, some at a time."""
    step = max(1, _CELLS // max(1, len(columns)))
    for start in range(0, len(rids), step):
        with db.table("filled", _rows(db, columns, rids[start : start + step])):
            db.run(f"INSERT INTO {table} BY NAME SELECT * FROM filled")


def _rows(db: Database, columns: Sequence[_Column], rids: Sequence[int]) -> pa.Table:
    """The wide rows of these runs: each column's leaves come together, and are put in their places at once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from mirror.store import columns as arrow

    shape = {"place": "BIGINT", "doc": "VARCHAR", "key": "VARCHAR", "numeric": "BOOLEAN"}
    wanted = arrow.table(shape, [(place, c.doc, c.key, c.type == "DOUBLE") for place, c in enumerate(columns)])
    with db.table("wanted", wanted):
        leaves = db.arrow(
            """
            SELECT w.place, l.rid, l.number, CASE WHEN NOT w.numeric THEN l.text END AS text
            FROM store.leaves AS l JOIN wanted AS w ON w.doc = l.doc AND w.key = l.key
            WHERE l.rid IN (SELECT unnest(?::BIGINT[])) AND l.element IS NULL
                  AND (l.kind <> 'object' OR l.text IS NOT NULL)
            ORDER BY w.place
            """,
            [list(rids)],
        ).combine_chunks()
        revisions = db.arrow(
            "SELECT rid, revision FROM store.runs WHERE rid IN (SELECT unnest(?::BIGINT[])) ORDER BY rid", [list(rids)]
        ).combine_chunks()
    tally: Any = pc.value_counts(leaves["place"])
    counts = {entry["values"]: entry["counts"] for entry in tally.to_pylist()}
    arrays: list[Any] = [revisions["rid"], revisions["revision"]]
    start = 0
    for place, column in enumerate(columns):
        count = counts.get(place, 0)
        here = leaves.slice(start, count)
        start += count
        at = pc.index_in(revisions["rid"], value_set=here["rid"])
        values: Any = here["number"] if column.type == "DOUBLE" else here["text"]
        if column.type == "BOOLEAN":
            values = pc.equal(values, pa.scalar("true"))
        arrays.append(values.take(at))
    return pa.table(arrays, names=["rid", "revision", *(column.name for column in columns)])
