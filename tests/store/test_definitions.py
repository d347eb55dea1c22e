"""What define_metric said of keys: their axis, summary, goal, and whether they are hidden."""

from __future__ import annotations

import math

import pytest

from tests.store.kit import page, read, run, write

DEFINED = "select key, pattern, x_key, summary, goal, hidden from metric_definitions where run_id = ? order by key"
PLACED = "select x_key, x, step, value from history_x where run_id = 'a1' and key = ? order by step"


def defined(*records) -> dict:
    """W&B's own entry of the config, as the official client writes it."""
    return {"t": {"1": [1, 5]}, "m": list(records)}


def test_definitions_are_read_from_the_config_of_the_official_client(store):
    meta = defined(
        {"1": "epoch", "6": [3], "7": []},
        {"2": "val/*", "5": 1, "6": [1, 2, 3], "7": [1, 5], "8": 1},
        {"1": "acc", "4": "epoch", "6": [1, 3], "7": [2, 8], "8": 2},
        {"1": "a\\.b", "5": 3, "7": [6]},
    )
    write(store, run(config_meta=meta), run("b2", config_meta={"t": 1}), run("c3"))
    assert read(store, DEFINED, "a1") == [
        ("a.b", False, "acc", "none", None, False),
        ("acc", False, "epoch", "max,first", "maximize", False),
        ("epoch", False, None, None, None, False),
        ("val/*", True, "epoch", "min,last", "minimize", True),
    ]
    assert read(store, DEFINED, "b2") == read(store, DEFINED, "c3") == []


@pytest.mark.parametrize(
    "meta",
    [
        *([], {"m": None}, {"m": 5}, {"m": {"1": "a"}}, {"m": [None, 7, "x", [], {}]}, {"m": [{"9": [1]}]}, "text", 1),
        {"m": [{"1": "loss", "5": 77}]},
        {"m": [{"1": "loss", "5": "x", "6": 5, "7": "y", "8": []}]},
        {"m": [{"1": "loss", "5": -1}], "odd": math.nan},
    ],
)
def test_what_is_no_definition_is_none_and_disturbs_nothing(store, meta):
    fine = run("b2", config_meta=defined({"1": "loss", "4": "epoch"}))
    write(store, run(config_meta=meta), fine, history=[page("a1", [(3, "loss", 1.0, None)])])
    assert read(store, "select x_key, summary, hidden from metric_definitions where run_id = 'a1'") in (
        [],
        [(None, None, False)],
    )
    assert read(store, PLACED, "loss") == [("_step", 3.0, 3, 1.0)]
    assert read(store, DEFINED, "b2") == [("loss", False, "epoch", None, None, False)]


def test_x_is_the_last_value_of_the_axis_at_or_before_the_step(store):
    meta = defined(
        {"1": "epoch"}, {"2": "val/*", "5": 1}, {"1": "val/x", "4": "_step"}, {"2": "val/deep/*", "4": "hour"}
    )
    points = [
        *((0, "val/acc", 0.1, None), (2, "epoch", 1.0, None), (2, "val/acc", 0.2, None), (4, "val/acc", 0.3, None)),
        *(
            (5, "epoch", math.nan, None),
            (5, "val/acc", 0.4, None),
            (6, "epoch", None, '"two"'),
            (7, "epoch", 0.5, None),
        ),
        *((8, "val/acc", math.inf, None), (9, "val/acc", None, '"text"'), (4, "val/x", 7.0, None)),
        *((8, "hour", 3.0, None), (9, "val/deep/a", 1.0, None), (3, "loss", 2.0, None), (3, "_val/acc", 5.0, None)),
    ]
    write(store, run(config_meta=meta), history=[page("a1", sorted(points, key=lambda point: (point[1], point[0])))])
    expected = [
        *(("epoch", None, 0, 0.1), ("epoch", 1.0, 2, 0.2), ("epoch", 1.0, 4, 0.3), ("epoch", 1.0, 5, 0.4)),
        ("epoch", 0.5, 8, math.inf),
    ]
    for sealed in (False, True):
        if sealed:
            store.tail_values = 1
            assert store.seal()
        assert read(store, PLACED, "val/acc") == expected
        assert read(store, PLACED, "val/x") == [("_step", 4.0, 4, 7.0)]
        assert read(store, PLACED, "val/deep/a") == [("hour", 3.0, 9, 1.0)]
        assert read(store, PLACED, "loss") == [("_step", 3.0, 3, 2.0)]
        assert read(store, PLACED, "_val/acc") == [("_step", 3.0, 3, 5.0)]
        assert read(store, "select count(*) from history_x") == read(
            store, "select count(*) from history where value is not null"
        )
