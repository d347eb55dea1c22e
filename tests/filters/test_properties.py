"""Generated documents and filters: MongoDB's semantics by an independent engine, and the leaf form by the JSON form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mongomock.filtering import filter_applies

from .database import database, fill, matching
from .strategies import COMPARISONS, CONFIGS, KEYS, NO_NULLS, SCALARS, VALUES, filters, fitting, operators, paths

RUNS = st.lists(st.tuples(CONFIGS, CONFIGS), min_size=8, max_size=8)

# The strategies are composed in layers; their repr is of no use to anyone.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


def examples(count: int) -> settings:
    """So many examples, the same ones in each run, however slow the machine is."""
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
        # Shrinking eight runs and six filters takes minutes; the message names the one filter.
        phases=[Phase.explicit, Phase.generate],
    )


@pytest.fixture(scope="module")
def con():
    return database()


# Where mongomock differs from MongoDB, and so is not asked; the tables of test_semantics.py state these cases instead:
# - `{"a": {}}` matches every document, and $size counts the keys of an object and the characters of a string. MongoDB:
#   equality with the empty object, and lists only (manual: "Query on Embedded/Nested Documents", "$size").
# - `{"a": {"$all": []}}` matches every document. MongoDB: none (manual: "$all").
# - $mod, $contains and $type "number" are unknown to it.
# - Objects compare without the order of their keys. MongoDB: with it (manual: "Match an Embedded/Nested Document").
# - True equals 1 and NaN does not equal itself, as in Python. MongoDB: bools are no numbers, NaN equals NaN (manual:
#   "Comparison/Sort Order").
# - `{"a.b": null}` does not match {"a": 2}. MongoDB: a path that ends in nothing is missing, and null matches that
#   (manual: "Query for Null or Missing Fields").
# - $in with a list in it never matches a whole list. MongoDB: it does (manual: "$in").
# - $not of $regex or $exists is false for a missing value, and any $not for a path through an empty list. MongoDB: the
#   negation (manual: "$not": also documents that do not contain the field).
# - Equality with an empty list does not find it as an element of a list. MongoDB: it does (manual: "$eq").
def _simple(value: Any) -> bool:
    """Whether a value compares alike in both engines: lists have elements, and objects one key, whatever its order."""
    if isinstance(value, dict):
        return len(value) == 1 and all(map(_simple, value.values()))
    return bool(value) and all(map(_simple, value)) if isinstance(value, list) else True


COMMON = fitting(VALUES, _simple, SCALARS)
NOT_NULL = fitting(COMMON, lambda value: "null" not in json.dumps(value), NO_NULLS)
NO_LISTS = ("$in", "$nin")


def _comparable(operators: dict[str, Any]) -> bool:
    for name, operand in operators.items():
        if name in NO_LISTS and any(isinstance(value, list) for value in operand):
            return False
        if name in ("$not", "$elemMatch") and not _comparable(operand):
            return False
        if name == "$not" and {"$regex", "$exists"} & set(operand):
            return False
    return True


SHALLOW = st.builds(lambda head, key: f"{head}.{key}", st.sampled_from(["config", "summary_metrics"]), KEYS)
SHALLOW_CONDITIONS = st.one_of(COMMON, fitting(operators(equal=COMMON, beyond=False), _comparable, COMPARISONS))
DEEP_CONDITIONS = st.one_of(
    NOT_NULL,
    fitting(
        operators(equal=NOT_NULL, beyond=False),
        lambda condition: _comparable(condition) and "$not" not in condition,
        COMPARISONS,
    ),
)
COMMON_FILTERS = st.one_of(
    filters(SHALLOW_CONDITIONS, SHALLOW),
    filters(DEEP_CONDITIONS, paths()),
)


@examples(14)
@given(RUNS, st.lists(COMMON_FILTERS, min_size=6, max_size=6))
def test_filters_mean_what_they_mean_to_mongodb(con, documents, queries):
    """The same runs as mongomock finds, for each of six filters over eight runs."""
    fill(con, [{"config": config, "summary": summary} for config, summary in documents])
    for query in queries:
        expected = [
            rid
            for rid, (config, summary) in enumerate(documents)
            if filter_applies(query, {"config": config, "summary_metrics": summary})
        ]
        assert matching(con, query) == expected, json.dumps(query)


@examples(14)
@given(RUNS, st.lists(filters(), min_size=4, max_size=4))
def test_the_leaf_form_agrees_with_the_json_form(con, documents, queries):
    """All operators, null and missing included: leaf tables and documents give the same runs."""
    fill(con, [{"config": config, "summary": summary} for config, summary in documents])
    for query in queries:
        assert matching(con, query) == matching(con, query, form="json"), json.dumps(query)


@examples(14)
@given(RUNS, filters())
def test_a_filter_and_its_negation_part_the_runs(con, documents, query):
    """No run is in both, none in neither: the SQL is two-valued."""
    fill(con, [{"config": config, "summary": summary} for config, summary in documents])
    assert sorted(matching(con, query) + matching(con, {"$nor": [query]})) == list(range(len(documents)))


@examples(14)
@given(st.lists(VALUES, min_size=1, max_size=3), st.lists(operators(), min_size=4, max_size=4))
def test_long_lists_answer_as_short_ones(con, values, conditions):
    """A list too long to have rows for its elements is read from its text, with the same answers."""
    padding = ["p" * 300]
    fill(con, [{"config": {"a": [*values, *padding]}}, {"config": {"a": [*values, "p"]}}])
    for condition in conditions:
        assert matching(con, {"config.a": condition}) in ([], [0, 1]), json.dumps(condition)
