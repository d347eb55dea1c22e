"""Nothing a user writes becomes SQL text, every statement parses, and anything at all is answered or refused."""

from __future__ import annotations

import json
import string

import pytest
import sqlglot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.filters import FilterError, explain, unknown_keys
from mirror.filters import compile as compile_filter
from mirror.filters.conditions import OPERATORS

from .database import database, fill, matching
from .strategies import filters
from .test_fields import CASES as FIELD_CASES
from .test_order import CASES as ORDER_CASES
from .test_semantics import CASES

HOSTILE = [
    "'; DROP TABLE store.run_records; --",
    '"',
    "?",
    "$1",
    "{}",
    "{0}",
    "%s",
    "\\",
    "\x00",
    "*/",
    "x' OR '1'='1",
    "l.key",
]

# The strategies are composed in layers; their repr is of no use to anyone.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


def examples(count: int) -> settings:
    return settings(
        max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
    )


@pytest.fixture(scope="module")
def con():
    con = database()
    fill(con, [{"config": {"a": 1, "b": {"c": [1, {"d": "x"}]}}, "summary": {"a": None}, "tags": ["x"]}, {}])
    return con


@pytest.mark.parametrize("text", HOSTILE)
def test_keys_and_values_are_bound(con, text):
    """A filter made of hostile text finds just the run that holds that text, in every place where text can stand."""
    con = database()
    # A key with a NUL cannot be named in a JSON pointer; as a value it is plain text.
    key = text if "\x00" not in text else "nul"
    # Inside lists a dot is always a step, and a key of $elemMatch that starts with $ would be an operator.
    inner = "k" + key.replace(".", "_")
    fill(
        con,
        [{"config": {key: text, "o": {key: [text, {inner: text}]}}, "name": text, "tags": [text]}, {"name": "other"}],
    )
    places = [
        {f"config.{key}": text},
        {f"config.{key}": {"$in": [text]}},
        {f"config.o.{key}": text},
        {f"config.o.{key}.1.{inner}": text},
        {f"config.o.{key}": {"$elemMatch": {"$or": [{inner: text}]}}},
        {"config.o": {"$eq": {key: [text, {inner: text}]}}},
        {f"config.{key}": {"$contains": text}},
        {f"config.{key}": {"$gte": text, "$lte": text}},
        {"display_name": text},
        {"tags": text},
        {"tags": [text]},
    ]
    assert [matching(con, place, f"-config.{key}") for place in places] == [[0]] * len(places)
    for place in places:
        compiled = compile_filter(place, f"-config.{key}" if "," not in key else None)
        assert compiled.sql.count("?") == len(compiled.params)
        explain(con, compiled)
        unknown_keys(con, compiled)


def test_the_text_of_the_sql_depends_on_the_shape_alone():
    """Two filters of one shape with other keys and values are the same statement."""
    first = compile_filter({"config.a.b": {"$in": ["x", 5]}, "tags": "x", "name": "n"}, "config.a")
    second = compile_filter({"config.c'.d": {"$in": ["y'", 6]}, "tags": "z", "name": "m"}, "config.;")
    assert first.sql == second.sql
    assert first.params != second.params


@pytest.mark.parametrize("form", ["leaves", "json"])
def test_every_statement_parses(form):
    """sqlglot's DuckDB dialect reads each as one SELECT."""
    queries = [query for query, _ in [*CASES, *FIELD_CASES]]
    statements = {compile_filter(query, form=form).sql for query in queries}
    statements |= {compile_filter({}, order).sql for order, _ in ORDER_CASES}
    for sql in sorted(statements):
        [parsed] = sqlglot.parse(sql, dialect="duckdb")
        assert isinstance(parsed, sqlglot.exp.Select), sql


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
DOLLARS = st.sampled_from(["$and", "$or", "$nor", "$comment", "$x", "", *OPERATORS])
FIELDS = st.sampled_from(
    [
        *("state", "name", "tags", "tags.0", "duration", "created_at", "id", "x", ".", "config", "config."),
        *("config.a", "config.b.c", "config.b.c.1.d", "summary.a", "config.a.value", "a\nb", "config.\n"),
    ]
)
ODD_VALUES = st.sampled_from(
    [
        10**400,
        -(2**64),
        1e308,
        float("nan"),
        float("-inf"),
        "\ud800",
        "(",
        "[a",
        "2026-01-01",
        "a\x00b",
        (),
        2**63,
        -0.0,
    ]
)
ODD = st.recursive(
    JSON | ODD_VALUES | st.text(string.printable, max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(DOLLARS | FIELDS, inner, max_size=3),
    max_leaves=10,
)


@examples(200)
@given(
    st.one_of(
        ODD, st.dictionaries(FIELDS, ODD, max_size=2), st.dictionaries(DOLLARS, st.lists(ODD, max_size=3), max_size=2)
    )
)
def test_any_json_is_answered_or_refused(con, query):
    """Rows or FilterError with one line, never another exception."""
    try:
        compiled = compile_filter(query)
    except FilterError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert set(con.execute(compiled.sql, list(compiled.params)).fetchall()) <= {(0,), (1,)}


@examples(100)
@given(st.one_of(st.text(max_size=30), JSON.map(json.dumps), filters().map(lambda f: json.dumps(f)[:-1])))
def test_any_text_is_answered_or_refused(con, text):
    """The same for text that may be JSON."""
    try:
        compiled = compile_filter(text)
    except FilterError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert set(con.execute(compiled.sql, list(compiled.params)).fetchall()) <= {(0,), (1,)}


@examples(100)
@given(st.one_of(st.text(max_size=12), st.lists(FIELDS | st.text(max_size=4), max_size=3).map(",-".join)))
def test_any_order_is_answered_or_refused(con, order):
    """The same for orders."""
    try:
        compiled = compile_filter({}, order)
    except FilterError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert set(con.execute(compiled.sql, list(compiled.params)).fetchall()) == {(0,), (1,)}
