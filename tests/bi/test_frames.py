"""What notebooks and dashboards of Python use, over the published file, while the daemon replaces it."""

from __future__ import annotations

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tests.bi.clients import sqlalchemy_reads
from tests.bi.conftest import QUERIES
from tests.bi.plain import plain

pytestmark = pytest.mark.xdist_group("published")

ARROW = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "BOOLEAN": pa.bool_(), "TIMESTAMP": pa.timestamp("us")}  # fmt: skip
POLARS = {"VARCHAR": pl.String, "BIGINT": pl.Int64, "DOUBLE": pl.Float64, "BOOLEAN": pl.Boolean, "TIMESTAMP": pl.Datetime("us")}  # fmt: skip


@pytest.mark.parametrize("relation", QUERIES)
def test_arrow_and_polars_take_a_relation_as_it_is(published, relation):
    columns = published.expected[relation]["columns"]
    with duckdb.connect(str(published.file), read_only=True) as connection:
        table = connection.sql(QUERIES[relation]).to_arrow_table()
    assert {name: table.schema.field(name).type for name in table.column_names} == {
        name: ARROW[kind] for name, kind in columns.items()
    }
    assert plain(zip(*(column.to_pylist() for column in table.columns), strict=True)) == published.answers(relation)
    frame = pl.from_arrow(table)
    assert dict(frame.schema) == {name: POLARS[kind] for name, kind in columns.items()}
    assert plain(frame.rows()) == published.answers(relation)


@pytest.mark.parametrize("relation", QUERIES)
def test_pandas_takes_a_relation_with_plain_types(published, relation):
    expected = published.expected[relation]
    with duckdb.connect(str(published.file), read_only=True) as connection:
        frame = connection.sql(QUERIES[relation]).df()
    assert list(frame.columns) == list(expected["columns"])
    assert len(frame) == len(expected["rows"])
    for name, kind in expected["columns"].items():
        column = frame[name]
        if kind == "DOUBLE":
            assert column.dtype == "float64"
        elif kind == "TIMESTAMP":
            assert pd.api.types.is_datetime64_dtype(column.dtype)
        elif kind == "BIGINT" and not column.isna().any():
            assert column.dtype == "int64"
        elif kind == "VARCHAR":
            assert {type(value) for value in column.dropna()} <= {str}


def test_sqlalchemy_reflects_and_reads_every_relation(published):
    """The dialect that Superset uses."""
    reported = sqlalchemy_reads.read(str(published.file), QUERIES)
    for relation, expected in published.expected.items():
        found = reported["found"][relation]
        assert (found["columns"], found["rows"]) == (list(expected["columns"]), expected["rows"])
    assert set(reported["names"]) >= {*QUERIES, "team/still"} - {"wide"}
    # The query of projects leaves one column out.
    assert {name: columns for name, columns in reported["columns"].items() if name != "projects"} == {
        name: list(expected["columns"])
        for name, expected in published.expected.items()
        if name not in ("projects", "wide")
    }
    assert list(reported["runs"]) == list(published.expected["runs"]["columns"])
    assert set(reported["runs"].values()) <= {"VARCHAR", "BIGINT", "FLOAT", "DOUBLE", "DOUBLE PRECISION", "TIMESTAMP"}


def test_a_pool_that_keeps_connections_keeps_the_old_state(published):
    """And one that does not sees what the daemon published since: the advice of docs/bi.md."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    from tests.daemon.conftest import Bench

    question = text("select history_rows from runs where run_id = 'live'")
    options = {"connect_args": {"read_only": True}}
    fresh = create_engine(f"duckdb:///{published.file}", poolclass=NullPool, **options)

    def rows(engine):
        with engine.connect() as connection:
            return connection.execute(question).scalar_one()

    first = rows(fresh)
    Bench.until(lambda: rows(fresh) > first)
    pooled = create_engine(f"duckdb:///{published.file}", **options)
    try:
        held = rows(pooled)
        inode = published.file.stat().st_ino
        Bench.until(lambda: published.file.stat().st_ino != inode)
        assert rows(pooled) == held
    finally:
        pooled.dispose()
    Bench.until(lambda: rows(fresh) > held)
