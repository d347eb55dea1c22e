"""Reads a published file through SQLAlchemy, as Superset does; prints columns and rows of each query as JSON.

Usage: python sqlalchemy_reads.py FILE < queries.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.bi.plain import plain


def read(file: str, queries: dict[str, str]) -> dict[str, Any]:
    """The names that the inspector finds, and each query's columns and rows."""
    engine = create_engine(f"duckdb:///{file}", poolclass=NullPool, connect_args={"read_only": True})
    inspector = inspect(engine)
    found: dict[str, Any] = {}
    with engine.connect() as connection:
        for relation, query in queries.items():
            answer = connection.execute(text(query))
            found[relation] = {"columns": list(answer.keys()), "rows": plain(answer.fetchall())}
    names = set(inspector.get_view_names("main")) | set(inspector.get_table_names("main"))
    types = {column["name"]: str(column["type"]) for column in inspector.get_columns("runs", schema="main")}
    columns = {name: [column["name"] for column in inspector.get_columns(name)] for name in queries if name in names}
    return {"names": sorted(names), "runs": types, "columns": columns, "found": found}


if __name__ == "__main__":
    print(json.dumps(read(sys.argv[1], json.load(sys.stdin))))
