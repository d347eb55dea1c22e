"""Filters mean what MongoDB means by them; an independent engine is the judge where it knows better."""

from __future__ import annotations

import itertools
import json
import math
import time
from datetime import datetime
from typing import Any

import mongomock
import pytest

from mirror.sandbox import World
from mirror.sandbox.errors import Refused
from mirror.sandbox.filters import compile_filter

VALUES: list[Any] = [
    0, 1, 2.5, -3, "a", "abc", "1", "", None, [], [1], [1, 5], ["a", None], [[1, 5]], {}, {"y": 1}, {"y": [1, 2]},
    {"y": None}, [{"y": 1}, {"y": 7}], [{"z": 1}],
]  # fmt: skip
CONDITIONS: list[Any] = [
    1, 2.5, "a", "", None, [1, 5], [], {"$eq": 1}, {"$ne": 1}, {"$ne": None}, {"$gt": 0}, {"$gte": 1, "$lt": 3},
    {"$lte": 1}, {"$gt": "a"}, {"$in": [1, "a"]}, {"$in": [None]}, {"$in": []}, {"$nin": [1, None]}, {"$nin": []},
    {"$exists": True}, {"$exists": False}, {"$regex": "^a"}, {"$regex": "B", "$options": "i"}, {"$not": {"$gt": 0}},
    {"$not": {"$in": [1]}}, {"$not": {"$exists": True}}, {"$gte": 1, "$ne": 2.5},
]  # fmt: skip


def world_of(values: list[Any]) -> World:
    world = World(entity="e")
    world.add_run("e", "p", run_id="missing", summary={})
    for index, value in enumerate(values):
        world.add_run("e", "p", run_id=f"v{index}", summary={"x": value})
    return world


def passing(world: World, filters: Any) -> set[str]:
    check = compile_filter(json.dumps(filters))
    return {run.run_id for run in world.runs("e", "p") if check is None or check(run)}


@pytest.fixture(scope="module")
def judge() -> tuple[World, Any]:
    world = world_of(VALUES)
    collection = mongomock.MongoClient().db.runs
    collection.insert_many([{"_id": run.run_id, "summary_metrics": run.summary} for run in world.runs("e", "p")])
    return world, collection


# Below a scalar, MongoDB finds nothing, and the judge something that is neither there nor missing.
DEEP = {f"v{index}" for index, value in enumerate(VALUES) if isinstance(value, dict | list)} | {"missing"}


@pytest.mark.parametrize("path", ["summary_metrics.x", "summary_metrics.x.y", "summary_metrics.x.0"])
@pytest.mark.parametrize("condition", CONDITIONS, ids=json.dumps)
def test_conditions_agree_with_mongo(judge: tuple[World, Any], path: str, condition: Any) -> None:
    world, collection = judge
    judged = {found["_id"] for found in collection.find({path: condition})}
    if path == "summary_metrics.x":
        assert passing(world, {path: condition}) == judged
    elif "$not" not in json.dumps(condition):
        assert passing(world, {path: condition}) & DEEP == judged & DEEP


@pytest.mark.parametrize("path", ["summary_metrics.x", "summary_metrics.x.y", "summary_metrics.x.0"])
def test_not_is_the_exact_negation(judge: tuple[World, Any], path: str) -> None:
    """Below arrays the judge's `$not` is not the negation of what it denies; MongoDB's is."""
    world, _ = judge
    everything = passing(world, {})
    for condition in CONDITIONS:
        if isinstance(condition, dict):
            assert passing(world, {path: {"$not": condition}}) == everything - passing(world, {path: condition})


def test_below_a_scalar_everything_is_missing() -> None:
    world = world_of([1, "a", None])
    for condition in (None, {"$exists": False}, {"$ne": 1}, {"$not": {"$gt": 0}}, {"$in": [None]}):
        assert passing(world, {"summary_metrics.x.y": condition}) == {"missing", "v0", "v1", "v2"}, condition
    for condition in (1, {"$exists": True}, {"$ne": None}, {"$nin": [1, None]}):
        assert passing(world, {"summary_metrics.x.y": condition}) == set(), condition


def test_joined_conditions_agree_with_mongo(judge: tuple[World, Any]) -> None:
    world, collection = judge
    for first, second in itertools.islice(itertools.combinations(CONDITIONS, 2), 0, None, 5):
        for joined in ("$and", "$or", "$nor"):
            filters = {joined: [{"summary_metrics.x": first}, {"summary_metrics.x": second}]}
            assert passing(world, filters) == {found["_id"] for found in collection.find(filters)}, filters


def test_types_never_meet() -> None:
    world = world_of([True, 1, 1.0, "1", 2**53, 2**53 + 1, math.nan, "NaN", math.inf])
    assert passing(world, {"summary_metrics.x": 1}) == {"v1", "v2"}
    assert passing(world, {"summary_metrics.x": True}) == {"v0"}
    assert passing(world, {"summary_metrics.x": {"$gt": 0}}) == {"v1", "v2", "v4", "v5", "v8"}
    assert passing(world, {"summary_metrics.x": 2**53 + 1}) == {"v5"}
    assert passing(world, {"summary_metrics.x": math.nan}) == {"v6"}
    assert passing(world, {"summary_metrics.x": {"$ne": math.nan, "$exists": True}}) == {f"v{i}" for i in range(9)} - {
        "v6"
    }


def test_config_values_are_found_with_and_without_value() -> None:
    world = World()
    world.add_run("e", "p", run_id="a", config={"lr": 0.1, "model": {"depth": 3, "value": 9}, "value": 5})
    world.add_run("e", "p", run_id="b", config=None)
    for path, value in (
        ("config.lr", 0.1),
        ("config.lr.value", 0.1),
        ("config.model.depth", 3),
        ("config.model.value.depth", 3),
        ("config.model.value.value", 9),
        ("config.value", 5),
    ):
        assert passing(world, {path: value}) == {"a"}, path
    assert passing(world, {"config.lr": {"$exists": False}}) == {"b"}


def test_columns_go_by_both_names_and_dates_compare_as_instants() -> None:
    world = World(username="ada")
    world.add_run(
        "e", "p", run_id="a", name="shown", created_at=datetime(2025, 1, 1, 12, 0, 0, 500000), tags=["x", "y"],
        group="g", job_type="train", sweep="s1", state="finished",
    )  # fmt: skip
    for filters in (
        {"display_name": "shown", "displayName": {"$regex": "how"}},
        {"name": "a", "username": "ada", "sweep": "s1"},
        {"jobType": "train", "job_type": "train", "group": {"$in": ["g"]}},
        {"tags": "x"},
        {"tags": {"$in": ["y", "z"]}},
        {"tags": {"$nin": ["z"]}},
        {"createdAt": {"$gt": "2025-01-01T12:00:00Z", "$lt": "2025-01-01T12:00:01"}},
        {"created_at": "2025-01-01T13:00:00.500+01:00"},
        {"createdAt": {"$gte": "2025-01-01"}},
        {"$or": [{"$and": []}]},
        {"notes": None},
    ):
        assert passing(world, filters) == {"a"}, filters
    assert passing(world, {"createdAt": {"$gt": 5}}) == set()
    assert passing(world, {"id": "a"}) == set()


@pytest.mark.parametrize(
    "filters",
    [
        [], 1, {"$foo": []}, {"$and": {}}, {"x": {"$gt": [1]}}, {"x": {"$in": 1}}, {"x": {"$exists": "yes"}},
        {"x": {"$regex": "("}}, {"x": {"$regex": "a(?=b)"}}, {"x": {"$regex": 1}}, {"x": {"$not": 1}},
        {"x": {"$gt": 1, "y": 2}}, {"$or": [{"x": {"$bad": 1}}]}, {"x": {"$options": "i"}},
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused(filters: Any) -> None:
    with pytest.raises(Refused):
        compile_filter(json.dumps(filters))


def test_five_thousand_runs_in_milliseconds() -> None:
    world = World()
    for index in range(5000):
        world.add_run("e", "p", run_id=f"r{index}", config={"lr": index / 5000}, tags=["a"])
    began = time.process_time()
    assert len(passing(world, {"config.lr": {"$gte": 0.5}, "tags": "a"})) == 2500
    assert time.process_time() - began < 0.1
