"""W&B Tables of a run: which there are, and the Parquet files that one consists of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from mirror.errors import QueryError
from mirror.snapshot.paths import nearest_of
from mirror.store.names import pattern
from mirror.store.table_views import INCREMENTAL

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LISTED = """
    SELECT key, step, type, columns, rows, logged_rows, path, local_path, error FROM tables
    WHERE entity = ? AND project = ? AND run_id = ? ORDER BY key, step NULLS LAST
"""
"""The tables of a run, for people."""


class Piece(Struct, frozen=True):
    """A file of a table: its name in the run, and what is here of it."""

    path: str | None
    local_path: str | None
    parquet_path: str | None
    error: str | None


class LoggedTable(Struct, frozen=True):
    """A table as it was logged at a step, None for one that is only in the summary."""

    key: str
    step: int | None
    type: str
    pieces: tuple[Piece, ...]

    @property
    def sql(self) -> str:
        """A query for the rows; every piece must be here."""
        paths = ", ".join(pattern(Path(piece.parquet_path or "")) for piece in self.pieces)
        return f"SELECT * FROM read_parquet([{paths}], union_by_name = true, hive_partitioning = false)"


def relations(connection: DuckDBPyConnection) -> dict[str, str]:
    """The name of the relation of each key with tables, by "entity/project/tables/key"."""
    import duckdb

    try:
        rows = connection.execute(
            "SELECT p.entity || '/' || p.project || '/tables/' || v.key, v.name FROM store.table_views AS v "
            "JOIN store.project_records AS p ON p.number = v.project_number"
        ).fetchall()
    except duckdb.CatalogException:
        # The file was published by a version that did not know tables.
        return {}
    return dict(rows)


def find(
    connection: DuckDBPyConnection, address: tuple[str, str, str], key: str, step: int | None = None
) -> LoggedTable:
    """The table that a run logged under a key at a step, by default the newest. Raises QueryError if there is none."""
    import duckdb

    run = "/".join(address)
    try:
        rows = connection.execute(
            "SELECT step, type, path, local_path, parquet_path, error FROM tables "
            "WHERE entity = ? AND project = ? AND run_id = ? AND key = ? ORDER BY step NULLS FIRST",
            [*address, key],
        ).fetchall()
    except duckdb.CatalogException:
        # The file was published by a version that did not know tables.
        rows = []
    if not rows:
        raise QueryError(f"{run} logged no table under {key}; {_others(connection, address, key)}")
    logged = [row for row in rows if row[0] is not None]
    at = rows[-1] if step is None else next((row for row in logged if row[0] == step), None)
    if at is None:
        steps = [str(row[0]) for row in logged]
        shown = ", ".join(steps[:10]) + (", ..." if len(steps) > 10 else "")
        raise QueryError(f"{run} logged no table {key} at step {step}; it did at {shown or 'no step'}")
    pieces = [at]
    if at[1] == INCREMENTAL and at[0] is not None:
        pieces = _increments(connection, address, key, at[0], logged)
    return LoggedTable(key, at[0], at[1], tuple(Piece(*row[2:]) for row in pieces))


def _increments(
    connection: DuckDBPyConnection, address: tuple[str, str, str], key: str, step: int, logged: list[tuple[object, ...]]
) -> list[tuple[object, ...]]:
    """The pieces of an incremental table up to a step: those since its first one."""
    numbers = connection.execute(
        "SELECT step, text FROM history WHERE entity = ? AND project = ? AND run_id = ? AND key = ? AND step <= ? "
        "AND text IS NOT NULL ORDER BY step DESC",
        [*address, key, step],
    ).fetchall()
    steps = set()
    for at, text in numbers:
        value = json.loads(text)
        if not isinstance(value, dict) or value.get("_type") != INCREMENTAL:
            break
        steps.add(at)
        if not value.get("increment_num"):
            break
    return [row for row in logged if row[0] in steps]


def _others(connection: DuckDBPyConnection, address: tuple[str, str, str], key: str) -> str:
    import duckdb

    try:
        rows = connection.execute(
            "SELECT DISTINCT key FROM tables WHERE entity = ? AND project = ? AND run_id = ? ORDER BY key",
            [*address],
        ).fetchall()
    except duckdb.CatalogException:
        return "the mirror was published by an older version: run `mirror sync`"
    return nearest_of(key, [name for (name,) in rows]) if rows else "it logged no tables"
