"""What the code says once: a rule that stands in SQL files as well, or in two languages, is the same in each."""

from __future__ import annotations

import ast
from pathlib import Path

import duckdb
import pytest

from mirror.snapshot.spread import spread, spread_sql
from mirror.store.leaves import shown, text_of

ROOT = Path(__file__).parents[2]


def test_the_leaves_that_people_see_are_those_of_the_views():
    for document in ("config", "summary"):
        view = (ROOT / "sql" / "views" / f"{document}_values.sql").read_text()
        assert view.endswith(f"WHERE l.doc = '{document}' AND {shown('l')};\n")


def test_the_text_of_a_leaf_is_that_of_the_view():
    assert f"{text_of()} AS text," in (ROOT / "sql" / "views" / "leaves.sql").read_text()


def test_one_module_words_this_condition():
    words = "kind <> 'object'"
    assert [path.name for path in (ROOT / "mirror").rglob("*.py") if words in path.read_text()] == ["leaves.py"]


def test_the_key_of_the_step_is_named_once_on_each_side_of_the_wall():
    """Longer texts in which it stands, such as GraphQL documents, are not constants of their own."""
    named = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "mirror").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value == "_step"
    ]
    assert named == ["mirror/metrics.py", "mirror/sandbox/history.py"]


def test_one_module_reads_the_type_counts_of_history_keys_from_the_server():
    remote = (ROOT / "mirror" / "remote").rglob("*.py")
    assert [path.name for path in remote if '"typeCounts"' in path.read_text()] == ["history_keys.py"]


@pytest.mark.parametrize("samples", [1, 2, 3, 7, 10, 499, 500, 501])
def test_sql_and_python_choose_the_same_rows(samples):
    rows = "SELECT 'a' AS run, range * 3 AS step FROM range(500) UNION ALL SELECT 'b', range FROM range(4)"
    sql = spread_sql(rows, "run, step", "$samples", of="run")
    found = duckdb.sql(f"{sql} ORDER BY run, step", params={"samples": samples}).fetchall()
    assert found == [
        *(("a", index * 3) for index in spread(500, samples)),
        *(("b", index) for index in spread(4, samples)),
    ]
