"""A database with the real tables in memory, filled as the store fills it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mirror.filters import FilterError, inlined
from mirror.filters import compile as compile_filter
from mirror.snapshot.run_query import holds_list
from mirror.store.leaves import LeafColumns

SQL = Path(__file__).parents[2] / "sql"
MIGRATIONS = sorted((SQL / "migrations").glob("*.sql"))
RELATIONS = ("leaves", "run_rows", "runs", "run_tags", "config_values", "summary_values")


def database() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(config={"threads": 1})
    con.execute("CREATE SCHEMA IF NOT EXISTS store").fetchall()
    con.execute("CREATE TABLE store.migrations (number BIGINT, name VARCHAR, applied_at TIMESTAMP)").fetchall()
    for migration in MIGRATIONS:
        con.execute(migration.read_text()).fetchall()
    for relation in RELATIONS:
        con.execute((SQL / "views" / f"{relation}.sql").read_text()).fetchall()
    return con


def fill(con: duckdb.DuckDBPyConnection, runs: list[dict[str, Any]]) -> None:
    """Replace all runs. A run is a dict of columns of their table, with `config` and `summary` as values, and `tags`."""
    for table in ("run_records", "tag_positions", "leaf_rows"):
        con.execute(f"DELETE FROM store.{table}").fetchall()
    columns = LeafColumns()
    rows: dict[tuple[str, ...], list[list[Any]]] = {}
    for rid, run in enumerate(runs):
        row = {
            "entity": "team",
            "project": "vision",
            "run_id": f"run{rid}",
            "created_at": f"2026-01-01 00:00:{rid % 60:02}",
        }
        row |= {"rid": rid} | run
        for doc in ("config", "summary"):
            document = row.setdefault(doc, {})
            columns.add(rid, doc, document)
            row[doc] = json.dumps(document)
        tags = row.get("tags", [])
        row["tags"] = ",".join(tags)
        for position, tag in enumerate(tags):
            con.execute("INSERT INTO store.tag_positions VALUES (?, ?, ?)", [rid, position, tag]).fetchall()
        rows.setdefault(tuple(row), []).append(list(row.values()))
    for names, group in rows.items():
        marks = ", ".join(f"({', '.join('?' for _ in names)})" for _ in group)
        values = [value for row in group for value in row]
        con.execute(f"INSERT INTO store.run_records ({', '.join(names)}) VALUES {marks}", values).fetchall()
    leaves = columns.table()
    con.register("new_leaves", leaves)
    # As many runs are stored: the text of a number with a fraction is not there.
    con.execute(
        "INSERT INTO store.leaf_rows SELECT * REPLACE (nullif(text, CAST(number AS VARCHAR)) AS text) FROM new_leaves"
    ).fetchall()
    con.unregister("new_leaves")


def matching(con: duckdb.DuckDBPyConnection, query: Any, order: str = "+created_at", form: str = "leaves") -> list[int]:
    """The rids that match, in order; with what is known of lists, without, and by SQL over the relations."""

    def found(**known: Any) -> list[int]:
        compiled = compile_filter(query, order, form=form, **known)
        return [rid for (rid,) in con.execute(compiled.sql, list(compiled.params)).fetchall()]

    rids = found()
    known = partial(holds_list, con)
    assert found(holds_list=known) == rids, json.dumps(query)
    if "description" in json.dumps([query, order]):
        with pytest.raises(FilterError, match=r"^no relation has the field description$"):
            by_relations(con, query, order)
    elif form == "leaves":
        assert by_relations(con, query, order, holds_list=known) == rids, json.dumps(query)
    return rids


def by_relations(con: duckdb.DuckDBPyConnection, query: Any, order: str, **known: Any) -> list[int]:
    """The rids of the runs that a person finds who runs the SQL that `--explain` prints.

    The numbers of runs are in no relation, so there the last ties are ordered by name; here they are put back.
    """
    compiled = compile_filter(query, order, form="relations", **known)
    text = f"SELECT r.run_path FROM runs AS r WHERE {compiled.where} ORDER BY {compiled.order_by}"
    assert text.endswith(", r.run_path ASC")
    numbered = "(SELECT n.rid FROM store.run_records AS n WHERE n.run_id = r.run_id AND n.project = r.project) ASC"
    text = text.removesuffix("r.run_path ASC")
    sql = inlined(f"{text}{numbered}", [*compiled.where_params, *compiled.order_params])
    assert "store." not in text
    rids = dict(con.execute("SELECT entity || '/' || project || '/' || run_id, rid FROM store.run_records").fetchall())
    return [rids[path] for (path,) in con.execute(sql).fetchall()]
