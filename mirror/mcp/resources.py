"""What agents may read besides tools: the relations with their columns, and the language of run filters."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SCHEMA, FILTERS = "mirror://schema", "mirror://filters"

RESOURCES: Mapping[str, tuple[str, str]] = {
    SCHEMA: ("schema", "The relations that `query` reads, with columns, types and meanings"),
    FILTERS: ("filters", "The filters and orders of find_runs and compare_runs, with examples"),
}


_COMMON = ("entity", "project", "run_id", "run_path")


def schema(connection: DuckDBPyConnection, _asked: Mapping[str, Any], _lists: Mapping[tuple[str, str], bool]) -> bytes:
    """Each published relation with its comment, a line per column, and the wide relations of projects by name."""
    relations = connection.execute(
        "SELECT view_name, comment FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal ORDER BY view_name"
    ).fetchall()
    columns: dict[str, list[str]] = {}
    for relation, name, kind, comment in connection.execute(
        "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() WHERE schema_name = 'main' "
        "AND NOT internal ORDER BY table_name, column_index"
    ).fetchall():
        if name in _COMMON:
            continue
        columns.setdefault(relation, []).append(f"  {name} {kind}{f': {comment}' if comment else ''}")
    named = [(name, comment) for name, comment in relations if "/" not in name]
    lines = [
        "Nearly every relation has entity, project and run_id, which identify a run, and run_path, all joined by /.",
        "Join on the first three; conditions on them decide what is read. Times are UTC.",
    ]
    lines += [line for name, comment in named for line in (f"{name}: {comment}", *columns.get(name, ()))]
    wide = ", ".join(f'"{name}"' for name, _ in relations if "/" in name)
    if wide:
        lines += [f'One wide row per run, with columns such as "config.lr" and "summary.acc": {wide}']
    return ("\n".join(lines) + "\n").encode()


def filters() -> str:
    """The language of run filters, as Markdown."""
    return files("mirror.mcp").joinpath("filters.md").read_text(encoding="utf-8")
