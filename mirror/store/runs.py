"""Writes runs with their documents, marks them as deleted, and reports what the mirror has of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from mirror import nested
from mirror.addresses import project_page
from mirror.protocol import LIVE_STATES
from mirror.store import columns, facts, metadata, projects, rids
from mirror.store.database import Database
from mirror.store.leaves import INTEGER, shown
from mirror.store.records import KnownRun, ProjectKey, RunRecord
from mirror.store.shapes import ShapedLeaves, rows_of
from mirror.store.transaction import Transaction
from mirror.wandb_json import dumps

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = {
    "rid": "BIGINT",
    **dict.fromkeys(("entity", "project", "run_id", "storage_id", "name", "state"), "VARCHAR"),
    **dict.fromkeys(("created_at", "heartbeat_at", "updated_at"), "TIMESTAMP"),
    "duration_s": "DOUBLE",
    **dict.fromkeys(("username", "group_name", "job_type", "sweep", "notes", "description", "tags"), "VARCHAR"),
    **dict.fromkeys(("git_commit", "host", "url", "config", "config_meta", "summary"), "VARCHAR"),
    **dict.fromkeys(("server_rows", "server_last_step", "server_events", "server_log_lines"), "BIGINT"),
    **dict.fromkeys(("deleted_at", "synced_at"), "TIMESTAMP"),
    "revision": "BIGINT",
    "asked_at": "TIMESTAMP",
    "unread": "VARCHAR",
}

_IDENTITY = ("storage_id", "created_at")
"""Columns that never change for a run. A different value means another run with the same id."""

_WATCHED = ("name", "state", "group_name", "notes", "tags", "deleted_at", *_IDENTITY)
"""Columns whose changes are recorded, in addition to the leaves of the documents."""

_NEW_ROWS = {"run_records": "new_runs", "tag_positions": "new_tags", "leaf_rows": "new_leaves"}
"""The tables that an upsert replaces the rows of, each with the relation that holds its new rows."""

_CHANGE = {
    **dict.fromkeys(("entity", "project", "run_id"), "VARCHAR"),
    "seen_at": "TIMESTAMP",
    **dict.fromkeys(("field", "old", "new"), "VARCHAR"),
}

_SUMS = ", ".join(f"sum({name})::BIGINT AS {name}" for name in ("runs", "numbers", "bools", "nulls", "integers"))

_NEVER = datetime(1970, 1, 1)

OWN_COLUMNS = ("rid", "deleted_at", "synced_at", "revision", "asked_at", "unread")
"""Columns that do not come from the server."""

KNOWN = """
    SELECT r.rid, r.run_id, r.state, r.heartbeat_at, r.updated_at, r.server_rows, r.server_last_step,
           h.rows, h.last_step, h.refresh, h.attempts, h.next_try_at, h.error, r.deleted_at IS NOT NULL,
           l.rid IS NOT NULL AND r.storage_id = '', l.rid IS NOT NULL AND r.storage_id <> '',
           r.created_at, r.storage_id, r.asked_at, r.unread IS NOT NULL, h.doubted
    FROM store.run_records AS r JOIN store.run_history AS h ON h.rid = r.rid
    LEFT JOIN store.local_states AS l ON l.rid = r.rid
    WHERE r.entity = ? AND r.project = ?
"""
"""The fields of KnownRun for each run of a project."""


def upsert(tx: Transaction, records: Sequence[RunRecord], *, now: datetime) -> None:
    """Insert these runs, or replace what is mirrored of them. Of two records of one run, the later one is used.

    Changes of a run that was mirrored before are recorded, except in the summary of a run that was or is live, since
    that changes with every step.
    """
    by_project: dict[ProjectKey, dict[str, RunRecord]] = {}
    for record in records:
        by_project.setdefault(ProjectKey(record.entity, record.project), {})[record.run_id] = record
    tx.outdated |= by_project.keys()
    for project, runs in by_project.items():
        _upsert(tx, project, list(runs.values()), now)


def _upsert(tx: Transaction, project: ProjectKey, records: Sequence[RunRecord], now: datetime) -> None:
    db = tx.db
    number = projects.add(tx, project)
    numbers = rids.find(db, project, [record.run_id for record in records])
    next_rid, revision = db.run(
        "SELECT coalesce(max(rid), 0) + 1, coalesce(max(revision), 0) + 1 FROM store.run_records"
    )[0]
    known = list(numbers.values())
    records = metadata.fill(db, numbers, _with_former(db, numbers, records))
    for record in records:
        if record.run_id not in numbers:
            numbers[record.run_id] = next_rid
            next_rid += 1
    leaves = ShapedLeaves()
    of_records = [numbers[record.run_id] for record in records]
    leaves.add("config", of_records, [record.config for record in records])
    leaves.add("summary", of_records, [record.summary for record in records])
    rows = [_row(numbers[record.run_id], record, now, revision) for record in records]
    tags = [(numbers[r.run_id], position, tag) for r in records for position, tag in enumerate(r.tags)]
    counts = leaves.counts()
    condition, params = rids.among(known)
    with (
        db.table("new_runs", columns.table(_COLUMNS, rows)),
        db.table("new_tags", columns.table({"rid": "BIGINT", "position": "BIGINT", "tag": "VARCHAR"}, tags)),
        db.table("new_leaves", leaves.table()),
        db.table("new_counts", counts),
    ):
        if known:
            shape_of_leaf = "rid, doc, key, kind, number, text, element"
            old = db.arrow(f"SELECT {shape_of_leaf} FROM store.leaves WHERE {shown()} AND {condition}", params)
            with db.table("old_leaves", old):
                _record_changes(tx, project, known, rows, now)
                changed = _sums(db, "SELECT * FROM new_counts", _uncounted("old_leaves"))
                _count_keys(tx, number, changed)
            for table in _NEW_ROWS:
                db.run(f"DELETE FROM store.{table} WHERE {condition}", params)
        else:
            _count_keys(tx, number, counts)
        for table, rows_to_add in _NEW_ROWS.items():
            db.run(f"INSERT INTO store.{table} BY NAME SELECT * FROM {rows_to_add}")
        fresh = [(rid, 0, False, 0, False) for rid in numbers.values() if rid not in set(known)]
        if fresh:
            shape = {"rid": "BIGINT", "rows": "BIGINT", "refresh": "BOOLEAN", "attempts": "BIGINT"}
            shape |= {"doubted": "BOOLEAN"}
            with db.table("fresh", columns.table(shape, fresh)):
                db.run("INSERT INTO store.run_history BY NAME SELECT * FROM fresh")
    infos = {numbers[record.run_id]: record.info for record in records if record.info is not None}
    metadata.keep_info(tx, infos, set(known))
    of_runs = {numbers[record.run_id]: record.facts for record in records if record.facts is not None}
    facts.keep_runs(tx, of_runs, [rid for rid in known if rid in of_runs])


def _with_former(db: Database, known: Mapping[str, int], records: Sequence[RunRecord]) -> list[RunRecord]:
    """The records, with the mirrored values of fields that could not be read."""
    flawed = [record for record in records if record.unread and record.run_id in known]
    if not flawed:
        return list(records)
    condition, params = rids.among(known[record.run_id] for record in flawed)
    former = {
        row["rid"]: row for row in db.arrow(f"SELECT * FROM store.run_records WHERE {condition}", params).to_pylist()
    }
    return [
        replace(record, **_former(record, former[known[record.run_id]]))
        if record.unread and known.get(record.run_id) in former
        else record
        for record in records
    ]


def _former(record: RunRecord, row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: row[name] for name in record.unread if name in row}
    for name in kept.keys() & {"config", "config_meta", "summary"}:
        kept[name] = None if kept[name] is None else nested.parse(kept[name])
    if "tags" in kept:
        kept["tags"] = tuple(tag for tag in (kept["tags"] or "").split(",") if tag)
    return kept


def expected(records: Sequence[RunRecord]) -> dict[str, dict[str, Any]]:
    """The rows of `store.run_records` that `upsert` would write, by run id, without OWN_COLUMNS."""
    table = columns.table(_COLUMNS, [_row(0, record, _NEVER, 0) for record in records])
    return {row["run_id"]: row for row in table.drop(list(OWN_COLUMNS)).to_pylist()}


def _row(rid: int, record: RunRecord, now: datetime, revision: int) -> tuple[Any, ...]:
    r = record
    meta = None if r.config_meta is None else dumps(r.config_meta)
    return (
        *(rid, r.entity, r.project, r.run_id, r.storage_id, r.name, r.state),
        *(r.created_at, r.heartbeat_at, r.updated_at, r.duration_s),
        *(r.username, r.group_name, r.job_type, r.sweep, r.notes, r.description, ",".join(r.tags)),
        *(r.git_commit, r.host, r.url, dumps(r.config), meta, dumps(r.summary)),
        *(
            r.server_rows,
            r.server_last_step,
            r.server_events,
            r.server_log_lines,
            None,
            now,
            revision,
            r.asked_at,
            ",".join(r.unread) or None,
        ),
    )


def _record_changes(
    tx: Transaction, project: ProjectKey, known: Sequence[int], rows: Sequence[tuple[Any, ...]], now: datetime
) -> None:
    """Record how the new runs differ from the mirrored ones, before those are replaced."""
    db = tx.db
    condition, params = rids.among(known)
    watched = db.run(f"SELECT rid, run_id, {', '.join(_WATCHED)} FROM store.run_records WHERE {condition}", params)
    old = {row[0]: row for row in watched}
    positions = [list(_COLUMNS).index(name) for name in ("rid", "run_id", *_WATCHED)]
    changes: list[tuple[int, str, Any, Any]] = []
    settled = []
    for row in rows:
        rid, _, *values = (row[position] for position in positions)
        if rid not in old:
            continue
        before, after = dict(zip(_WATCHED, old[rid][2:], strict=True)), dict(zip(_WATCHED, values, strict=True))
        if not {before["state"], after["state"]}.intersection(LIVE_STATES):
            settled.append(rid)
        # A run that was read from a local file is the same run on the server, although the server gives it an id.
        watched_here = _WATCHED if before["storage_id"] else [name for name in _WATCHED if name not in _IDENTITY]
        changes.extend(
            (rid, field, before[field], after[field]) for field in watched_here if before[field] != after[field]
        )
    changes += _changed_leaves(db, known, settled)
    names = {rid: row[1] for rid, row in old.items()}
    here = (project.entity, project.project)
    entries = [(*here, names[rid], now, field, _text(before), _text(after)) for rid, field, before, after in changes]
    if entries:
        with db.table("changes", columns.table(_CHANGE, entries)):
            db.run("INSERT INTO store.change_records BY NAME SELECT * FROM changes")


def _changed_leaves(db: Database, known: Sequence[int], settled: Sequence[int]) -> list[tuple[int, str, Any, Any]]:
    """The leaves of known runs that differ between old and new; summary leaves only of runs in `settled`."""
    # Two nodes of a document can have the same dotted path, as in {"a.b": 1, "a": {"b": 2}}; they count as one value.
    one = f"""
        SELECT rid, doc, key, CASE WHEN count(*) = 1 THEN min(text) ELSE min(text) || ' ' || max(text) END AS text,
               min(kind) AS kind
        FROM {{source}}
        WHERE {shown()} AND rid IN (SELECT unnest(CASE doc WHEN 'config' THEN $known ELSE $settled END))
        GROUP BY rid, doc, key
    """
    return db.run(
        f"""
        SELECT rid, doc || '.' || key AS field, o.text, n.text
        FROM ({one.format(source="old_leaves")}) AS o FULL JOIN ({one.format(source=rows_of("new_leaves"))}) AS n
        USING (rid, doc, key)
        WHERE o.text IS DISTINCT FROM n.text OR o.kind IS DISTINCT FROM n.kind
        ORDER BY rid, field
        """,
        {"known": list(known), "settled": list(settled)},
    )


def _uncounted(table: str) -> str:
    """SQL for the counts of the leaves in a table, as they are subtracted."""
    return (
        "SELECT doc, key, -1 AS runs, -(kind = 'number')::BIGINT AS numbers, -(kind = 'bool')::BIGINT AS bools, "
        f"-(kind = 'null')::BIGINT AS nulls, -({INTEGER})::BIGINT AS integers FROM {table} WHERE {shown()}"
    )


def _sums(db: Database, *sources: str) -> pa.Table:
    """Return the sums of what these queries return, without keys of which nothing changes."""
    counted = " UNION ALL ".join(sources)
    return db.arrow(
        f"SELECT doc, key, {_SUMS} FROM ({counted}) GROUP BY doc, key "
        "HAVING sum(runs) <> 0 OR sum(numbers) <> 0 OR sum(bools) <> 0 OR sum(nulls) <> 0 OR sum(integers) <> 0"
    )


def _count_keys(tx: Transaction, project_number: int, changes: pa.Table) -> None:
    """Add these to the counts of leaf keys."""
    if not changes.num_rows:
        return
    db = tx.db
    same = "k.project_number = ? AND k.doc = m.doc AND k.key = m.key"
    with db.table("moved", changes):
        totals = db.arrow(
            f"SELECT doc, key, {_SUMS} FROM (SELECT * FROM moved UNION ALL "
            f"SELECT k.* EXCLUDE (project_number) FROM store.leaf_keys AS k JOIN moved AS m ON {same}) "
            "GROUP BY doc, key HAVING sum(runs) > 0 ORDER BY doc, key",
            [project_number],
        )
        db.run(f"DELETE FROM store.leaf_keys AS k USING moved AS m WHERE {same}", [project_number])
    with db.table("totals", totals):
        db.run("INSERT INTO store.leaf_keys SELECT ?, * FROM totals", [project_number])


def settle(tx: Transaction, project: ProjectKey, run_ids: Sequence[str]) -> None:
    """Forget when the server was asked for these runs, so that they are not pulled again."""
    condition, params = rids.among(rids.find(tx.db, project, run_ids).values())
    tx.db.run(f"UPDATE store.run_records SET asked_at = NULL WHERE {condition}", params)


def set_app_url(tx: Transaction, project: ProjectKey, app_url: str) -> None:
    """Correct the URLs of the project's runs that point to another W&B app. Local runs have no URL."""
    page = project_page(app_url, project.entity, project.project)
    tx.db.run(
        "UPDATE store.run_records SET url = ? || regexp_extract(url, '/runs/[^/]*$') "
        "WHERE entity = ? AND project = ? AND contains(url, '/runs/') AND NOT starts_with(url, ? || '/runs/')",
        [page, project.entity, project.project, page],
    )
    for table, kind in (("sweep_records", "sweeps"), ("view_records", "reports")):
        tx.db.run(
            f"UPDATE store.{table} SET url = ? || regexp_extract(url, '/{kind}/[^/]*$') "
            f"WHERE entity = ? AND project = ? AND contains(url, '/{kind}/') AND NOT starts_with(url, ? || '/{kind}/')",
            [page, project.entity, project.project, page],
        )
    tx.db.cached.app_urls[project] = app_url


def mark_deleted(tx: Transaction, project: ProjectKey, run_ids: Sequence[str], *, at: datetime) -> None:
    """Set `deleted_at` of runs that have none yet. Everything mirrored of them stays."""
    db = tx.db
    condition, params = rids.among(rids.find(db, project, run_ids).values())
    gone = db.arrow(
        "SELECT * REPLACE (CAST(? AS TIMESTAMP) AS deleted_at) FROM store.run_records "
        f"WHERE deleted_at IS NULL AND {condition}",
        [at, *params],
    )
    with db.table("gone", gone):
        db.run("DELETE FROM store.run_records WHERE rid IN (SELECT rid FROM gone)")
        db.run("INSERT INTO store.run_records BY NAME SELECT * FROM gone")
        db.run(
            "INSERT INTO store.change_records SELECT entity, project, run_id, deleted_at, 'deleted_at', NULL, "
            "CAST(deleted_at AS VARCHAR) FROM gone ORDER BY rid"
        )


def uncount(tx: Transaction, project_number: int, rid: int) -> None:
    """Subtract the leaves of a run that is about to be removed from the counts."""
    shape = "rid, doc, key, kind, number, text, element"
    leaves = tx.db.arrow(f"SELECT {shape} FROM store.leaves WHERE {shown()} AND rid = ?", [rid])
    with tx.db.table("old_leaves", leaves):
        _count_keys(tx, project_number, _sums(tx.db, _uncounted("old_leaves")))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


_UNSETTLED = f"""
    AND r.deleted_at IS NULL AND (
        r.state IN ({", ".join(f"'{state}'" for state in sorted(LIVE_STATES))})
        OR h.refresh OR h.doubted OR h.error IS NOT NULL OR r.server_rows <> h.rows
        OR (r.server_last_step IS NOT NULL AND (h.last_step IS NULL OR h.last_step < r.server_last_step))
        OR r.asked_at <= greatest(r.heartbeat_at, r.updated_at)
    )
"""


def known(db: Database, project: ProjectKey, run_ids: Collection[str] | None = None) -> dict[str, KnownRun]:
    """What the mirror has of the runs of a project, or only of `run_ids`, by run id. Includes deleted runs."""
    here = [project.entity, project.project]
    if run_ids is None:
        rows = db.run(KNOWN, here)
    else:
        condition, params = rids.among(rids.find(db, project, run_ids).values())
        rows = db.run(f"{KNOWN} AND r.{condition}", [*here, *params])
    return {row[1]: KnownRun(*row) for row in rows}


def unsettled(db: Database, project: ProjectKey) -> dict[str, KnownRun]:
    """Like `known`, for the runs that a pass may have to pull even if nothing is new on the server.

    They are live, lack history, failed, are to be pulled again, or changed in the second in which they were asked for.
    """
    rows = db.run(KNOWN + _UNSETTLED, [project.entity, project.project])
    return {row[1]: KnownRun(*row) for row in rows}


def count(db: Database, project: ProjectKey) -> tuple[int, int]:
    """The number of mirrored runs of a project, and how many of them should be on the server."""
    here = [project.entity, project.project]
    mirrored, on_server = db.run(
        "SELECT count(*), count(*) FILTER (WHERE r.deleted_at IS NULL AND (l.rid IS NULL OR r.storage_id <> '')) "
        "FROM store.run_records AS r LEFT JOIN store.local_states AS l ON l.rid = r.rid "
        "WHERE r.entity = ? AND r.project = ?",
        here,
    )[0]
    return int(mirrored), int(on_server)


def key_rows(db: Database, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """The number of mirrored values of each history key, by run id."""
    numbers = rids.find(db, project, run_ids)
    condition, params = rids.among(numbers.values())
    found: dict[int, dict[str, int]] = {}
    for rid, key, rows in db.run(f"SELECT rid, key, rows FROM store.run_keys WHERE {condition}", params):
        found.setdefault(rid, {})[key] = rows
    return {run_id: found.get(rid, {}) for run_id, rid in numbers.items()}
