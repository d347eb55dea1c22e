"""The tools `find_runs` and `query`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mirror.errors import QueryError
from mirror.mcp.answers import page, plural, table, text_number
from mirror.mcp.ask import Ask
from mirror.mcp.grouping import SEED
from mirror.query import differing
from mirror.query.sql import select
from mirror.snapshot.paths import Project
from mirror.snapshot.result import Result, Rows
from mirror.snapshot.run_query import RunQuery

_BRIEF = ["run_id", "name", "state", "created_at"]
_EACH = 5
"""Keys of config, and of summary, in which the runs differ."""

_NUMBERS = ("DOUBLE", "FLOAT")
LONGEST_CELL = 500
"""Characters of a cell of SQL, which may be a line of a console."""

_SECOND = len("2026-11-28 23:12:11")


def find_runs(ask: Ask) -> str:
    """Runs that match a filter, in order."""
    query = ask.matching()
    columns, notes = (query.known_columns(ask["select"])) if ask["select"] else (_telling(query), [])
    columns = list(dict.fromkeys(["run_id", *columns]))
    total = query.count()
    notes = list(dict.fromkeys([*query.warnings(), *notes]))
    projects = _projects(query)
    if total and not ask["limit"]:
        return ask.answer(f"{plural(total, 'run')} {'matches' if total == 1 else 'match'}", projects, notes)
    if not total:
        return ask.answer("0 runs match", projects, notes or _why_none(query))
    result = query.rows(columns, limit=ask["limit"], offset=ask["offset"])
    made = table(result.columns, _plain(result), ask["max_chars"])
    text = page(made, total, ask["offset"], "runs", "a narrower filter")
    return ask.answer(f"{plural(total, 'run')} {'matches' if total == 1 else 'match'}\n{text}", projects, notes)


def query(ask: Ask) -> str:
    """The result of one read-only statement, with all digits."""
    result = replace(select(ask.connection, ask["sql"]), limit=ask["limit"] + 1)
    rows = list(result.texts())
    made = table(result.columns, rows[: ask["limit"]], ask["max_chars"], LONGEST_CELL)
    notes = []
    if made.shown < len(rows):
        total = len(rows) if len(rows) <= ask["limit"] else result.count()
        notes.append(
            f"{made.shown:,} of {plural(total, 'row')} shown: raise limit or max_chars, or aggregate; "
            "LIMIT and OFFSET in the statement page through them"
        )
    if made.cut_cells:
        notes.append("long values are cut: select a part, as with substr(x, 1, 2000), or one field of JSON with ->>")
    text = made.text if rows else f"{made.text}(no rows)"
    return ask.answer(text, None, notes)


def _telling(query: RunQuery) -> list[str]:
    """What runs are called, the keys of the filter and the order, and keys in which the runs differ."""
    several = ["entity", "project"] if query.several_projects else []
    first: Any = list(query.rows(["entity", "project", "run_id"], limit=differing.LOOKED_AT).texts())
    asked = [f"{doc}.{key}" for doc, key in query.compiled.keys]
    telling = [key for key in differing.keys(query.connection, first, _EACH) if not SEED.search(key)]
    return list(dict.fromkeys([*several, *_BRIEF, *asked, *telling]))


def _plain(result: Result | Rows) -> Iterator[list[str | None]]:
    """The rows as texts: numbers with six digits, times to the second."""
    kinds = [kind for _, kind in result.header()] if isinstance(result, Result) else []
    for row in result.texts():
        yield [
            text_number(cell)
            if kind in _NUMBERS
            else cell[:_SECOND]
            if cell is not None and kind == "TIMESTAMP"
            else cell
            for cell, kind in zip(row, kinds, strict=True)
        ]


def _projects(query: RunQuery) -> set[Project] | None:
    """The projects of a query; None if it is over all."""
    names = query.scope_params
    return {Project(*names[at : at + 2]) for at in range(0, len(names), 2)} or None


def _why_none(query: RunQuery) -> list[str]:
    """How many runs each clause of a filter matches alone."""
    try:
        clauses = query.explain()["clauses"]
    except QueryError:
        return []
    return [f"alone, {text} matches {plural(count, 'run')}" for text, count in clauses]
