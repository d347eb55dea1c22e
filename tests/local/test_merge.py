"""A local run is marked until the server has it; then the server's record holds, and nothing is doubled."""

from __future__ import annotations

import pytest

from tests.local.kit import ingest, run_file
from tests.sync.rig import rig as make_rig


@pytest.fixture
def rig(tmp_path):
    with make_rig(tmp_path / "home") as made:
        yield made


def on_server(rig, run_id="r1", rows=5, state="finished", entity="team", **fields):
    run = rig.world.add_run(entity, "p", run_id=run_id, state="running", **fields)
    for step in range(rows):
        run.log({"loss": 100.0 + step}, step=step)
    run.set_state(state)
    return run


def standing(rig):
    return rig.sql("select run_id, on_server from local_runs order by run_id")


def runs(rig):
    return rig.sql(
        "select entity, run_id, state, history_rows, deleted_at is not null, url is null from runs order by 1, 2"
    )


def test_local_runs_stay_while_the_server_lacks_them(rig, tmp_path):
    on_server(rig, "s1")
    rig.sync()
    run_file(tmp_path / "w", entity="team").lines(0, 3).exit()
    ingest(rig.home, tmp_path / "w")
    for scope in ({}, {"reconcile_interval": 0.0}):
        result = rig.sync(**scope)["team/p"]
        assert (result.deleted, result.runs, result.error) == (0, 0, None)
    rig.sync("team/p/r1")
    rig.sync("team/p", afresh=True)
    assert runs(rig) == [("team", "r1", "finished", 3, False, True), ("team", "s1", "finished", 5, False, False)]
    assert standing(rig) == [("r1", False)]
    assert [value for _, value in rig.history("r1")] == [1.0, 0.5, 1 / 3]


def test_a_pass_over_a_project_with_local_runs_costs_one_request(rig, tmp_path):
    """They do not count against the number of runs that the server tells."""
    on_server(rig, "s1")
    run_file(tmp_path / "w", entity="team").lines(0, 3).exit()
    ingest(rig.home, tmp_path / "w")
    rig.sync()
    assert rig.sync()["team/p"].requests == 1


@pytest.mark.parametrize("rows", [5, 8])
def test_the_server_takes_over_once_it_has_as_much_history(rig, tmp_path, rows):
    file = run_file(tmp_path / "w", entity="team", display_name="local name").config(a=1).lines(0, 5).exit()
    ingest(rig.home, tmp_path / "w")
    on_server(rig, rows=rows, name="server name")
    result = rig.sync()["team/p"]
    assert (result.error, result.failed) == (None, {})
    assert runs(rig) == [("team", "r1", "finished", rows, False, False)]
    assert standing(rig) == []
    assert rig.history("r1") == [(step, 100.0 + step) for step in range(rows)]
    assert rig.sql("select name, config from runs") == [("server name", "{}")]
    assert rig.sql("select key, rows from history_keys where key = 'loss'") == [("loss", rows)]
    # The file says nothing any more, also when it grows.
    file.lines(5, 20)
    [again] = ingest(rig.home, tmp_path / "w")
    assert (again.outcome, again.rows) == ("on the server", 0)
    assert rig.sync()["team/p"].requests == 1
    assert rig.sql("select count(*), count(distinct step) from history where key = 'loss'") == [(rows, rows)]


def test_while_the_server_has_less_its_record_and_the_files_history_hold(rig, tmp_path):
    """A live run's file is ahead of the server by moments; an interrupted upload may stay behind for good."""
    file = run_file(tmp_path / "w", entity="team").lines(0, 6)
    ingest(rig.home, tmp_path / "w")
    run = on_server(rig, rows=2, state="running", name="server name")
    assert rig.sync()["team/p"].live == 1
    assert runs(rig) == [("team", "r1", "running", 6, False, False)]
    assert standing(rig) == [("r1", True)]
    file.lines(6, 8)
    assert [result.rows for result in ingest(rig.home, tmp_path / "w")] == [2]
    run.log({"loss": 102.0}, step=2)
    rig.sync()
    assert runs(rig) == [("team", "r1", "running", 8, False, False)]
    assert rig.sql("select name from runs") == [("server name",)]
    assert [value for _, value in rig.history("r1")] == [1 / (step + 1) for step in range(8)]
    for step in range(3, 8):
        run.log({"loss": 100.0 + step}, step=step)
    run.finish()
    assert rig.sync()["team/p"].failed == {}
    assert runs(rig) == [("team", "r1", "finished", 8, False, False)]
    assert [value for _, value in rig.history("r1")] == [100.0 + step for step in range(8)]
    assert standing(rig) == []


def test_a_run_that_the_server_had_first_is_left_to_the_server(rig, tmp_path):
    on_server(rig, rows=3)
    rig.sync()
    run_file(tmp_path / "w", entity="team").lines(0, 9)
    [result] = ingest(rig.home, tmp_path / "w")
    assert (result.outcome, result.state) == ("on the server", "finished")
    assert runs(rig) == [("team", "r1", "finished", 3, False, False)]


def test_a_run_without_an_entity_is_not_doubled_when_it_arrives_under_one(rig, tmp_path):
    run_file(tmp_path / "w").config(a=1).lines(0, 5).exit()
    run_file(tmp_path / "w", "other").lines(0, 1).exit()
    ingest(rig.home, tmp_path / "w")
    rig.tail_values = 1
    rig.sync()  # the tail moves into segments
    on_server(rig)
    rig.sync()
    assert runs(rig) == [("local", "other", "finished", 1, False, True), ("team", "r1", "finished", 5, False, False)]
    assert rig.sql("select entity, count(*) from history where run_id = 'r1' group by 1") == [("team", 15)]
    assert rig.sql("select entity, key from config_values") == []
    assert rig.sql('select run_id from "local/p"') == [("other",)]
    assert {result.run: result.outcome for result in ingest(rig.home, tmp_path / "w")} == {
        "team/p/r1": "on the server",
        "local/p/other": "nothing new",
    }


def test_a_run_without_an_entity_stays_while_the_server_has_less_of_it(rig, tmp_path):
    """An upload that was interrupted may stay behind for good; the file may then be the only whole copy."""
    run_file(tmp_path / "w").lines(0, 5)
    ingest(rig.home, tmp_path / "w")
    run = on_server(rig, rows=2, state="running")
    rig.sync()
    run_file(tmp_path / "w", stamp="20270101_000000", start=1_800_000_000).lines(5, 6)
    ingest(rig.home, tmp_path / "w")
    held = "select entity, count(*) from history where key = 'loss' group by 1 order by 1"
    assert rig.sql(held) == [("local", 6), ("team", 2)]
    for step in range(2, 6):
        run.log({"loss": 100.0 + step}, step=step)
    run.finish()
    rig.sync()
    assert rig.sql(held) == [("team", 6)]
    assert {result.outcome for result in ingest(rig.home, tmp_path / "w")} == {"on the server"}


def test_a_run_of_another_projects_name_is_another_run(rig, tmp_path):
    run_file(tmp_path / "w", project="q").lines(0, 5).exit()
    ingest(rig.home, tmp_path / "w")
    on_server(rig)
    rig.sync()
    assert [row[:2] for row in runs(rig)] == [("local", "r1"), ("team", "r1")]


def test_a_run_deleted_on_the_server_after_it_took_over_is_marked_as_deleted(rig, tmp_path):
    run_file(tmp_path / "w", entity="team").lines(0, 5).exit()
    ingest(rig.home, tmp_path / "w")
    on_server(rig)
    rig.sync()
    rig.world.delete_run("team", "p", "r1")
    rig.sync(reconcile_interval=0.0)
    assert [row[4] for row in runs(rig)] == [True]
    [result] = ingest(rig.home, tmp_path / "w")
    assert result.outcome == "on the server"
