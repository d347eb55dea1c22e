"""What of a project a pass takes: recent runs only, other filters and key globs than before, and what is asked for."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import count

import pytest

from mirror.remote import queries
from tests.sync.rig import rig as make_rig

START = datetime(2026, 3, 1, 12)


def add(rig, run_id, at=START, rows=3, state="finished", project="p", **fields):
    """A run that began at a time and logged at once; the server's clock goes on from there, a second at each look."""
    ticks = count()
    rig.world.now = lambda: at + timedelta(seconds=next(ticks))
    run = rig.world.add_run("team", project, run_id=run_id, state="running", **fields)
    for step in range(rows):
        run.log({"loss": 1.0 / (step + 1), "acc": step / 10}, step=step)
    if state != "running":
        run.finish(state)
    return run


def aged(rig):
    """Runs of three years, the last of which ended a day ago."""
    for year in (2023, 2024, 2025):
        add(rig, f"y{year}", at=START.replace(year=year))
    rig.world.now = lambda: START.replace(year=2025) + timedelta(days=1)


def ids(rig):
    return [run_id for (run_id,) in rig.sql("select run_id from runs order by 1")]


def test_a_recent_sync_takes_recent_runs_and_a_later_one_only_the_others(rig):
    aged(rig)
    first = rig.sync(since=datetime(2025, 1, 1))["team/p"]
    assert (first.runs, first.rows, first.older, first.error) == (1, 3, 2, None)
    assert ids(rig) == ["y2025"]
    assert rig.sql("select last_success_at from projects") == [(None,)]
    wider = rig.sync(since=datetime(2024, 1, 1))["team/p"]
    assert (wider.runs, wider.new_runs, wider.rows, wider.older) == (1, 1, 3, 1)
    whole = rig.sync()["team/p"]
    assert (whole.runs, whole.new_runs, whole.rows, whole.older) == (1, 1, 3, 0)
    assert ids(rig) == ["y2023", "y2024", "y2025"]
    assert rig.sql("select last_success_at is not null from projects") == [(True,)]
    rig.sandbox.reset_counts()
    assert rig.sync()["team/p"].runs == 0
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}


def test_a_recent_sync_follows_a_live_run_that_began_long_ago(rig):
    run = add(rig, "long", at=START.replace(year=2023), state="running")
    rig.world.now = lambda: START.replace(year=2025)
    run.log({"loss": 0.0}, step=3)
    assert rig.sync(since=datetime(2025, 1, 1))["team/p"].rows == 4
    assert rig.history("long")[-1] == (3, 0.0)


def test_a_recent_sync_of_a_mirrored_project_leaves_what_is_older_to_the_next(rig):
    aged(rig)
    rig.sync()
    add(rig, "june", at=START.replace(year=2025, month=6))
    add(rig, "july", at=START.replace(year=2025, month=7))
    assert rig.sync(since=datetime(2025, 6, 15))["team/p"].new_runs == 1
    assert ids(rig) == ["july", "y2023", "y2024", "y2025"]
    assert rig.sync()["team/p"].new_runs == 1
    assert ids(rig) == ["july", "june", "y2023", "y2024", "y2025"]


def test_a_recent_sync_that_leaves_nothing_out_is_an_ordinary_one(rig):
    aged(rig)
    rig.sync()
    rig.sandbox.reset_counts()
    result = rig.sync(since=datetime(2024, 1, 1))["team/p"]
    assert (result.runs, result.older) == (0, 0)
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}


def test_a_recent_sync_that_broke_off_is_made_up_for(rig):
    aged(rig)
    rig.sandbox.faults.add("graphql", times=200, operation="MirrorHistory")
    assert rig.sync(since=datetime(2024, 1, 1))["team/p"].failed.keys() == {"y2024", "y2025"}
    rig.sandbox.faults.clear()
    rig.sync(afresh=True)
    assert rig.sql("select run_id, history_rows from runs order by 1") == [("y2023", 3), ("y2024", 3), ("y2025", 3)]


def test_another_filter_of_as_many_runs_is_seen_at_once(rig):
    for name, tag in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")):
        add(rig, name, tags=[tag])
    rig.sync(filters={"tags": "x"})
    assert ids(rig) == ["a", "b"]
    rig.sync(filters={"tags": "y"})
    assert rig.sql("select run_id, deleted_at is null from runs order by 1") == [
        ("a", True), ("b", True), ("c", True), ("d", True)
    ]  # fmt: skip
    assert rig.sql("select run_id, count(*) from history where key = 'loss' group by 1 order by 1") == [
        (name, 3) for name in "abcd"
    ]
    rig.sandbox.reset_counts()
    rig.sync(filters={"tags": "y"})
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}


def test_what_changed_while_a_filter_left_it_out_comes_with_a_wider_one(rig):
    run = add(rig, "a")
    add(rig, "b", tags=["x"])
    rig.sync()
    rig.sync(filters={"tags": "x"})
    run.edit(notes="later")
    rig.sync(filters={"tags": "x"})
    assert rig.sql("select notes from runs where run_id = 'a'") == [(None,)]
    rig.sync()
    assert rig.sql("select notes from runs where run_id = 'a'") == [("later",)]


def test_a_live_run_that_the_filter_left_out_keeps_nobody_awake(rig):
    add(rig, "live", state="running")
    add(rig, "done", tags=["x"])
    assert rig.sync()["team/p"].live == 1
    assert rig.sync(filters={"tags": "x"})["team/p"].live == 0
    assert rig.sync()["team/p"].live == 1


def test_wider_key_globs_pull_what_is_missing_and_nothing_else(rig):
    add(rig, "both")
    rig.world.add_run("team", "p", run_id="bare", state="running").log({"loss": 1.0}, step=0)
    assert rig.sync(history=("loss",))["team/p"].rows == 4
    assert rig.sql("select distinct key from history") == [("loss",)]
    result = rig.sync(history=("loss", "acc"))["team/p"]
    assert (result.rows, result.failed) == (3, {})
    assert rig.history("both", "acc") == [(step, step / 10) for step in range(3)]
    assert rig.sql("select count(*) from history where key = 'loss'") == [(4,)]
    rig.sandbox.reset_counts()
    rig.sync(history=("acc", "loss"))
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}


def test_narrower_key_globs_drop_nothing_and_take_no_new_values_until_they_are_wide_again(rig):
    run = add(rig, "one", state="running")
    add(rig, "whole")
    rig.sync()
    run.log({"loss": 0.25, "acc": 0.3}, step=3)
    assert rig.sync(history=("loss",))["team/p"].rows == 1
    assert rig.history("one", "loss")[-1] == (3, 0.25)
    assert rig.history("one", "acc") == [(step, step / 10) for step in range(3)]
    result = rig.sync()["team/p"]
    assert result.rows == 4  # only of the run that lacks values
    assert rig.history("one", "acc") == [(step, step / 10) for step in range(4)]


def test_globs_of_nothing_forget_nothing(rig):
    run = add(rig, "one", state="running")
    rig.sync(history=("loss",))
    run.log({"loss": 0.25}, step=3)
    assert rig.sync(history=())["team/p"].rows == 0
    assert rig.sync(history=("loss",))["team/p"].rows == 1
    assert rig.sql("select step, key from history order by 1") == [(step, "loss") for step in range(4)]


def test_globs_that_grow_during_an_interrupted_flush_leave_no_hole(rig):
    add(rig, "one", rows=5)
    rig.sync(history=("loss",))
    rig.sandbox.faults.add("graphql", times=20, operation="MirrorHistory")
    assert rig.sync(afresh=True, history=("loss",))["team/p"].failed.keys() == {"one"}
    rig.sandbox.faults.clear()
    rig.sync(history=("*",))
    assert rig.sql("select key, rows from history_keys where key in ('acc', 'loss') order by 1") == [
        ("acc", 5),
        ("loss", 5),
    ]


def test_one_run_synced_with_other_globs_leaves_no_hole_either(rig):
    add(rig, "one")
    add(rig, "two")
    rig.sync("team/p/one", history=("loss",))
    rig.sync()
    assert rig.sql("select run_id, rows from history_keys where key = 'acc' order by 1") == [("one", 3), ("two", 3)]


def test_a_server_that_tells_no_keys_has_everything_pulled_again(rig, monkeypatch):
    monkeypatch.setattr("mirror.remote.queries.KEYS_FIELDS", "name keysOfAnotherServer")
    add(rig, "one")
    rig.sync(history=("loss",))
    assert rig.sync(history=("acc",))["team/p"].rows == 3
    assert rig.sql("select distinct key from history") == [("acc",)]


def test_a_project_whose_entity_cannot_be_listed_does_not_stop_the_others(rig):
    add(rig, "one")
    rig.sandbox.faults.add("graphql", times=6, operation="MirrorProjects")
    results = rig.sync("other/*", "team/p")
    assert results["team/p"].error is None
    assert "answered MirrorProjects with an error" in results["other/*"].error
    assert ids(rig) == ["one"]


@pytest.mark.parametrize("feature", ["eventsLineCount", "logLineCount", "runInfo"])
def test_servers_that_lack_a_field_are_mirrored_too(rig, feature, monkeypatch):
    """What is refused once is not asked for again, and the streams are taken when the run changes."""
    fields = {name: field for name, field in queries.OPTIONAL_FIELDS.items() if name != feature}
    monkeypatch.setattr(queries, "OPTIONAL_FIELDS", {**fields, "ofAnotherServer": "ofAnotherServer"})
    run = add(rig, "one", state="running")
    run.log_system({"system.cpu": 1.0})
    run.write_console(0, ["hello"])
    wanted = {"system_metrics": True, "console": True}
    assert rig.sync(**wanted)["team/p"].error is None
    run.log_system({"system.cpu": 2.0})
    run.write_console(1, ["world"])
    rig.sync(**wanted)
    assert rig.sql("select value from system_metrics where key = 'system.cpu' order by step") == [(1.0,), (2.0,)]
    assert rig.sql("select line, text from console order by line") == [(0, "hello"), (1, "world")]
    rig.sandbox.reset_counts()
    run.finish()
    rig.sync(**wanted)
    rig.sandbox.reset_counts()
    rig.sync(**wanted)
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}


def test_a_week_is_a_bound_on_both_sides_of_the_overlap(tmp_path):
    """A bound that lies just behind what is covered leaves nothing out, so the cursor moves."""
    with make_rig(tmp_path / "home") as rig:
        add(rig, "old")
        rig.sync()
        add(rig, "new", at=START + timedelta(days=1))
        assert rig.sync(since=START - timedelta(minutes=3))["team/p"].new_runs == 1
        rig.sandbox.reset_counts()
        assert rig.sync()["team/p"].runs == 0
        assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}
