"""No change is missed, whenever it comes: while a list is paged, in the second of a pass, under an id that was there."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest

from mirror.remote import page_size
from mirror.remote import runs as remote
from mirror.remote.page_size import PageSize
from mirror.remote.run_pages import RunPages
from mirror.store import projects
from mirror.sync import project as passes
from mirror.sync import records

NOON = datetime(2026, 3, 1, 12)


class Clock:
    """The server's clock, which only advances when the test says so."""

    def __init__(self, rig, now=NOON):
        self.now = now
        rig.world.now = lambda: self.now

    def on(self, **by):
        self.now += timedelta(**by)


def add(rig, run_id, rows=3, state="finished", **fields):
    run = rig.world.add_run("team", "p", run_id=run_id, state="running", **fields)
    run.log_many([{"loss": 1.0 / (step + 1)} for step in range(rows)])
    if state != "running":
        run.finish(state)
    return run


@contextmanager
def between_pages(monkeypatch, act):
    """Act once, between the first page of a list and the second."""
    pages = RunPages.read
    acted = []

    async def acting(self):
        first = True
        async for page in pages(self):
            yield page
            if first and not acted:
                acted.append(True)
                act()
            first = False

    monkeypatch.setattr(RunPages, "read", acting)
    yield acted
    monkeypatch.setattr(RunPages, "read", pages)


@contextmanager
def small_pages(monkeypatch, runs=2):
    """Pages of so many runs, records and heads."""
    with monkeypatch.context() as patch:
        patch.setattr(page_size, "MOST_RUNS", runs)
        patch.setattr(remote, "MOST_RUNS", runs)
        patch.setattr(records, "PageSize", lambda: PageSize(runs))
        yield


def notes(rig):
    return dict(rig.sql("select run_id, notes from runs order by 1"))


@pytest.mark.parametrize("tells_date", [True, False])
@pytest.mark.parametrize("how", ["first", "flush", "continued", "changed"])
def test_an_edit_while_a_list_is_paged_is_pulled_by_the_next_pass(rig, monkeypatch, how, tells_date):
    """However much later the runs on the pages that follow changed."""
    rig.world.tells_date = tells_date
    clock = Clock(rig)
    old = add(rig, "a0")
    clock.on(hours=1)
    for index in range(1, 6):
        add(rig, f"a{index}")
    clock.on(hours=1)
    if how != "first":
        rig.sync()
    if how == "continued":
        # As a first pass leaves it that was killed after its first page.
        with rig.store() as store, store.transaction() as tx:
            projects.pull_again(tx, passes.ProjectKey("team", "p"))
    if how == "changed":
        for run in rig.world.runs("team", "p"):
            run.edit(notes="seen")
        clock.on(minutes=1)

    def meanwhile():
        clock.on(minutes=1)
        old.edit(notes="edited")
        clock.on(minutes=10)
        rig.world.run("team", "p", "a5").edit(notes="later")
        clock.on(minutes=1)

    with small_pages(monkeypatch), between_pages(monkeypatch, meanwhile) as acted:
        rig.sync(afresh=how == "flush")
    assert acted == [True]
    clock.on(hours=1)
    rig.sync()
    assert (notes(rig)["a0"], notes(rig)["a5"]) == ("edited", "later")


@pytest.mark.parametrize("tells_date", [True, False])
def test_a_run_of_a_time_to_come_hides_no_change_of_another(rig, tells_date):
    rig.world.tells_date = tells_date
    clock = Clock(rig)
    run = add(rig, "today")
    clock.on(hours=1)
    if tells_date:
        clock.now, kept = NOON.replace(year=2027), clock.now
        add(rig, "tomorrow")
        clock.now = kept
    rig.sync()
    clock.on(hours=1)
    run.edit(notes="edited")
    clock.on(hours=1)
    rig.sync()
    assert notes(rig)["today"] == "edited"
    clock.on(hours=1)
    if not tells_date:
        # It may have been edited twice in one second.
        assert rig.sync()["team/p"].runs == 1
    rig.sandbox.reset_counts()
    assert rig.sync()["team/p"].runs == 0
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}


def test_a_cursor_that_is_ahead_of_the_servers_clock_comes_back(rig):
    """As a server's clock that was ahead leaves it, or an earlier mirror did."""
    clock = Clock(rig, NOON + timedelta(days=300))
    run = add(rig, "one")
    clock.on(minutes=10)
    rig.sync()
    clock.now = NOON
    run.edit(notes="edited")
    clock.on(hours=1)
    assert rig.sync()["team/p"].runs == 1
    assert notes(rig) == {"one": "edited"}
    clock.on(hours=1)
    run.edit(notes="again")
    clock.on(hours=1)
    rig.sync()
    assert notes(rig) == {"one": "again"}
    rig.sandbox.reset_counts()
    clock.on(hours=1)
    assert rig.sync()["team/p"].requests == 1


def test_an_edit_in_the_second_of_the_pass_is_pulled_once_it_is_over(rig):
    """Both edits have the same time, and nothing else tells that there were two."""
    clock = Clock(rig)
    run = add(rig, "one", config={"lr": 1})
    clock.on(hours=1)
    run.edit(notes="first")
    rig.sync()
    run.edit(notes="second", config={"lr": 2})
    # The second is not over: the same may happen again.
    rig.sync()
    clock.on(seconds=3)
    assert rig.sync()["team/p"].runs == 1
    assert rig.sql("select notes, config from runs") == [("second", '{"lr":2}')]
    rig.sandbox.reset_counts()
    clock.on(seconds=3)
    assert (rig.sync()["team/p"].runs, dict(rig.sandbox.requests)) == (0, {"MirrorRuns": 1})


def test_a_run_that_changed_before_the_pass_or_has_fractions_is_pulled_once(rig):
    clock = Clock(rig)
    add(rig, "before")
    clock.on(seconds=10, milliseconds=3)
    add(rig, "fraction")
    clock.on(milliseconds=3)
    rig.sync()
    clock.on(seconds=10)
    rig.sandbox.reset_counts()
    assert (rig.sync()["team/p"].runs, dict(rig.sandbox.requests)) == (0, {"MirrorRuns": 1})


def test_a_run_that_is_gone_or_left_out_is_not_asked_for_again(rig):
    clock = Clock(rig)
    add(rig, "keep", tags=["x"])
    add(rig, "out")
    add(rig, "gone")
    rig.sync()
    rig.world.delete_run("team", "p", "gone")
    clock.on(hours=1)
    rig.sync(filters={"tags": "x"})
    clock.on(hours=1)
    rig.sync(filters={"tags": "x"})
    rig.sandbox.reset_counts()
    clock.on(hours=1)
    rig.sync(filters={"tags": "x"})
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}


@pytest.mark.parametrize("rows", [2, 5, 9])
def test_a_run_that_was_created_again_under_its_id_is_pulled_as_a_whole(rig, rows):
    """Shorter than the one before, as long, or longer; the mirror tells that it is another run."""
    clock = Clock(rig)
    add(rig, "again", rows=5)
    clock.on(hours=1)
    rig.sync()
    rig.world.delete_run("team", "p", "again")
    clock.on(hours=1)
    run = rig.world.add_run("team", "p", run_id="again")
    run.log_many([{"loss": 100.0 + step} for step in range(rows)])
    run.finish()
    clock.on(hours=1)
    result = rig.sync()["team/p"]
    assert (result.error, result.failed) == (None, {})
    assert rig.history("again") == [(step, 100.0 + step) for step in range(rows)]
    assert rig.sql("select field, old, new from run_changes where field = 'created_at'") == [
        ("created_at", "2026-03-01 12:00:00", "2026-03-01 14:00:00")
    ]
    assert rig.sql("select rows, first_step, last_step from history_keys where key = 'loss'") == [(rows, 0, rows - 1)]
