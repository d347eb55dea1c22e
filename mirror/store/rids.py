"""This mirror's own numbers for runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mirror.store.database import Database
from mirror.store.records import ProjectKey

_FEW = 50
"""So many numbers are faster as part of the statement than as a parameter; they let DuckDB skip what cannot match."""


def find(db: Database, project: ProjectKey, run_ids: Iterable[str]) -> dict[str, int]:
    """The numbers of those of the runs that are mirrored, remembered for as long as no transaction is rolled back."""
    wanted = sorted(set(run_ids))
    remembered = db.rids.setdefault(project, {})
    if missing := [run_id for run_id in wanted if run_id not in remembered]:
        rows = db.run(
            "SELECT run_id, rid FROM store.runs "
            "WHERE entity = ? AND project = ? AND run_id IN (SELECT unnest(?::VARCHAR[]))",
            [project.entity, project.project, missing],
        )
        remembered.update(rows)
    return {run_id: remembered[run_id] for run_id in wanted if run_id in remembered}


def among(rids: Iterable[int]) -> tuple[str, list[Any]]:
    """The condition that `rid` is one of these, with its parameters."""
    numbers = list(rids)
    if 0 < len(numbers) <= _FEW:
        return f"rid IN ({', '.join(str(int(number)) for number in numbers)})", []
    return "rid IN (SELECT unnest(?::BIGINT[]))", [numbers]
