"""Projects and runs whose names look like globs, which are legal, mean themselves wherever a path is written."""

from __future__ import annotations

import json

import duckdb
import pytest
from pyarrow import parquet

import mirror as package
from tests.daemon.test_daemon import add
from tests.lake import reader as lake

PROJECTS = ("exp[1]", "exp1", "a*b", "axb")


@pytest.fixture
def named(bench):
    """Each project has the run `one`; that of `exp[1]` is called `one[0]`, and is logged under `val[1]` too."""
    for project in PROJECTS:
        run = add(bench, "one[0]" if project == "exp[1]" else "one", project=project, config={"lr": 0.5})
        run.log({"val[1]": 1.0, "val1": 2.0}, step=9)
    return bench


def projects(bench, *arguments):
    """The projects that a command over runs finds."""
    done = bench.here("query", *arguments, "--select", "project", "--json")
    assert done.exit_code == 0, done.stderr
    return sorted(row["project"] for row in json.loads(done.stdout))


def synced(bench, *arguments, command="sync"):
    """The projects that a command over the server took, by what it reported."""
    done = bench.here(command, *arguments)
    assert done.exit_code == 0, done.stderr
    return sorted(line.partition(": ")[0] for line in done.stderr.splitlines())


def test_a_project_that_is_called_exactly_so_is_the_one_that_is_pulled(named):
    """Before anything is mirrored, and after; where the server has none of that name, it is a glob."""
    assert synced(named, "team/exp[1]", "team/a*b") == ["team/a*b", "team/exp[1]"]
    assert named.sql("select project, run_id from runs order by 1") == [("a*b", "one"), ("exp[1]", "one[0]")]
    assert synced(named, "team/exp[0-9]", "team/a?b") == ["team/a*b", "team/axb", "team/exp1"]
    assert synced(named, "team/exp[1]/one[0]", command="flush") == ["team/exp[1]"]
    assert synced(named, "team/exp[1]/runs/one[0]") == ["team/exp[1]"]
    preview = named.here("sync", "--dry-run", "team/exp[1]", "--json")
    assert [row["project"] for row in json.loads(preview.stdout)] == ["team/exp[1]"]


def test_a_wildcard_for_runs_is_refused(named):
    for path in ("team/*/one", "team/exp1/*", "team/exp1/on?", "te*m/exp1"):
        done = named.here("sync", path)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr


def test_the_config_and_all_that_follows_it_mean_the_exact_project(named):
    named.configure('["team/exp[1]", "team/a*b"]')
    assert synced(named) == ["team/a*b", "team/exp[1]"]
    named.here("sync", "team/exp1", "team/axb")
    check = json.loads(named.here("status", "--check", "--json").stdout)
    assert [(one["project"], one["state"]) for one in check["projects"]] == [("team/a*b", "ok"), ("team/exp[1]", "ok")]
    named.configure("[]")
    check = json.loads(named.here("status", "--check", "--json").stdout)
    assert [one["state"] for one in check["projects"]] == ["ok"] * 4
    verified = named.here("verify", "--deep", "team/exp[1]", "team/a*b")
    assert verified.exit_code == 0, verified.stderr
    assert "exp1" not in verified.stdout + verified.stderr
    named.configure('["team/exp[1]", "team/a*b"]')
    doctor = json.loads(named.here("doctor", "--json").stdout)
    reported = [finding["message"] for finding in doctor if finding["check"] == "projects"]
    assert reported == [f"team/{name} can be read: 1 run in scope" for name in ("exp[1]", "a*b")]


def test_a_project_that_is_gone_from_the_server_is_reported_by_its_own_name(named):
    """And not the one that its name would fit as a glob."""
    synced(named, "team/*")
    del named.world.projects["team", "exp[1]"]
    named.world.changed()
    reported = named.here("verify", "team/exp[1]")
    assert reported.exit_code == 1
    assert "team/exp[1]" in reported.stdout + reported.stderr


def test_readers_mean_the_exact_project(named, tmp_path):
    synced(named, "team/*")
    assert projects(named, "--project", "team/exp[1]") == ["exp[1]"]
    assert projects(named, "--project", "a*b") == ["a*b"]
    assert projects(named, "--project", "team/a*") == ["a*b", "axb"]
    assert projects(named, "--project", "exp[0-9]") == ["exp1"]
    assert named.here("query", "--project", "team/a*b", "--count").stdout == "1\n"
    compared = named.here("query", "--project", "team/exp[1]", "--filter", "{}", "--compare")
    assert (compared.exit_code, "exp1" in compared.stderr) == (0, False)
    assert named.here("history", "team/exp[1]/one[0]", "--keys", "val[1]", "--csv").stdout == "step,val[1]\n9,1.0\n"
    assert named.here("plot", "team/exp[1]/one[0]", "--keys", "loss").exit_code == 0

    assert named.here("export", "team/exp[1]", "team/a*b", "-o", str(tmp_path / "files")).exit_code == 0
    assert sorted(parquet.read_table(tmp_path / "files" / "runs.parquet")["project"].to_pylist()) == ["a*b", "exp[1]"]
    assert named.here("export", "team/exp[1]", "--duckdb", str(tmp_path / "one.duckdb")).exit_code == 0
    with duckdb.connect(str(tmp_path / "one.duckdb"), read_only=True) as connection:
        assert connection.execute('select project from "team/exp[1]"').fetchall() == [("exp[1]",)]
        assert connection.execute("select distinct project from history").fetchall() == [("exp[1]",)]
    assert named.here("export", "team/exp[1]", "--lake", str(tmp_path / "lake")).exit_code == 0
    assert lake.read(tmp_path / "lake", "select distinct project from history") == [("exp[1]",)]


def test_the_python_api_means_the_exact_project(named):
    environ = {"base_url": named.server.url}
    api = package.Api(environ, api_key=named.server.key, home=named.home, max_age="0s")
    assert [run.project for run in api.runs("team/exp[1]")] == ["exp[1]"]
    assert api.run("team/exp[1]/one[0]").config == {"lr": 0.5}
    run = api.run("team/exp[1]/one[0]")
    run.config["lr"] = 0.25
    run.update()
    assert named.sql("select project, run_id, json_extract_string(config, 'lr') from runs") == [
        ("exp[1]", "one[0]", "0.25")
    ]


def test_a_history_key_that_looks_like_a_glob_is_mirrored_by_its_name(named):
    named.configure(text='projects = ["team/exp[1]"]\n[sync]\nhistory = ["val[1]"]\n')
    synced(named)
    assert named.sql("select distinct key from history order by 1") == [("val1",), ("val[1]",)]


def test_a_daemon_follows_the_exact_project(named):
    named.configure('["team/exp[1]"]', interval="1h")
    with named.daemon():
        named.until(lambda: named.sql("select project from runs") == [("exp[1]",)])
        done = named.mirror("sync", "team/a*b")
        assert done.stderr.startswith("team/a*b: 1 run (1 new)")
        assert named.sql("select project from runs order by 1") == [("a*b",), ("exp[1]",)]
