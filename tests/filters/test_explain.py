"""What a filter means for the runs that are there."""

from __future__ import annotations

import pytest

from mirror.filters import compile as compile_filter
from mirror.filters import explain, unknown_keys

from .database import database, fill, matching


@pytest.fixture(scope="module")
def runs():
    con = database()
    fill(
        con,
        [
            {"config": {"lr": n / 10, "optimizer": {"name": "adam"}, "data": [{"path": "x"}]}, "state": state}
            for n, state in enumerate(["running", "finished", "finished", "crashed"])
        ]
        + [{"config": {"lr": 5}, "state": "running", "project": "other"}],
    )
    return con


def test_each_clause_says_how_many_runs_it_matches_alone(runs):
    """Clauses stand as they were written, parts of a group indented below it."""
    compiled = compile_filter(
        {"config.lr": {"$gt": 0.1}, "$or": [{"state": "running"}, {"state": "failed", "config.lr": 0}]}
    )
    assert explain(runs, compiled, "r.project = ?", ["vision"]) == [
        ('config.lr {"$gt": 0.1}', 2),
        ("$or", 1),
        ('  state "running"', 1),
        ("  $and", 0),
        ('    state "failed"', 0),
        ("    config.lr 0", 1),
    ]
    assert explain(runs, compile_filter({"config.lr": {"$gt": 0.1}})) == [('config.lr {"$gt": 0.1}', 3)]


def test_sql_over_the_relations_takes_no_tag_apart():
    """`matching` compares it with the filter's own; a tag may contain the comma that joins tags."""
    con = database()
    fill(con, [{"tags": ["a,b", "c"]}, {"tags": []}, {"tags": ["a", "b", "c"]}, {"tags": ["c", "a,b"]}])
    assert matching(con, {"tags": "a,b"}) == [0, 3]
    assert matching(con, {"tags.0": "a,b"}) == [0]
    assert matching(con, {"tags": ["a,b", "c"]}) == [0]
    assert matching(con, {"tags": {"$in": [[], ["a", "b", "c"]]}}) == [1, 2]
    assert matching(con, {"tags": {"$size": 2}}, "-tags.0") == [3, 0]
    assert matching(con, {"tags.1": {"$exists": False}}) == [1]


@pytest.mark.parametrize(
    ("query", "order", "expected"),
    [
        ({"config.lr": 1, "config.optimizer.name": "x", "config.data.path": "x", "config.data.0.path": 1}, None, []),
        ({"config.lr_rate": 1}, None, ["config key 'lr_rate' is in no run; did you mean 'lr'?"]),
        ({"$or": [{"config.LR": 1}]}, None, ["config key 'LR' is in no run; did you mean 'lr'?"]),
        ({"config.name": 1}, None, ["config key 'name' is in no run; did you mean 'optimizer.name'?"]),
        ({}, "-summary_metrics.acc", ["summary key 'acc' is in no run"]),
    ],
)
def test_a_key_that_no_run_has_is_named_with_the_nearest(runs, query, order, expected):
    """In the filter and in the order; keys inside lists are known by their list."""
    assert unknown_keys(runs, compile_filter(query, order)) == expected


def test_the_keys_of_a_filter_are_known_without_a_database():
    """The (doc, key) pairs, each once."""
    compiled = compile_filter({"config.a.value": 1, "summary.b.c": 2, "$nor": [{"config.a": 3}]}, "config.d")
    assert compiled.keys == (("config", "a"), ("summary", "b.c"), ("config", "d"))
