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

    `scope_sql` is a condition over `store.run_records AS r`, such as `r.project = ?`. Parts of a group are indented.
    """
    found = []
    for clause in compiled.clauses:
        sql = f"SELECT count(*) FROM store.run_records AS r WHERE ({scope_sql}) AND {clause.where}"
        [(matches,)] = connection.execute(sql, [*scope_params, *clause.params]).fetchall()
        found.append(("  " * clause.depth + clause.text, int(matches)))
    return found


def unknown_keys(
    connection: Connection, compiled: Compiled, scope_sql: str = "TRUE", scope_params: Sequence[Any] = ()
) -> list[str]:
    """A warning for each config or summary key of filter and order that no run has, naming the nearest key.

    `scope_sql` is as in `explain`. A key inside a list counts as known if the list does.
    """
    return list(missing(connection, compiled.keys, scope_sql, scope_params).values())


def unknown_among(connection: Connection, keys: Iterable[tuple[str, str]]) -> list[str]:
    """A warning for each of these (doc, key) that no run has, naming the nearest key."""
    return list(missing(connection, list(keys)).values())


def missing(
    connection: Connection,
    keys: Sequence[tuple[str, str]],
    scope_sql: str = "TRUE",
    scope_params: Sequence[Any] = (),
) -> dict[tuple[str, str], str]:
    """Those of these (doc, key) that no run in the scope has, each with a sentence that names the nearest key."""
    found = {}
    scope = _Scope(connection, scope_sql, list(scope_params))
    for doc, key in keys:
        if scope.has(doc, key):
            continue
        elsewhere = not scope.whole and _Scope(connection, "TRUE", []).has(doc, key)
        where = "in none of these runs" if elsewhere else "in no run"
        found[doc, key] = f"{doc} key {key!r} is {where}{nearest_key(key, scope.keys(doc))}"
    return found


class _Scope:
    """The runs that a condition over `store.run_records AS r` selects."""

    def __init__(self, connection: Connection, sql: str, params: list[Any]) -> None:
        self._connection = connection
        self.whole = sql == "TRUE"
        self._sql = "" if self.whole else f" AND l.rid IN (SELECT r.rid FROM store.run_records AS r WHERE {sql})"
        self._params = params

    def has(self, doc: str, key: str) -> bool:
        """Return True if a run has a value at this key, or a list on the way to it."""
        steps = key.split(".")
        lists = [".".join(steps[:n]) for n in range(1, len(steps))]
        return self._found("l.doc = ? AND l.key = ?", [doc, key]) or any(
            self._found("l.doc = ? AND l.key = ? AND l.kind = 'list'", [doc, name]) for name in lists
        )

    def keys(self, doc: str) -> list[str]:
        """Every key of these runs."""
        sql = f"SELECT DISTINCT l.key FROM store.leaves AS l WHERE l.doc = ?{self._sql} ORDER BY l.key"
        return [name for (name,) in self._connection.execute(sql, [doc, *self._params]).fetchall()]

    def _found(self, condition: str, params: list[Any]) -> bool:
        sql = f"SELECT 1 FROM store.leaves AS l WHERE {condition}{self._sql} LIMIT 1"
        return bool(self._connection.execute(sql, [*params, *self._params]).fetchall())


def nearest_key(key: str, keys: Sequence[str]) -> str:
    """End of a sentence about an unknown key: names the key that was probably meant; empty if none is like it."""
    near = nearest(key, keys)
    return f"; did you mean {near!r}?" if near is not None else ""


def nearest(key: str, keys: Sequence[str]) -> str | None:
    """The key that was probably meant; None if none is like it."""
    lowered = {name.lower(): name for name in keys}
    near = get_close_matches(key, keys, 1) or [lowered[n] for n in get_close_matches(key.lower(), lowered, 1)]
    if not near:
        # Someone who writes lr may mean optimizer.lr, and someone who writes lr_rate may mean lr.
        related = [name for name in keys if name.endswith("." + key) or name.startswith(key) or key.startswith(name)]
        near = get_close_matches(key, related, 1, 0.0)
    return near[0] if near else None
