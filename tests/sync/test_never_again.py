"""What a pass could not do, a later one does: also after failures, other settings, and clocks that were set back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mirror.remote import history as remote_history
from mirror.remote.client import RetryPolicy
from mirror.remote.errors import Unreachable
from mirror.store import contents, facts
from mirror.store.contents import Selection
from mirror.sync import artifacts, console_and_files, project, records, request_windows
from mirror.sync import facts as synced_facts
from mirror.sync import history as histories
from mirror.sync.context import utc_now
from tests.sync.test_changes import Clock, notes
from tests.sync.test_rewritten import add, rewind

MONTH = timedelta(days=30)
IMPATIENT = RetryPolicy(attempts=1, seconds=1, first_wait=0.01, longest_wait=0.01)


@pytest.fixture
def clock(rig):
    return Clock(rig)


def set_clock(monkeypatch, by):
    """Set this machine's clock, as passes see it, by so much."""
    for module in (artifacts, console_and_files, project, records, synced_facts):
        monkeypatch.setattr(module, "utc_now", lambda: utc_now() + by)


@pytest.mark.parametrize("how", ["its history fails", "no history is wanted", "it is live"])
def test_a_run_that_was_rewound_and_logged_as_far_again_is_compared_however_late(rig, clock, monkeypatch, how):
    run = add(rig)
    clock.on(hours=1)
    rig.sync()
    clock.on(hours=1)
    rows = rewind(run, 4, 9, "running" if how == "it is live" else "finished")
    if how == "its history fails":
        rig.retry = IMPATIENT
        rig.sandbox.faults.add("500", times=None, operation="MirrorHistory")
    clock.on(hours=1)
    rig.sync(history=[] if how == "no history is wanted" else ["*"])
    rig.sandbox.faults.clear()
    # The server sets a state without a new time.
    run.set_state("crashed")
    clock.on(hours=1)
    set_clock(monkeypatch, timedelta(days=1))
    assert rig.sync()["team/p"].failed == {}
    assert rig.history("run") == rows
    rig.sandbox.reset_counts()
    clock.on(hours=1)
    rig.sync()
    assert rig.sandbox.requests["MirrorHistory"] == 0


def test_what_is_staged_of_a_run_that_was_rewound_meanwhile_is_not_used(rig, clock, monkeypatch):
    run = add(rig, rows=100)
    clock.on(hours=1)
    rig.sync()
    ask = remote_history.fetch

    async def fetch(server, project, windows):
        if any(window.first > 60 for window in windows):
            raise Unreachable("down")
        return await ask(server, project, windows)

    with monkeypatch.context() as patch:
        patch.setattr(remote_history, "fetch", fetch)
        patch.setattr(histories, "COMMIT_VALUES", 1)
        patch.setattr(request_windows, "REQUEST_BYTES", 3000)
        assert rig.sync(afresh=True)["team/p"].error == "down"
    with rig.store() as store:
        [(staged,)] = store.read(lambda db: db.run("select last_step from store.staged"))
    assert staged > 40
    clock.on(hours=1)
    rows = rewind(run, 20, 99)
    clock.on(hours=1)
    assert rig.sync()["team/p"].failed == {}
    assert rig.history("run") == rows


def test_a_second_edit_in_one_second_is_pulled_from_a_server_that_does_not_tell_its_time(rig, clock):
    rig.world.tells_date = False
    run = add(rig, "one")
    add(rig, "two").edit(notes="as it was")
    clock.on(hours=1)
    run.edit(notes="first")
    rig.sync()
    run.edit(notes="second")
    clock.on(hours=1)
    rig.sync()
    assert notes(rig) == {"one": "second", "two": "as it was"}
    rig.sandbox.reset_counts()
    rig.sync()
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}


def test_a_second_edit_in_one_second_is_pulled_although_the_filter_leaves_the_run_out_meanwhile(rig, clock):
    run = add(rig, "one")
    clock.on(hours=1)
    run.edit(notes="first")
    rig.sync()
    run.edit(notes="second")
    for filters in ({"tags": "x"}, {}):
        clock.on(hours=1)
        rig.sync(filters=filters)
    assert notes(rig) == {"one": "second"}


def test_a_run_that_was_created_again_has_no_console_and_metrics_of_the_one_before(rig, clock):
    run = add(rig, "one", state="running")
    run.log_system({"system.cpu": 1.0})
    run.write_console(0, ["of the first"])
    run.finish()
    clock.on(hours=1)
    rig.sync(console=True, system_metrics=True)
    counts = "select (select count(*) from console), (select count(*) > 0 from system_metrics)"
    assert rig.sql(counts) == [(1, True)]
    rig.world.delete_run("team", "p", "one")
    clock.on(hours=1)
    add(rig, "one")
    clock.on(hours=1)
    rig.sync(console=True, system_metrics=True)
    assert rig.sql(counts) == [(0, False)]


def test_lists_are_pulled_again_after_this_machines_clock_was_set_back(rig, clock, monkeypatch):
    run = add(rig, "one")
    world = rig.world
    run.add_file("a.txt", "a")
    for name in ("kept", "gone"):
        world.add_artifact("team", "p", "model", name, {"a": name}, by=run)
    clock.on(hours=1)
    with monkeypatch.context() as patch:
        set_clock(patch, MONTH)
        rig.sync(files=True, artifacts=True)
    with rig.store() as store:
        lists = store.read(contents.lists)
        server_facts_at = store.read(lambda db: facts.server_facts_at(db, rig.sandbox.url))
    assert server_facts_at > utc_now() + timedelta(days=1)
    clock.on(hours=1)
    run.add_file("b.txt", "b")
    del world.artifacts.of_project("team", "p")["gone"]
    world.add_artifact("team", "p", "model", "kept", {"a": "other"}, by=run)
    run.edit(notes="edited")
    clock.on(hours=1)
    rig.sync(files=True, artifacts=True, reconcile_interval=0.0)
    assert rig.sql("select name from files order by 1") == [("a.txt",), ("b.txt",)]
    assert rig.sql("select collection, version, deleted_at is null from artifacts order by 1, 2") == [
        ("gone", "v0", False), ("kept", "v0", True), ("kept", "v1", True),
    ]  # fmt: skip
    used = rig.sql("select collection, version from artifact_usage order by 1, 2")
    assert ("kept", "v1") in used
    with rig.store() as store:
        assert store.read(contents.lists) != lists
        assert store.read(lambda db: facts.server_facts_at(db, rig.sandbox.url)) < utc_now() + timedelta(days=1)


def test_a_download_that_failed_is_tried_again_after_this_machines_clock_was_set_back(rig):
    add(rig, "one").add_file("a.txt", "a")
    rig.sync(files=True)
    everything = Selection(("*",))

    def wanting(now):
        with rig.store() as store:
            return store.read(lambda db: contents.wanting(db, everything, now))

    with rig.store() as store:
        [file], _ = store.read(lambda db: contents.wanted(db, everything, utc_now(), [1]))
        failure = contents.Failure(file, "no luck", utc_now() + MONTH)
        with store.transaction() as tx:
            contents.save(tx, store.blobs, [], [failure])
    assert wanting(utc_now()) == [1]
    assert wanting(failure.next_try_at) == [1]
    assert wanting(failure.next_try_at - timedelta(hours=5)) == []
