"""A filter that means nothing is refused with one line that names the clause and what to write instead."""

from __future__ import annotations

import pytest

from mirror.filters import FilterError, parse
from mirror.filters import compile as compile_filter

DEEP: dict = {"config.a": 1}
for _ in range(150):
    DEEP = {"$and": [DEEP]}
DEEP_NOT: dict = {"$gt": 1}
for _ in range(150):
    DEEP_NOT = {"$not": DEEP_NOT}
DEEP_VALUE: list = []
for _ in range(150):
    DEEP_VALUE = [DEEP_VALUE]
DEEP_ELEMENT: dict = {"a": 1}
for _ in range(7):
    DEEP_ELEMENT = {"a": {"$elemMatch": DEEP_ELEMENT}}

CASES = [
    ([1], "a filter is an object, not [1]"),
    ("[1]", "a filter is an object, not [1]"),
    ('{"a": 1', "the filter is not valid JSON, at line 1 column 8: Expecting ',' delimiter"),
    ('{"config.a":\n  tru}', "the filter is not valid JSON, at line 2 column 3: Expecting value"),
    ("", "the filter is not valid JSON, at line 1 column 1: Expecting value"),
    ('{"state": "a", "state": "b"}', 'the key "state" occurs twice in one object; put both conditions into $and'),
    (
        {"stat": 1},
        "unknown field 'stat'; did you mean 'state'? (keys of runs are written config.stat or summary_metrics.stat)",
    ),
    (
        {"Name": 1},
        "unknown field 'Name'; did you mean 'name'? (keys of runs are written config.Name or summary_metrics.Name)",
    ),
    ({"id": "x"}, "unknown field 'id'; the run id is called 'name', and the displayed name 'display_name'"),
    ({"config": 1}, "'config' has no key; write config.<key>"),
    ({"summary_metrics.": 1}, "'summary_metrics.' has no key; write summary_metrics.<key>"),
    ({"state.x": 1}, "'state.x': state is a single value; nothing can follow it"),
    ({"tags.x": 1}, "'tags.x': tags is a list of strings; only a position can follow, as in tags.0"),
    (
        {"$xyz": 1},
        "$xyz 1: $xyz does not combine filters; it must follow a field; only $and, $or and $nor can come first",
    ),
    ({"$where": "1"}, '$where "1": $where is not a filter; use SQL, as in `mirror query "SELECT ..."`'),
    (
        {"state": "finished", "$sort": {"created_at": -1}},
        (
            '$sort {"created_at": -1}: $sort is not a filter; --order sorts runs, as in --order "-created_at" '
            "(order= in Python)"
        ),
    ),
    (
        {"$limit": 5},
        "$limit 5: $limit is not a filter; --limit limits the number of runs (a slice such as runs[:10] in Python)",
    ),
    (
        {"$skip": 5},
        "$skip 5: $skip is not a filter; use a slice in Python, as in runs[10:20], or OFFSET in SQL",
    ),
    (
        {"$project": {"name": 1}},
        ('$project {"name": 1}: $project is not a filter; --select chooses columns, as in --select name,config.lr'),
    ),
    (
        {"$match": {"state": "x"}},
        '$match {"state": "x"}: $match is not a filter; write only its content, which is the filter itself',
    ),
    (
        {"$group": {"_id": "$state"}},
        '$group {"_id": "$state"}: $group is not a filter; use SQL, as in `mirror query "SELECT ..."`',
    ),
    ({"$count": "n"}, '$count "n": $count is not a filter; --count counts the runs (len(runs) in Python)'),
    (
        {"config.a": {"$gt": 1, "$sort": -1}},
        (
            'config.a {"$gt": 1, "$sort": -1}: $sort is not a condition; --order sorts runs, as in --order '
            '"-created_at" (order= in Python)'
        ),
    ),
    (
        [{"$match": {"state": "x"}}, {"$limit": 5}],
        (
            "a filter is an object, not a list of stages. $match: write only its content, which is the filter itself; "
            "$limit: --limit limits the number of runs (a slice such as runs[:10] in Python)"
        ),
    ),
    (
        [{"state": "x"}],
        'a filter is an object, not [{"state": "x"}]; filters are combined by $and and $or',
    ),
    ({"$AND": []}, "$AND []: $AND does not combine filters; did you mean $and?"),
    ({"$ro": []}, "$ro []: $ro does not combine filters; did you mean $or?"),
    (
        {"$not": {"state": "x"}},
        '$not {"state": "x"}: $not belongs after a field, as in {"state": {"$not": ...}}; use $nor here',
    ),
    ({"$or": []}, "$or []: $or without filters means nothing; leave it out to match every run"),
    ({"$or": {"state": "x"}}, '$or {"state": "x"}: $or takes a list of filters'),
    ({"$and": [1]}, "$and [1]: $and takes a list of filters, and 1 is not a filter"),
    ({"config.a": {"$gtt": 1}}, 'config.a {"$gtt": 1}: unknown operator $gtt; did you mean $gt?'),
    (
        {"config.a": {"$gt": 1, "b": 2}},
        'config.a {"$gt": 1, "b": 2}: one object has both operators and the plain key "b"; use $and',
    ),
    ({"config.a": {"$gt": [1]}}, 'config.a {"$gt": [1]}: $gt takes a number, a string, a bool or a time'),
    ({"config.a": {"$in": 1}}, 'config.a {"$in": 1}: $in takes a list'),
    (
        {"config.a": {"$nin": [{"$gt": 1}]}},
        'config.a {"$nin": [{"$gt": 1}]}: $nin takes values and $regex, no other operator',
    ),
    ({"config.a": {"$exists": "yes"}}, 'config.a {"$exists": "yes"}: $exists takes true or false'),
    ({"config.a": {"$not": {}}}, 'config.a {"$not": {}}: $not without operators means nothing'),
    (
        {"config.a": {"$not": 5}},
        'config.a {"$not": 5}: $not takes operators, as in {"$not": {"$gt": 1}}; use $ne for a value',
    ),
    ({"config.a": {"$options": "i"}}, 'config.a {"$options": "i"}: $options without $regex'),
    ({"config.a": {"$regex": 5}}, 'config.a {"$regex": 5}: $regex and $options take strings'),
    (
        {"config.a": {"$regex": "a", "$options": "g"}},
        'config.a {"$regex": "a", "$options": "g"}: unknown regex option \'g\'; options are i, m, s and x',
    ),
    (
        {"config.a": {"$regex": "a(?=b)"}},
        'config.a {"$regex": "a(?=b)"}: the regular expression does not compile: RE2 does not support look-ahead such as (?=...); use $not, or two conditions',
    ),
    (
        {"config.a": {"$regex": "(a)\\1"}},
        'config.a {"$regex": "(a)\\\\1"}: the regular expression does not compile: RE2 does not support back-references such as \\1',
    ),
    (
        {"config.a": {"$regex": "(a"}},
        'config.a {"$regex": "(a"}: the regular expression does not compile: missing ): (a',
    ),
    ({"config.a": {"$size": -1}}, 'config.a {"$size": -1}: $size takes a whole number, 0 or more'),
    ({"config.a": {"$size": 1.5}}, 'config.a {"$size": 1.5}: $size takes a whole number, 0 or more'),
    ({"config.a": {"$all": 1}}, 'config.a {"$all": 1}: $all takes a list'),
    ({"config.a": {"$elemMatch": 1}}, 'config.a {"$elemMatch": 1}: $elemMatch takes an object'),
    ({"config.a": {"$type": "strin"}}, 'config.a {"$type": "strin"}: unknown type "strin"; did you mean \'string\'?'),
    (
        {"config.a": {"$type": "int"}},
        'config.a {"$type": "int"}: JSON has only one type of number, so use \'number\' instead of "int"',
    ),
    ({"config.a": {"$mod": [0, 1]}}, 'config.a {"$mod": [0, 1]}: $mod by 0'),
    (
        {"config.a": {"$mod": [2]}},
        'config.a {"$mod": [2]}: $mod takes [divisor, remainder], two finite numbers below 2^63',
    ),
    ({"config.a": {"$contains": 5}}, 'config.a {"$contains": 5}: $contains takes a string'),
    (
        {"created_at": 5},
        'created_at 5: 5 is not a time; write "2026-03-01", "2026-03-01T12:00:00Z", "7d", "24h" or "today"',
    ),
    (
        {"created_at": {"$gt": "tomorrow"}},
        (
            'created_at {"$gt": "tomorrow"}: "tomorrow" is not a time; '
            'write "2026-03-01", "2026-03-01T12:00:00Z", "7d", "24h" or "today"'
        ),
    ),
    (
        {"created_at": {"$regex": "2026"}},
        'created_at {"$regex": "2026"}: the field is a time, not text; compare it with $gte and $lt',
    ),
    ({"config.a": "\ud800"}, 'config.a "?": the text contains half of a surrogate pair, which is not a character'),
    ({"config.a": {1}}, 'config.a "{1}": a set is not a JSON value'),
    (DEEP, "the filter is nested deeper than 100 levels; write it flatter"),
    ("[" * 100_000, "the filter is nested deeper than 100 levels; write it flatter"),
    (
        {"config." + ".".join("ab" * 21): 1},
        "'config.a.b.a.b.a.b.a.b.a.b.a.b.a.b.a.b.a'... has 42 steps; a path has at most 40",
    ),
    (
        {"config.a": list(range(2000))},
        "config.a ["
        + ", ".join(map(str, range(32)))
        + "...: lists and objects of more than 1000 values cannot be compared",
    ),
]


@pytest.mark.parametrize(("query", "message"), CASES, ids=[m[:60] for _, m in CASES])
def test_the_message_says_what_is_wrong(query, message):
    """The whole message, on one line."""
    with pytest.raises(FilterError) as error:
        compile_filter(query)
    assert str(error.value) == message
    assert "\n" not in message


@pytest.mark.parametrize(
    "query", [{"config.a": DEEP_NOT}, {"config.a": DEEP_VALUE}, {"config.a": {"$elemMatch": DEEP_ELEMENT}}]
)
def test_nesting_is_bounded_everywhere(query):
    """Operators, values and $elemMatch in each other."""
    with pytest.raises(FilterError, match="nested deeper than"):
        compile_filter(query)


def test_a_broken_branch_is_an_error_where_it_could_not_matter():
    """The whole filter is checked, also after an $or that already holds."""
    with pytest.raises(FilterError, match=r"unknown operator \$oops"):
        parse({"$or": [{}, {"config.a": {"$oops": 1}}]})


def test_json_text_and_python_values_are_the_same_filter():
    """NaN and Infinity tokens are numbers in the text too."""
    text = compile_filter('{"config.a": {"$in": [1, "x", -Infinity]}, "$or": [{"state": "running"}]}')
    assert text == compile_filter({"config.a": {"$in": (1, "x", float("-inf"))}, "$or": ({"state": "running"},)})
