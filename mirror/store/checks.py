"""Checks that a database of the mirror is consistent: each fact that is stored twice is the same in both places.

Works on the state file and on the published file. Changes nothing and asks no server.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
from msgspec import Struct

from mirror import nested
from mirror.store import projects, rids, staging, views, wide, wide_names
from mirror.store.damage import Damage
from mirror.store.database import Database, reason
from mirror.store.leaves import INTEGER, LeafColumns, shown
from mirror.store.names import identifier
from mirror.store.records import ProjectKey

HISTORY = "checked_history"
"""A temporary view of the history as readers see it, without unreadable segments; created by `lay_history`."""

VALUES_AT_ONCE = 5_000_000
"""How many values are grouped by step at a time. This bounds the memory."""

RUNS_AT_ONCE = 5_000
"""How many runs' documents are parsed at a time."""

OWNED = ("leaf_rows", "tag_positions", "run_history", "history_tail", "run_keys", "local_states", *staging.TABLES)
"""Tables whose rows belong to a run, by its `rid`."""


def lay_history(db: Database, folder: Path, broken: Collection[str]) -> None:
    """Create the temporary view HISTORY, without the segments in `broken`."""
    text = f"CREATE OR REPLACE TEMP VIEW {HISTORY} AS SELECT * FROM main.history"
    if broken:
        made = views.history(db, folder, broken)
        text = f"CREATE OR REPLACE TEMP VIEW {HISTORY} {made[made.index('AS', made.index('main.history')) :]}"
    db.run(text)


class Counted(Struct, frozen=True):
    """How many values and keys the history of some runs has, and where it disagrees with `history_keys`."""

    values: int
    keys: int
    damage: list[Damage]


def history(db: Database, project: ProjectKey, run_ids: Sequence[str]) -> Iterator[Counted]:
    """Compare HISTORY with history_keys, a batch of runs at a time: counts, first and last values, duplicate steps."""
    numbers = rids.find(db, project, run_ids)
    condition, params = rids.among(numbers.values())
    counted = dict(db.run(f"SELECT rid, sum(rows)::BIGINT FROM store.run_keys WHERE {condition} GROUP BY rid", params))
    batch: list[str] = []
    values = 0
    for run_id, rid in numbers.items():
        batch.append(run_id)
        values += counted.get(rid, 0)
        if values >= VALUES_AT_ONCE:
            yield _count(db, project, numbers, batch)
            batch, values = [], 0
    if batch:
        yield _count(db, project, numbers, batch)


def _count(db: Database, project: ProjectKey, numbers: dict[str, int], run_ids: Sequence[str]) -> Counted:
    condition, params = rids.among(numbers[run_id] for run_id in run_ids)
    db.run(
        f"""
        CREATE OR REPLACE TEMP TABLE counted AS
        SELECT run_id, key, sum(times)::BIGINT AS shown, count(*) AS rows, min(step) FILTER (WHERE times > 1) AS twice,
               min(step) AS first_step, max(step) AS last_step,
               min(value) FILTER (WHERE isfinite(value)) AS min, max(value) FILTER (WHERE isfinite(value)) AS max,
               arg_max(value, step) AS last
        FROM (
            SELECT run_id, key, step, count(*) AS times, last(value) AS value FROM {HISTORY}
            WHERE entity = ? AND project = ? AND run_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY run_id, key, step
        ) GROUP BY run_id, key
        """,
        [project.entity, project.project, list(run_ids)],
    )
    values, keys = db.run("SELECT coalesce(sum(shown), 0)::BIGINT, count(*) FROM counted")[0]
    ends = ("first_step", "last_step", "min", "max", "last")
    differ = " OR ".join(f"c.{name} IS DISTINCT FROM k.{name}" for name in ends)
    found = db.run(
        f"""
        SELECT coalesce(c.run_id, k.run_id), coalesce(c.key, k.key), c.shown, c.rows, c.twice, k.rows,
               {", ".join(f"c.{name}, k.{name}" for name in ends)}
        FROM counted AS c FULL JOIN (
            SELECT r.run_id, h.* FROM store.run_keys AS h JOIN store.run_records AS r ON r.rid = h.rid
            WHERE h.{condition}
        ) AS k ON k.run_id = c.run_id AND k.key = c.key
        WHERE c.shown IS DISTINCT FROM k.rows OR c.twice IS NOT NULL OR {differ}
        ORDER BY 1, 2
        """,
        params,
    )
    return Counted(values, keys, [damage for row in found for damage in _key_damage(ends, *row)])


def _key_damage(
    ends: Sequence[str],
    run_id: str,
    key: str,
    shown: int | None,
    rows: int | None,
    twice: int | None,
    counted: int | None,
    *values: Any,
) -> Iterator[Damage]:
    field = f"history.{key}"
    disagree = "history and history_keys disagree: the file was damaged or changed"
    if twice is not None:
        extra = f"{_some((shown or 0) - (rows or 0), 'value')} more than steps, the first at step {twice}"
        yield Damage(run_id, field, extra, "each step once", "the same steps were written twice")
    if shown is None:
        yield Damage(run_id, field, "no values", f"{_some(counted or 0, 'value')} counted in history_keys", disagree)
    elif counted is None:
        yield Damage(run_id, field, _some(shown, "value"), "none counted in history_keys", disagree)
    elif shown != counted:
        yield Damage(
            run_id, field, _some(shown, "value"), f"{_some(counted or 0, 'value')} counted in history_keys", disagree
        )
    else:
        for index, name in enumerate(ends):
            here, noted = values[2 * index : 2 * index + 2]
            # Two NaN are the same.
            if here != noted and not (here != here and noted != noted):  # noqa: PLR0124
                yield Damage(run_id, f"{field}.{name}", str(here), f"{noted} in history_keys", disagree)


def documents(db: Database, project: ProjectKey, run_ids: Sequence[str]) -> Iterator[tuple[int, list[Damage]]]:
    """Compare the leaves of these runs with their JSON documents.

    Yields, a batch of runs at a time, how many leaves the documents have and where the two differ.
    """
    numbers = list(rids.find(db, project, run_ids).values())
    for start in range(0, len(numbers), RUNS_AT_ONCE):
        yield _documents(db, numbers[start : start + RUNS_AT_ONCE])


def _documents(db: Database, numbers: Sequence[int]) -> tuple[int, list[Damage]]:
    condition, params = rids.among(numbers)
    damage: list[Damage] = []
    fresh = LeafColumns()
    read = []
    names = {}
    for rid, run_id, *texts in db.run(
        f"SELECT rid, run_id, config, summary FROM store.run_records WHERE {condition}", params
    ):
        names[rid] = run_id
        both = [(doc, text, parsed(text)) for doc, text in zip(("config", "summary"), texts, strict=True)]
        for doc, text, _ in [entry for entry in both if entry[2] is None]:
            damage.append(Damage(run_id, doc, _short(text), "a JSON object", "the file was damaged or changed"))
        if all(document is not None for _, _, document in both):
            read.append(rid)
            for doc, _, document in both:
                fresh.add(rid, doc, document or {})
    table = fresh.table()
    columns = ", ".join(identifier(name) for name in table.column_names)
    condition, params = rids.among(read)
    kept = f"SELECT {columns} FROM store.leaves WHERE {condition}"
    with db.table("fresh_leaves", table):
        found = db.run(
            f"""
            SELECT rid, doc, key, min(text) FILTER (WHERE kept), bool_or(kept),
                   min(text) FILTER (WHERE NOT kept), bool_or(NOT kept)
            FROM (
                SELECT true AS kept, * FROM ({kept} EXCEPT ALL SELECT {columns} FROM fresh_leaves)
                UNION ALL SELECT false, * FROM (SELECT {columns} FROM fresh_leaves EXCEPT ALL {kept})
            ) GROUP BY rid, doc, key ORDER BY rid, doc, key
            """,
            [*params, *params],
        )
    for rid, doc, key, leaf, has_leaf, text, has_text in found:
        damage.append(
            Damage(
                names[rid],
                f"{doc}.{key}",
                _short(leaf) if has_leaf else "no value",
                f"{_short(text) if has_text else 'no value'} in the JSON document",
                f"{doc}_values and the JSON document disagree: the file was damaged or changed",
            )
        )
    return len(fresh), damage


def parsed(text: str | None) -> dict[str, Any] | None:
    """Parse a stored document. Returns None if it is not a JSON object."""
    try:
        value = nested.parse(text or "")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _some(count: int, one: str) -> str:
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def _short(text: str | None) -> str:
    if text is None:
        return "null"
    return text if len(text) <= 80 else f"{text[:77]}..."


def tags(db: Database, project: ProjectKey) -> list[Damage]:
    """Compare run_tags with the tags of the runs."""
    found = db.run(
        """
        SELECT r.run_id, coalesce(t.tags, ''), coalesce(r.tags, '') FROM store.run_records AS r LEFT JOIN (
            SELECT rid, string_agg(tag, ',' ORDER BY position) AS tags FROM store.tag_positions GROUP BY rid
        ) AS t ON t.rid = r.rid
        WHERE r.entity = ? AND r.project = ? AND coalesce(t.tags, '') <> coalesce(r.tags, '') ORDER BY r.run_id
        """,
        [project.entity, project.project],
    )
    cause = "run_tags and the tags of the run disagree: the file was damaged or changed"
    return [Damage(run_id, "tags", f"{rows!r} in run_tags", f"{text!r}", cause) for run_id, rows, text in found]


def cursors(db: Database, project: ProjectKey) -> list[Damage]:
    """Find duplicate runs, runs without exactly one history cursor, and cursors behind the mirrored history."""
    here = [project.entity, project.project]
    damage = []
    for run_id, times in db.run(
        "SELECT run_id, count(*) FROM store.run_records WHERE entity = ? AND project = ? GROUP BY run_id "
        "HAVING count(*) > 1 ORDER BY run_id",
        here,
    ):
        damage.append(Damage(run_id, "run", f"{times} rows", "one row", "the run is stored more than once"))
    found = db.run(
        """
        SELECT r.run_id, h.cursors, h.rows, h.last_step, k.rows, k.last_step
        FROM store.run_records AS r
        LEFT JOIN (SELECT rid, count(*) AS cursors, max(rows) AS rows, max(last_step) AS last_step
                   FROM store.run_history GROUP BY rid) AS h ON h.rid = r.rid
        LEFT JOIN (SELECT rid, max(rows) AS rows, max(last_step) AS last_step
                   FROM store.run_keys GROUP BY rid) AS k ON k.rid = r.rid
        WHERE r.entity = ? AND r.project = ? AND (
            coalesce(h.cursors, 0) <> 1 OR h.rows < k.rows
            OR (k.rid IS NOT NULL AND coalesce(h.last_step, -1) < k.last_step)
        ) ORDER BY r.run_id
        """,
        here,
    )
    for run_id, count, rows, last, counted, key_last in found:
        if count != 1:
            cause = "no pass would continue the history of this run"
            damage.append(Damage(run_id, "history cursor", f"{count or 'no'} cursors", "one cursor", cause))
            continue
        cause = "the cursor of the history was changed: a pass would pull rows twice or miss some"
        if rows < counted:
            damage.append(Damage(run_id, "history_rows", f"{rows:,}", f"at least {counted:,}", cause))
        if last is None or last < key_last:
            damage.append(Damage(run_id, "last_step", f"{last}", f"at least {key_last}", cause))
    return damage


def owners(db: Database) -> list[Damage]:
    """Find orphaned rows, in all projects: rows whose run does not exist."""
    damage = []
    for table in OWNED:
        count = db.value(f"SELECT count(*) FROM store.{table} AS t ANTI JOIN store.run_records AS r ON r.rid = t.rid")
        if count:
            found = _some(count, "orphaned row")
            damage.append(Damage(None, f"store.{table}", found, "none", "a run's row was lost"))
    return damage


def wide_relation(db: Database, project: ProjectKey) -> list[Damage]:
    """Compare a project's wide relation, and the key counts that decide its columns, with the leaves."""
    number = projects.find(db, project)
    assert number is not None
    field = f'"{project}"'
    cause = "the wide relation and the documents disagree: the file was damaged or changed"
    damage = []
    if moved := key_counts(db, project, number):
        doc, key, counted, there = moved[0]
        found = f"{_some(counted, 'run')} counted with {doc}.{key}"
        found += f", the first of {len(moved):,} keys" if len(moved) > 1 else ""
        damage.append(Damage(None, "store.leaf_keys", found, _some(there, "run"), cause))
    name = wide_names.view_name(db, project)
    # A query that fails would end the transaction that repairs.
    if not db.run(
        "SELECT 1 FROM duckdb_views() WHERE database_name = current_database() AND schema_name = 'main' "
        "AND view_name = ?",
        [name],
    ):
        return [*damage, Damage(None, field, "no relation", "one row per run", cause)]
    try:
        shown = db.value(f"SELECT count(*) FROM main.{identifier(name)}")
        stale = wide.differing(db, project)
    except duckdb.Error as error:
        return [*damage, Damage(None, field, f"no relation ({reason(error)})", "one row per run", cause)]
    runs = db.value(
        "SELECT count(*) FROM store.run_records WHERE entity = ? AND project = ?", [project.entity, project.project]
    )
    if shown != runs:
        damage.append(Damage(None, field, _some(shown, "row"), _some(runs, "row"), cause))
    damage += [Damage(run_id, field, "a different row", "the leaves of the run", cause) for run_id in stale]
    return damage


def key_counts(db: Database, project: ProjectKey, number: int) -> list[tuple[str, str, int, int]]:
    """Where store.leaf_keys disagrees with the leaves: document, key, runs counted, runs that have the key."""
    sums = "count(*) AS runs, count(*) FILTER (WHERE l.kind = 'number') AS numbers, "
    sums += "count(*) FILTER (WHERE l.kind = 'bool') AS bools, count(*) FILTER (WHERE l.kind = 'null') AS nulls, "
    sums += f"count(*) FILTER (WHERE {INTEGER}) AS integers"
    found: list[tuple[str, str, int, int]] = db.run(
        f"""
        SELECT coalesce(k.doc, t.doc), coalesce(k.key, t.key), coalesce(k.runs, 0), coalesce(t.runs, 0)
        FROM (SELECT * FROM store.leaf_keys WHERE project_number = ?) AS k FULL JOIN (
            SELECT l.doc, l.key, {sums} FROM store.leaves AS l JOIN store.run_records AS r ON r.rid = l.rid
            WHERE r.entity = ? AND r.project = ? AND {shown("l")} GROUP BY l.doc, l.key
        ) AS t ON t.doc = k.doc AND t.key = k.key
        WHERE (k.runs, k.numbers, k.bools, k.nulls, k.integers)
              IS DISTINCT FROM (t.runs, t.numbers, t.bools, t.nulls, t.integers)
        ORDER BY 1, 2
        """,
        [number, project.entity, project.project],
    )
    return found
