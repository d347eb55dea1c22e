"""The rows of store.leaves: every node of a document, in the columns of the table."""

from __future__ import annotations

import json
import math

import pytest

from mirror.filters import sources
from mirror.store.leaves import ELEMENT_TEXT_LIMIT, LeafColumns
from mirror.wandb_json import dumps

from .database import database


def rows(document):
    columns = LeafColumns()
    columns.add(7, "config", document)
    return [
        (row["key"], row["kind"], row["number"], row["text"], row["element"]) for row in columns.table().to_pylist()
    ]


def test_a_document_becomes_one_row_a_node():
    """Objects by dotted path, lists with their elements, values with their text."""
    document = {
        "lr": 0.1,
        "n": 2**53 + 1,
        "ok": True,
        "none": None,
        "name": "adam",
        "empty": {},
        "nothing": [],
        "opt": {"lr": 1, "deep": {"x.y": False}},
        "list": [1, "a", None, [2], {"k": 3}, 2.5, True],
        "inf": -math.inf,
    }
    assert rows(document) == [
        ("lr", "number", 0.1, "0.1", None),
        ("n", "number", 2.0**53, "9007199254740993", None),
        ("ok", "bool", None, "true", None),
        ("none", "null", None, None, None),
        ("name", "string", None, "adam", None),
        ("empty", "object", None, "{}", None),
        ("nothing", "list", None, "[]", None),
        ("opt", "object", None, None, None),
        ("list", "list", None, '[1,"a",null,[2],{"k":3},2.5,true]', None),
        ("list", "number", 1.0, "1", 0),
        ("list", "string", None, "a", 1),
        ("list", "null", None, None, 2),
        ("list", "list", None, "[2]", 3),
        ("list", "object", None, '{"k":3}', 4),
        ("list", "number", 2.5, "2.5", 5),
        ("list", "bool", None, "true", 6),
        ("inf", "number", -math.inf, "-Infinity", None),
        ("opt.lr", "number", 1.0, "1", None),
        ("opt.deep", "object", None, None, None),
        ("opt.deep.x.y", "bool", None, "false", None),
    ]


def test_a_long_list_has_one_row():
    """At the limit of its text a list still has its elements; filters know the same limit."""
    assert sources.ELEMENT_TEXT_LIMIT == ELEMENT_TEXT_LIMIT
    at_limit = "x" * (ELEMENT_TEXT_LIMIT - 4)
    assert [row[1] for row in rows({"a": [at_limit]})] == ["list", "string"]
    assert [row[1] for row in rows({"a": [at_limit + "x"]})] == ["list"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1.5, float("nan"), None], "[1.5,NaN,null]"),
        ([10**30, -math.inf], "[1000000000000000000000000000000,-Infinity]"),
        ({"ä": ["null"]}, '{"ä":["null"]}'),
    ],
)
def test_json_text_is_exact(value, text):
    """NaN, infinities and long integers as DuckDB and Python read them back."""
    assert dumps(value) == text
    assert str(json.loads(text)) == str(value)


def test_the_hardest_values_become_rows():
    """Integers past every double, half of a surrogate pair, and documents nested deeper than Python's stack."""
    deep: dict = {"x": 1}
    for _ in range(3000):
        deep = {"d": deep}
    columns = LeafColumns()
    columns.add(1, "summary", {"big": -(10**400), "half": "\ud800", "nan": float("nan")})
    columns.add(2, "summary", deep)
    table = columns.table()
    assert table.column("number").to_pylist()[0] == -1.7976931348623157e308
    assert table.column("text").to_pylist()[:3] == [str(-(10**400)), "?", "NaN"]
    assert table.column("kind").to_pylist()[-1] == "number"
    assert len(columns) == 3 + 3001
    columns.clear()
    assert columns.table().num_rows == 0


def test_what_is_no_json_value_is_refused():
    """The message names the key."""
    with pytest.raises(TypeError, match=r"config key 'a\.b' holds a set, which is not a JSON value"):
        LeafColumns().add(1, "config", {"a": {"b": set()}})


def test_the_columns_are_those_of_the_table():
    """An INSERT of the Arrow table needs no list of columns."""
    con = database()
    described = con.execute("DESCRIBE store.leaves").fetchall()
    columns = LeafColumns()
    columns.add(1, "config", {"a": [1]})
    table = columns.table()
    con.register("t", table)
    assert [row[:2] for row in con.execute("DESCRIBE t").fetchall()] == [row[:2] for row in described]
