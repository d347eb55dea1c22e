"""What a pass brings, what it costs, and that it is the same whatever the server does meanwhile."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from mirror.errors import CommError
from mirror.remote import runs as remote
from mirror.remote.page_size import PageSize
from mirror.sandbox.run import wrapped
from mirror.store import runs as stored_runs
from mirror.sync import records
from tests.sync.rig import HASTY, silence, spoil
from tests.sync.rig import rig as make_rig

START = datetime(2026, 3, 1, 12)


def add(rig, run_id, rows=3, state="finished", **fields):
    run = rig.world.add_run("team", fields.pop("project", "p"), run_id=run_id, state=state, **fields)
    for step in range(rows):
        run.log({"loss": 1.0 / (step + 1)}, step=step)
    if state != "running":
        run.set_state(state)
    return run


def test_a_first_pass_pulls_runs_and_their_whole_history(rig):
    add(rig, "aaa", rows=5, name="first", config={"lr": 0.1}, tags=["x", "y"], notes="hello", group="g")
    add(rig, "bbb", rows=0, state="crashed")
    result = rig.sync()["team/p"]
    assert (result.error, result.failed, result.runs, result.rows) == (None, {}, 2, 5)
    assert rig.sql(
        "select run_id, name, state, tags, notes, group_name, config, history_rows from runs order by 1"
    ) == [
        ("aaa", "first", "finished", "x,y", "hello", "g", '{"lr":0.1}', 5),
        ("bbb", rig.sql("select name from runs where run_id = 'bbb'")[0][0], "crashed", "", None, None, "{}", 0),
    ]
    assert rig.history("aaa") == [(step, 1.0 / (step + 1)) for step in range(5)]


def test_a_pass_over_nothing_new_is_one_request(rig):
    for index in range(5):
        add(rig, f"run{index}")
    rig.sync()
    rig.sandbox.reset_counts()
    result = rig.sync()["team/p"]
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}
    assert (result.requests, result.runs, result.rows) == (1, 0, 0)


def test_a_running_run_grows_by_what_is_new_only(rig):
    run = add(rig, "live", rows=3, state="running")
    rig.sync()
    run.log({"loss": 0.25}, step=3)
    run.log({"loss": 0.125}, step=7)
    result = rig.sync()["team/p"]
    assert (result.runs, result.rows, result.live) == (1, 2, 1)
    assert rig.history("live") == [(0, 1.0), (1, 0.5), (2, 1 / 3), (3, 0.25), (7, 0.125)]


def test_an_edit_of_a_finished_run_arrives_and_is_recorded(rig):
    run = add(rig, "done", config={"lr": 0.1})
    rig.sync()
    run.edit(tags=["best"], config={"lr": 0.2}, notes="good")
    assert rig.sync()["team/p"].runs == 1
    assert rig.sql("select tags, notes, config from runs") == [("best", "good", '{"lr":0.2}')]
    changes = rig.sql("select field, old, new from run_changes order by field")
    assert changes == [("config.lr", "0.1", "0.2"), ("notes", None, "good"), ("tags", "", "best")]


def test_a_state_that_the_server_sets_by_itself_arrives(rig):
    run = add(rig, "lost", state="running")
    rig.sync()
    run.set_state("crashed")
    rig.sync()
    assert rig.sql("select state from runs") == [("crashed",)]


def test_a_deleted_run_is_marked_and_kept(rig):
    add(rig, "keep")
    add(rig, "gone")
    rig.sync()
    rig.world.delete_run("team", "p", "gone")
    assert rig.sync()["team/p"].deleted == 1
    assert rig.sql("select run_id, deleted_at is null from runs order by 1") == [("gone", False), ("keep", True)]
    assert rig.history("gone") == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    rig.sandbox.reset_counts()
    rig.sync()
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}


def test_one_run_made_and_one_deleted_between_two_passes_are_both_seen(rig):
    add(rig, "old")
    rig.sync()
    rig.world.delete_run("team", "p", "old")
    add(rig, "new")
    rig.sync(reconcile_interval=0)
    assert rig.sql("select run_id, deleted_at is null from runs order by 1") == [("new", True), ("old", False)]


def test_an_older_server_without_the_updated_filter_is_mirrored_too(tmp_path):
    with make_rig(tmp_path / "home", features={"updated_at_filter": False}) as rig:
        clock = START
        rig.world.now = lambda: clock
        run = add(rig, "done", created_at=START)
        clock = START + timedelta(hours=1)
        add(rig, "other")
        rig.sync()
        clock = START + timedelta(days=1)
        run.edit(notes="later")
        rig.sync()
        assert rig.sql("select run_id, notes from runs order by 1") == [("done", None), ("other", None)]
        rig.sync(reconcile_interval=0)
        assert rig.sql("select run_id, notes from runs order by 1") == [("done", "later"), ("other", None)]


def test_a_server_without_the_duration_field_is_mirrored_too(rig, monkeypatch):
    """What is refused once is not asked for again."""
    monkeypatch.setattr("mirror.remote.queries.DURATION_FIELD", "secondsOfAnotherServer")
    add(rig, "one")
    result = rig.sync()["team/p"]
    assert (result.error, result.requests) == (None, 3)
    assert rig.sql("select run_id, history_rows, duration_s is not null from runs") == [("one", 3, True)]


def test_a_rewound_run_is_pulled_again_as_a_whole(rig):
    run = add(rig, "fork", rows=6)
    rig.sync()
    run.rewind(2)
    run.log({"loss": 9.0}, step=3)
    rig.sync()
    assert rig.history("fork") == [(0, 1.0), (1, 0.5), (2, 1 / 3), (3, 9.0)]
    assert rig.sql("select history_rows from runs") == [(4,)]
    assert rig.sql("select rows, first_step, last_step, last from history_keys where key = 'loss'") == [(4, 0, 3, 9.0)]


def test_steps_with_wide_gaps_come_whole(rig):
    run = rig.world.add_run("team", "p", run_id="gaps", state="running")
    steps = [0, 1, 50_000, 1_000_000, 30_000_000]
    for step in steps:
        run.log({"loss": float(step)}, step=step)
    run.finish()
    rig.sync()
    assert rig.history("gaps") == [(step, float(step)) for step in steps]


def test_many_runs_share_a_request(rig):
    for index in range(120):
        add(rig, f"run{index:03}")
    rig.sync()
    assert rig.sandbox.requests["MirrorHistory"] <= 4
    assert rig.sql("select count(*), count(distinct run_id) from history where key = 'loss'") == [(360, 120)]


def test_a_long_run_comes_in_many_requests_and_nothing_is_doubled(rig):
    run = rig.world.add_run("team", "p", run_id="long", state="running")
    run.log_many([{"loss": float(step), "note": "x" * 500} for step in range(30_000)])
    run.finish()
    rig.sync()
    assert rig.sandbox.requests["MirrorHistory"] > 2
    assert rig.sql("select count(*), count(distinct step), max(value) from history where key = 'loss'") == [
        (30_000, 30_000, 29_999.0)
    ]


@pytest.mark.parametrize("kind", ["429", "500", "502", "503", "reset", "truncated", "graphql"])
def test_faults_that_pass_change_nothing(rig, kind):
    for index in range(20):
        add(rig, f"run{index:02}", rows=4)
    options = {"retry_after": 0.01} if kind == "429" else {}
    rig.sandbox.faults.add(kind, times=3, **options)
    result = rig.sync()["team/p"]
    assert (result.error, result.failed) == (None, {})
    assert rig.sandbox.faults.counts[kind] == 3
    assert rig.sql("select count(*) from runs") == [(20,)]
    assert rig.sql("select count(*) from history where key = 'loss'") == [(80,)]


def test_a_run_that_cannot_be_read_is_retried_later_and_the_others_are_pulled(rig):
    for index in range(4):
        add(rig, f"run{index}")
    spoil(rig.world.run("team", "p", "run2"))
    result = rig.sync()["team/p"]
    assert list(result.failed) == ["run2"]
    assert rig.sql("select distinct run_id from history order by 1") == [("run0",), ("run1",), ("run3",)]
    assert rig.sql("select count(*) from runs") == [(4,)]


def test_flush_takes_everything_again(rig):
    run = add(rig, "one", config={"lr": 1})
    rig.sync()
    run.set_config(wrapped({"lr": 2}))
    rig.sync()
    rig.sync(afresh=True)
    assert rig.sql("select config from runs") == [('{"lr":2}',)]
    assert rig.history("one") == [(0, 1.0), (1, 0.5), (2, 1 / 3)]


def test_one_run_alone_can_be_synced_and_an_unknown_one_is_named(rig):
    add(rig, "one")
    add(rig, "two")
    rig.sync("team/p/one")
    assert rig.sql("select run_id, history_rows from runs") == [("one", 3)]
    result = rig.sync("team/p/nope")["team/p"]
    assert result.error is not None
    assert result.error == f"no run nope in team/p on {rig.sandbox.url}; the last part of a path is a run id"
    result = rig.sync("team/p/onee")["team/p"]
    assert result.error == f"no run onee in team/p on {rig.sandbox.url}; did you mean one?"


def test_an_unknown_project_is_an_error_that_names_it(rig):
    result = rig.sync("team/none")["team/none"]
    assert result.error == f"team/none is not on {rig.sandbox.url}, or the key may not read it; check the spelling"
    assert result.exit_code == 1
    add(rig, "one", project="vision")
    rig.sync("team/vision")
    result = rig.sync("team/visoin")["team/visoin"]
    assert (
        result.error
        == f"team/visoin is not on {rig.sandbox.url}, or the key may not read it; did you mean team/vision?"
    )


def test_filters_and_globs_narrow_what_is_mirrored(rig):
    add(rig, "good", tags=["keep"])
    run = add(rig, "bad")
    run.log({"loss": 0.0, "acc": 1.0}, step=9)
    rig.sync(filters={"tags": "keep"})
    assert rig.sql("select run_id from runs") == [("good",)]


def test_a_narrower_filter_marks_no_run_as_deleted(rig):
    add(rig, "good", tags=["keep"])
    add(rig, "other")
    rig.sync()
    rig.sync(filters={"tags": "keep"})
    assert rig.sql("select run_id, deleted_at is null from runs order by 1") == [("good", True), ("other", True)]
    rig.sandbox.reset_counts()
    rig.sync(filters={"tags": "keep"})
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}


def test_system_metrics_come_when_asked_for(rig):
    run = add(rig, "sys")
    run.log_system({"system.cpu": 12.5})
    run.log_system({"system.cpu": 13.5})
    rig.sync(system_metrics=True)
    assert rig.sql("select run_id, step, value from system_metrics where key = 'system.cpu' order by step") == [
        ("sys", 0, 12.5),
        ("sys", 1, 13.5),
    ]


def test_a_server_that_does_not_tell_the_last_step_is_read_to_the_last_line(rig, monkeypatch):
    run = rig.world.add_run("team", "p", run_id="blind", state="running")
    steps = [0, 1, 9_999, 10_000, 4_000_000]
    for step in steps:
        run.log({"loss": float(step)}, step=step)
    monkeypatch.setattr("mirror.remote.run_records._last_step", lambda *_: None)
    rig.sync()
    assert rig.history("blind") == [(step, float(step)) for step in steps]
    run.log({"loss": 1.0}, step=4_000_001)
    run.finish()
    rig.sync()
    assert rig.history("blind")[-2:] == [(4_000_000, 4_000_000.0), (4_000_001, 1.0)]
    rig.sandbox.reset_counts()
    rig.sync()
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}


def test_an_interrupted_flush_is_finished_by_the_next_pass(rig):
    for index in range(3):
        add(rig, f"run{index}", rows=50)
    rig.sync()
    rig.retry = replace(HASTY, attempts=1, connects=1)
    rig.sandbox.faults.add("503", times=None, operation="MirrorHistory")
    failed = rig.sync(afresh=True)["team/p"]
    assert set(failed.failed) == {"run0", "run1", "run2"}
    assert rig.sql("select sum(history_rows), count(*) from runs") == [(150, 3)]
    rig.sandbox.faults.clear()
    result = rig.sync(afresh=True)["team/p"]
    assert (result.failed, result.rows) == ({}, 150)
    assert rig.sql("select count(*) from history where key = 'loss'") == [(150,)]


def test_a_server_that_returns_no_history_for_now_is_soon_given_up(rig):
    for index in range(12):
        add(rig, f"run{index}", rows=50)
    rig.retry = replace(HASTY, attempts=1)
    rig.sandbox.faults.add("500", times=None, operation="MirrorHistory")
    failed = rig.sync()["team/p"]
    assert "no history for 4 runs in a row" in str(failed.error)
    assert rig.sandbox.requests["MirrorHistory"] < 40
    rig.sandbox.faults.clear()
    # Those that were tried wait for their next turn.
    result = rig.sync()["team/p"]
    assert (sorted(result.failed), result.rows) == (["run0", "run1", "run2", "run3"], 400)


@pytest.mark.parametrize("last", ["good", "bad"])
def test_runs_that_cannot_be_read_do_not_hold_up_the_others(rig, monkeypatch, last):
    """Many beside each other look like a server that is down, as long as no other run is known to be readable."""
    names = [*(f"bad{index}" for index in range(5)), *(f"good{index}" for index in range(6))]
    for name in [*names, f"{last}6"]:
        add(rig, name, rows=50)
    silence(monkeypatch, "bad")
    for _ in range(1 if last == "good" else 2):
        rig.sync()
    counts = dict(rig.sql("select run_id, history_rows from runs"))
    assert counts == {name: 0 if name.startswith("bad") else 50 for name in [*names, f"{last}6"]}
    set_aside = rig.sql("select count(*) from store.run_history where error like '%the server failed%'")
    assert set_aside == [(5 if last == "good" else 6,)]


def test_the_tail_moves_to_segments_while_a_run_grows_and_nothing_changes(rig):
    rig.tail_values = 500
    run = rig.world.add_run("team", "p", run_id="grow", state="running")
    for _ in range(6):
        run.log_many([{"loss": 0.5} for _ in range(100)])
        rig.sync()
        rows = len(run.rows())
        assert rig.history("grow") == [(step, 0.5) for step in range(rows)]
    assert len(list((rig.home.history).rglob("*.parquet"))) > 1
    run.rewind(150)
    rig.sync()
    assert rig.history("grow") == [(step, 0.5) for step in range(151)]


class FixedSize(PageSize):
    """Pages of five runs."""

    def __init__(self) -> None:
        super().__init__(5)

    def learn(self, runs: int, size: int) -> None:
        """Learn nothing."""


@pytest.fixture
def commits(rig, monkeypatch) -> list[list[str]]:
    """The runs of each commit of records, of a project with 23 runs in pages of five."""
    for number in range(23):
        rig.world.add_run("team", "p", run_id=f"r{number:02}", config={"lr": number}, state="finished")
    found: list[list[str]] = []
    upsert = stored_runs.upsert

    def noted(tx, records, *, now):
        found.append([record.run_id for record in records])
        upsert(tx, records, now=now)

    monkeypatch.setattr(stored_runs, "upsert", noted)
    monkeypatch.setattr(records, "PageSize", FixedSize)
    return found


def test_a_first_pass_commits_three_pages_at_a_time(rig, commits):
    """So a pass over any number of runs has bounded memory, and its progress is seen and kept."""
    assert rig.sync()["team/p"].runs == 23
    assert [len(runs) for runs in commits] == [15, 8]
    assert rig.sql('select "config.lr" from "team/p" order by 1') == [(number,) for number in range(23)]


def test_records_that_arrived_before_an_error_are_kept(rig, commits, monkeypatch):
    """The next pass pulls the others, and nothing is there twice."""
    record_of, made = remote.record_of, []

    def failing(server, project, node, *more):
        if len(made) == 20:
            raise CommError("the server went away")
        made.append(node["name"])
        return record_of(server, project, node, *more)

    with monkeypatch.context() as patch:
        patch.setattr(remote, "record_of", failing)
        assert rig.sync()["team/p"].error == "the server went away"
    assert [len(runs) for runs in commits] == [15, 5]
    assert rig.sql("select count(*) from runs") == [(20,)]
    assert rig.sync()["team/p"].error is None
    assert rig.sql("select count(*), count(distinct run_id) from runs") == [(23, 23)]
