"""The fast way and the exact way agree, and the fast one steps aside where it could be wrong."""

from __future__ import annotations

import json
import random

import pytest

from mirror.remote.json_history import KeyGlobs, parse
from mirror.remote.json_history_fast import parse_plain

EVERYTHING = KeyGlobs(["*"])


def lines(change=None, count=200):
    draw = random.Random(1)
    rows = [
        {
            "_step": step * 3,
            "loss": draw.random(),
            "n": draw.randrange(10**9),
            **({"rare": 0.5} if step % 7 == 0 else {}),
        }
        for step in range(count)
    ]
    if change:
        change(rows)
    return [json.dumps(row) for row in rows]


def values(page):
    return sorted((r["step"], r["key"], repr(r["value"]), r["text"]) for r in page.values.to_pylist())


@pytest.mark.parametrize(
    "change",
    [
        None,
        lambda rows: rows[5].update(loss=float("nan")),
        lambda rows: rows[5].update(loss=float("inf")),
        lambda rows: rows[-1].update(loss=float("-inf")),
    ],
    ids=["numbers", "nan", "infinity", "infinity at the end"],
)
def test_plain_lines_give_the_same_either_way(monkeypatch, change):
    texts = lines(change)
    fast = parse_plain("r", texts, EVERYTHING, complete_to=1000)
    monkeypatch.setattr("mirror.remote.json_history.parse_plain", lambda *_, **__: None)
    exact = parse("r", texts, EVERYTHING, complete_to=1000)
    assert values(fast) == values(exact)
    assert (fast.rows, fast.last_step) == (exact.rows, exact.last_step) == (200, 1000)
    assert fast.summary.to_pylist() == exact.summary.to_pylist()
    assert fast.summary.select(["key", "rows", "first_step", "last_step"]).to_pylist() == [
        {"key": "loss", "rows": 200, "first_step": 0, "last_step": 597},
        {"key": "n", "rows": 200, "first_step": 0, "last_step": 597},
        {"key": "rare", "rows": 29, "first_step": 0, "last_step": 588},
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [row.update(loss=float("nan")) for row in rows],
        lambda rows: rows[5].update(loss=None),
        lambda rows: rows[5].update(loss="0.5"),
        lambda rows: rows[5].update(loss=True),
        lambda rows: rows[5].update(loss={"a": 1}),
        lambda rows: rows[5].update(loss=[1]),
        lambda rows: rows[5].update(n=2**53 + 1),
        lambda rows: rows[5].update(n=2**70),
        lambda rows: rows[5].update(when="2026-01-01 00:00:00"),
        lambda rows: rows[5].update(_step=rows[4]["_step"]),
        lambda rows: rows[5].update(_step=0),
        lambda rows: rows[5].pop("_step"),
    ],
)
def test_anything_else_is_left_to_the_exact_way(change):
    assert parse_plain("r", lines(change), EVERYTHING, complete_to=None) is None


def test_globs_narrow_the_fast_way_too():
    page = parse_plain("r", lines(), KeyGlobs(["lo*"]), complete_to=None)
    assert {row["key"] for row in page.values.to_pylist()} == {"loss"}
    assert page.rows == 200
    page = parse_plain("r", lines(), KeyGlobs([]), complete_to=None)
    assert (page.values.num_rows, page.rows, page.last_step) == (0, 200, 597)
