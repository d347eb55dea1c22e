"""Curves as agents get them: few points that keep extremes, with exact counts and the keys that runs lack."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.xdist_group("mcp")

SEEDS = ("a0", "a1", "a2", "b0", "b1", "b2")
VALIDATED = ("1", "0.7", "0.5", "0.4", "0.42", "0.45", "0.5", "0.55")


def lines(*texts):
    return "\n".join(texts)


def test_a_long_curve_keeps_the_lowest_and_highest_value_of_each_piece(tools):
    assert tools("get_history", runs=["a0", "run a1"], keys=["loss"], points=6) == lines(
        "runs: a0 = team/seeds/a0 (run a0), a1 = team/seeds/a1 (run a1)",
        "x = step",
        "reduced curves have the lowest and highest value of each piece; points=N gives more",
        "loss@a0 (x:value, 7 of 40 values): 0:1.2 12:1.08 13:1.07 25:0.95 26:0.94 38:0.82 39:0.81",
        "loss@a1 (x:value, 7 of 40 values): 0:1.18 12:1.06 13:1.05 25:0.93 26:0.92 38:0.8 39:0.79",
    )


def test_a_spike_is_among_the_points(tools):
    assert " 140:20 " in tools("get_history", runs=["stalled"], keys=["loss"], points=4)


def test_whole_curves_with_the_same_steps_stand_beside_each_other(tools):
    text = tools("get_history", runs=["a0", "a1"], keys=["loss"], points=40)
    head, *rows = text.splitlines()[2:]
    assert head == "x\tloss@a0\tloss@a1"
    assert len(rows) == 40
    assert (rows[0], rows[-1]) == ("0\t1.2\t1.18", "39\t0.81\t0.79")


def test_keys_that_a_run_lacks_or_that_hold_texts_are_named(tools):
    text = tools("get_history", runs=["overfitted", "empty", "oom"], keys=["*loss", "note"], points=40)
    assert text == lines(
        "runs: overfitted = team/trouble/overfitted (overfitted), empty = team/trouble/empty (empty),"
        " oom = team/trouble/oom (out of memory)",
        "x = step",
        "x\tloss@oom\tval/loss@overfitted",
        *(f"{step}\t{1 - step / 100:.6g}\t{value}" for step, value in enumerate((*VALIDATED, *[""] * 10))),
        "note: overfitted did not log loss",
        "note: overfitted: note holds no numbers; query history.text",
        "note: empty did not log loss, val/loss, note",
        "note: oom did not log val/loss, note",
        "note: loss@oom: 2 values NaN or infinite, left out",
    )


def test_another_axis_orders_the_points(tools):
    text = tools("get_history", runs=["a0"], keys=["loss"], x="epoch", points=4)
    assert text.splitlines()[1:] == [
        "x = epoch",
        "reduced curves have the lowest and highest value of each piece; points=N gives more",
        "loss@a0 (x:value, 6 of 40 values): 0:1.2 1:1.01 2:0.91 2:1 3:0.81 3:0.9",
    ]


def test_points_that_do_not_fit_are_counted(tools):
    text = tools("get_history", runs=["diverging"], keys=["loss"], points=100, max_chars=500)
    line = text.splitlines()[-1]
    shown = line.count(":") - 3
    assert f"(the first {shown} of 100 points fit: fewer points, or a larger max_chars)" in line
    assert len(text) < 700


def test_curves_that_do_not_fit_are_counted(tools):
    keys = ["loss", "epoch", "_runtime"]
    text = tools("get_history", runs=list(SEEDS), keys=keys, points=7, max_chars=500)
    shown = sum(line.startswith(tuple(keys)) for line in text.splitlines())
    assert 1 < shown < 18
    assert f"({18 - shown} more curves do not fit: fewer points, keys or runs, or a larger max_chars)" in text
