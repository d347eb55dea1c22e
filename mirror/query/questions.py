"""Questions that contain SQL, filters or orders written by users.

These may need any amount of time and memory, so the daemon runs them in workers (`mirror/query/worker.py`). Each
question reads one snapshot and returns bytes: strict JSON unless its docstring says otherwise.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from mirror.filters import terms
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

Question = Callable[["DuckDBPyConnection", Arguments, Lists], bytes]


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

    `conditions` are a JSON filter or a line of terms. Raises FilterError for an invalid filter or `order`,
    UsageError for a column that runs do not have.
    """
    conditions = terms.parse(asked["conditions"])
    query = RunQuery.build(connection, conditions, order=asked["order"] or None, projects=[asked["project"]])
    rows = query.rows(["run_id", *asked["columns"]], limit=min(asked["limit"], MOST_ROWS), offset=asked["offset"])
    found = {"total": query.count(), "offset": asked["offset"], "warnings": query.warnings(), **_table(rows)}
    return orjson.dumps(found)


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


QUESTIONS: Mapping[str, Question] = {"sql": sql, "runs": runs, "rids": rids}


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
