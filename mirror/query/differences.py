"""What differs between runs: their fields, config values and summary values, one row per difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mirror.snapshot.paths import Project
from mirror.snapshot.result import Rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Run = tuple[Project, str]

_FIELDS = (
    *("name", "state", "created_at", "duration_s", "username", "group_name", "job_type", "sweep", "tags", "notes"),
    *("git_commit", "host", "history_rows"),
)
"""What may differ between two runs; ids, addresses and times of the mirror always do."""


def table(connection: DuckDBPyConnection, runs: Sequence[Run], *, equal: bool = False) -> Rows:
    """One row for each field and key in which the runs differ, with a column of values per run; None if it lacks it.

    Keys are `config.KEY` and `summary.KEY`. With `equal`, also one row for each in which they do not differ.
    """
    values = [_values(connection, run) for run in runs]
    names = dict.fromkeys(name for of_run in values for name in of_run)
    rows = [(name, *(of_run.get(name) for of_run in values)) for name in sorted(names, key=_place)]
    return Rows(["key", *_labels(runs)], [row for row in rows if equal or len(set(row[1:])) > 1])


def _values(connection: DuckDBPyConnection, run: Run) -> dict[str, str]:
    """The fields and keys of a run, each as text."""
    (entity, project), run_id = run
    address = [entity, project, run_id]
    here = "entity = ? AND project = ? AND run_id = ?"
    shown = ", ".join(f"CAST({name} AS VARCHAR)" for name in _FIELDS)
    (fields,) = connection.execute(f"SELECT {shown} FROM runs WHERE {here}", address).fetchall()
    found: dict[str, Any] = dict(zip(_FIELDS, fields, strict=True))
    for doc in ("config", "summary"):
        rows = connection.execute(f"SELECT key, value FROM {doc}_values WHERE {here}", address).fetchall()
        found.update((f"{doc}.{key}", value) for key, value in rows)
    return {name: value for name, value in found.items() if value is not None}


def _place(name: str) -> tuple[int, str]:
    """Fields in their order, then config, then summary."""
    if name in _FIELDS:
        return _FIELDS.index(name), ""
    return len(_FIELDS) + name.startswith("summary."), name


def _labels(runs: Sequence[Run]) -> list[str]:
    ids = [run_id for _, run_id in runs]
    return ids if len(set(ids)) == len(ids) else [f"{project}/{run_id}" for project, run_id in runs]
