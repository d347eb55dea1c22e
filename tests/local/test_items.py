"""Items of records are read as the official messages read them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.local.protobuf import Malformed
from mirror.local.protobuf_items import items, path
from tests.local.kit import pb

KEYS = st.sampled_from(["loss", "a", "val/acc", "é", "k" * 126, "k" * 127, "k" * 130, "x\x82\x01y", "", "\n"])
TEXTS = st.one_of(
    st.sampled_from(
        ["1", "NaN", "{}", '""', '"\x82"', " " * 120, "1" * 127, "2" * 128, "3" * 130, "4" * 300, "5" * 40_000]
    ),
    st.floats().map(json.dumps),
)
ITEMS = st.lists(st.tuples(st.lists(KEYS, min_size=1, max_size=3), TEXTS), max_size=8)


@given(st.lists(ITEMS, min_size=1, max_size=4), st.integers(-1, 2**40))
@settings(max_examples=400, deadline=None)
def test_items_are_what_the_messages_say(records, step):
    """Keys and texts of any length, several of one key, and a step behind them."""
    for given_items in records:
        record = pb.HistoryRecord(
            item=[pb.HistoryItem(nested_key=names, value_json=text) for names, text in given_items]
        )
        if step >= 0:
            record.step.num = step
        found = items(record.SerializeToString())
        assert {path(raw): text.decode() for raw, text in found.items()} == {tuple(k): v for k, v in given_items}


@given(ITEMS, st.lists(st.lists(KEYS, min_size=1, max_size=2), max_size=3))
@settings(max_examples=200, deadline=None)
def test_removals_are_found_beside_updates(updates, removals):
    record = pb.SummaryRecord(
        update=[pb.SummaryItem(nested_key=names, value_json=text) for names, text in updates],
        remove=[pb.SummaryItem(nested_key=names) for names in removals],
    )
    for _ in range(2):
        others: set[int] = set()
        body = record.SerializeToString()
        found = items(body, 1, others)
        assert {path(raw): text.decode() for raw, text in found.items()} == {tuple(k): v for k, v in updates}
        assert others == ({0x12} if removals else set())
        assert [path(raw) for raw in items(body, 2)] == list(dict.fromkeys(map(tuple, reversed(removals))))[::-1]


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_bytes_that_are_no_record_end_in_one_kind_of_error(content):
    try:
        for raw in items(content):
            path(raw)
    except (Malformed, IndexError):
        return


def test_a_record_that_is_cut_off_is_refused():
    body = pb.HistoryRecord(item=[pb.HistoryItem(key="a", value_json="1")] * 3).SerializeToString()
    assert list(map(path, items(body))) == [("a",)]
    with pytest.raises((Malformed, IndexError)):
        items(body[:-1])
