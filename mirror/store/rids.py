"""Row ids (`rid`): this mirror's own numbers for runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mirror.store.database import Database
from mirror.store.records import ProjectKey

_FEW = 50
"""Up to this many numbers are faster as literals than as a parameter, since DuckDB then skips row groups."""


def find(db: Database, project: ProjectKey, run_ids: Iterable[str]) -> dict[str, int]:
    """The rids of those of these runs that are mirrored, cached until a transaction is rolled back."""
    wanted = sorted(set(run_ids))
    remembered = db.cached.rids.setdefault(project, {})
    if missing := [run_id for run_id in wanted if run_id not in remembered]:
        rows = db.run(
            "SELECT run_id, rid FROM store.run_records "
            "WHERE entity = ? AND project = ? AND run_id IN (SELECT unnest(?::VARCHAR[]))",
            [project.entity, project.project, missing],
        )
        remembered.update(rows)
    return {run_id: remembered[run_id] for run_id in wanted if run_id in remembered}


def among(rids: Iterable[int]) -> tuple[str, list[Any]]:
    """The SQL condition that `rid` is one of these, with its parameters."""
    numbers = list(rids)
    if 0 < len(numbers) <= _FEW:
        return f"rid IN ({', '.join(str(int(number)) for number in numbers)})", []
    return "rid IN (SELECT unnest(?::BIGINT[]))", [numbers]
