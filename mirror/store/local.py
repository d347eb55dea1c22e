"""Runs that were read from local files, marked as such until the server has them, and how far each file is read."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import astuple

from mirror.store import columns, contents, history, projects, refresh, rids, runs, staging
from mirror.store.database import Database
from mirror.store.records import LocalFile, LocalRun, ProjectKey, RunRecord
from mirror.store.transaction import Transaction

_FILE = {
    **dict.fromkeys(("path", "entity", "project", "run_id", "started_at"), "VARCHAR"),
    **dict.fromkeys(("read_to", "size", "mtime"), "BIGINT"),
    "head": "VARCHAR",
    **dict.fromkeys(("damaged", "shift"), "BIGINT"),
    "note": "VARCHAR",
    "read_at": "TIMESTAMP",
    "beside": "VARCHAR",
}

_OF_RUNS = "r.entity = ? AND r.project = ? AND r.run_id IN (SELECT unnest(?::VARCHAR[]))"


def files(db: Database) -> dict[str, LocalFile]:
    """Every local file that was read, by path."""
    rows = db.run(f"SELECT {', '.join(_FILE)} FROM store.local_files ORDER BY path")
    return {row[0]: LocalFile(*row) for row in rows}


def save_files(tx: Transaction, found: Sequence[LocalFile]) -> None:
    """Replace what is recorded about these files."""
    tx.db.run("DELETE FROM store.local_files WHERE path IN (SELECT unnest(?::VARCHAR[]))", [[f.path for f in found]])
    with tx.db.table("read_files", columns.table(_FILE, [astuple(file) for file in found])):
        tx.db.run("INSERT INTO store.local_files BY NAME SELECT * FROM read_files")


EXTRAS = (
    "run_extras",
    "metadata_documents",
    "metadata_leaves",
    "console_lines",
    "run_files",
    "run_facts",
    "run_exports",
    "artifact_uses",
)


def forget_files(tx: Transaction, paths: Sequence[str]) -> None:
    """Forget these files; what was read from them stays."""
    tx.db.run("DELETE FROM store.local_files WHERE path IN (SELECT unnest(?::VARCHAR[]))", [list(paths)])


def find(db: Database, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, LocalRun]:
    """The state of each of these runs that is mirrored."""
    rows = db.run(
        "SELECT r.run_id, l.rid IS NOT NULL, r.storage_id <> '', coalesce(l.guessed, false), h.rows, "
        "r.state FROM store.run_records AS r JOIN store.run_history AS h ON h.rid = r.rid "
        f"LEFT JOIN store.local_states AS l ON l.rid = r.rid WHERE {_OF_RUNS}",
        [project.entity, project.project, list(run_ids)],
    )
    return {row[0]: LocalRun(project, *row) for row in rows}


def owner(db: Database, project: str, run_id: str) -> str | None:
    """The entity of a run on the server of which only the project's name is known. None for no run or several.

    None also while the server has less of the run than its files.
    """
    found = db.run(
        "SELECT r.entity, coalesce(l.guessed, false) FROM store.run_records AS r "
        "LEFT JOIN store.local_states AS l ON l.rid = r.rid "
        "WHERE r.project = ? AND r.run_id = ? AND (r.storage_id <> '' OR l.guessed)",
        [project, run_id],
    )
    return found[0][0] if len(found) == 1 and not found[0][1] else None


def reading(db: Database, project: ProjectKey, run_id: str) -> str | None:
    """The saved state from which reading a local run's files continues; None if there is none."""
    found = db.run(
        f"SELECT l.state FROM store.local_states AS l JOIN store.run_records AS r ON r.rid = l.rid WHERE {_OF_RUNS}",
        [project.entity, project.project, [run_id]],
    )
    return found[0][0] if found else None


def save(tx: Transaction, found: Sequence[tuple[LocalRun, str]]) -> None:
    """Mark these runs as local, each with the state from which reading its files continues."""
    rows = [(rids.find(tx.db, run.project, [run.run_id])[run.run_id], run.guessed, text) for run, text in found]
    condition, params = rids.among(row[0] for row in rows)
    tx.db.run(f"DELETE FROM store.local_states WHERE {condition}", params)
    shape = {"rid": "BIGINT", "guessed": "BOOLEAN", "state": "VARCHAR"}
    with tx.db.table("marks", columns.table(shape, rows)):
        tx.db.run("INSERT INTO store.local_states BY NAME SELECT * FROM marks")


def adopt(tx: Transaction, project: ProjectKey, records: Sequence[RunRecord]) -> None:
    """Unmark the local runs that the server now has completely. Their records must be written already.

    A run is complete if the server has at least as many history lines; it will be pulled again completely. The history
    of the others, read from files, stays until the server has as much. A run whose files name no entity is forgotten
    if the server has it, as complete, under another one.
    """
    db = tx.db
    if not db.value("SELECT count(*) FROM store.local_states"):
        return
    counts = {record.run_id: record.server_rows for record in records}
    marked = [run for run in find(db, project, list(counts)).values() if run.local]
    complete = [run.run_id for run in marked if counts[run.run_id] >= run.rows]
    condition, params = rids.among(rids.find(db, project, complete).values())
    db.run(f"DELETE FROM store.local_states WHERE {condition}", params)
    twins = db.run(
        "SELECT r.entity, r.run_id, h.rows FROM store.local_states AS l JOIN store.run_records AS r ON r.rid = l.rid "
        "JOIN store.run_history AS h ON h.rid = r.rid "
        "WHERE l.guessed AND r.entity <> ? AND r.storage_id = '' AND r.project = ? "
        "AND r.run_id IN (SELECT unnest(?::VARCHAR[]))",
        [project.entity, project.project, list(counts)],
    )
    for entity, run_id, rows in twins:
        if counts[run_id] < rows:
            continue
        forget(tx, ProjectKey(entity, project.project), run_id)
        db.run(
            "UPDATE store.local_files SET entity = ? WHERE entity = ? AND project = ? AND run_id = ?",
            [project.entity, entity, project.project, run_id],
        )
    if complete:
        refresh.request(tx, project, complete)


def forget(tx: Transaction, project: ProjectKey, run_id: str) -> None:
    """Remove a run and everything mirrored of it."""
    db = tx.db
    here = [project.entity, project.project, run_id]
    rid = rids.find(db, project, [run_id])[run_id]
    number = projects.add(tx, project)
    runs.uncount(tx, number, rid)
    db.run("DELETE FROM store.system_values WHERE entity = ? AND project = ? AND run_id = ?", here)
    history.hide_segments(tx, project, [run_id])
    contents.forget(tx, [rid])
    for table in ("history_tail", "run_keys", *staging.TABLES, "run_history", "local_states", *EXTRAS):
        db.run(f"DELETE FROM store.{table} WHERE rid = ?", [rid])
    for table in ("leaf_rows", "tag_positions", "run_records"):
        db.run(f"DELETE FROM store.{table} WHERE rid = ?", [rid])
    wide = db.run(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'store' "
        "AND table_name = ?",
        [f"wide_{number}"],
    )
    if wide:
        db.run(f"DELETE FROM store.wide_{number} WHERE rid = ?", [rid])
    db.cached.rids.get(project, {}).pop(run_id, None)
    tx.outdated.add(project)
