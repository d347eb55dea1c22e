"""Histories that are not what they were: rewound and gone on, or not what the server counts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mirror.sandbox.history import Lines
from mirror.sync import project as passes
from mirror.sync.context import utc_now

FIRST = [(step, float(step)) for step in range(10)]


def add(rig, run_id="run", rows=10, state="finished", **extra):
    run = rig.world.add_run("team", "p", run_id=run_id, state="running")
    run.log_many([{"loss": float(step), **extra} for step in range(rows)])
    if state != "running":
        run.finish(state)
    return run


def rewind(run, step, upto, state="finished"):
    """Go back to a step, and log other values up to another."""
    run.rewind(step)
    run.state = "running"
    run.log_many([{"loss": 100.0 + number} for number in range(step + 1, upto + 1)])
    if state != "running":
        run.finish(state)
    return [(number, float(number)) for number in range(step + 1)] + [
        (number, 100.0 + number) for number in range(step + 1, upto + 1)
    ]


@pytest.mark.parametrize("upto", [6, 9, 10, 25])
@pytest.mark.parametrize("states", [("finished", "finished"), ("running", "running"), ("running", "finished")])
def test_a_run_that_was_rewound_is_pulled_again_however_far_it_went_on(rig, upto, states):
    """Shorter than before, as long, and longer; also where no count tells of it."""
    run = add(rig, state=states[0])
    rig.sync()
    rows = rewind(run, 4, upto, states[1])
    result = rig.sync()["team/p"]
    assert (result.error, result.failed) == (None, {})
    assert rig.history("run") == rows
    assert rig.sql("select history_rows from runs") == [(len(rows),)]
    rig.sandbox.reset_counts()
    assert rig.sync()["team/p"].rows == 0
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}


def test_a_long_rewound_run_is_pulled_again_though_it_is_exported(rig):
    run = add(rig, rows=1500)
    run.export_history()
    rig.sync()
    rows = rewind(run, 1000, 3500)
    run.export_history()
    assert rig.sync()["team/p"].failed == {}
    assert rig.history("run") == rows


def test_a_run_that_went_on_costs_no_line_more_than_the_last_one(rig):
    run = add(rig, state="running")
    rig.sync()
    run.log({"loss": 10.0}, step=10)
    rig.sandbox.reset_counts()
    result = rig.sync()["team/p"]
    assert (result.rows, rig.sandbox.requests["MirrorHistory"]) == (1, 1)
    assert rig.history("run") == [*FIRST, (10, 10.0)]


def test_a_run_that_only_ended_is_not_asked_for_its_history_again(rig):
    run = add(rig, state="running")
    rig.sync()
    run.finish()
    rig.sandbox.reset_counts()
    assert rig.sync()["team/p"].rows == 0
    assert rig.sandbox.requests["MirrorHistory"] == 0


def test_text_and_special_numbers_in_the_last_line_are_no_change(rig):
    run = rig.world.add_run("team", "p", run_id="run")
    run.log_many([{"a": 1.0, "b": 1, "c": "text"}, {"a": float("nan"), "b": 2**60, "c": float("inf"), "d": "x"}])
    rig.sync()
    run.log({"a": 1.0}, step=2)
    assert rig.sync()["team/p"].rows == 1


def test_a_line_that_got_more_keys_after_it_was_mirrored_is_pulled_with_them(rig):
    run = add(rig, state="running")
    rig.sync()
    run.log({"acc": 0.5}, step=9)
    run.log({"loss": 10.0}, step=10)
    rig.sync()
    assert rig.history("run", "acc") == [(9, 0.5)]
    assert rig.history("run") == [*FIRST, (10, 10.0)]


def capped(monkeypatch, most):
    """Let the server give no more lines than so many, whatever it is asked for, and tell nothing of it."""
    page = Lines.page
    monkeypatch.setattr(
        Lines, "page", lambda self, low, high, samples: page(self, low, high, min(samples or most, most))
    )


def tomorrow(monkeypatch):
    """Let the time of every run have come that is set aside."""
    monkeypatch.setattr(passes, "utc_now", lambda: utc_now() + timedelta(days=1))


MESSAGE = "the server counts {} history lines of team/p/run but returned {}; these are mirrored"


def test_a_server_that_gives_fewer_lines_than_it_counts_is_named_in_the_same_pass(rig, monkeypatch):
    add(rig)
    add(rig, "short", rows=5)
    capped(monkeypatch, 7)
    result = rig.sync()["team/p"]
    assert result.failed == {"run": MESSAGE.format(10, 7)}
    assert rig.sql("select run_id, history_rows from runs order by 1") == [("run", 7), ("short", 5)]
    # Until its time has come it is named, and not asked for.
    rig.sandbox.reset_counts()
    assert list(rig.sync()["team/p"].failed) == ["run"]
    assert rig.sandbox.requests["MirrorHistory"] == 0
    monkeypatch.undo()
    tomorrow(monkeypatch)
    assert rig.sync()["team/p"].failed == {}
    assert rig.history("run") == FIRST
    assert rig.sql("select error from store.run_history order by rid") == [(None,), (None,)]


def test_a_run_that_went_on_and_came_short_is_asked_for_as_a_whole_once(rig, monkeypatch):
    run = add(rig, rows=3)
    rig.sync()
    run.state = "running"
    run.log_many([{"loss": float(step)} for step in range(3, 20)])
    run.finish()
    capped(monkeypatch, 7)
    rig.sandbox.reset_counts()
    result = rig.sync()["team/p"]
    assert result.failed == {"run": MESSAGE.format(20, 7)}
    assert rig.sandbox.requests["MirrorHistory"] == 2
    rig.sandbox.reset_counts()
    rig.sync()
    assert rig.sandbox.requests["MirrorHistory"] == 0


def test_a_live_run_that_comes_short_is_named_and_goes_on(rig, monkeypatch):
    """It is not set aside: the next pass takes what follows."""
    run = add(rig, state="running")
    capped(monkeypatch, 7)
    # The last line is among those that come: it is no line that only is not there yet.
    page = Lines.page
    monkeypatch.setattr(Lines, "page", lambda self, *bounds: sorted({*page(self, *bounds), self.lines[-1]}))
    failed = rig.sync()["team/p"].failed
    assert list(failed) == ["run"]
    monkeypatch.undo()
    run.log({"loss": 10.0}, step=10)
    assert list(rig.sync()["team/p"].failed) == ["run"]
    run.finish()
    assert rig.sync()["team/p"].failed == {}
    assert rig.history("run") == [*FIRST, (10, 10.0)]


def test_a_live_run_whose_count_is_ahead_of_its_lines_is_no_failure(rig, monkeypatch):
    run = add(rig, state="running")
    page = Lines.page
    monkeypatch.setattr(Lines, "page", lambda self, *bounds: page(self, *bounds)[:-1])
    assert rig.sync()["team/p"].failed == {}
    monkeypatch.undo()
    run.finish()
    assert rig.sync()["team/p"].failed == {}
    assert rig.history("run") == FIRST


def test_a_count_that_the_server_puts_right_later_forgets_the_failure(rig, monkeypatch):
    run = add(rig)
    count = Lines.__len__
    monkeypatch.setattr(Lines, "__len__", lambda self: count(self) + 2)
    assert rig.sync()["team/p"].failed == {"run": MESSAGE.format(12, 10)}
    monkeypatch.undo()
    run.edit(notes="counted again")
    rig.sync()
    tomorrow(monkeypatch)
    assert rig.sync()["team/p"].failed == {}
    assert rig.sql("select error, attempts from store.run_history") == [(None, 0)]
