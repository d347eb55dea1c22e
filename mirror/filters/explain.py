"""Explains a filter with the mirrored runs: how many each clause matches, and which keys no run has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Protocol

from mirror.filters.compile import Compiled


class Connection(Protocol):
    """The part of a DuckDB connection that is needed here."""

    def execute(self, query: str, parameters: Any = ...) -> Any:
        """Run one statement; the result has `fetchall()`."""


def explain(
    connection: Connection, compiled: Compiled, scope_sql: str = "TRUE", scope_params: Sequence[Any] = ()
) -> list[tuple[str, int]]:
    """Each clause as written, in the filter's order, with how many runs of the scope match it alone.

    `scope_sql` is a condition over `store.runs AS r`, such as `r.project = ?`. Parts of a group are indented.
    """
    found = []
    for clause in compiled.clauses:
        sql = f"SELECT count(*) FROM store.runs AS r WHERE ({scope_sql}) AND {clause.where}"
        [(matches,)] = connection.execute(sql, [*scope_params, *clause.params]).fetchall()
        found.append(("  " * clause.depth + clause.text, int(matches)))
    return found


def unknown_keys(connection: Connection, compiled: Compiled) -> list[str]:
    """A warning for each config or summary key of filter and order that no run has, naming the nearest key."""
    return unknown_among(connection, compiled.keys)


def unknown_among(connection: Connection, keys: Iterable[tuple[str, str]]) -> list[str]:
    """A warning for each of these keys, each with its document, that no run has, naming the nearest key.

    A key inside a list counts as known if the list does.
    """
    warnings = []
    for doc, key in keys:
        steps = key.split(".")
        lists = [".".join(steps[:n]) for n in range(1, len(steps))]
        at_key = _found(connection, "l.doc = ? AND l.key = ?", [doc, key])
        if not at_key and not any(
            _found(connection, "l.doc = ? AND l.key = ? AND l.kind = 'list'", [doc, name]) for name in lists
        ):
            warnings.append(f"{doc} key {key!r} is in no run{_nearest(connection, doc, key)}")
    return warnings


def _found(connection: Connection, condition: str, params: list[Any]) -> bool:
    sql = f"SELECT 1 FROM store.leaves AS l WHERE {condition} LIMIT 1"
    return bool(connection.execute(sql, params).fetchall())


def _nearest(connection: Connection, doc: str, key: str) -> str:
    sql = "SELECT DISTINCT l.key FROM store.leaves AS l WHERE l.doc = ? ORDER BY l.key"
    keys = [name for (name,) in connection.execute(sql, [doc]).fetchall()]
    lowered = {name.lower(): name for name in keys}
    near = get_close_matches(key, keys, 1) or [lowered[n] for n in get_close_matches(key.lower(), lowered, 1)]
    if not near:
        # Someone who writes lr may mean optimizer.lr, and someone who writes lr_rate may mean lr.
        related = [name for name in keys if name.endswith("." + key) or name.startswith(key) or key.startswith(name)]
        near = get_close_matches(key, related, 1, 0.0)
    return f"; did you mean {near[0]!r}?" if near else ""
