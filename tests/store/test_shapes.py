"""The leaves of many documents at once are the same rows as those of one document after the other."""

from __future__ import annotations

import itertools
import math
import struct
from random import Random
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.store.leaves import INTEGER, LeafColumns, shown
from mirror.store.shapes import FEWEST, ShapedLeaves, rows_of

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), 10**400, 2**53 + 1]),
    st.floats(),
    st.text(max_size=4),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "a.b", ""]), inner, max_size=3)
    ),
    max_leaves=6,
)
DOCUMENTS = st.dictionaries(st.sampled_from(["a", "A", "b", "a.b", "a.b.a", "c"]), VALUES, max_size=4)


def both(documents: list[dict[str, Any]]) -> None:
    """Compare rows and counts of these documents, as config and as summary, with those of LeafColumns."""
    one, all_at_once = LeafColumns(), ShapedLeaves()
    numbers = range(1, len(documents) + 1)
    for doc in ("config", "summary"):
        all_at_once.add(doc, numbers, documents)
        for rid, document in zip(numbers, documents, strict=True):
            one.add(rid, doc, document)
    with duckdb.connect(config={"threads": 1}) as con:
        con.register("raw", all_at_once.table())
        con.register("plain", one.table())
        con.register("counts", all_at_once.counts())
        here = rows_of("raw")
        both_ways = f"(FROM {here} EXCEPT ALL FROM plain) UNION ALL (FROM plain EXCEPT ALL FROM {here})"
        assert con.execute(both_ways).fetchall() == []
        counted = con.execute(
            f"""
            SELECT doc, key, count(*), sum((kind = 'number')::INT), sum((kind = 'bool')::INT),
                   sum((kind = 'null')::INT), sum(({INTEGER})::INT)
            FROM plain WHERE {shown()} GROUP BY doc, key ORDER BY ALL
            """
        ).fetchall()
        sums = ", ".join(f"sum({name})" for name in ("runs", "numbers", "bools", "nulls", "integers"))
        assert con.execute(f"SELECT doc, key, {sums} FROM counts GROUP BY doc, key ORDER BY ALL").fetchall() == counted


@settings(max_examples=25, deadline=None)
@given(st.lists(DOCUMENTS, min_size=1, max_size=4), st.sampled_from([1, 5, FEWEST - 1, FEWEST, FEWEST + 3]))
def test_any_documents(documents, times):
    """Each document several times, so that some shapes are common and some are rare."""
    both(list(itertools.chain.from_iterable([documents] * times)))


def test_the_runs_of_a_sweep():
    """Same keys, other values: numbers that are not finite, long integers, empty and full objects and lists."""
    rng = Random(3)
    both(
        [
            {
                "lr": rng.random() if number % 5 else rng.choice([math.nan, math.inf, -math.inf]),
                "huge": 1e308,
                "seed": rng.choice([number, 2**63, -(2**80), 10**400]),
                "plain": number,
                "name": f"run {number}" * (1 + 5000 * (number == 3)),
                "half": "\ud800" if number == 4 else "whole",
                "flag": number % 2 == 0,
                "none": None,
                "opt": {"lr": rng.random(), "empty": {}, "deep": {"x.y": number}} if number % 3 else {},
                "betas": [0.9, number],
                "long": list(range(number * 10)),
            }
            for number in range(40)
        ]
    )


def test_other_order_same_dotted_path_and_other_case():
    """The order of keys makes another shape; two nodes with one dotted path stay two rows."""
    both(
        [{"a": 1, "b": 2}] * FEWEST
        + [{"b": 2, "a": 1}] * FEWEST
        + [{"a.b": 1, "a": {"b": 2}}] * FEWEST
        + [{"Lr": 1.0, "lr": 2}] * FEWEST
        + [{}] * FEWEST
        + [{"lr": "text"}] * 2
    )


def test_whole_numbers_at_the_end_of_a_bigint_are_counted_as_their_doubles_are():
    """The number is what readers compare; the last ones below the limit are rounded to it."""
    limit = 9223372036854774784
    both([{"up": limit - number, "down": number - limit} for number in range(1, 2 * FEWEST)])
    both([{"up": limit - 600 * number} for number in range(1, 2 * FEWEST)])


def test_deep_documents():
    """Nested deeper than Python's stack."""
    deep: dict = {"x": 1.5}
    for _ in range(1100):
        deep = {"d": deep}
    both([deep] * FEWEST)


def test_duckdb_writes_a_number_as_python_does():
    """The texts of finite floats are left to DuckDB, so they must be Python's, digit by digit."""
    rng = Random(5)
    some = [struct.unpack("d", rng.randbytes(8))[0] for _ in range(10_000)]
    some += [round(rng.uniform(-1e4, 1e4), rng.randrange(9)) for _ in range(5_000)]
    some += [sign * digits * 10.0**power for sign in (1, -1) for digits in (1, 9.995) for power in range(-323, 309)]
    both([{"x": value} for value in [*some, 0.0, -0.0, 5e-324, 1e16, 9999999999999998.0, 1e-4, 1e-5]])


def test_what_is_no_json_value_is_refused():
    """As by LeafColumns."""
    with pytest.raises(TypeError, match=r"config key 'a\.b' holds a set, which is not a JSON value"):
        ShapedLeaves().add("config", range(FEWEST), [{"a": {"b": set()}}] * FEWEST)
