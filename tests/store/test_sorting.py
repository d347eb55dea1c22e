"""The leaves of the documents are put in order once many are not, and nobody sees a difference but in time."""

from __future__ import annotations

import duckdb
import pytest

from mirror.store import compact, sorting
from tests.store.kit import home_at, opened, read, run, write

LEAVES = "SELECT rid, doc, key, kind, number, text, element FROM store.leaf_rows"
CONFIG = {"lr": 0.1, "layers": [1, 2], "model": {"name": "vit", "note": None}, "id": 2**60 + 1}


@pytest.fixture(autouse=True)
def _few_are_enough(monkeypatch):
    monkeypatch.setattr(sorting, "FEWEST", 10)


def inside(root, sql):
    """Rows of the state file, which nothing holds."""
    with duckdb.connect(str(home_at(root).state), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_sorting_orders_by_document_key_and_run_and_loses_nothing(tmp_path):
    with opened(tmp_path) as store:
        for number in (3, 1, 2):
            write(store, run(f"r{number}", config=CONFIG | {f"k{number}": number}, summary={"acc": number / 7}))
        before = sorted(read(store, LEAVES), key=repr)
        assert store.tend()
        assert store.changed
        assert sorted(read(store, LEAVES), key=repr) == before
    places = inside(tmp_path, "SELECT doc, key, rid FROM store.leaf_rows ORDER BY rowid")
    assert places == sorted(places)
    assert [key for doc, key, _ in places if doc == "config"][:3] == ["id", "id", "id"]


def test_what_is_in_order_is_not_sorted_until_a_tenth_is_not(tmp_path):
    with opened(tmp_path) as store:
        write(store, *(run(f"r{number:03}", config=CONFIG) for number in range(100)))
        assert store.tend()
        assert not store.tend()
        write(store, run("r001", config=CONFIG | {"lr": 0.2}))
        assert not store.tend()
        write(store, *(run(f"r{number:03}", config=CONFIG) for number in range(20)))
        assert store.tend()
        numbers = "SELECT count(*), count(DISTINCT rid) FROM store.leaves WHERE key = 'lr'"
        assert read(store, numbers) == [(100, 100)]


def test_a_compacted_file_knows_how_much_of_it_is_in_order(tmp_path, monkeypatch):
    with opened(tmp_path) as store:
        write(store, *(run(f"r{number:03}", config=CONFIG) for number in range(100)))
        assert store.tend()
        write(store, *(run(f"r{number:03}", config=CONFIG | {"new": 1}) for number in range(0, 100, 30)))
    monkeypatch.setattr(compact, "is_due", lambda db, version: True)
    with opened(tmp_path) as store:
        assert not store.tend()
    rows = inside(tmp_path, "SELECT doc, key, rid FROM store.leaf_rows ORDER BY rowid")
    [(reported,)] = inside(tmp_path, "SELECT CAST(value AS INTEGER) FROM store.meta WHERE key = 'sorted_leaves'")
    assert 0 < reported < len(rows)
    assert rows[:reported] == sorted(rows[:reported])
    assert {rid for _, _, rid in rows[:reported]}.isdisjoint({rid for _, _, rid in rows[reported:]})
