"""Columns, times and tags: every spelling, and what a missing value means there."""

from __future__ import annotations

import pytest

from mirror.filters import compile as compile_filter

from .database import database, fill, matching

RUNS = [
    {
        "run_id": "a1",
        "name": "first",
        "state": "finished",
        "group_name": "g",
        "job_type": "train",
        "sweep": "s1",
        "username": "ada",
        "host": "node-1",
        "notes": "good",
        "description": "d",
        "git_commit": "c0ffee",
        "url": "http://host/a1",
        "created_at": "2026-01-01 10:00:00",
        "heartbeat_at": "2026-01-01 12:00:00.5",
        "updated_at": "2026-01-02 00:00:00",
        "duration_s": 7200.5,
        "tags": ["x", "y"],
    },
    {
        "run_id": "b2",
        "name": "Ωmega",
        "state": "running",
        "created_at": "2026-01-02 10:00:00.25",
        "duration_s": 60,
        "tags": ["y"],
    },
    {"run_id": "c3", "name": None, "state": "crashed", "created_at": None, "entity": "other", "project": "p2"},
]

CASES = [
    ({"name": "a1"}, ["a1"]),
    ({"run_id": {"$in": ["a1", "b2"]}}, ["a1", "b2"]),
    ({"display_name": "first"}, ["a1"]),
    ({"displayName": {"$regex": "^Ω"}}, ["b2"]),
    ({"display_name": None}, ["c3"]),
    ({"display_name": {"$exists": False}}, ["c3"]),
    ({"display_name": {"$ne": "first"}}, ["b2", "c3"]),
    ({"display_name": {"$ne": None}}, ["a1", "b2"]),
    ({"display_name": {"$nin": ["first", None]}}, ["b2"]),
    ({"display_name": {"$gt": "a"}}, ["a1", "b2"]),
    ({"display_name": {"$not": {"$gt": "g"}}}, ["a1", "c3"]),
    ({"state": {"$in": ["running", "crashed"]}}, ["b2", "c3"]),
    ({"state": {"$contains": "sh"}}, ["a1", "c3"]),
    ({"state": {"$type": "string"}}, ["a1", "b2", "c3"]),
    ({"group": {"$type": "string"}}, ["a1"]),
    ({"group": {"$type": ["null", "number"]}}, ["b2", "c3"]),
    ({"group": "g"}, ["a1"]),
    ({"jobType": "train"}, ["a1"]),
    ({"job_type": {"$exists": True}}, ["a1"]),
    ({"sweep": "s1"}, ["a1"]),
    ({"sweep": None}, ["b2", "c3"]),
    ({"username": "ada"}, ["a1"]),
    ({"user": "ada"}, ["a1"]),
    ({"host": "node-1"}, ["a1"]),
    ({"notes": "good"}, ["a1"]),
    ({"description": "d"}, ["a1"]),
    ({"commit": {"$regex": "^c0"}}, ["a1"]),
    ({"url": {"$contains": "/a1"}}, ["a1"]),
    ({"entity": "other", "project": "p2"}, ["c3"]),
    ({"state": {"$size": 1}}, []),
    ({"state": {"$elemMatch": {"$eq": "running"}}}, []),
    ({"state": {"$all": ["running"]}}, ["b2"]),
    ({"duration": {"$gt": 60}}, ["a1"]),
    ({"duration": {"$gte": 60.0, "$mod": [60, 0]}}, ["a1", "b2"]),
    ({"duration": None}, ["c3"]),
    ({"duration": 7200.5}, ["a1"]),
    # Times are instants, however they are written.
    ({"created_at": "2026-01-01T10:00:00Z"}, ["a1"]),
    ({"createdAt": {"$gt": "2026-01-01"}}, ["a1", "b2"]),
    ({"createdAt": {"$gte": "2026-01-02T10:00:00.25Z"}}, ["b2"]),
    ({"createdAt": {"$gt": "2026-01-02 10:00:00.25"}}, []),
    ({"createdAt": {"$lt": "2026-01-01T12:00:00+02:00"}}, []),
    ({"createdAt": {"$lte": "2026-01-01T12:00:00+02:00"}}, ["a1"]),
    ({"createdAt": {"$in": ["2026-01-01T10:00:00", None]}}, ["a1", "c3"]),
    ({"createdAt": {"$not": {"$gt": "2026-01-02"}}}, ["a1", "c3"]),
    ({"createdAt": {"$ne": "2026-01-01T10:00:00"}}, ["b2", "c3"]),
    ({"createdAt": {"$type": "date"}}, ["a1", "b2"]),
    ({"heartbeatAt": {"$gt": "2026-01-01T12:00:00.4Z"}}, ["a1"]),
    ({"heartbeat_at": None}, ["b2", "c3"]),
    ({"updatedAt": {"$exists": True}}, ["a1"]),
    # Tags are a list of strings, which every run has; at one position there may be none.
    ({"tags": "x"}, ["a1"]),
    ({"tags": {"$in": ["x", "z"]}}, ["a1"]),
    ({"tags": {"$nin": ["x"]}}, ["b2", "c3"]),
    ({"$or": [{"tags": None}, {"tags": {"$ne": "x"}}]}, ["b2", "c3"]),
    ({"tags": None}, []),
    ({"tags": {"$in": [None]}}, []),
    ({"tags": {"$in": [None, "x"]}}, ["a1"]),
    ({"tags": {"$gte": None}}, []),
    ({"tags": {"$type": "null"}}, []),
    ({"tags": {"$ne": None}}, ["a1", "b2", "c3"]),
    ({"tags": {"$nin": [None]}}, ["a1", "b2", "c3"]),
    ({"tags": {"$nin": [None, "x"]}}, ["b2", "c3"]),
    ({"tags": {"$not": {"$exists": False}}}, ["a1", "b2", "c3"]),
    ({"tags": {"$exists": True}}, ["a1", "b2", "c3"]),
    ({"tags": {"$exists": False}}, []),
    ({"tags": {"$all": [None]}}, []),
    ({"tags": {"$elemMatch": {"$exists": True}}}, ["a1", "b2"]),
    ({"tags": ["y"]}, ["b2"]),
    ({"tags": ["x", "y"]}, ["a1"]),
    ({"tags": ["y", "x"]}, []),
    ({"tags": []}, ["c3"]),
    ({"tags": {"$in": [["y"], "z"]}}, ["b2"]),
    ({"tags": {"$all": ["x", "y"]}}, ["a1"]),
    ({"tags": {"$size": 2}}, ["a1"]),
    ({"tags": {"$size": 0}}, ["c3"]),
    ({"tags": {"$not": {"$size": 0}}}, ["a1", "b2"]),
    ({"tags": {"$elemMatch": {"$gte": "x", "$lt": "y"}}}, ["a1"]),
    ({"tags": {"$regex": "^[xz]"}}, ["a1"]),
    ({"tags": {"$contains": "y"}}, ["a1", "b2"]),
    ({"tags": {"$type": "array"}}, ["a1", "b2", "c3"]),
    ({"tags.0": "y"}, ["b2"]),
    ({"tags.1": {"$exists": True}}, ["a1"]),
    ({"tags.1": None}, ["b2", "c3"]),
    ({"tags.1": {"$exists": False}}, ["b2", "c3"]),
    ({"tags.1": {"$nin": [None]}}, ["a1"]),
]


@pytest.fixture(scope="module")
def runs():
    con = database()
    fill(con, RUNS)
    return con


@pytest.mark.parametrize(("query", "expected"), CASES, ids=[str(q)[:80] for q, _ in CASES])
def test_a_field_matches_exactly_these_runs(runs, query, expected):
    """The run ids, in the order of creation."""
    assert [RUNS[rid]["run_id"] for rid in matching(runs, query)] == expected


@pytest.mark.parametrize(
    ("query", "warning"),
    [
        ({"state": 5}, "state 5: the field holds text, which 5 never equals"),
        (
            {"duration": {"$gt": "1h"}},
            'duration {"$gt": "1h"}: the field holds numbers, which "1h" never equals',
        ),
    ],
)
def test_an_operand_of_the_wrong_type_is_answered_with_a_warning(runs, query, warning):
    """The types never match, which is legal; the warning says so."""
    assert matching(runs, query) == []
    assert compile_filter(query).warnings == (warning,)
