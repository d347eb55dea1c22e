"""Logged values: every one kept once, whatever the pages overlap with."""

from __future__ import annotations

import pytest

from mirror.store import history, history_cursors, refresh, runs, staging
from tests.store.kit import NOW, PROJECT, curve, page, read, run, write

HISTORY = "select run_id, step, key, value from history order by all"


def test_values_behind_the_last_step_are_appended(store):
    write(store, run(), history=[curve("a1", [0, 1])])
    write(store, history=[curve("a1", [2]), curve("a1", [3, 7])])
    assert [row[1] for row in read(store, HISTORY)] == [0, 1, 2, 3, 7]
    assert read(store, "select history_rows from runs") == [(5,)]
    assert store.read(lambda db: runs.known(db, PROJECT))["a1"].last_step == 7


def test_lines_that_are_mirrored_already_are_not_stored_again(store):
    write(store, run(), history=[curve("a1", range(5), keys=["loss", "acc"])])
    write(store, history=[curve("a1", range(5), keys=["loss", "acc"], scale=9)])
    write(store, history=[curve("a1", range(3, 8), scale=9)])
    assert [row[1:] for row in read(store, "select * from (" + HISTORY + ") where key = 'loss'")] == [
        *((step, "loss", 1 / (step + 1)) for step in range(5)),
        *((step, "loss", 9 / (step + 1)) for step in range(5, 8)),
    ]
    assert read(store, "select key, rows, first_step, last_step from history_keys order by key") == [
        ("acc", 5, 0, 4),
        ("loss", 8, 0, 7),
    ]
    known = store.read(lambda db: runs.known(db, PROJECT))["a1"]
    assert (known.rows, known.last_step) == (8, 7)


def test_of_two_values_at_one_step_and_key_the_later_one_holds(store):
    points = [(0, "loss", 1.0, None), (1, "loss", 2.0, None), (0, "loss", 3.0, None), (0, "acc", 4.0, None)]
    write(store, run(), history=[page("a1", points), page("a1", points)])
    assert read(store, HISTORY) == [
        ("a1", 0, "acc", 4.0),
        ("a1", 0, "loss", 3.0),
        ("a1", 1, "loss", 2.0),
    ]
    assert read(store, "select key, rows, min, max, last from history_keys order by key") == [
        ("acc", 1, 4.0, 4.0, 4.0),
        ("loss", 2, 2.0, 3.0, 2.0),
    ]


def test_lines_without_a_mirrored_value_move_the_cursor(store):
    write(store, run(), history=[page("a1", [], rows=4, last_step=3)])
    write(store, history=[page("a1", [], rows=0), page("a1", [(5, "x", 1.0, None)], rows=3, last_step=9)])
    known = store.read(lambda db: runs.known(db, PROJECT))["a1"]
    assert (known.rows, known.last_step) == (7, 9)
    assert read(store, HISTORY) == [("a1", 5, "x", 1.0)]


def test_a_key_keeps_its_last_number_when_text_follows(store):
    write(store, run(), history=[page("a1", [(0, "k", 1.0, None), (1, "k", 2.0, None)])])
    write(store, history=[page("a1", [(2, "k", None, '"done"')])])
    assert read(store, "select rows, first_step, last_step, min, max, last from history_keys") == [
        (3, 0, 2, 1.0, 2.0, 2.0)
    ]


def test_success_forgets_failures_but_a_failure_after_it_counts_on(store):
    write(store, run(), run("b2"))
    with store.transaction() as tx:
        for run_id in ("a1", "b2", "a1"):
            history_cursors.record_failures(tx, PROJECT, {run_id: ("bad", NOW)})
    with store.transaction() as tx:
        history.append(tx, PROJECT, [curve("a1", [0]), curve("b2", [0])])
        history_cursors.record_failures(tx, PROJECT, {"a1": ("worse", NOW)})
    known = store.read(lambda db: runs.known(db, PROJECT))
    assert (known["a1"].attempts, known["a1"].error) == (3, "worse")
    assert (known["b2"].attempts, known["b2"].error, known["b2"].next_try_at) == (0, None, None)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_run_that_is_pulled_again_is_replaced_at_once(store, sealed):
    write(store, run(), run("b2"), history=[curve("a1", range(6)), curve("b2", range(3))])
    if sealed:
        store.tail_values = 4
        assert store.seal()
        write(store, history=[curve("a1", range(6, 8))])
    old = read(store, HISTORY)
    with store.transaction() as tx:
        history_cursors.record_failures(tx, PROJECT, {"a1": ("a gap", NOW)})
        refresh.request(tx, PROJECT, ["a1"])
    assert store.read(lambda db: runs.known(db, PROJECT))["a1"].next_try_at is None
    for steps in (range(2), range(1, 4)):
        with store.transaction() as tx:
            staging.stage(tx, PROJECT, [curve("a1", steps, scale=7)])
    with store.transaction() as tx:
        staging.stage(tx, PROJECT, [page("a1", [], rows=2, last_step=5)])
        assert staging.staged(tx.db, PROJECT, ["a1"]) == {"a1": (6, 5)}
        assert staging.staged(tx.db, PROJECT, ["b2"]) == {"b2": (0, None)}
    assert read(store, HISTORY) == old
    with store.transaction() as tx:
        staging.swap(tx, PROJECT, {"a1": (6, 5)})
        assert staging.staged(tx.db, PROJECT, ["a1"]) == {"a1": (0, None)}
    assert read(store, HISTORY) == [
        *(("a1", step, "loss", 7 / (step + 1)) for step in range(4)),
        *(("b2", step, "loss", 1 / (step + 1)) for step in range(3)),
    ]
    assert read(store, "select run_id, rows, last_step, min, max, last from history_keys order by run_id") == [
        ("a1", 4, 3, 1.75, 7.0, 1.75),
        ("b2", 3, 2, 1 / 3, 1.0, 1 / 3),
    ]
    known = store.read(lambda db: runs.known(db, PROJECT))["a1"]
    assert (known.rows, known.last_step, known.refresh, known.error) == (6, 5, False, None)
    write(store, history=[curve("a1", range(4, 7))])
    assert read(store, "select step from history where run_id = 'a1' order by step") == [(0,), (1,), (2,), (3,), (6,)]


def test_what_was_gathered_is_dropped_when_a_refresh_is_asked_for_again(store):
    write(store, run(), run("b2"))
    for _ in range(2):
        with store.transaction() as tx:
            refresh.request(tx, PROJECT, ["a1", "b2"])
            assert staging.staged(tx.db, PROJECT, ["a1"]) == {"a1": (0, None)}
            staging.stage(tx, PROJECT, [curve("a1", range(3)), curve("b2", range(2))])
    with store.transaction() as tx:
        staging.swap(tx, PROJECT, {"a1": (3, None)})
        assert staging.staged(tx.db, PROJECT, ["b2"]) == {"b2": (2, 1)}
    assert read(store, "select run_id, step from history order by all") == [("a1", 0), ("a1", 1), ("a1", 2)]
    assert read(store, "select refresh from store.run_history order by rid") == [(False,), (True,)]
