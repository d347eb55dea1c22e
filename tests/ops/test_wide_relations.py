"""No wide relation, however broken, keeps anything from being published."""

from __future__ import annotations

import json

import pytest

from tests.daemon.conftest import bench
from tests.daemon.test_daemon import add

__all__ = ["bench"]

HOSTILE = {
    "a\0b": 1,
    "\0": 2,
    "": 3,
    "k" * 10_000: 4,
    "lr": 5,
    "LR": 6,
    "name": 7,
    'q"uo`te': 8,
    "new\nline\x01": 9,
    "rid": 10,
    "mixed": "1e999",
}


def told(bench):
    found = json.loads(bench.here("status", "--json").stdout)["problems"]
    return [(problem["kind"], problem["level"], problem["message"]) for problem in found]


def test_hostile_keys_and_names_are_published_and_what_has_no_column_is_told(bench):
    add(bench, "one", config=dict(HOSTILE))
    add(bench, "two", config={"mixed": 2.5, "lr": "x"})
    add(bench, "odd", project='it\'s "odd" [1]', config={"a\0b": 1})
    assert bench.here("sync", "team/*").exit_code == 0
    assert bench.sql("select count(*) from runs") == [(3,)]
    kept = dict(bench.sql("select key, number from config_values where run_id = 'one' and number is not null"))
    assert kept == {key: value for key, value in HOSTILE.items() if isinstance(value, int)}
    columns = [row[0] for row in bench.sql('describe "team/p"')]
    assert not [name for name in columns if "\0" in name]
    assert f"config.{'k' * 10_000}" in columns
    assert bench.sql('select run_id, "config.new\nline\x01" from "team/p" order by 1') == [("one", 9.0), ("two", None)]
    assert told(bench) == [
        (
            "wide",
            "warn",
            r"""team/it's "odd" [1]: the key 'config.a\x00b' has no column in the wide relation, for its NUL""",
        ),
        ("wide", "warn", r"team/p: the key 'config.\x00' has no column in the wide relation, for its NUL"),
        ("wide", "warn", r"team/p: the key 'config.a\x00b' has no column in the wide relation, for its NUL"),
    ]
    assert bench.here("status", "--check").exit_code == 0


def test_a_wide_relation_that_cannot_be_made_stops_nothing_and_comes_back(bench):
    add(bench, "one")
    add(bench, "two", project="q")
    bench.here("sync", "team/*")
    add(bench, "new")
    with pytest.MonkeyPatch.context() as patch:
        from mirror.store import wide

        whole = wide._rows

        def failing(db, columns, rids):
            if len(rids) > 0 and db.run("select 1 from store.runs where project = 'p' and rid = ?", [rids[0]]):
                raise ValueError("no such\ncolumn")
            return whole(db, columns, rids)

        patch.setattr(wide, "_rows", failing)
        add(bench, "three", project="q")
        assert bench.here("sync", "team/*").exit_code == 0
    assert bench.sql("select run_id from runs order by 1") == [("new",), ("one",), ("three",), ("two",)]
    assert bench.sql('select run_id from "team/q" order by 1') == [("three",), ("two",)]
    assert bench.sql("select count(*) from duckdb_views() where view_name = 'team/p'") == [(0,)]
    assert told(bench) == [
        ("wide", "warn", "team/p has no wide relation for now (ValueError: no such); please report it")
    ]
    assert bench.here("sync", "team/p").exit_code == 0
    assert bench.sql('select run_id from "team/p" order by 1') == [("new",), ("one",)]
    assert told(bench) == []
