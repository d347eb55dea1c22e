"""Writing runs: in place of what was there, with what changed on record."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import asdict

from mirror.errors import StoreError
from mirror.store import history, history_cursors, projects, refresh, runs
from mirror.store.records import KnownRun, ProjectCursor, ProjectKey, ProjectStatus
from tests.store.kit import EARLIER, NOW, PROJECT, curve, read, run, write

CHANGES = "select run_id, seen_at, field, old, new from run_changes order by run_id, field"


def test_a_run_is_written_in_place_of_what_was_mirrored_of_it(store):
    write(store, run(tags=("x", "y"), config={"a": 1, "b": {"c": 2}}), run("b2", config={"a": 5}))
    write(store, run(tags=("z",), config={"a": 2}, summary={"s": "t"}))
    assert read(store, "select run_id, tags, config, summary from runs order by run_id") == [
        ("a1", "z", '{"a":2}', '{"s":"t"}'),
        ("b2", "", '{"a":5}', "{}"),
    ]
    assert read(store, "select run_id, tag from run_tags") == [("a1", "z")]
    assert read(store, "select run_id, key, value from config_values order by all") == [
        ("a1", "a", "2"),
        ("b2", "a", "5"),
    ]
    assert read(store, "select rid from store.run_records order by run_id") == [(1,), (2,)]


def test_of_two_records_of_one_run_the_later_one_holds(store):
    write(store, run(name="first", config={"a": 1}), run(name="second", config={"a": 2}))
    assert read(store, "select name, config from runs") == [("second", '{"a":2}')]
    assert read(store, "select value from config_values") == [("2",)]
    assert read(store, "select count(*) from store.run_history") == [(1,)]


def test_runs_of_several_projects_are_written_together(store):
    other = ProjectKey("team", "words")
    write(store, run(), run(project=other, name="same id"))
    assert read(store, "select project, run_id, name from runs order by project") == [
        ("vision", "a1", "brave-sun-1"),
        ("words", "a1", "same id"),
    ]
    assert store.read(projects.everything) == [PROJECT, other]


def test_what_changed_in_a_run_is_on_record(store):
    before = run(
        config={"lr": 0.1, "gone": True, "deep": {"x": 1, "y": [1]}, "same": "s", "a.b": 1, "a": {"b": 2}},
        summary={"acc": 0.5},
        tags=("x",),
    )
    write(store, before, run("quiet"))
    write(
        store,
        run(
            name="new name",
            state="crashed",
            group_name="g",
            notes="n",
            tags=("x", "y"),
            config={"lr": 0.2, "deep": {"x": "1", "y": [1, 2]}, "new": None, "same": "s", "a.b": 1, "a": {"b": 2}},
            summary={"acc": 0.75},
        ),
        run("quiet"),
        run("just arrived", config={"lr": 1}),
    )
    assert read(store, CHANGES) == [
        ("a1", NOW, "config.deep.x", "1", "1"),
        ("a1", NOW, "config.deep.y", "[1]", "[1,2]"),
        ("a1", NOW, "config.gone", "true", None),
        ("a1", NOW, "config.lr", "0.1", "0.2"),
        ("a1", NOW, "config.new", None, None),
        ("a1", NOW, "group_name", None, "g"),
        ("a1", NOW, "name", "brave-sun-1", "new name"),
        ("a1", NOW, "notes", None, "n"),
        ("a1", NOW, "state", "finished", "crashed"),
        ("a1", NOW, "summary.acc", "0.5", "0.75"),
        ("a1", NOW, "tags", "x", "x,y"),
    ]


@pytest.mark.parametrize(
    ("before", "after"), [("running", "running"), ("running", "finished"), ("finished", "running")]
)
def test_the_summary_of_a_live_run_changes_without_a_record(store, before, after):
    write(store, run(state=before, config={"a": 1}, summary={"acc": 1}))
    write(store, run(state=after, config={"a": 2}, summary={"acc": 2}))
    fields = [row[2] for row in read(store, CHANGES)]
    assert fields == ["config.a"] + (["state"] if before != after else [])


def test_documents_that_were_empty_before_are_compared_too(store):
    write(store, run())
    write(store, run(config={"a": 1}))
    assert read(store, CHANGES) == [("a1", NOW, "config.a", None, "1")]


def test_a_deleted_run_stays_with_all_that_is_mirrored_of_it(store):
    write(store, run(config={"a": 1}), run("b2"), history=[curve("a1", range(3))])
    with store.transaction() as tx:
        runs.mark_deleted(tx, PROJECT, ["a1", "unknown"], at=NOW)
    with store.transaction() as tx:
        runs.mark_deleted(tx, PROJECT, ["a1"], at=NOW + timedelta(days=1))
    assert read(store, "select run_id, deleted_at from runs order by run_id") == [("a1", NOW), ("b2", None)]
    assert read(store, "select count(*) from history") == [(3,)]
    assert read(store, 'select run_id, deleted_at, "config.a" from "team/vision" order by run_id') == [
        ("a1", NOW, 1.0),
        ("b2", None, None),
    ]
    assert store.read(lambda db: runs.known(db, PROJECT))["a1"].deleted
    write(store, run(config={"a": 1}))
    assert read(store, "select deleted_at from runs where run_id = 'a1'") == [(None,)]
    assert read(store, CHANGES) == [
        ("a1", NOW, "deleted_at", None, "2026-11-23 12:30:00"),
        ("a1", NOW, "deleted_at", "2026-11-23 12:30:00", None),
    ]


def test_what_is_known_of_a_run_tells_whether_the_server_has_something_newer(store):
    write(
        store,
        run(state="running", updated_at=NOW, server_rows=9, server_last_step=8),
        run("b2"),
        history=[curve("a1", range(4))],
    )
    with store.transaction() as tx:
        history_cursors.record_failures(tx, PROJECT, {"b2": ("no luck", NOW)})
        history_cursors.record_failures(tx, PROJECT, {"b2": ("no luck again", NOW)})
        refresh.request(tx, PROJECT, ["a1"])
    shared = {"heartbeat_at": EARLIER, "deleted": False, "local": False, "ahead": False}
    shared |= {"created_at": EARLIER, "storage_id": "UnVuOmEx", "asked_at": None, "flawed": False, "doubted": False}
    assert {run_id: asdict(known) for run_id, known in store.read(lambda db: runs.known(db, PROJECT)).items()} == {
        "a1": {
            **shared,
            "rid": 1,
            "run_id": "a1",
            "state": "running",
            "updated_at": NOW,
            "server_rows": 9,
            "server_last_step": 8,
            "rows": 4,
            "last_step": 3,
            "refresh": True,
            "attempts": 0,
            "next_try_at": None,
            "error": None,
        },
        "b2": {
            **asdict(
                KnownRun(2, "b2", "finished", EARLIER, None, 0, None, 0, None, False, 2, NOW, "no luck again", False)
            ),
            **shared,
        },
    }
    assert store.read(lambda db: runs.known(db, ProjectKey("no", "such"))) == {}


def test_status_reports_each_project(store):
    write(store, run(state="running"), run("b2"), history=[curve("b2", range(4))])
    with store.transaction() as tx:
        projects.record_attempt(tx, PROJECT, EARLIER)
        projects.record_failure(tx, PROJECT, "no route", NOW)
        history_cursors.record_failures(tx, PROJECT, {"b2": ("broken line", NOW)})
    assert store.read(projects.status) == [ProjectStatus("team", "vision", 2, 1, 4, NOW, None, "no route", 1)]


def test_the_cursor_is_what_was_set_last(store):
    assert store.read(lambda db: projects.cursor(db, PROJECT)) == ProjectCursor()
    for cursor in (ProjectCursor(NOW, EARLIER, 3), ProjectCursor(NOW)):
        with store.transaction() as tx:
            projects.set_cursor(tx, PROJECT, cursor)
        assert store.read(lambda db: projects.cursor(db, PROJECT)) == cursor


def test_nothing_of_a_failed_transaction_is_kept(store):
    write(store, run())

    def fail():
        with store.transaction() as tx:
            runs.upsert(tx, [run(name="lost"), run("b2")], now=NOW)
            history.append(tx, PROJECT, [curve("b2", range(5))])
            projects.set_cursor(tx, PROJECT, ProjectCursor(NOW))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert read(store, "select run_id, name from runs") == [("a1", "brave-sun-1")]
    assert store.read(lambda db: projects.cursor(db, PROJECT)) == ProjectCursor()
    write(store, run("c3"), history=[curve("c3", [0])])
    assert read(store, "select run_id, rid from store.run_records order by rid") == [("a1", 1), ("c3", 2)]
    with pytest.raises(StoreError, match="has no run team/vision/b2 to store history for"):
        write(store, history=[curve("b2", range(5))])


def test_half_of_a_surrogate_pair_does_not_stop_a_run(store):
    write(store, run(name="half \ud800", notes="\ud83d\ude00", config={"k\ud800": "v\ud800"}))
    assert read(store, "select name, notes from runs") == [("half \ufffd", "\U0001f600")]
    assert read(store, "select count(*) from config_values") == [(1,)]
