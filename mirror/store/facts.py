"""What the server returned about projects, runs and itself, stored unchanged for clients of its API."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from mirror.store import columns, projects, rids
from mirror.store.database import Database
from mirror.store.records import ProjectKey, RunFacts
from mirror.store.transaction import Transaction
from mirror.wandb_json import dumps

_SHAPE = {"rid": "BIGINT", **dict.fromkeys(("facts", "system_metrics", "keys"), "VARCHAR")}
_EXPORTED = {"rid": "BIGINT", "exported_to": "BIGINT"}
_HERE = "WHERE entity = ? AND project = ?"


def keep_runs(tx: Transaction, run_facts: Mapping[int, RunFacts], known: Collection[int]) -> None:
    """Replace the facts of these runs, given by `rid`; none are stored of those that are not `known`."""
    if not run_facts:
        return
    rows = [
        (
            rid,
            dumps(facts.fields),
            facts.system_metrics,
            None if facts.keys is None else dumps(facts.keys),
        )
        for rid, facts in run_facts.items()
    ]
    if known:
        condition, params = rids.among(known)
        tx.db.run(f"DELETE FROM store.run_facts WHERE {condition}", params)
    with tx.db.table("new_facts", columns.table(_SHAPE, rows)):
        tx.db.run("INSERT INTO store.run_facts BY NAME SELECT * FROM new_facts")


def keep_runs_by_id(tx: Transaction, project: ProjectKey, run_facts: Mapping[str, RunFacts]) -> None:
    """Like `keep_runs`, with the runs given by id. Runs that are not mirrored are left out."""
    numbers = rids.find(tx.db, project, run_facts)
    keep_runs(tx, {rid: run_facts[run_id] for run_id, rid in numbers.items()}, numbers.values())


def runs_without(db: Database, project: ProjectKey) -> list[str]:
    """The runs on the server that have no facts yet, because an older program mirrored them."""
    found = db.run(
        "SELECT r.run_id FROM store.run_records AS r WHERE r.entity = ? AND r.project = ? AND r.deleted_at IS NULL "
        "AND r.storage_id <> '' AND NOT EXISTS (SELECT 1 FROM store.run_facts AS f WHERE f.rid = r.rid) ORDER BY r.rid",
        [project.entity, project.project],
    )
    return [run_id for (run_id,) in found]


def keep_project(tx: Transaction, project: ProjectKey, facts: Mapping[str, Any]) -> None:
    """Replace the facts of the project."""
    projects.add(tx, project)
    tx.db.run(
        f"UPDATE store.project_records SET facts = ? {_HERE}", [dumps(dict(facts)), project.entity, project.project]
    )


def of_project(db: Database, project: ProjectKey) -> dict[str, Any] | None:
    """The facts of the project; None if there are none."""
    found = db.run(f"SELECT facts FROM store.project_records {_HERE}", [project.entity, project.project])
    return json.loads(found[0][0]) if found and found[0][0] else None


def keep_server(tx: Transaction, base_url: str, facts: Mapping[str, Any], *, at: datetime) -> None:
    """Replace the facts of the server and of the key's owner."""
    tx.db.run("DELETE FROM store.server_facts WHERE base_url = ?", [base_url])
    tx.db.run("INSERT INTO store.server_facts VALUES (?, ?, ?)", [base_url, dumps(dict(facts)), at])


def server_facts_at(db: Database, base_url: str) -> datetime | None:
    """When the server last returned facts about itself."""
    found = db.run("SELECT told_at FROM store.server_facts WHERE base_url = ?", [base_url])
    return found[0][0] if found else None


def keep_exports(tx: Transaction, project: ProjectKey, exported: Mapping[str, int]) -> None:
    """Record up to which step the server has exported the history of these runs."""
    numbers = rids.find(tx.db, project, exported)
    condition, params = rids.among(numbers.values())
    tx.db.run(f"DELETE FROM store.run_exports WHERE {condition}", params)
    rows = [(rid, exported[run_id]) for run_id, rid in numbers.items()]
    with tx.db.table("exported", columns.table(_EXPORTED, rows)):
        tx.db.run("INSERT INTO store.run_exports BY NAME SELECT * FROM exported")


def not_exported(db: Database, project: ProjectKey, live_states: Sequence[str]) -> list[str]:
    """Ended runs that logged nested values and whose history the server may not have exported completely."""
    found = db.run(
        "SELECT r.run_id FROM store.run_records AS r LEFT JOIN store.run_exports AS e ON e.rid = r.rid "
        "WHERE r.entity = ? AND r.project = ? AND r.deleted_at IS NULL AND r.storage_id <> '' "
        "AND r.state NOT IN (SELECT unnest(?::VARCHAR[])) "
        "AND coalesce(e.exported_to, -1) < coalesce(r.server_last_step, -1) "
        "AND EXISTS (SELECT 1 FROM store.run_keys AS k WHERE k.rid = r.rid AND contains(k.key, '.')) "
        "ORDER BY r.rid",
        [project.entity, project.project, list(live_states)],
    )
    return [run_id for (run_id,) in found]
