"""What each operator means for each kind of value: whole results over one set of runs."""

from __future__ import annotations

import pytest

from mirror.filters import compile as compile_filter

from .database import database, fill, matching

BIG = 2**53 + 1

# One run a value of config.x; `missing` has no x.
VALUES = {
    "missing": {},
    "null": {"x": None},
    "one": {"x": 1},
    "five": {"x": 5.0},
    "zero": {"x": -0.0},
    "big": {"x": BIG},
    "huge": {"x": 10**30},
    "nan": {"x": float("nan")},
    "inf": {"x": float("inf")},
    "true": {"x": True},
    "false": {"x": False},
    "text": {"x": "abc"},
    "digits": {"x": "5"},
    "lines": {"x": "first\nsecond Straße"},
    "empty text": {"x": ""},
    "list": {"x": [1, 5, None]},
    "empty list": {"x": []},
    "texts": {"x": ["abc", "b"]},
    "nested list": {"x": [[1, 5]]},
    "long list": {"x": [*range(100, 200), "abc", 5]},
    "object": {"x": {"y": 5, "z": {"w": "abc"}}},
    "empty object": {"x": {}},
    "objects": {"x": [{"y": 1, "z": 2}, {"y": 9, "z": 7}, {"q": 0}]},
    "many objects": {"x": [{"y": n, "z": "a long text that makes this list long"} for n in range(20)]},
    "dotted key": {"x.y": 5},
}
NAMES = list(VALUES)

LISTS = {"list", "empty list", "texts", "nested list", "long list", "objects", "many objects"}
ABSENT = {"missing", "dotted key"}
EVERY = set(NAMES)

CASES = [
    ({}, EVERY),
    ({"$or": [{"$and": []}]}, EVERY),
    ({"$and": []}, EVERY),
    ({"$comment": "all of them"}, EVERY),
    # Equality: numbers are one type, nothing else crosses types, a list answers for its elements, one level deep.
    ({"config.x": 1}, {"one", "list"}),
    ({"config.x": 5}, {"five", "list", "long list"}),
    ({"config.x": {"$eq": 5.0}}, {"five", "list", "long list"}),
    ({"config.x": 0}, {"zero"}),
    ({"config.x": "5"}, {"digits"}),
    ({"config.x": "abc"}, {"text", "texts", "long list"}),
    ({"config.x": "ABC"}, set()),
    ({"config.x": ""}, {"empty text"}),
    ({"config.x": True}, {"true"}),
    ({"config.x": False}, {"false"}),
    ({"config.x": None}, ABSENT | {"null", "list"}),
    ({"config.x": float("nan")}, {"nan"}),
    ({"config.x": float("inf")}, {"inf"}),
    ({"config.x": [1, 5, None]}, {"list"}),
    ({"config.x": [1.0, 5]}, {"nested list"}),
    ({"config.x": [5, 1, None]}, set()),
    ({"config.x": []}, {"empty list"}),
    ({"config.x": {}}, {"empty object"}),
    ({"config.x": {"y": 5, "z": {"w": "abc"}}}, {"object"}),
    ({"config.x": {"z": {"w": "abc"}, "y": 5}}, set()),
    ({"config.x": {"y": 9, "z": 7.0}}, {"objects"}),
    # Integers past 2^53.
    ({"config.x": BIG}, {"big"}),
    ({"config.x": BIG - 1}, set()),
    ({"config.x": float(BIG - 1)}, set()),
    ({"config.x": {"$gt": BIG - 1}}, {"big", "huge", "inf"}),
    ({"config.x": {"$gte": BIG + 1}}, {"huge", "inf"}),
    ({"config.x": {"$lt": BIG, "$gte": 200}}, set()),
    ({"config.x": {"$lte": BIG, "$gte": 200}}, {"big"}),
    ({"config.x": 10**30}, {"huge"}),
    ({"config.x": {"$gt": 10**30 - 1}}, {"huge", "inf"}),
    ({"config.x": {"$gt": 10**400}}, {"inf"}),
    # $ne and $nin are the exact negation.
    ({"config.x": {"$ne": 5}}, EVERY - {"five", "list", "long list"}),
    ({"config.x": {"$ne": None}}, EVERY - ABSENT - {"null", "list"}),
    ({"config.x": {"$nin": [1, "abc"]}}, EVERY - {"one", "list", "text", "texts", "long list"}),
    ({"config.x": {"$nin": [None]}}, EVERY - ABSENT - {"null", "list"}),
    ({"config.x": {"$nin": []}}, EVERY),
    ({"config.x": {"$in": []}}, set()),
    ({"config.x": {"$in": [1, "abc", True]}}, {"one", "list", "text", "texts", "long list", "true"}),
    ({"config.x": {"$in": [None, "5"]}}, ABSENT | {"null", "list", "digits"}),
    ({"config.x": {"$in": [[], {}, float("nan")]}}, {"empty list", "empty object", "nan"}),
    ({"config.x": {"$in": [{"$regex": "^A", "$options": "i"}, 1]}}, {"text", "texts", "long list", "one", "list"}),
    # Order compares within a type; NaN is in no range.
    ({"config.x": {"$gt": 3}}, {"five", "big", "huge", "inf", "list", "long list"}),
    ({"config.x": {"$gte": 5, "$lte": 5}}, {"five", "list", "long list"}),
    ({"config.x": {"$lt": 1}}, {"zero"}),
    ({"config.x": {"$gt": 100, "$lt": 10}}, {"long list"}),
    ({"config.x": {"$gte": float("inf")}}, {"inf"}),
    ({"config.x": {"$lt": float("inf"), "$gt": 10**29}}, {"huge"}),
    ({"config.x": {"$gte": float("nan")}}, {"nan"}),
    ({"config.x": {"$gt": float("nan")}}, set()),
    ({"config.x": {"$gt": "5"}}, {"text", "texts", "lines", "long list"}),
    ({"config.x": {"$lt": "a"}}, {"digits", "empty text"}),
    ({"config.x": {"$gt": False}}, {"true"}),
    ({"config.x": {"$lte": True}}, {"true", "false"}),
    ({"config.x": {"$gte": None}}, ABSENT | {"null", "list"}),
    ({"config.x": {"$gt": None}}, set()),
    ({"config.x": {"$not": {"$lte": 3}}}, EVERY - {"one", "zero", "list"}),
    ({"config.x": {"$not": {"$not": {"$gt": 3}}}}, {"five", "big", "huge", "inf", "list", "long list"}),
    ({"config.x": {"$not": {"$gt": 100, "$lt": 10}}}, EVERY - {"long list"}),
    # Presence.
    ({"config.x": {"$exists": True}}, EVERY - ABSENT),
    ({"config.x": {"$exists": 0}}, ABSENT),
    ({"config.x": {"$exists": True, "$ne": None}}, EVERY - ABSENT - {"null", "list"}),
    # Text.
    ({"config.x": {"$regex": "b"}}, {"text", "texts", "long list"}),
    ({"config.x": {"$regex": "^5$"}}, {"digits"}),
    ({"config.x": {"$regex": "^second", "$options": "m"}}, {"lines"}),
    ({"config.x": {"$regex": "^second"}}, set()),
    ({"config.x": {"$regex": "first.second", "$options": "s"}}, {"lines"}),
    ({"config.x": {"$regex": "first.second"}}, set()),
    ({"config.x": {"$regex": "a b  # the letters\n c", "$options": "x"}}, {"text", "texts", "long list"}),
    ({"config.x": {"$regex": "STRASSE", "$options": "i"}}, set()),
    ({"config.x": {"$regex": "(?i)STRAẞE"}}, {"lines"}),
    ({"config.x": {"$not": {"$regex": "b"}}}, EVERY - {"text", "texts", "long list"}),
    ({"config.x": {"$contains": "bc"}}, {"text", "texts", "long list"}),
    ({"config.x": {"$contains": "%"}}, set()),
    # Lists.
    ({"config.x": {"$all": [1, 5]}}, {"list"}),
    ({"config.x": {"$all": [5]}}, {"five", "list", "long list"}),
    ({"config.x": {"$all": []}}, set()),
    ({"config.x": {"$all": [None]}}, ABSENT | {"null", "list"}),
    ({"config.x": {"$all": [{"$elemMatch": {"y": 1}}, {"$elemMatch": {"z": 7}}]}}, {"objects"}),
    ({"config.x": {"$size": 0}}, {"empty list"}),
    ({"config.x": {"$size": 2.0}}, {"texts"}),
    ({"config.x": {"$size": 102}}, {"long list"}),
    ({"config.x": {"$elemMatch": {"$gt": 100, "$lt": 10}}}, set()),
    ({"config.x": {"$elemMatch": {"$gte": 5, "$lt": 6}}}, {"list", "long list"}),
    ({"config.x": {"$elemMatch": {"$in": [None, "b"]}}}, {"list", "texts"}),
    ({"config.x": {"$elemMatch": {"$not": {"$type": "number"}}}}, LISTS - {"empty list"}),
    ({"config.x": {"$elemMatch": {"$elemMatch": {"$gt": 4}}}}, {"nested list"}),
    ({"config.x": {"$elemMatch": {"y": {"$gt": 8}}}}, {"objects", "many objects"}),
    ({"config.x": {"$elemMatch": {"y": 1, "z": 7}}}, set()),
    ({"config.x": {"$elemMatch": {"y": 9, "z": 7}}}, {"objects"}),
    ({"config.x": {"$elemMatch": {"y": {"$exists": False}}}}, {"objects"}),
    ({"config.x": {"$elemMatch": {"y": None}}}, {"objects"}),
    ({"config.x": {"$elemMatch": {"$or": [{"q": 0}, {"y": 19}]}}}, {"objects", "many objects"}),
    ({"config.x": {"$elemMatch": {"$nor": [{"y": {"$lt": 100}}]}}}, {"objects"}),
    ({"config.x": {"$elemMatch": {}}}, {"objects", "many objects"}),
    # Types.
    ({"config.x": {"$type": "null"}}, {"null", "list"}),
    ({"config.x": {"$type": "array"}}, LISTS),
    (
        {"config.x": {"$type": ["object", "bool"]}},
        {"object", "empty object", "objects", "many objects", "true", "false"},
    ),
    ({"config.x": {"$type": 2}}, {"text", "digits", "lines", "empty text", "texts", "long list"}),
    ({"config.x": {"$type": "number"}}, {"one", "five", "zero", "big", "huge", "nan", "inf", "list", "long list"}),
    ({"config.x": {"$type": "date"}}, set()),
    # Remainders: exact for integers of any size that fit 128 bits.
    ({"config.x": {"$mod": [4, 1]}}, {"one", "five", "list", "big", "long list"}),
    ({"config.x": {"$mod": [10, 0]}}, {"zero", "huge", "long list"}),
    ({"config.x": {"$mod": [2.9, 0.5]}}, {"zero", "huge", "long list"}),
    # Paths: through objects, through each object of a list, by position, and keys that hold the dot.
    ({"config.x.y": 5}, {"object", "dotted key", "many objects"}),
    ({"config.x.value.y": 5}, {"object", "many objects", "dotted key"}),
    ({"config.x.y": 9}, {"objects", "many objects"}),
    ({"config.x.z.w": "abc"}, {"object"}),
    ({"config.x.y": {"$exists": True}}, {"object", "objects", "many objects", "dotted key"}),
    ({"config.x.y": None}, EVERY - LISTS - {"object", "dotted key"} | {"objects"}),
    ({"config.x.y": {"$ne": None}}, LISTS - {"objects"} | {"object", "dotted key"}),
    ({"config.x.1": 5}, {"list"}),
    ({"config.x.0": 1}, {"list", "nested list"}),
    ({"config.x.0.1": 5}, {"nested list"}),
    ({"config.x.1.y": 9}, {"objects"}),
    ({"config.x.101": 5}, {"long list"}),
    ({"config.x.7.y": 7}, {"many objects"}),
    # Groups.
    ({"$or": [{"config.x": 1}, {"config.x": True}]}, {"one", "list", "true"}),
    ({"$nor": [{"config.x": {"$exists": True}}, {"config.x.y": 5}]}, {"missing"}),
    ({"$and": [{"config.x": 1}, {"config.x": 5}]}, {"list"}),
    ({"config.x": {"$ne": 1}, "$or": [{"config.x": 5}, {"config.x": "abc"}]}, {"five", "text", "texts", "long list"}),
]


@pytest.fixture(scope="module")
def runs():
    con = database()
    fill(con, [{"run_id": name, "config": config} for name, config in VALUES.items()])
    return con


@pytest.mark.parametrize("form", ["leaves", "json"])
@pytest.mark.parametrize(("query", "expected"), CASES, ids=[str(f)[:80] for f, _ in CASES])
def test_a_filter_matches_exactly_these_runs(runs, query, expected, form):
    """Each filter gives the same whole result from the leaf tables and from the documents."""
    assert {NAMES[rid] for rid in matching(runs, query, form=form)} == expected


@pytest.mark.parametrize("padding", [[], ["p" * 300]], ids=["short list", "long list"])
@pytest.mark.parametrize("form", ["leaves", "json"])
def test_the_hardest_numbers_stand_in_lists_too(form, padding):
    """NaN, infinities and exact integers, in lists with and without rows for their elements, and in objects in them."""
    con = database()
    values = [float("nan"), float("inf"), BIG, 10**30]
    fill(con, [{"config": {"x": [value, *padding], "o": [{"y": value}, *padding]}} for value in values])
    expected = [
        ({"$eq": float("nan")}, [0]),
        ({"$gt": 0}, [1, 2, 3]),
        ({"$gte": float("inf")}, [1]),
        ({"$eq": BIG}, [2]),
        ({"$eq": BIG - 1}, []),
        ({"$gt": BIG}, [1, 3]),
        ({"$gte": 10**30, "$lte": 10**30}, [3]),
        ({"$elemMatch": {"$gt": BIG - 1, "$lt": BIG + 1}}, [2]),
    ]
    assert [matching(con, {"config.x": condition}, form=form) for condition, _ in expected] == [r for _, r in expected]
    through = [(condition, rids) for condition, rids in expected if "$elemMatch" not in condition]
    assert [matching(con, {"config.o.y": condition}, form=form) for condition, _ in through] == [r for _, r in through]


@pytest.mark.parametrize(
    ("value", "rest"),
    [("config.x.value", "config.x"), ("config.x.value.y", "config.x.y")],
)
def test_the_servers_value_wrapper_is_optional(runs, value, rest):
    """`config.K.value` means `config.K`, as the hosted server stores it."""
    assert compile_filter({value: 5}).sql == compile_filter({rest: 5}).sql
    assert compile_filter({value: 5}).params == compile_filter({rest: 5}).params


@pytest.mark.parametrize("prefix", ["summary_metrics", "summary", "summaryMetrics"])
def test_every_spelling_of_the_summary_is_accepted(prefix):
    """summary_metrics, summary and summaryMetrics are the same document."""
    con = database()
    fill(con, [{"summary": {"train/loss": 0.5}}, {"summary": {"train/loss": 2}}, {"config": {"train/loss": 0.1}}])
    assert matching(con, {f"{prefix}.train/loss": {"$lt": 1}}) == [0]


def test_keys_may_hold_anything():
    """Slashes, spaces, brackets, quotes, tildes, wildcards and other alphabets are plain text in a key."""
    keys = ["train/loss", "gpu count", "a[0]", 'say "hi"', "it's", "~tilde~1", "*", "$x", "損失", "mAP_0.5:0.95", "%"]
    con = database()
    fill(con, [{"config": {key: n}} for n, key in enumerate(keys)])
    found = {key: matching(con, {f"config.{key}": {"$exists": True}}) for key in keys}
    assert found == {key: [n] for n, key in enumerate(keys)}
    inside = {key: matching(con, {f"config.{key}": {"$exists": True}}, form="json") for key in keys}
    assert inside == found


def test_large_filters_are_answered():
    """Sixty levels of nesting, and hundreds of clauses, are no problem for the planner."""
    con = database()
    fill(con, [{"config": {"n": n}} for n in range(10)])
    deep = {"config.n": 3}
    for level in range(60):
        deep = {"$and": [deep, {"config.n": {"$ne": level + 100}}]} if level % 2 else {"$nor": [{"$nor": [deep]}]}
    assert matching(con, deep) == [3]
    assert matching(con, {"$or": [{"config.n": n} for n in range(4, 400)]}) == [4, 5, 6, 7, 8, 9]
    assert matching(con, {"$and": [{"config.n": {"$ne": n}} for n in range(4, 400)]}) == [0, 1, 2, 3]
    assert matching(con, {"$or": [{f"config.n{n}": n} for n in range(100)] + [{"config.n": 2}]}) == [2]
    assert matching(con, {"config.n": {"$in": list(range(5, 5000))}}) == [5, 6, 7, 8, 9]
