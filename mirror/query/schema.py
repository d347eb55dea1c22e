"""The published relations with their columns and comments, as the query API describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_COLUMNS = """
SELECT v.view_name, v.comment, c.column_name, c.data_type, c.comment
FROM duckdb_views() AS v
JOIN duckdb_columns() AS c ON c.schema_name = v.schema_name AND c.table_name = v.view_name
WHERE v.schema_name = 'main' AND NOT v.internal
ORDER BY v.view_name, c.column_index
"""


def relations(connection: DuckDBPyConnection) -> list[dict[str, Any]]:
    """Every published relation: `name`, `comment`, and `columns` with `name`, `type` and `comment`."""
    found: dict[str, dict[str, Any]] = {}
    for name, comment, column, kind, about in connection.execute(_COLUMNS).fetchall():
        relation = found.setdefault(name, {"name": name, "comment": comment, "columns": []})
        relation["columns"].append({"name": column, "type": kind, "comment": about})
    return list(found.values())
