"""What the server tells of projects, of runs and of itself, kept as it was told for clients of the server's API."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mirror.store import columns, rids
from mirror.store.database import Database
from mirror.store.leaves import json_text
from mirror.store.records import ProjectKey, RunFacts

_SHAPE = {"rid": "BIGINT", **dict.fromkeys(("facts", "system_metrics", "keys"), "VARCHAR")}
_EXPORTED = {"rid": "BIGINT", "exported_to": "BIGINT"}
_HERE = "WHERE entity = ? AND project = ?"


def keep_runs(db: Database, told: Mapping[int, RunFacts]) -> None:
    """Write these in place of what was told of the runs, by their number."""
    if not told:
        return
    rows = [
        (
            rid,
            json_text(facts.fields),
            facts.system_metrics,
            None if facts.keys is None else json_text(facts.keys),
        )
        for rid, facts in told.items()
    ]
    condition, params = rids.among(told)
    db.run(f"DELETE FROM store.run_facts WHERE {condition}", params)
    with db.table("told", columns.table(_SHAPE, rows)):
        db.run("INSERT INTO store.run_facts BY NAME SELECT * FROM told")


def keep_of_names(db: Database, project: ProjectKey, told: Mapping[str, RunFacts]) -> None:
    """As `keep_runs`, by run id; runs that are not mirrored are left out."""
    numbers = rids.find(db, project, told)
    keep_runs(db, {rid: told[run_id] for run_id, rid in numbers.items()})


def lacking(db: Database, project: ProjectKey) -> list[str]:
    """The runs that the server holds and of which nothing was asked yet: those that an older program mirrored."""
    found = db.run(
        "SELECT r.run_id FROM store.runs AS r WHERE r.entity = ? AND r.project = ? AND r.deleted_at IS NULL "
        "AND r.storage_id <> '' AND NOT EXISTS (SELECT 1 FROM store.run_facts AS f WHERE f.rid = r.rid) ORDER BY r.rid",
        [project.entity, project.project],
    )
    return [run_id for (run_id,) in found]


def keep_project(db: Database, project: ProjectKey, told: Mapping[str, Any]) -> None:
    """Write this in place of what was told of the project."""
    db.run(f"UPDATE store.projects SET facts = ? {_HERE}", [json_text(dict(told)), project.entity, project.project])


def of_project(db: Database, project: ProjectKey) -> dict[str, Any] | None:
    """What was told of the project; None where nothing was."""
    found = db.run(f"SELECT facts FROM store.projects {_HERE}", [project.entity, project.project])
    return json.loads(found[0][0]) if found and found[0][0] else None


def keep_server(db: Database, base_url: str, told: Mapping[str, Any], at: datetime) -> None:
    """Write this in place of what was told of the server and of whoever holds the key."""
    db.run("DELETE FROM store.server_facts WHERE base_url = ?", [base_url])
    db.run("INSERT INTO store.server_facts VALUES (?, ?, ?)", [base_url, json_text(dict(told)), at])


def server_told_at(db: Database, base_url: str) -> datetime | None:
    """When the server told of itself last."""
    found = db.run("SELECT told_at FROM store.server_facts WHERE base_url = ?", [base_url])
    return found[0][0] if found else None


def keep_exports(db: Database, project: ProjectKey, exported: Mapping[str, int]) -> None:
    """Note up to which step the server has exported the history of these runs."""
    numbers = rids.find(db, project, exported)
    condition, params = rids.among(numbers.values())
    db.run(f"DELETE FROM store.run_exports WHERE {condition}", params)
    rows = [(rid, exported[run_id]) for run_id, rid in numbers.items()]
    with db.table("exported", columns.table(_EXPORTED, rows)):
        db.run("INSERT INTO store.run_exports BY NAME SELECT * FROM exported")


def not_exported(db: Database, project: ProjectKey, live_states: Sequence[str]) -> list[str]:
    """Ended runs that logged nested values, of which it is not known that the server has exported all."""
    found = db.run(
        "SELECT r.run_id FROM store.runs AS r LEFT JOIN store.run_exports AS e ON e.rid = r.rid "
        "WHERE r.entity = ? AND r.project = ? AND r.deleted_at IS NULL AND r.storage_id <> '' "
        "AND r.state NOT IN (SELECT unnest(?::VARCHAR[])) "
        "AND coalesce(e.exported_to, -1) < coalesce(r.server_last_step, -1) "
        "AND EXISTS (SELECT 1 FROM store.history_keys AS k WHERE k.rid = r.rid AND contains(k.key, '.')) "
        "ORDER BY r.rid",
        [project.entity, project.project, list(live_states)],
    )
    return [run_id for (run_id,) in found]
