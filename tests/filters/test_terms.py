"""Terms are filters without JSON: one word each, and an error of one line for each that cannot be meant."""

from __future__ import annotations

from datetime import datetime
from math import isnan

import pytest

from mirror.filters import FilterError, terms
from mirror.filters import compile as compile_filter
from mirror.filters.moments import resolved

from .database import database, fill, matching

NOW = datetime(2026, 3, 10, 15, 30)

MEANINGS = [
    ("state=finished", {"state": "finished"}),
    ("state==finished", {"state": "finished"}),
    ("config.lr<0.01", {"config.lr": {"$lt": 0.01}}),
    ("config.lr<=1e-3", {"config.lr": {"$lte": 0.001}}),
    ("config.lr>=.5", {"config.lr": {"$gte": 0.5}}),
    ("config.lr>+5", {"config.lr": {"$gt": 5}}),
    ("config.big=9007199254740993", {"config.big": 9007199254740993}),
    ("config.lr=-inf", {"config.lr": float("-inf")}),
    ("tags=baseline", {"tags": "baseline"}),
    ("tags=1", {"tags": "1"}),
    ("created_at>7d", {"created_at": {"$gt": "7d"}}),
    ("created_at!=null", {"created_at": {"$ne": None}}),
    ("name~^deep", {"display_name": {"$regex": "^deep"}}),
    ("name!~^deep", {"display_name": {"$not": {"$regex": "^deep"}}}),
    ("name=7", {"display_name": "7"}),
    ("id=7e3", {"name": "7e3"}),
    ("run_id=null", {"name": None}),
    ("sweep=null", {"sweep": None}),
    ("duration>3600", {"duration": {"$gt": 3600}}),
    ("summary.val/acc!=null", {"summary.val/acc": {"$ne": None}}),
    ("config.x=1", {"config.x": 1}),
    ('config.x="1"', {"config.x": "1"}),
    ("config.x='1'", {"config.x": "1"}),
    ('config.x=""', {"config.x": ""}),
    ("config.x=true", {"config.x": True}),
    ('config.x="true"', {"config.x": "true"}),
    ("config.x=null", {"config.x": None}),
    ("config.x=two words", {"config.x": "two words"}),
    ("config.x=a=b", {"config.x": "a=b"}),
    (r'config.x~"a\\d"', {"config.x": {"$regex": r"a\d"}}),
    ('"config.a<b"<3', {"config.a<b": {"$lt": 3}}),
    (r'"config.a\"b"=3', {'config.a"b': 3}),
    ("config.mAP_0.5:0.95>0", {"config.mAP_0.5:0.95": {"$gt": 0}}),
    ("config.gpu count=2", {"config.gpu count": 2}),
]


@pytest.mark.parametrize(("term", "meaning"), MEANINGS)
def test_a_term_is_the_json_filter(term, meaning):
    """Which the compiler accepts."""
    assert terms.conditions([term]) == meaning
    compile_filter(terms.conditions([term]))


def test_nan_is_a_number():
    assert isnan(terms.conditions(["config.x=NaN"])["config.x"])


def test_all_terms_must_hold():
    """Also several of one key; a second one is joined to the first where operators differ."""
    assert terms.conditions(["config.a>1", "config.a<3", "state=failed"]) == {
        "config.a": {"$gt": 1, "$lt": 3},
        "state": "failed",
    }
    assert terms.conditions(["tags=a", "tags=b", "tags!=c"]) == {
        "tags": "a",
        "$and": [{"tags": "b"}, {"tags": {"$ne": "c"}}],
    }
    assert terms.conditions(["config.a>1", "config.a>2"]) == {
        "config.a": {"$gt": 1},
        "$and": [{"config.a": {"$gt": 2}}],
    }
    assert terms.conditions([]) == {}


def test_terms_and_json_hold_together():
    """Either may be left out."""
    assert terms.combined('{"state": "failed"}', ["tags=a"]) == {"$and": [{"state": "failed"}, {"tags": "a"}]}
    assert terms.combined("{}", ["tags=a"]) == {"tags": "a"}
    assert terms.combined(None, ["tags=a"]) == {"tags": "a"}
    assert terms.combined('{"state": 1}', []) == '{"state": 1}'


def test_a_line_is_terms_or_json():
    """Quotes keep spaces together where a key or a value begins, and an apostrophe is a letter."""
    line = """ state=finished  notes="two \\" words" name='a b'\tnotes~it's "config.my key"=1"""
    assert terms.parse(line) == {
        "state": "finished",
        "notes": 'two " words',
        "display_name": "a b",
        "config.my key": 1,
        "$and": [{"notes": {"$regex": "it's"}}],
    }
    assert terms.parse(' {"state": "finished"}') == {"state": "finished"}
    assert terms.parse("") == {}


def test_a_line_of_plain_words_holds_no_term():
    """So that a box can take both."""
    found = [terms.has_term(line) for line in ("deep forest", "", "a-b", "deep state=finished", "lr<", 'name="a b"')]
    assert found == [False, False, False, True, True, True]


HOW = "use KEY OP VALUE in one word, such as state=finished; the operators are = != < <= > >= ~ !~"
TIMES = '"2026-03-01", "2026-03-01T12:00:00Z", "7d", "24h" or "today"'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("finished", "'finished' is not a term; did you mean state=finished?"),
        ("deep", f"'deep' is not a term; {HOW}"),
        (
            "config.lr",
            (
                f"the term 'config.lr' has no operator; {HOW} "
                "(quote terms with < or >, which the shell uses itself: 'config.lr>0')"
            ),
        ),
        ("=3", f"'=3' is not a term; {HOW}"),
        (
            "lr<0.1",
            (
                "the term 'lr<0.1': unknown field 'lr'; did you mean 'config.lr' or 'summary_metrics.lr'? (fields are name, "
                "display_name, state, tags, group, job_type, sweep, username, created_at, duration, ...)"
            ),
        ),
        (
            "stat=1",
            (
                "the term 'stat=1': unknown field 'stat'; did you mean 'state'? "
                "(keys of runs are written config.stat or summary_metrics.stat)"
            ),
        ),
        ("config.x=", "the term 'config.x=': there is no value; write null for none, and \"\" for an empty text"),
        (
            "config.x=True",
            "the term 'config.x=True': write true for the value, or \"True\" in quotes for the text",
        ),
        (
            "config.x=[1]",
            (
                "the term 'config.x=[1]': lists and objects need a JSON filter, "
                "as in --filter '{\"config.layers\": [64, 128]}'"
            ),
        ),
        (
            "config.x<>1",
            "the term 'config.x<>1': the value begins with >, as an operator does; write it in quotes if that is meant",
        ),
        ('config.x="a', "the term 'config.x=\"a' has no closing \""),
        (
            'config.x="a"b',
            'the term \'config.x="a"b\': "a"b is not a text in quotes; in double quotes, write \\\\ for \\ and \\" for "',
        ),
        ("duration>1h", "the term 'duration>1h': duration is a number of seconds, not '1h'"),
        ("created_at~7", "the term 'created_at~7': ~ is for text, and this field is a time; compare it with < or >"),
        (
            "created_at=today",
            f"the term 'created_at=today': a time is compared with < or >, as in created_at>7d; times are {TIMES}",
        ),
        ("created_at>7dd", f'created_at {{"$gt": "7dd"}}: "7dd" is not a time; write {TIMES}'),
        ("created_at>-7d", f'created_at {{"$gt": "-7d"}}: "-7d" is not a time; write {TIMES}'),
        ("created_at>999999999w", f'created_at {{"$gt": "999999999w"}}: "999999999w" is not a time; write {TIMES}'),
        ("[1]", f"a filter is an object or terms, not [1]; {HOW}"),
    ],
)
def test_what_cannot_be_meant_is_one_line(line, message):
    """That says what to write instead."""
    with pytest.raises(FilterError) as raised:
        compile_filter(terms.parse(line))
    assert str(raised.value) == message


def test_json_is_not_a_term():
    with pytest.raises(FilterError, match=r'^\{"a": 1\} is JSON, not a term: give it to --filter$'):
        terms.conditions(['{"a": 1}'])


@pytest.mark.parametrize(
    ("text", "first"),
    [("90s", 4), ("30m", 4), ("24h", 2), ("1.5d", 1), ("1w", 0), ("now", 5), ("today", 3), ("yesterday", 1)],
)
def test_relative_times_are_before_the_moment_at_which_the_filter_is_run(text, first):
    """`today` and `yesterday` begin at midnight, UTC; in JSON filters as in terms."""
    con = database()
    created = ["2026-03-03 15:30", "2026-03-09 03:31", "2026-03-09 15:31", "2026-03-10 00:00", "2026-03-10 15:29"]
    fill(con, [{"created_at": at} for at in created])
    for condition in ({"created_at": {"$gte": text}}, {"$nor": [{"createdAt": {"$lt": text}}]}):
        compiled = compile_filter(condition, "+created_at", now=NOW)
        found = con.execute(compiled.sql, list(compiled.params)).fetchall()
        assert [rid for (rid,) in found] == list(range(first, 5))


def test_a_relative_time_is_a_text_for_other_keys():
    """As the official API takes it."""
    con = database()
    fill(con, [{"config": {"age": "7d"}, "name": "today"}])
    assert matching(con, {"config.age": "7d", "display_name": "today"}) == [0]


def test_others_get_the_moment_itself():
    """The server does not know relative times."""
    given = {
        "$or": [{"created_at": {"$gt": "7d", "$not": {"$in": ["today", None]}}}, {"config.age": "7d"}],
        "heartbeatAt": "2026-01-01",
        "state": "now",
    }
    assert resolved(given, NOW) == {
        "$or": [
            {"created_at": {"$gt": "2026-03-03T15:30:00Z", "$not": {"$in": ["2026-03-10T00:00:00Z", None]}}},
            {"config.age": "7d"},
        ],
        "heartbeatAt": "2026-01-01",
        "state": "now",
    }
    assert resolved(["nonsense"], NOW) == ["nonsense"]
