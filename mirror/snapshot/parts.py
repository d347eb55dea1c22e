"""Divides the rows of each project into parts of a few runs each, and finds out which parts differ from before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from mirror.snapshot.paths import Project
from mirror.store.names import identifier

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

RUNS = 256
"""Runs of a project in a part, in the order in which they were first mirrored: live runs are mostly in the last one."""

TAIL = "history"
"""The relation of which only the tail is divided: its segments are files already."""

_TAIL = """
    (SELECT r.entity, r.project, r.run_id, t.step, t.key, t.value, t.text
     FROM store.history_tail AS t JOIN store.run_records AS r ON r.rid = t.rid)
"""


class Part(NamedTuple):
    """A part of a project's rows in a relation. `mark` changes with the content of its rows, in whatever order."""

    project: Project
    number: int
    rows: int
    mark: str


def divide(connection: DuckDBPyConnection, chosen: Sequence[Project]) -> None:
    """Number the parts of these projects. Call it once for each connection, before the functions below."""
    connection.execute(
        "CREATE TEMP TABLE chosen_projects AS SELECT unnest(?::VARCHAR[]) AS entity, unnest(?::VARCHAR[]) AS project",
        [[key.entity for key in chosen], [key.project for key in chosen]],
    ).fetchall()
    connection.execute(
        "CREATE TEMP TABLE run_parts AS SELECT r.entity, r.project, r.run_id, "
        f"(row_number() OVER (PARTITION BY r.entity, r.project ORDER BY r.rid) - 1) // {RUNS} AS part "
        "FROM store.run_records AS r SEMI JOIN temp.chosen_projects AS c USING (entity, project)"
    ).fetchall()


def of_relation(connection: DuckDBPyConnection, relation: str, columns: Sequence[str], *, by_run: bool) -> list[Part]:
    """Return the parts of the chosen projects that have rows, from these columns of them."""
    hashed = f"hash({', '.join(f't.{identifier(name)}' for name in columns)})"
    found = connection.execute(
        f"SELECT t.entity, t.project, {_number(by_run=by_run)} AS part, count(*), "
        f"sum({hashed}::HUGEINT)::VARCHAR || ' ' || bit_xor({hashed})::VARCHAR "
        f"{_joined(relation, by_run=by_run)} GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    return [Part(Project(entity, project), number, rows, mark) for entity, project, number, rows, mark in found]


def copy_aside(
    connection: DuckDBPyConnection,
    relation: str,
    columns: Sequence[str],
    order: str,
    parts: Sequence[Part],
    *,
    by_run: bool,
) -> None:
    """Collect the rows of these parts in a temporary table, sorted, for `rows_of`; replaces the former ones."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE wanted_parts AS "
        "SELECT unnest(?::VARCHAR[]) AS entity, unnest(?::VARCHAR[]) AS project, unnest(?::BIGINT[]) AS part",
        [
            [part.project.entity for part in parts],
            [part.project.project for part in parts],
            [part.number for part in parts],
        ],
    ).fetchall()
    named = ", ".join(f"t.{identifier(name)}" for name in columns)
    number = _number(by_run=by_run)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE part_rows AS SELECT t.entity, t.project, {number} AS part, {named} "
        f"{_joined(relation, by_run=by_run)} SEMI JOIN temp.wanted_parts AS w "
        f"ON w.entity = t.entity AND w.project = t.project AND w.part = {number} "
        f"ORDER BY entity, project, part, {order}"
    ).fetchall()


def rows_of_one(
    relation: str, columns: Sequence[str], order: str, part: Part, *, by_run: bool
) -> tuple[str, list[object]]:
    """Return SQL and parameters for the rows of one part, in order, of a relation: less work than `copy_aside`."""
    source = _TAIL if relation == TAIL else f"main.{identifier(relation)}"
    named = ", ".join(f"t.{identifier(name)}" for name in columns)
    sql = f"SELECT {named} FROM {source} AS t WHERE t.entity = ? AND t.project = ?"
    params: list[object] = [*part.project]
    if by_run:
        runs = "SELECT p.run_id FROM temp.run_parts AS p WHERE p.entity = ? AND p.project = ?"
        # An artifact may have no run.
        of_others = f" AND (t.run_id IN ({runs})) IS NOT TRUE"
        sql += f" AND t.run_id IN ({runs} AND p.part = ?)" if part.number >= 0 else of_others
        params += [*part.project, part.number] if part.number >= 0 else part.project
    return f"{sql} ORDER BY {order}", params


def rows_of(columns: Sequence[str], part: Part) -> tuple[str, list[object]]:
    """Return SQL and parameters for the rows of a part that `copy_aside` collected, in order."""
    named = ", ".join(identifier(name) for name in columns)
    sql = f"SELECT {named} FROM temp.part_rows WHERE entity = ? AND project = ? AND part = ?"
    return sql, [*part.project, part.number]


def _number(*, by_run: bool) -> str:
    # Rows of a run that the mirror no longer has come first.
    return "coalesce(p.part, -1)" if by_run else "CAST(0 AS BIGINT)"


def _joined(relation: str, *, by_run: bool) -> str:
    source = _TAIL if relation == TAIL else f"main.{identifier(relation)}"
    chosen = "SEMI JOIN temp.chosen_projects AS c ON c.entity = t.entity AND c.project = t.project"
    on = "p.entity = t.entity AND p.project = t.project AND p.run_id = t.run_id"
    return f"FROM {source} AS t {chosen} {f'LEFT JOIN temp.run_parts AS p ON {on}' if by_run else ''}"
