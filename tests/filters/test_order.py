"""The order of runs: numbers before text, missing values last both ways, ties by creation time and the order of arrival."""

from __future__ import annotations

import pytest

from mirror.filters import FilterError
from mirror.filters import compile as compile_filter

from .database import database, fill, matching

SAME = "2026-01-05 00:00:00"
RUNS = [
    {"run_id": "a", "created_at": "2026-01-01", "summary": {"acc": 0.5}, "config": {"opt.lr": 2}, "duration_s": 3},
    {"run_id": "b", "created_at": "2026-01-02", "summary": {"acc": "high"}, "config": {"opt": {"lr": 1}}},
    {"run_id": "c", "created_at": "2026-01-03", "summary": {"acc": float("nan")}, "duration_s": float("nan")},
    {"run_id": "d", "created_at": "2026-01-04", "summary": {"acc": float("inf")}, "tags": ["z"]},
    {"run_id": "f", "created_at": SAME, "summary": {"acc": None}, "duration_s": 1},
    {"run_id": "e", "created_at": SAME, "summary": {}, "tags": ["a", "b"]},
    {"run_id": "g", "created_at": None, "summary": {"acc": -1}, "name": "x"},
    {"run_id": "h", "created_at": SAME, "summary": {"acc": [9]}, "name": "x"},
    {"run_id": "i", "created_at": SAME, "summary": {"acc": "Low"}},
]
CASES = [
    (None, "fehidcbag"),
    ("-created_at", "fehidcbag"),
    ("created_at", "abcdfehig"),
    ("+createdAt", "abcdfehig"),
    ("summary_metrics.acc", "gadibcfeh"),
    ("-summary_metrics.acc", "dagbicfeh"),
    ("+summary.acc", "gadibcfeh"),
    ("config.opt.lr", "bacdfehig"),
    ("-config.opt.value.lr", "abcdfehig"),
    ("duration", "fabcdehig"),
    ("-duration", "afbcdehig"),
    ("-display_name,-name", "hgifedcba"),
    ("display_name, -created_at", "hgfeidcba"),
    ("tags", "edabcfhig"),
    ("-tags.1", "eabcdfhig"),
    ("-name", "ihgfedcba"),
]


@pytest.fixture(scope="module")
def runs():
    con = database()
    fill(con, RUNS)
    return con


@pytest.mark.parametrize(("order", "expected"), CASES, ids=[str(o) for o, _ in CASES])
def test_runs_come_in_this_order(runs, order, expected):
    """The order of all runs."""
    assert "".join(RUNS[rid]["run_id"] for rid in matching(runs, {}, order)) == expected


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("", "order '' has an empty part; write fields such as '-created_at,config.lr'"),
        (
            ",".join(["config.learning_rate"] * 17),
            "order 'config.learning_rate,config.learning_rat'... has 17 fields; an order has at most 16",
        ),
        ("created_at,", "order 'created_at,' has an empty part; write fields such as '-created_at,config.lr'"),
        ("-config", "order '-config': 'config' has no key; write config.<key>"),
        (
            "creatd_at",
            "order 'creatd_at': unknown field 'creatd_at'; did you mean 'created_at'? (keys of runs are written config.creatd_at or summary_metrics.creatd_at)",
        ),
    ],
)
def test_an_order_that_means_nothing_is_refused(order, message):
    """Never an order that is silently left out."""
    with pytest.raises(FilterError) as error:
        compile_filter({}, order)
    assert str(error.value) == message
