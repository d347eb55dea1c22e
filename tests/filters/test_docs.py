"""The examples of docs/filters.md, run over the runs that stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mirror.filters import compile as compile_filter
from mirror.filters import terms
from mirror.filters.conditions import OPERATORS
from mirror.filters.fields import NAMES

from .database import database, fill, matching

TEXT = (Path(__file__).parents[2] / "docs" / "filters.md").read_text()


def table(first: str) -> list[list[str]]:
    """The rows of the table whose first heading is this."""
    lines = TEXT[TEXT.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


RUNS = [
    {
        "run_id": name,
        "name": name,
        "created_at": f"2026-03-0{day} 12:00:00",
        "config": json.loads(config.strip("`")),
        "summary": json.loads(summary.strip("`")),
        "state": state,
        "tags": [tag.strip(" |") for tag in tags.split(",") if tag.strip(" |")],
    }
    for day, (name, config, summary, state, tags) in enumerate(table("run"), 1)
]


@pytest.fixture(scope="module")
def runs():
    con = database()
    fill(con, RUNS)
    return con


@pytest.mark.parametrize(("query", "found"), [(row[0].strip("`"), row[1].strip(" |")) for row in table("filter")[:30]])
def test_each_example_finds_what_the_page_says(runs, query, found):
    """From JSON text, as on the command line, in the order of creation."""
    assert " ".join(RUNS[rid]["run_id"] for rid in matching(runs, query)) == found


@pytest.mark.parametrize(("line", "found"), [(row[0].strip("`"), row[1].strip(" |")) for row in table("terms")])
def test_each_line_of_terms_finds_what_the_page_says(runs, line, found):
    """The same tree as JSON filters."""
    assert " ".join(RUNS[rid]["run_id"] for rid in matching(runs, terms.parse(line))) == found


@pytest.mark.parametrize(("order", "given"), table("order"))
def test_each_order_gives_what_the_page_says(runs, order, given):
    """All six runs."""
    assert " ".join(RUNS[rid]["run_id"] for rid in matching(runs, {}, order.strip("`"))) == given.strip(" |")


def test_the_page_names_every_field_and_operator():
    """A new one cannot be forgotten."""
    words = set(re.findall(r"[\w$]+", TEXT))
    assert {*NAMES, *OPERATORS} - words == set()


def test_the_library_example_runs():
    """What the comments say of `keys` is what they are."""
    compiled = compile_filter({"config.lr": {"$gt": 0.05}}, order="-summary_metrics.acc")
    assert compiled.sql.startswith("SELECT r.rid FROM store.run_records AS r WHERE ")
    assert compiled.keys == (("config", "lr"), ("summary", "acc"))
