"""Tools that need another DuckDB, Java or Node: each reads in an environment of its own, made by `make test-bi`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import duckdb
import pytest

from mirror.query import lake
from mirror.query.lake_target import Folder
from mirror.snapshot.paths import Project
from mirror.store import sqlfiles
from tests.bi.conftest import QUERIES
from tests.query.conftest import publish
from tests.query.test_lake import read
from tests.store.kit import PROJECT, curve, opened, run, write

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
    told = json.loads(
        output(program("sqlalchemy"), CLIENTS / "sqlalchemy_reads.py", published.file, text=json.dumps(QUERIES))
    )
    for relation, expected in published.expected.items():
        found = told["found"][relation]
        assert (found["columns"], found["rows"]) == (list(expected["columns"]), expected["rows"])


def test_node_reads_every_relation(published):
    """DuckDB's own client for Node, 1.5, on which Evidence stands."""
    modules = ENVIRONMENTS / "node"
    assert (modules / "node_modules").exists(), "run `make test-bi`"
    told = json.loads(output("node", CLIENTS / "node_reads.mjs", modules, published.file, text=json.dumps(QUERIES)))
    assert told == {
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


EXAMPLES = ("best_runs", "edits_after_the_end", "group_means", "loss_curves", "run_states_by_day")


def test_spark_reads_a_lake_and_answers_as_duckdb_does(tmp_path):
    """Five of the example queries, over the files that the manifest lists."""
    told = {"summary": {"val/acc": 0.9}, "config": {"lr": 0.1, "optimizer.name": "adam"}}
    root = tmp_path / "lake"
    with opened(tmp_path / "home", tail_values=100) as store:
        runs = [run("a", **told), run("b", **told), run("c", state="failed", config={"optimizer.name": "sgd"})]
        write(store, *runs, history=[curve(run_id, range(80)) for run_id in "abc"])
        store.seal()
        write(store, run("a", **{**told, "summary": {"val/acc": 0.8}}), history=[curve("a", range(80, 90))])
        store.publish()
        lake.export(store.home, [Project(PROJECT.entity, PROJECT.project)], Folder(root))
    examples = sqlfiles.read("examples")
    questions = {name: examples[name] for name in EXAMPLES}
    answers = json.loads(
        output(program("spark"), CLIENTS / "spark_reads.py", root, text=json.dumps(questions)).splitlines()[-1]
    )
    for name, question in questions.items():
        rows = read(root, question)
        assert rows
        assert approximate(answers[name]) == approximate(rows), name


def approximate(rows) -> list[list[object]]:
    """Rows in an order of their own, with twelve digits of a number, since sums depend on their order."""
    told = [
        [
            f"{value:.12g}"
            if isinstance(value, float)
            else value
            if isinstance(value, (int, type(None)))
            else str(value)
            for value in row
        ]
        for row in rows
    ]
    return sorted(told, key=repr)


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """A server that speaks S3, on loopback, with a bucket."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with (tmp_path / "moto.log").open("w") as log:
        server = subprocess.Popen(
            [program("moto", "moto_server"), "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
    try:
        limit = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT"), timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < limit
                time.sleep(0.2)
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_ENDPOINT_URL": address,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        yield "s3://bucket/team/lake"
    finally:
        server.terminate()
        server.wait()


def test_a_lake_in_a_bucket_is_kept_up_to_date(s3, tmp_path):
    """The same files as in a folder; a second export uploads nothing but the manifest."""
    from pyarrow.fs import FileSystem, copy_files

    home = publish(tmp_path / "home", tail_values=1)
    environ = {**os.environ, "MIRROR_HOME": str(home.data)}
    mirror = ROOT / ".venv" / "bin" / "mirror"

    def export(target):
        done = subprocess.run(
            [mirror, "export", "--lake", target], env=environ, capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, done.stderr

    code, said = export(s3)
    assert (code, " 0 unchanged, 0 deleted" in said) == (0, True)
    assert " 0 files written (0.0 MB)" in export(s3)[1]
    system, root = FileSystem.from_uri(s3)
    copy_files(root, str(tmp_path / "copy"), source_filesystem=system)
    export(str(tmp_path / "folder"))
    assert set(Folder(tmp_path / "copy").listing()) == set(Folder(tmp_path / "folder").listing())
    count = "select count(*) from history"
    assert read(tmp_path / "copy", count) == read(tmp_path / "folder", count) == [(29,)]
    code, said = export("s3://nowhere/lake")
    assert (code, said.count("\n")) == (1, 1)
    assert "NO_SUCH_BUCKET" in said
