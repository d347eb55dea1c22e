"""SQL that users write: exactly one read-only statement."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mirror.errors import Forbidden, QueryError
from mirror.query import twins
from mirror.snapshot.connection import refusal
from mirror.snapshot.result import Result, Rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_EXPLAIN = re.compile(r"(?is)(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*explain\s+(analyze\s+)?(?:\(\s*analyze\s*\)\s*)?(.*)")
_TOKEN = re.compile(
    r"""(?s)[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|;"""
)
_NOTHING = re.compile(r"(?s)(?:;|\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*")
_ALLOWED = "SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE and EXPLAIN"


def select(connection: DuckDBPyConnection, text: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> Result | Rows:
    """Accept one read-only statement, with values for its parameters.

    EXPLAIN is run at once; anything else when the result is read. Raises QueryError for invalid SQL, with line and
    column; for several statements; and for a quoted name that DuckDB would take for another name, since it ignores
    case. Raises Forbidden for anything that could write. Every statement runs as a subquery: DuckDB 2.0 counts
    `WITH x AS (COPY ... TO ...)` as a SELECT, but refuses it except at the top level.
    """
    kind = _kind(connection, text)
    twins.refuse(
        connection, {token[0][1:-1].replace('""', '"') for token in _TOKEN.finditer(text) if token[0][0] == '"'}
    )
    if kind == "SELECT":
        return Result(connection, _without_end(text), params)
    explained = _EXPLAIN.fullmatch(text) if kind == "EXPLAIN" else None
    if explained and _kind(connection, explained[2]) == "SELECT":
        return _explain(connection, _without_end(explained[2]), analyze=bool(explained[1]))
    if kind in ("MULTI", "CREATE") and _is_pivot(text):
        raise QueryError("PIVOT needs its columns: use PIVOT ... ON key IN ('a', 'b') USING ...")
    word = re.match(r"\w*", _NOTHING.sub("", text, count=1))
    what = "EXPLAIN of anything but a query" if kind == "EXPLAIN" else (word and word[0].upper()) or kind
    raise Forbidden(f"{what} is refused, the mirror is read-only: use {_ALLOWED}")


def reading(connection: DuckDBPyConnection, text: str) -> str:
    """Return the one statement in the text as a subquery, on the same line. Raises QueryError unless it only reads.

    The plan of a query, too, which is not run. Names are read as DuckDB reads them; those of the mirror's own programs
    are right.
    """
    kind = _kind(connection, text)
    if kind == "SELECT":
        return f"SELECT * FROM ({_without_end(text)}\n)"
    explained = _EXPLAIN.fullmatch(text) if kind == "EXPLAIN" else None
    if explained and _kind(connection, explained[2]) == "SELECT":
        return f"EXPLAIN {'ANALYZE ' if explained[1] else ''}SELECT * FROM ({_without_end(explained[2])}\n)"
    raise Forbidden(f"{kind} is refused, the mirror is read-only: use {_ALLOWED}")


def _kind(connection: DuckDBPyConnection, text: str) -> str:
    """DuckDB's name for the type of the one statement in the text."""
    import duckdb

    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise refusal(error) from error
    if not statements:
        raise QueryError("there is no SQL to run")
    if len(statements) > 1 and statements[-1].type.name == "SELECT" and _is_pivot(text):
        return "MULTI"
    if len(statements) > 1:
        raise QueryError(f"one statement at a time, not {len(statements)}")
    return str(statements[0].type.name)


def _is_pivot(text: str) -> bool:
    return re.match(r"pivot\b", _NOTHING.sub("", text, count=1), re.IGNORECASE) is not None


def _explain(connection: DuckDBPyConnection, text: str, *, analyze: bool) -> Rows:
    """The plan, one row per line."""
    import duckdb

    try:
        cursor = connection.execute(f"EXPLAIN {'ANALYZE ' if analyze else ''}SELECT * FROM (\n{text}\n)")
        plans = cursor.fetchall()
    except duckdb.Error as error:
        raise refusal(error, first_line=2) from error
    return Rows(["plan"], [(line,) for *_, plan in plans for line in str(plan).splitlines()])


def _without_end(text: str) -> str:
    """The statement without its final semicolon."""
    for token in _TOKEN.finditer(text):
        if token[0] == ";" and _NOTHING.fullmatch(text, token.start()):
            return text[: token.start()]
    return text
