"""Questions that contain SQL, filters or orders written by users.

These may need any amount of time and memory, so the daemon runs them in workers (`mirror/query/worker.py`). Each
question reads one snapshot and returns bytes, at once or in pieces: strict JSON unless its docstring says otherwise.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import orjson

from mirror.query import answers, box, run_groups, schema, sent_statements
from mirror.query.sql import select
from mirror.snapshot.paths import Project
from mirror.snapshot.result import Result, Rows
from mirror.snapshot.run_query import RunQuery, holds_list

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = 2_000_000_000
"""Bytes of memory that a question may use."""

NEEDED_TOO_MUCH = (
    f"the statement needed more than {MEMORY // 10**9} GB; "
    "request less at once, or use `mirror query`, which has no such limit"
)

OUT_OF_MEMORY = 77
"""The exit code of a worker that used more."""

MOST_ROWS = 1000
"""Rows of one answer."""

MOST_TEXT = 8_000_000
"""Characters of one answer; the rows after these are left out."""

Arguments = Mapping[str, Any]
Lists = dict[tuple[str, str], bool]
"""A cache for one snapshot: whether any run has a list at a key of a document."""

Question = Callable[["DuckDBPyConnection", Arguments, Lists], bytes | Iterator[bytes]]


def sql(connection: DuckDBPyConnection, asked: Arguments, _lists: Lists) -> bytes:
    """The result of the statement `text`: at most `limit` rows as texts; `more` is True if there were others.

    Raises QueryError for invalid SQL, and for statements that do not only read.
    """
    most = min(max(asked["limit"], 1), MOST_ROWS)
    table = _table(replace(select(connection, asked["text"]), limit=most + 1))
    more = table["cut"] or len(table["rows"]) > most
    return orjson.dumps({**table, "rows": table["rows"][:most], "more": more})


def runs(connection: DuckDBPyConnection, asked: Arguments, _lists: Lists) -> bytes:
    """The runs of a `project` that match `conditions`: how many, and `limit` of them from `offset` on, as texts.

    `conditions` is the text of the page's search box. Columns that runs do not have are left out, with a warning.
    Raises FilterError for an invalid filter or `order`, UsageError if no column is left.
    """
    query = _found(connection, asked)
    columns, warnings = query.known_columns(asked["columns"])
    rows = query.rows(["run_id", *columns], limit=min(asked["limit"], MOST_ROWS), offset=asked["offset"])
    warned = list(dict.fromkeys([*query.warnings(), *warnings]))
    found = {"total": query.count(), "offset": asked["offset"], "warnings": warned, **_table(rows)}
    return orjson.dumps(found)


def groups(connection: DuckDBPyConnection, asked: Arguments, _lists: Lists) -> bytes:
    """The mean curves of runs, grouped by the value of a column: see `mirror.query.run_groups`.

    `runs` are paths of runs; if there are none, they are all that match `conditions`.
    """
    if asked["runs"]:
        query = RunQuery.build(
            connection, {"name": {"$in": [path.split("/")[2] for path in asked["runs"]]}}, deleted=True
        )
    else:
        query = _found(connection, asked)
    made = run_groups.of(query, asked["group"], asked["keys"], x=asked["x"] or None, only=asked["runs"] or None)
    return orjson.dumps(made)


def _found(connection: DuckDBPyConnection, asked: Arguments) -> RunQuery:
    """The runs that the text of the page's search box selects, in order."""
    typed = box.conditions(asked["conditions"])
    return RunQuery.build(connection, typed, order=asked["order"] or None, projects=[asked["project"]])


def rids(connection: DuckDBPyConnection, asked: Arguments, lists: Lists) -> bytes:
    """The rids of the runs that match `conditions`, in order: 8 bytes each, in native byte order.

    Raises FilterError for an invalid filter or `order`.
    """

    def lists_at(doc: str, key: str) -> bool:
        if (doc, key) not in lists:
            lists[doc, key] = holds_list(connection, doc, key)
        return lists[doc, key]

    project = Project(*asked["project"])
    query = RunQuery.of(connection, project, asked["conditions"] or None, asked["order"] or None, lists_at)
    return array("q", query.rids()).tobytes()


def answer(connection: DuckDBPyConnection, asked: Arguments, _lists: Lists) -> Iterator[bytes]:
    """The answer to a question of the query API, in pieces: see `mirror.query.answers`."""
    return answers.answer(connection, asked)


def described(connection: DuckDBPyConnection, _asked: Arguments, _lists: Lists) -> bytes:
    """The published relations, with columns and comments."""
    return orjson.dumps(schema.relations(connection))


def statement(connection: DuckDBPyConnection, asked: Arguments, _lists: Lists) -> Iterator[bytes]:
    """The answer to a statement of a client on another machine, in pieces: see `mirror.query.sent_statements`."""
    return sent_statements.answer(connection, asked)


QUESTIONS: Mapping[str, Question] = {
    "sql": sql,
    "runs": runs,
    "groups": groups,
    "rids": rids,
    "answer": answer,
    "schema": described,
    "statement": statement,
}


def find(name: str) -> Question:
    """The question of this name: one of QUESTIONS, or `module:function` for one of a room above this one."""
    if name in QUESTIONS:
        return QUESTIONS[name]
    module, _, function = name.partition(":")
    found: Question = getattr(import_module(module), function)
    return found


def _table(result: Result | Rows) -> dict[str, Any]:
    """Names, which columns are numeric, and the rows as texts; `cut` is True if they exceeded MOST_TEXT."""
    numeric = result.numeric
    rows: list[tuple[str | None, ...]] = []
    length = 0
    for row in result.texts():
        length += sum(len(text) for text in row if text)
        if length > MOST_TEXT and rows:
            break
        rows.append(row)
    return {"columns": result.columns, "numeric": numeric, "rows": rows, "cut": length > MOST_TEXT}
