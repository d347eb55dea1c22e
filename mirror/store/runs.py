"""Runs with their documents: written, marked as deleted, and told what the mirror holds of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from mirror.store import columns, projects
from mirror.store.database import Database
from mirror.store.leaves import LeafColumns, json_text
from mirror.store.records import KnownRun, ProjectKey, RunRecord

LIVE_STATES = frozenset({"running", "pending", "preempting"})
"""States in which a run goes on writing its summary."""

_COLUMNS = {
    "rid": "BIGINT",
    **dict.fromkeys(("entity", "project", "run_id", "storage_id", "name", "state"), "VARCHAR"),
    **dict.fromkeys(("created_at", "heartbeat_at", "updated_at"), "TIMESTAMP"),
    "duration_s": "DOUBLE",
    **dict.fromkeys(("username", "group_name", "job_type", "sweep", "notes", "description", "tags"), "VARCHAR"),
    **dict.fromkeys(("git_commit", "host", "url", "config", "config_meta", "summary"), "VARCHAR"),
    **dict.fromkeys(("server_rows", "server_last_step"), "BIGINT"),
    **dict.fromkeys(("deleted_at", "synced_at"), "TIMESTAMP"),
    "revision": "BIGINT",
}

_WATCHED = ("name", "state", "group_name", "notes", "tags", "deleted_at")
"""Columns whose changes are recorded, beside the leaves of the documents."""

_REAL_LEAF = "element IS NULL AND (kind <> 'object' OR text IS NOT NULL)"


def upsert(db: Database, records: Sequence[RunRecord], now: datetime) -> None:
    """Write these runs in place of what was mirrored of them; of two records of one run the later one holds.

    What changed in a run that was mirrored before is recorded, but for the summary of a run that was or is live, which
    changes with every step.
    """
    by_key = {(record.entity, record.project, record.run_id): record for record in records}
    if not by_key:
        return
    numbers = {key: projects.add(db, key) for key in {ProjectKey(entity, project) for entity, project, _ in by_key}}
    known = _find(db, by_key)
    next_rid = db.value("SELECT coalesce(max(rid), 0) + 1 FROM store.runs")
    revision = db.value("SELECT coalesce(max(revision), 0) + 1 FROM store.runs")
    leaves = LeafColumns()
    rows: list[tuple[Any, ...]] = []
    tags: list[tuple[int, int, str]] = []
    upserted: list[tuple[Any, ...]] = []
    for key, record in by_key.items():
        before = known.get(key)
        if before is None:
            rid, next_rid = next_rid, next_rid + 1
        else:
            rid = before["rid"]
        rows.append(_row(rid, record, now, revision))
        tags.extend((rid, position, tag) for position, tag in enumerate(record.tags))
        leaves.add(rid, "config", record.config)
        leaves.add(rid, "summary", record.summary)
        settled = before is not None and not {before["state"], record.state} & LIVE_STATES
        number = numbers[ProjectKey(record.entity, record.project)]
        upserted.append((rid, record.entity, record.project, record.run_id, number, before is not None, settled))
    shape = {"rid": "BIGINT", "entity": "VARCHAR", "project": "VARCHAR", "run_id": "VARCHAR"}
    shape |= {"project_number": "BIGINT", "known": "BOOLEAN", "settled": "BOOLEAN"}
    with (
        db.table("new_runs", columns.table(_COLUMNS, rows)),
        db.table("new_tags", columns.table({"rid": "BIGINT", "position": "BIGINT", "tag": "VARCHAR"}, tags)),
        db.table("new_leaves", leaves.table()),
        db.table("upserted", columns.table(shape, upserted)),
    ):
        if known:
            _record_changes(db, now)
        _count_keys(db, known=bool(known))
        for name in ("runs", "run_tags", "leaves"):
            if known:
                db.run(f"DELETE FROM store.{name} WHERE rid IN (SELECT rid FROM upserted WHERE known)")
            db.run(f"INSERT INTO store.{name} BY NAME SELECT * FROM new_{name.removeprefix('run_')}")
        db.run(
            "INSERT INTO store.run_history "
            "SELECT rid, 0, NULL, false, 0, NULL, NULL FROM upserted WHERE NOT known ORDER BY rid"
        )


def _find(db: Database, keys: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The rid and state of the runs that are mirrored already."""
    wanted = columns.table({"entity": "VARCHAR", "project": "VARCHAR", "run_id": "VARCHAR"}, keys)
    with db.table("wanted", wanted):
        found = db.run(
            "SELECT entity, project, run_id, rid, state FROM store.runs JOIN wanted USING (entity, project, run_id)"
        )
    return {(entity, project, run_id): {"rid": rid, "state": state} for entity, project, run_id, rid, state in found}


def _row(rid: int, record: RunRecord, now: datetime, revision: int) -> tuple[Any, ...]:
    r = record
    meta = None if r.config_meta is None else json_text(r.config_meta)
    return (
        *(rid, r.entity, r.project, r.run_id, r.storage_id, r.name, r.state),
        *(r.created_at, r.heartbeat_at, r.updated_at, r.duration_s),
        *(r.username, r.group_name, r.job_type, r.sweep, r.notes, r.description, ",".join(r.tags)),
        *(r.git_commit, r.host, r.url, json_text(r.config), meta, json_text(r.summary)),
        *(r.server_rows, r.server_last_step, None, now, revision),
    )


def _record_changes(db: Database, now: datetime) -> None:
    """Compare the mirrored with the new, before it is replaced."""
    fields = " UNION ALL ".join(
        f"SELECT n.rid, {position} AS position, '{name}' AS field, CAST(o.{name} AS VARCHAR) AS old, "
        f"CAST(n.{name} AS VARCHAR) AS new FROM new_runs AS n JOIN store.runs AS o ON o.rid = n.rid "
        f"WHERE o.{name} IS DISTINCT FROM n.{name}"
        for position, name in enumerate(_WATCHED)
    )
    # Two nodes of a document can share a dotted path, as {"a.b": 1, "a": {"b": 2}} has it; together they are one value.
    seen = f"""
        SELECT l.rid, l.doc, l.key, string_agg(l.text, ' ' ORDER BY l.text) AS text, min(l.kind) AS kind
        FROM {{source}} AS l JOIN upserted AS u ON u.rid = l.rid
        WHERE {_REAL_LEAF} AND u.known AND (l.doc = 'config' OR u.settled) GROUP BY l.rid, l.doc, l.key
    """
    db.run(
        f"""
        INSERT INTO store.run_changes
        SELECT u.entity, u.project, u.run_id, ?, c.field, c.old, c.new
        FROM upserted AS u JOIN (
            {fields}
            UNION ALL
            SELECT coalesce(o.rid, n.rid), {len(_WATCHED)}, coalesce(o.doc, n.doc) || '.' || coalesce(o.key, n.key),
                   o.text, n.text
            FROM ({seen.format(source="store.leaves")}) AS o
            FULL JOIN ({seen.format(source="new_leaves")}) AS n ON o.rid = n.rid AND o.doc = n.doc AND o.key = n.key
            WHERE o.text IS DISTINCT FROM n.text OR o.kind IS DISTINCT FROM n.kind
        ) AS c ON c.rid = u.rid
        ORDER BY u.rid, c.position, c.field
        """,
        [now],
    )


def _count_keys(db: Database, *, known: bool) -> None:
    """Move the counts of leaf keys by what the new leaves have more, or less, than those they replace."""
    counted = f"""
        SELECT u.project_number, l.doc, l.key, {{sign}} AS runs, {{sign}} * (l.kind = 'number')::BIGINT AS numbers,
               {{sign}} * (l.kind = 'bool')::BIGINT AS bools, {{sign}} * (l.kind = 'null')::BIGINT AS nulls
        FROM {{source}} AS l JOIN upserted AS u ON u.rid = l.rid WHERE {_REAL_LEAF}
    """
    sources = [counted.format(sign="+1", source="new_leaves")]
    if known:
        sources.append(counted.format(sign="-1", source="store.leaves"))
    sums = ", ".join(f"sum({name})::BIGINT AS {name}" for name in ("runs", "numbers", "bools", "nulls"))
    moved = db.arrow(
        f"SELECT project_number, doc, key, {sums} FROM ({' UNION ALL '.join(sources)}) GROUP BY ALL "
        "HAVING sum(runs) <> 0 OR sum(numbers) <> 0 OR sum(bools) <> 0 OR sum(nulls) <> 0"
    )
    if not moved.num_rows:
        return
    same = "k.project_number = m.project_number AND k.doc = m.doc AND k.key = m.key"
    with db.table("moved", moved):
        totals = db.arrow(
            f"SELECT project_number, doc, key, {sums} FROM (SELECT * FROM moved UNION ALL "
            f"SELECT k.* FROM store.leaf_keys AS k JOIN moved AS m ON {same}) "
            "GROUP BY ALL HAVING sum(runs) > 0 ORDER BY ALL"
        )
        db.run(f"DELETE FROM store.leaf_keys AS k USING moved AS m WHERE {same}")
    with db.table("totals", totals):
        db.run("INSERT INTO store.leaf_keys BY NAME SELECT * FROM totals")


def mark_deleted(db: Database, project: ProjectKey, run_ids: Sequence[str], at: datetime) -> None:
    """Set `deleted_at` of runs that have none yet; everything mirrored of them stays."""
    gone = db.arrow(
        "SELECT * REPLACE (? AS deleted_at) FROM store.runs "
        "WHERE entity = ? AND project = ? AND deleted_at IS NULL AND run_id IN (SELECT unnest(?::VARCHAR[]))",
        [at, project.entity, project.project, list(run_ids)],
    )
    with db.table("gone", gone):
        db.run("DELETE FROM store.runs WHERE rid IN (SELECT rid FROM gone)")
        db.run("INSERT INTO store.runs BY NAME SELECT * FROM gone")
        db.run(
            "INSERT INTO store.run_changes SELECT entity, project, run_id, ?, 'deleted_at', NULL, "
            "CAST(deleted_at AS VARCHAR) FROM gone",
            [at],
        )


def known(db: Database, project: ProjectKey) -> dict[str, KnownRun]:
    """What the mirror holds of each run of a project, deleted ones too, by run id."""
    rows = db.run(
        """
        SELECT r.rid, r.run_id, r.state, r.heartbeat_at, r.updated_at, r.server_rows, r.server_last_step,
               h.rows, h.last_step, h.refresh, h.attempts, h.next_try_at, h.error, r.deleted_at IS NOT NULL
        FROM store.runs AS r JOIN store.run_history AS h ON h.rid = r.rid
        WHERE r.entity = ? AND r.project = ?
        """,
        [project.entity, project.project],
    )
    return {row[1]: KnownRun(*row) for row in rows}
