"""Curves for charts: few points, and nothing that stands out is lost."""

from __future__ import annotations

import math

import pytest

from mirror.snapshot.connection import connected
from mirror.snapshot.downsample import Curve, axis_of, curves, logged_keys, placed
from mirror.snapshot.paths import Project
from mirror.store import history, projects
from mirror.store import runs as stored_runs
from mirror.store.store import Store
from tests.query.conftest import NLP as NLP_KEY
from tests.query.conftest import SYNCED, page
from tests.query.conftest import VISION as VISION_KEY
from tests.query.conftest import run as record

VISION, NLP = Project("team", "vision"), Project("team", "nlp")

LONG = {step: math.sin(step / 50) + (100.0 if step == 777 else -100.0 if step == 1234 else 0.0) for step in range(3000)}
LONG[1500] = math.nan


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    from mirror.settings.home import Home

    data = tmp_path_factory.mktemp("curves") / "mirror"
    home = Home(data, data / "config.toml")
    store = Store.open(home, tail_values=10_000)
    with store.transaction() as tx:
        for key in (VISION_KEY, NLP_KEY):
            projects.add(tx, key)
        stored_runs.upsert(tx, [record(VISION_KEY, "long", 0), record(VISION_KEY, "short", 1)], now=SYNCED)
        stored_runs.upsert(tx, [record(NLP_KEY, "short", 2)], now=SYNCED)
        defined = {"m": [{"1": "epoch"}, {"2": "val/*", "5": 1}]}
        stored_runs.upsert(tx, [record(NLP_KEY, name, 3, config_meta=defined) for name in ("one", "two")], now=SYNCED)
        stored_runs.upsert(
            tx, [record(NLP_KEY, "typo", 4, config_meta={"m": [{"1": "acc", "4": "epcoh"}]})], now=SYNCED
        )
        history.append(tx, NLP_KEY, [page("typo", {"acc": {3: 0.5}, "epcoh": {3: "one"}})])
        for name in ("one", "two"):
            points = {"val/acc": {0: 9.0, 2: 0.1, 5: 0.2, 9: 0.3}, "epoch": {1: 1.0, 4: 2.0, 8: 1.5}}
            history.append(tx, NLP_KEY, [page(name, points)])
        clock = {step: 10.0 * step for step in range(3000)}
        history.append(tx, VISION_KEY, [page("long", {"loss": LONG, "_runtime": clock, "note": {3: "text"}})])
        history.append(
            tx, VISION_KEY, [page("short", {"loss": {0: 3.0, 7: 2.0, 9: math.inf}, "_runtime": {0: 0.5, 9: 4.0}})]
        )
        history.append(tx, NLP_KEY, [page("short", {"loss": {1: 4.0}, "flat": {5: 1.0}})])
    store.seal()
    store.publish()
    store.close()
    with connected(home) as opened:
        yield opened


def test_a_short_curve_is_whole_and_runs_come_in_their_order(connection):
    runs = [(NLP, "short"), (VISION, "short"), (VISION, "none")]
    assert curves(connection, runs, ["loss", "flat"]) == [
        Curve((NLP, "short"), "loss", "_step", [1], [4.0], 1, 0),
        Curve((VISION, "short"), "loss", "_step", [0, 7], [3.0, 2.0], 3, 1),
        Curve((NLP, "short"), "flat", "_step", [5], [1.0], 1, 0),
    ]


def test_a_long_curve_keeps_its_spikes_and_its_end(connection):
    (curve,) = curves(connection, [(VISION, "long")], ["loss"], points=100)
    assert len(curve.x) <= 101
    assert curve.x == sorted(curve.x)
    points = dict(zip(curve.x, curve.y, strict=True))
    assert (points[777], points[1234]) == (LONG[777], LONG[1234])
    assert points[2999] == LONG[2999]
    assert all(LONG[step] == value for step, value in points.items())
    assert (curve.rows, curve.not_finite) == (3000, 1)


def test_the_means_of_a_long_curve(connection):
    (curve,) = curves(connection, [(VISION, "long")], ["loss"], points=4, mean=True)
    first = [LONG[step] for step in range(750)]
    assert curve.x == [374.5, 1124.5, 1875.0, 2624.0, 2999.0]
    assert curve.y[0] == pytest.approx(sum(first) / len(first))
    assert curve.y[-1] == LONG[2999]


def test_another_key_as_the_x_axis(connection):
    runs = [(VISION, "short"), (VISION, "long"), (NLP, "short")]
    short, long = curves(connection, runs, ["loss"], x="_runtime", points=100)
    assert short == Curve((VISION, "short"), "loss", "_runtime", [0.5, 0.5], [3.0, 2.0], 3, 1)
    assert (7770.0, LONG[777]) in zip(long.x, long.y, strict=True)


def test_keys_that_hold_numbers_with_the_number_of_runs(connection):
    assert logged_keys(connection, [(VISION, "long"), (NLP, "short")]) == [("loss", 2), ("_runtime", 1), ("flat", 1)]


def test_nothing_is_drawn_of_nothing(connection):
    assert curves(connection, [], ["loss"]) == []
    assert curves(connection, [(VISION, "long")], []) == []
    assert logged_keys(connection, []) == []


def test_a_key_stands_over_the_axis_that_define_metric_gave_it(connection):
    """Over its last value until then; a value before the first one has no place."""
    one, two = (NLP, "one"), (NLP, "two")
    both = ["val/acc", "epoch"]
    assert [axis_of(connection, [one, two], key) for key in both] == ["epoch", "_step"]
    expected = ([1.0, 1.5, 2.0], [0.1, 0.3, 0.2])
    for points in (100, 2):
        found = curves(connection, [one, two], both, x=None, points=points)
        assert [(curve.run, curve.key, curve.x_key) for curve in found] == [
            (run, key, axis) for key, axis in (("val/acc", "epoch"), ("epoch", "_step")) for run in (one, two)
        ]
        assert all(curve.rows == (3, 3)[curve.key == "epoch"] for curve in found)
    short = curves(connection, [one], ["val/acc"], x=None)[0]
    assert sorted(zip(short.x, short.y, strict=True)) == sorted(zip(*expected, strict=True))
    assert curves(connection, [one], ["val/acc"])[0].x == [0, 2, 5, 9]
    assert placed(connection, [one], "val/acc", "epoch", 100) == {one: [(1.0, 0.1), (2.0, 0.2), (1.5, 0.3)]}
    ends = [(1.0, 0.1), (1.5, 0.3)]
    assert placed(connection, [one, two], "val/acc", "epoch", 2) == {one: ends, two: ends}


def test_the_axis_is_that_of_most_of_the_runs_that_logged_the_key(connection):
    assert axis_of(connection, [(NLP, "short"), (NLP, "one")], "loss") == "_step"
    assert axis_of(connection, [], "loss") == "_step"
    assert axis_of(connection, [(NLP, "one"), (VISION, "none")], "val/acc") == "epoch"


def test_an_axis_without_a_number_is_none(connection):
    """The curve stands over the step."""
    assert axis_of(connection, [(NLP, "typo")], "acc") == "_step"
    assert curves(connection, [(NLP, "typo")], ["acc"], x=None) == [
        Curve((NLP, "typo"), "acc", "_step", [3], [0.5], 1, 0)
    ]
