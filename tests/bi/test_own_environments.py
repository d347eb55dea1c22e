"""Tools that need another DuckDB, or Node: each reads in an environment of its own, made by `make test-bi`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest

from tests.bi.conftest import QUERIES

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".cache" / "bi"
CLIENTS = Path(__file__).parent / "clients"

pytestmark = pytest.mark.bi


def program(environment: str, name: str = "python") -> str:
    found = ENVIRONMENTS / environment / "bin" / name
    assert found.exists(), f"{found} is not there: run `make test-bi`"
    return str(found)


def output(*command, text="", **options) -> str:
    done = subprocess.run(
        list(map(str, command)), input=text, capture_output=True, text=True, check=False, timeout=170, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_other_dialect_of_sqlalchemy_reads_with_an_older_duckdb(published):
    """duckdb-sqlalchemy with SQLAlchemy 2.1 and DuckDB 1.5."""
    reported = json.loads(
        output(program("sqlalchemy"), CLIENTS / "sqlalchemy_reads.py", published.file, text=json.dumps(QUERIES))
    )
    for relation, expected in published.expected.items():
        found = reported["found"][relation]
        assert (found["columns"], found["rows"]) == (list(expected["columns"]), expected["rows"])


def test_node_reads_every_relation(published):
    """DuckDB's own client for Node, 1.5, on which Evidence stands."""
    modules = ENVIRONMENTS / "node"
    assert (modules / "node_modules").exists(), "run `make test-bi`"
    reported = json.loads(output("node", CLIENTS / "node_reads.mjs", modules, published.file, text=json.dumps(QUERIES)))
    assert reported == {
        relation: {"columns": expected["columns"], "rows": len(expected["rows"])}
        for relation, expected in published.expected.items()
    }


def test_dbt_builds_a_model_on_the_mirror(published, tmp_path):
    """The mirror is attached read-only as a source; the model lies in a database of its own."""
    (tmp_path / "models").mkdir()
    (tmp_path / "dbt_project.yml").write_text(
        "name: experiments\nversion: '1.0'\nprofile: mirror\nmodel-paths: [models]\n"
    )
    profile = f"""mirror:
  target: dev
  outputs:
    dev:
      type: duckdb
      path: {tmp_path / "models.duckdb"}
      attach: [{{path: "{published.file}", alias: mirror, read_only: true}}]
"""
    (tmp_path / "profiles.yml").write_text(profile)
    sources = "version: 2\nsources:\n  - name: mirror\n    database: mirror\n    schema: main\n    tables: [{name: history}]\n"
    (tmp_path / "models" / "sources.yml").write_text(sources)
    model = (
        "{{ config(materialized='table') }}\nselect run_id, min(value) as best from {{ source('mirror', 'history') }}\n"
    )
    (tmp_path / "models" / "best.sql").write_text(
        model + "where project = 'still' and key = 'loss' and isfinite(value) group by 1\n"
    )
    environ = {**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DO_NOT_TRACK": "1"}
    output(
        program("dbt", "dbt"), "build", "--profiles-dir", tmp_path, "--project-dir", tmp_path, cwd=tmp_path, env=environ
    )
    with duckdb.connect(str(tmp_path / "models.duckdb"), read_only=True) as connection:
        found = connection.execute("select * from best order by run_id").fetchall()
    assert found == [("a", 1 / 60), ("b", 1 / 61), ("c", 1 / 62)]


def test_a_marimo_notebook_runs_headless(published, tmp_path):
    notebook = tmp_path / "notebook.py"
    shutil.copy(CLIENTS / "notebook.py", notebook)
    environ = {**os.environ, "MIRROR_FILE": str(published.file)}
    output(
        program("marimo", "marimo"),
        "export",
        "html",
        notebook,
        "-o",
        tmp_path / "out.html",
        "--no-include-code",
        env=environ,
    )
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "finished runs: 3" in page
