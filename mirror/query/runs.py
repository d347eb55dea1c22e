"""Runs that match a Mongo-style filter, as a query over the published file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mirror.errors import FilterError, UsageError
from mirror.filters import Compiled
from mirror.filters import compile as compile_filter
from mirror.query.paths import find_projects, nearest_of, scope
from mirror.query.result import Result

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DOCUMENTS = frozenset({"config", "summary"})

# What a person reads first; names, dates and sizes fit on a terminal.
_BRIEF = ("run_id", "name", "state", "created_at", "duration_s", "tags", "history_rows")


@dataclass(frozen=True)
class RunQuery:
    """A filter over some projects of the mirror, compiled and ready to be run."""

    connection: DuckDBPyConnection
    compiled: Compiled
    scope_sql: str
    scope_params: list[Any]
    several_projects: bool

    @classmethod
    def build(
        cls,
        connection: DuckDBPyConnection,
        conditions: Any,
        *,
        order: str | None = None,
        projects: Sequence[str] = (),
        entity: str | None = None,
        deleted: bool = False,
    ) -> RunQuery:
        """Compile the filter for these projects, all where none is named; deleted runs only where asked for.

        Raises FilterError for a filter or order that means nothing, QueryError for a project that is not mirrored.
        """
        chosen = find_projects(connection, projects, entity)
        scope_sql, params = scope(chosen, "r")
        if not deleted:
            scope_sql = f"{scope_sql} AND r.deleted_at IS NULL"
        compiled = compile_filter(conditions, order)
        return cls(connection, compiled, scope_sql, list(params), len(chosen) != 1)

    def rows(self, columns: Sequence[str] = (), *, brief: bool = False) -> Result:
        """The matching runs in order: these columns, else the telling ones, else all of `runs`.

        A column is one of `runs`, or `config.KEY` or `summary.KEY`. Raises UsageError for any other.
        """
        known = self._run_columns()
        if not columns:
            project = ["entity", "project"] if self.several_projects else []
            columns = [*project, *_BRIEF] if brief else known
        selected: list[str] = []
        params: list[Any] = []
        for column in columns:
            expression, own = self._column(column, known)
            selected.append(f"{expression} AS {_quoted(column)}")
            params += own
        matching, own = self._matching()
        sql = f"""SELECT {", ".join(selected)} FROM ({matching}) AS m
        JOIN main.runs AS v ON v.entity = m.entity AND v.project = m.project AND v.run_id = m.run_id
        ORDER BY m.position"""
        return Result(self.connection, sql, params + own, documents=DOCUMENTS & set(columns))

    def count(self) -> int:
        """How many runs match."""
        sql = f"SELECT count(*) FROM store.runs AS r WHERE ({self.scope_sql}) AND ({self.compiled.where})"
        params = [*self.scope_params, *self.compiled.where_params]
        return int(self.connection.execute(sql, params).fetchall()[0][0])

    def explain(self) -> dict[str, Any]:
        """The SQL with its parameters, how many runs match, and how many each clause of the filter matches alone."""
        from mirror.filters import explain

        sql, params = self._matching()
        clauses = explain(self.connection, self.compiled, self.scope_sql, self.scope_params)
        return {"sql": sql, "params": params, "runs": self.count(), "clauses": clauses}

    def warnings(self) -> list[str]:
        """What the filter may not mean: doubtful conditions, and keys that no run has."""
        from mirror.filters import unknown_keys

        return [*self.compiled.warnings, *unknown_keys(self.connection, self.compiled)]

    def _matching(self) -> tuple[str, list[Any]]:
        """The runs that match, numbered in their order."""
        order = self.compiled.order_by
        sql = (
            f"SELECT r.rid, r.entity, r.project, r.run_id, row_number() OVER (ORDER BY {order}) AS position "
            f"FROM store.runs AS r WHERE ({self.scope_sql}) AND ({self.compiled.where})"
        )
        return sql, [*self.compiled.order_params, *self.scope_params, *self.compiled.where_params]

    def _run_columns(self) -> list[str]:
        cursor = self.connection.execute("SELECT * FROM main.runs LIMIT 0")
        names = [str(column[0]) for column in cursor.description or ()]
        cursor.fetchall()
        return names

    def _column(self, name: str, known: Sequence[str]) -> tuple[str, list[Any]]:
        """The expression of one column, and its parameters."""
        if name in known:
            return f"v.{_quoted(name)}", []
        for doc, prefixes in {"config": ("config.",), "summary": ("summary.", "summary_metrics.")}.items():
            for prefix in prefixes:
                if name.startswith(prefix) and len(name) > len(prefix):
                    return self._leaf(doc, name.removeprefix(prefix))
        hint = nearest_of(name, [*known, "config.KEY", "summary.KEY"])
        raise UsageError(f"--select: runs have no column {name}; {hint}")

    def _leaf(self, doc: str, key: str) -> tuple[str, list[Any]]:
        """One value of a document. It is a number where the mirror has nothing but numbers under this key."""
        kinds = self.connection.execute(
            "SELECT DISTINCT CASE WHEN kind <> 'number' THEN kind WHEN regexp_full_match(text, '-?[0-9]{1,18}') "
            "THEN 'integer' ELSE 'number' END FROM store.leaves WHERE doc = ? AND key = ? AND element IS NULL "
            "AND kind <> 'null'",
            [doc, key],
        ).fetchall()
        kind = {row[0] for row in kinds}
        value = "l.text"
        if kind == {"integer"}:
            value = "CAST(l.text AS BIGINT)"
        elif kind and kind <= {"integer", "number"}:
            value = "l.number"
        elif kind == {"bool"}:
            value = "l.text = 'true'"
        here = "l.rid = m.rid AND l.doc = ? AND l.key = ? AND l.element IS NULL"
        return f"(SELECT any_value({value}) FROM store.leaves AS l WHERE {here})", [doc, key]


def read_filter(text: str) -> Any:
    """Read a filter as JSON. Raises FilterError with the place of a mistake, and for a key that stands twice."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        near = text[max(error.pos - 12, 0) : error.pos + 12].strip()
        where = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise FilterError(f"--filter is not valid JSON: {error.msg} ({where}, near `{near}`)") from None
    except RecursionError:
        raise FilterError("--filter is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise FilterError(f'--filter names "{twice}" twice in one object, and JSON keeps only one: join them with $and')
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
