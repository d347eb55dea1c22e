"""Rows of runs as the store keeps them, found by their numbers in this mirror (`rid`) or by their addresses.

One relation is read at a time: planning a join takes DuckDB longer than reading all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mirror.snapshot.paths import Project
from mirror.snapshot.run_query import Named, among

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FACTS = (
    *("storage_id", "name", "state", "created_at", "heartbeat_at", "updated_at", "duration_s", "username"),
    *("group_name", "job_type", "sweep", "notes", "description", "git_commit", "host", "url"),
    *("server_rows", "deleted_at"),
)
"""Columns of a run that `column` can read, besides DOCUMENTS."""

DOCUMENTS = ("config", "config_meta", "summary")


def find(connection: DuckDBPyConnection, project: Project, run_id: str) -> tuple[int, Any] | None:
    """The rid of a run, and when it was deleted on the server (naive UTC, else None); None if it is not mirrored."""
    found = connection.execute(
        "SELECT rid, deleted_at FROM store.run_records WHERE entity = ? AND project = ? AND run_id = ?",
        [*project, run_id],
    ).fetchall()
    return found[0] if found else None


def named(connection: DuckDBPyConnection, rids: Sequence[int]) -> list[Named]:
    """The ids and display names of these and possibly of other runs."""
    here, params = among(rids)
    return connection.execute(f"SELECT rid, run_id, name FROM store.run_records WHERE {here}", params).fetchall()


def column(connection: DuckDBPyConnection, name: str, rids: Sequence[int]) -> dict[int, Any]:
    """A column, one of FACTS or DOCUMENTS, of these and possibly of other runs, by rid."""
    assert name in FACTS or name in DOCUMENTS
    here, params = among(rids)
    return dict(connection.execute(f"SELECT rid, {name} FROM store.run_records WHERE {here}", params).fetchall())


def plain(connection: DuckDBPyConnection, columns: Sequence[str], rids: Sequence[int]) -> list[tuple[Any, ...]]:
    """Of these and possibly of other runs: `rid`, `unread`, and these columns, which are not documents."""
    return _plain(connection, columns, *among(rids))


def plain_of(
    connection: DuckDBPyConnection, columns: Sequence[str], project: Project, run_id: str
) -> list[tuple[Any, ...]]:
    """The same of the run with this address; an empty list if it is not mirrored, or deleted."""
    here = "entity = ? AND project = ? AND run_id = ? AND deleted_at IS NULL"
    return _plain(connection, columns, here, [*project, run_id])


def _plain(
    connection: DuckDBPyConnection, columns: Sequence[str], condition: str, params: list[Any]
) -> list[tuple[Any, ...]]:
    import duckdb

    statement = "SELECT rid, {}, {} FROM store.run_records WHERE {}"
    listed = ", ".join(columns)
    try:
        return connection.execute(statement.format("unread", listed, condition), params).fetchall()
    except duckdb.BinderException:
        # The file was published by an older program.
        return connection.execute(statement.format("NULL", listed, condition), params).fetchall()


def documents(connection: DuckDBPyConnection, columns: Sequence[str], rids: Sequence[int]) -> dict[int, list[Any]]:
    """The JSON texts of these documents, in their order, of exactly these runs, by rid. Texts may be megabytes."""
    here, params = among(rids, exactly=True)
    sql = f"SELECT rid, {', '.join(columns)} FROM store.run_records WHERE {here}"
    return {rid: texts for rid, *texts in connection.execute(sql, params).fetchall()}


def summary(connection: DuckDBPyConnection, rid: int) -> str | None:
    """The summary of a run as JSON text; None without one."""
    found = connection.execute("SELECT summary FROM store.run_records WHERE rid = ?", [rid]).fetchall()
    return found[0][0] if found else None


def history_sizes(connection: DuckDBPyConnection, rids: Sequence[int]) -> dict[int, tuple[int | None, int | None]]:
    """The number of mirrored history rows and the last step of these and possibly of other runs, by rid."""
    here, params = among(rids)
    rows = connection.execute(f"SELECT rid, rows, last_step FROM store.run_history WHERE {here}", params).fetchall()
    return {rid: (count, last_step) for rid, count, last_step in rows}


def tags(connection: DuckDBPyConnection, rids: Sequence[int]) -> dict[int, list[str]]:
    """The tags of these and possibly of other runs, in their order, by rid. Runs without tags are left out.

    A tag may contain commas.
    """
    here, params = among(rids)
    rows = connection.execute(f"SELECT rid, position, tag FROM store.tag_positions WHERE {here}", params).fetchall()
    found: dict[int, list[str]] = {}
    for rid, _, tag in sorted(rows):
        found.setdefault(rid, []).append(tag)
    return found
