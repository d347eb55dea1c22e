"""Names that differ only in upper and lower case are different names, whatever DuckDB makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyarrow import parquet

import mirror as package
from mirror.settings.home import Home
from mirror.store import history, projects
from mirror.store import runs as stored_runs
from mirror.store.records import ProjectKey
from mirror.store.store import Store
from tests.query.conftest import SYNCED, page, run

UPPER, LOWER = ProjectKey("team", "Pro"), ProjectKey("team", "pro")


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Two projects, each with the runs `a` and `A`; `A` lacks the config key `lr`."""
    home = Home(tmp_path_factory.mktemp("twins") / "mirror", Path("config.toml"))
    store = Store.open(home)
    with store.transaction() as tx:
        for offset, project in enumerate((UPPER, LOWER)):
            both = {"lr": 1.0 + offset, "LR": 10.0 + offset, "Sub": {"x": 1}, "sub": {"x": 2}, 'say "x"': {"a/b": 3}}
            runs = [
                run(project, "a", 0, config=both, summary={"Acc": 0.1, "acc": 0.9}),
                run(project, "A", 1, config={"LR": 20.0}, summary={"acc": 0.5}),
            ]
            projects.add(tx, project)
            stored_runs.upsert(tx, runs, now=SYNCED)
            history.append(tx, project, [page("a", {"Loss": {0: 1.0 + offset}, "loss": {0: 5.0, 1: 6.0}})])
            projects.record_success(tx, project, SYNCED)
    store.publish()
    store.close()
    return home


@pytest.fixture
def ask(twins: Home, cli: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The JSON rows of a command."""
    monkeypatch.setenv("MIRROR_HOME", str(twins.data))

    def rows(*arguments: str) -> Any:
        outcome = cli(*arguments, "--json")
        assert (outcome.exit_code, outcome.stderr) == (0, "")
        return json.loads(outcome.stdout)

    return rows


def test_selected_columns_hold_their_own_values(ask: Any, cli: Any, tmp_path: Path) -> None:
    names = ["run_id", "config.LR", "config.lr", "config.Sub", "config.sub.x", 'config.say "x"']
    arguments = ["query", "--project", "team/pro", "--order", "created_at", "--select", ",".join(names)]
    rows = [dict(zip(names, values, strict=True)) for values in (
        ["a", 11.0, 2.0, {"x": 1}, 2, {"a/b": 3}],
        ["A", 20.0, None, None, None, None],
    )]  # fmt: skip
    assert ask(*arguments) == rows
    assert cli(*arguments, "--csv").stdout.splitlines()[2] == "A,20.0,,,,"
    assert cli(*arguments, "-o", str(tmp_path / "runs.parquet")).exit_code == 0
    table = parquet.read_table(tmp_path / "runs.parquet")
    assert table.column_names == names
    assert table["config.LR"].to_pylist() == [11.0, 20.0]
    assert table["config.lr"].to_pylist() == [2.0, None]


def test_filters_and_orders_tell_spellings_apart(ask: Any) -> None:
    def found(project: str, conditions: Any, order: str = "created_at") -> list[str]:
        arguments = ["--project", project, "--filter", json.dumps(conditions), "--order", order, "--select", "run_id"]
        return [row["run_id"] for row in ask("query", *arguments)]

    assert found("team/Pro", {"config.LR": {"$gt": 5}}) == ["a", "A"]
    assert found("team/Pro", {"config.lr": {"$gt": 5}}) == []
    assert found("team/Pro", {"config.lr": {"$exists": True}}) == ["a"]
    assert found("team/Pro", {"name": "A"}) == ["A"]
    assert found("team/pro", {}, "-config.LR") == ["A", "a"]
    assert found("team/pro", {}, "-config.lr") == ["a", "A"]
    assert found("team/pro", {}, "-summary.Acc") == ["a", "A"]


def test_histories_and_runs_tell_spellings_apart(ask: Any, twins: Home) -> None:
    rows = [{"step": 0, "Loss": 2.0, "loss": 5.0}, {"step": 1, "Loss": None, "loss": 6.0}]
    assert ask("history", "team/pro/a") == rows
    assert ask("history", "team/Pro/a", "--keys", "Loss") == [{"step": 0, "Loss": 1.0}]
    frame = package.Api(home=twins.data).run("team/pro/a").history(samples=None)
    assert sorted(frame.columns) == ["Loss", "_step", "loss"]
    assert (frame["loss"].tolist(), frame["Loss"][0]) == ([5.0, 6.0], 2.0)
    api = package.Api(home=twins.data)
    assert [api.run(f"team/{path}").config["LR"] for path in ("Pro/a", "Pro/A", "pro/a")] == [10.0, 20.0, 11.0]


def test_sql_that_would_read_the_other_spelling_is_refused_and_the_right_name_given(
    ask: Any, cli: Any, twins: Home
) -> None:
    for text, wrong, what in (
        ('select * from "team/pro"', "team/pro", 'the relation of this project is "team/pro_2"'),
        ('select "config.lr" from "team/Pro"', "config.lr", 'the column of this key is "config.lr_2"'),
        ('select w."config.lr" as x from "TEAM/PRO" as w', "config.lr", 'the column of this key is "config.lr_2"'),
    ):
        done = cli("query", text)
        reported = f'"{wrong}" would read a name spelled in another case, since SQL ignores case: {what}'
        assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"error: {reported}\n")
    plain = """select "config.LR" as lr, '"team/pro"' as text from "team/Pro" order by run_id desc limit 1"""
    assert ask("query", plain) == [{"lr": 10.0, "text": '"team/pro"'}]


def test_relations_of_both_projects_are_exported(ask: Any, cli: Any, tmp_path: Path) -> None:
    """Under the names that they have in the mirror, alone or together."""
    of_lower = 'select "config.LR", "config.lr_2" from "team/pro_2" order by run_id desc'
    assert ask("query", of_lower) == [{"config.LR": 11.0, "config.lr_2": 2.0}, {"config.LR": 20.0, "config.lr_2": None}]
    assert ask("query", 'select distinct project from "team/Pro"') == [{"project": "Pro"}]
    for paths, relations in (([], ["team/Pro", "team/pro_2"]), (["team/pro"], ["team/pro_2"])):
        file = tmp_path / "exported.duckdb"
        assert cli("export", *paths, "--duckdb", str(file)).exit_code == 0
        with duckdb.connect(str(file), read_only=True) as connection:
            tables = connection.execute("select table_name from duckdb_tables() where table_name like '%/%' order by 1")
            assert [name for (name,) in tables.fetchall()] == relations
            assert connection.execute(of_lower).fetchall() == [(11.0, 2.0), (20.0, None)]
    assert cli("export", "team/pro", "-o", str(tmp_path / "files")).exit_code == 0
    assert set(parquet.read_table(tmp_path / "files" / "runs.parquet")["project"].to_pylist()) == {"pro"}
