"""Only three rooms name the tables of the store; all others read them through functions and published relations.

mirror/store owns the tables, mirror/snapshot reads them for everyone, and mirror/filters writes conditions over
`store.run_records AS r`, which mirror/snapshot runs: it is the translator, and has no connection of its own.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import sqlglot
from sqlglot.errors import SqlglotError

ROOT = Path(__file__).parents[2]
SCHEMA = "store"
OWNERS = {"store", "snapshot", "filters"}
ROOMS = sorted({path.relative_to(ROOT / "mirror").parts[0] for path in (ROOT / "mirror").rglob("*.py")})

BEFORE_A_TABLE = re.compile(r"\b(from|join|into|update|table|view|describe|summarize|exists)$|,$|\($", re.IGNORECASE)
SQL = re.compile(
    r"\b(select|from|join|where|insert\s+into|delete\s+from|update|copy|create|alter|drop|describe|attach|pragma)\b",
    re.IGNORECASE,
)
FILLED_LATER = re.compile(r"\{[^{}]*\}")


def texts(source: str) -> Iterator[str]:
    """Every string of a module but its docstrings, with `p` for what is filled in when it runs.

    Strings that stand together or are joined by `+` are one text.
    """
    tree = ast.parse(source)
    seen = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if id(node) not in seen and (text := text_of(node)) is not None:
            seen |= {id(inner) for inner in ast.walk(node)}
            yield FILLED_LATER.sub("p", text.replace("{{", "{").replace("}}", "}"))


def text_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "p" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left), text_of(node.right)
        return None if left is None and right is None else (left or "p") + (right or "p")
    return None


def tables(text: str) -> set[str]:
    """The tables of the store that a text names, as a statement of SQL, as a part of one, or by a bare name."""
    if bare := re.fullmatch(rf"\s*{SCHEMA}\.(\w+)\s*", text, re.IGNORECASE):
        return {bare[1]} & known_tables()
    if not SQL.search(text):
        return set()
    try:
        parsed = [tree for tree in sqlglot.parse(text, dialect="duckdb") if tree is not None]
    except SqlglotError:
        parsed = []
    found = {table.name for tree in parsed for table in tree.find_all(sqlglot.exp.Table) if table.db.lower() == SCHEMA}
    whole = parsed and not any(tree.find(sqlglot.exp.Command) for tree in parsed)
    return found if whole else found | in_parts(text)


def in_parts(text: str) -> set[str]:
    """The same for a text that is a part of a statement: names that stand where SQL has a table."""
    return {
        name[1]
        for name in re.finditer(rf'(?<![\w.])"?{SCHEMA}"?\."?(\w+)', text, re.IGNORECASE)
        if BEFORE_A_TABLE.search(text[: name.start()].rstrip())
    }


@cache
def known_tables() -> set[str]:
    """The tables and views of the schema, as sql/ makes them."""
    made = re.compile(rf"\b(?:TABLE|VIEW)\s+(?:IF NOT EXISTS\s+)?{SCHEMA}\.(\w+)", re.IGNORECASE)
    renamed = re.compile(r"\bRENAME\s+TO\s+(\w+)", re.IGNORECASE)
    texts = [file.read_text() for file in (ROOT / "sql").rglob("*.sql")]
    return {name for text in texts for name in (*made.findall(text), *renamed.findall(text))}


@pytest.fixture(autouse=True)
def _quiet():
    # sqlglot warns about statements that it keeps as they are, such as some forms of COPY.
    logging.getLogger("sqlglot").setLevel(logging.ERROR)


def of_room(room: str) -> list[Path]:
    path = ROOT / "mirror" / room
    return [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in OWNERS])
def test_no_table_of_the_store_is_named_outside_of_its_rooms(room):
    named = {
        f"{path.relative_to(ROOT)}: {SCHEMA}.{table}"
        for path in of_room(room)
        for text in texts(path.read_text())
        for table in tables(text)
    }
    assert sorted(named) == []


def test_the_rooms_of_the_store_are_still_there():
    assert set(ROOMS) >= OWNERS


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ('sql = "SELECT rid FROM store.run_records WHERE rid = ?"', {"run_records"}),
        ('sql = "SELECT r.rid FROM mirror.store.run_records AS r, STORE.leaves AS l"', {"run_records", "leaves"}),
        ('sql = "SELECT rid FROM runs WHERE rid IN (SELECT rid " "FROM store.tag_positions)"', {"tag_positions"}),
        ('sql = f"SELECT {columns} FROM store.run_history WHERE {here} LIMIT {most:d}"', {"run_history"}),
        ('sql = "SELECT {} FROM store.console_lines WHERE {}".format(columns, here)', {"console_lines"}),
        ('sql = "SELECT rid FROM " + "store.run_files"', {"run_files"}),
        ('sql = "SELECT rid FROM " + relation + " JOIN store.run_extras USING (rid)"', {"run_extras"}),
        ('sql = "WITH t AS (SELECT * FROM store.meta) SELECT * FROM t"', {"meta"}),
        ('sql = "DELETE FROM store.run_records WHERE rid = ?"', {"run_records"}),
        ('sql = " JOIN store.segments AS s ON s.segment_id = g.segment_id"', {"segments"}),
        ('sql = f"COPY (SELECT * FROM store.history_tail WHERE {here}) TO {target} ({options})"', {"history_tail"}),
        ('relation = "store.run_keys"', {"run_keys"}),
        ("sql = \"SELECT count(*) FROM runs WHERE name = 'FROM store.run_records'\"", set()),
        ('sql = "SELECT p.run_id FROM main.runs AS p JOIN history AS store ON store.run_id = p.run_id"', set()),
        ('sql = "the rows that were deleted from the store. Runs stay"', set()),
        ('error = "store.tail_values must be positive"', set()),
        ('def f():\n    """Reads from store.run_records."""', set()),
    ],
)
def test_a_table_of_the_store_is_found_in_any_string(statement, named):
    """The test above can fail: this is what it finds in a line of code."""
    assert {table for text in texts(statement) for table in tables(text)} == named
