"""Filters of run sets, as reports store them, become filters of the API; what is not known is named, never left out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from mirror.errors import FilterError
from mirror.filters import compile as compile_filter
from mirror.filters.run_sets import to_filter, to_order

NOW = datetime(2026, 3, 1, 12)


def leaf(section: str, name: str, op: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"key": {"section": section, "name": name}, "op": op, "value": value, **more}


def tree(*leaves: dict[str, Any]) -> dict[str, Any]:
    return {"op": "OR", "filters": [{"op": "AND", "filters": list(leaves)}]}


def flat(*leaves: dict[str, Any]) -> dict[str, Any]:
    return {"filterFormat": "filterV2", "filters": list(leaves)}


A, B, C = (leaf("config", name, "=", 1) for name in "abc")
IS_A, IS_B, IS_C = ({f"config.{name}": 1} for name in "abc")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, {}),
        ({}, {}),
        (tree(), {}),
        (flat(), {}),
        (tree(leaf("config", "lr.value", ">", 0.1)), {"config.lr.value": {"$gt": 0.1}}),
        (tree(leaf("summary", "val/acc", "<=", 1)), {"summary_metrics.val/acc": {"$lte": 1}}),
        (tree(leaf("run", "state", "!=", "Finished")), {"state": {"$ne": "finished"}}),
        (tree(leaf("run", "state", "IN", ["Finished", "Crashed"])), {"state": {"$in": ["finished", "crashed"]}}),
        (tree(leaf("run", "displayName", "REGEX", "^a")), {"displayName": {"$regex": "^a"}}),
        (tree(leaf("run", "userName", "=", "ada")), {"username": "ada"}),
        (tree(leaf("config", "lr", "=", "*")), {"config.lr": {"$exists": True}}),
        (tree(leaf("config", "lr", "=", None)), {"config.lr": None}),
        (tree(leaf("config", "lr", ">", None)), {}),
        (tree(leaf("config", "", "=", 1)), {}),
        (tree(leaf("config", "lr", "=", 1, disabled=True), B), IS_B),
        (tree(leaf("tags", "base", "=", True)), {"tags": "base"}),
        (tree(leaf("tags", "base", "=", False)), {"tags": {"$ne": "base"}}),
        (tree(leaf("tags", "-", "IN", ["x", "y"])), {"tags": {"$in": ["x", "y"]}}),
        (tree(leaf("run", "createdAt", "WITHINSECONDS", 3600)), {"createdAt": {"$gte": "2026-03-01T11:00:00Z"}}),
        (tree(A, B), {"$and": [IS_A, IS_B]}),
        ({"op": "OR", "filters": [A, {"op": "AND", "filters": [B, C]}]}, {"$or": [IS_A, {"$and": [IS_B, IS_C]}]}),
        (flat(A, {**B, "connector": "AND"}, {**C, "connector": "OR"}), {"$or": [{"$and": [IS_A, IS_B]}, IS_C]}),
        (
            flat(A, {"connector": "AND", "filters": [B, {**C, "connector": "OR"}]}),
            {"$and": [IS_A, {"$or": [IS_B, IS_C]}]},
        ),
    ],
)
def test_it_becomes_a_filter_of_the_api(given: Any, wanted: Any) -> None:
    assert to_filter(given, NOW) == wanted
    compile_filter(wanted, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (tree(leaf("config", "lr", "~", 1)), r"config\.lr: the operator '~' is not known"),
        (tree(leaf("keys_info", "loss", "!=", None)), r"the field \{'section': 'keys_info', .* is not one of"),
        (tree(leaf("tags", "base", ">", 1)), "tags: the operator '>' is not known"),
        ({"op": "XOR", "filters": [A]}, "the operator 'XOR' of a group is not AND or OR"),
        (flat(A, {**B, "connector": "NOR"}), "the connector 'NOR' is not AND or OR"),
        (tree(leaf("run", "createdAt", "WITHINSECONDS", "a week")), "createdAt: 'a week' is not a number of seconds"),
        ({"op": "AND", "filters": "all"}, "the filters 'all' are not a list"),
        (["lr"], "is not an object"),
    ],
)
def test_what_is_not_known_is_named(given: Any, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        to_filter(given, NOW)


def test_a_filter_that_never_ends_is_refused() -> None:
    node: dict[str, Any] = A
    for _ in range(200):
        node = {"op": "AND", "filters": [node]}
    with pytest.raises(FilterError, match="nested too deeply"):
        to_filter(node, NOW)


def test_orders() -> None:
    key = {"section": "summary", "name": "loss"}
    assert to_order({"keys": [{"key": key, "ascending": True}]}) == "+summary_metrics.loss"
    assert to_order({"key": {"section": "run", "name": "createdAt"}, "ascending": False}) == "-createdAt"
    assert (to_order(None), to_order({"keys": []})) == (None, None)
