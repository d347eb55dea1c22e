"""Runs that match a Mongo-style filter, as a query over the published file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mirror.errors import UsageError
from mirror.filters import Compiled
from mirror.filters import compile as compile_filter
from mirror.query.paths import find_projects, nearest_of, scope
from mirror.query.result import Result

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_DOCUMENTS = {"config": "config", "summary": "summary", "summary_metrics": "summary"}

# What a person reads first.
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
        conditions: Mapping[str, Any] | str | None,
        *,
        order: str | None = None,
        projects: Sequence[str] = (),
        entity: str | None = None,
        deleted: bool = False,
    ) -> RunQuery:
        """Compile the filter for these projects, all where none is named; deleted runs only where asked for.

        Raises FilterError for a filter or order that means nothing, QueryError for a project that is not mirrored.
        """
        chosen = find_projects(connection, projects, entity) if projects else []
        scope_sql, params = scope(chosen, "r")
        if not deleted:
            scope_sql = f"{scope_sql} AND r.deleted_at IS NULL"
        compiled = compile_filter(conditions, order)
        return cls(connection, compiled, scope_sql, list(params), len(chosen) != 1)

    def rows(self, columns: Sequence[str] = (), *, brief: bool = False, limit: int | None = None) -> Result:
        """The matching runs in order, with these columns; without any, all of `runs`.

        `brief` means the telling columns instead, and the keys that the filter and the order name. A column is one
        of `runs`, or `config.KEY` or `summary.KEY`; a name of anything else is a UsageError.
        """
        known = self._run_columns()
        if not columns:
            project = ["entity", "project"] if self.several_projects else []
            asked = [f"{doc}.{key}" for doc, key in self.compiled.keys]
            columns = [*project, *_BRIEF, *asked] if brief else known
        selected = [self._column(column, known) for column in columns]
        expressions = ", ".join(f"{column.sql} AS c{place}" for place, column in enumerate(selected))
        matching, params = self._matching()
        if limit is not None:
            # Inside, so that columns are looked up for these runs only.
            matching, params = f"{matching}\nORDER BY position LIMIT ?", [*params, limit]
        sql = f"""SELECT {expressions} FROM ({matching}) AS m
        JOIN store.run_rows AS v ON v.rid = m.rid
        ORDER BY m.position"""
        return Result(
            self.connection,
            sql,
            [*(param for column in selected for param in column.params), *params],
            labels=columns,
            documents=frozenset(place for place, column in enumerate(selected) if column.document),
            limit=limit,
            every=self._counting(),
        )

    def count(self) -> int:
        """How many runs match."""
        return int(self.connection.execute(*self._counting()).fetchall()[0][0])

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
            f"SELECT r.rid, r.entity, r.project, r.run_id, row_number() OVER (ORDER BY {order}) AS position\n"
            f"FROM store.runs AS r\nWHERE ({self.scope_sql})\n  AND ({self.compiled.where})"
        )
        return sql, [*self.compiled.order_params, *self.scope_params, *self.compiled.where_params]

    def _counting(self) -> tuple[str, list[Any]]:
        sql = f"SELECT count(*) FROM store.runs AS r WHERE ({self.scope_sql}) AND ({self.compiled.where})"
        return sql, [*self.scope_params, *self.compiled.where_params]

    def _run_columns(self) -> list[str]:
        cursor = self.connection.execute("SELECT * FROM main.runs LIMIT 0")
        names = [str(column[0]) for column in cursor.description or ()]
        cursor.fetchall()
        return names

    def _column(self, name: str, known: Sequence[str]) -> _Column:
        if name in known:
            return _Column(f"v.{_quoted(name)}", [], document=name in _DOCUMENTS)
        for prefix, doc in _DOCUMENTS.items():
            if name.startswith(f"{prefix}.") and len(name) > len(prefix) + 1:
                return self._leaf(doc, name.removeprefix(f"{prefix}."))
        hint = nearest_of(name, [*known, "config.KEY", "summary.KEY"])
        raise UsageError(f"--select: runs have no column {name}; {hint}")

    def _leaf(self, doc: str, key: str) -> _Column:
        """One value of a document. It is a number where the mirror has nothing but numbers under this key."""
        rows = self.connection.execute(
            "SELECT DISTINCT CASE WHEN kind <> 'number' THEN kind WHEN regexp_full_match(text, '-?[0-9]{1,18}') "
            "THEN 'integer' ELSE 'number' END FROM store.leaves WHERE doc = ? AND key = ? AND element IS NULL "
            "AND kind <> 'null'",
            [doc, key],
        ).fetchall()
        kinds = {kind for (kind,) in rows}
        value = "l.text"
        if kinds == {"integer"}:
            value = "CAST(l.text AS BIGINT)"
        elif kinds and kinds <= {"integer", "number"}:
            value = "l.number"
        elif kinds == {"bool"}:
            value = "l.text = 'true'"
        here = "l.rid = m.rid AND l.doc = ? AND l.key = ? AND l.element IS NULL"
        sql = f"(SELECT any_value({value}) FROM store.leaves AS l WHERE {here})"
        if "object" not in kinds:
            return _Column(sql, [doc, key], document=kinds == {"list"})
        # An object with members has no text of its own: it stands in the document.
        path = ".".join(f'"{part}"' for part in key.split("."))
        return _Column(
            f"coalesce({sql}, CAST(json_extract(CAST(v.{doc} AS JSON), ?) AS VARCHAR))",
            [doc, key, f"$.{path}"],
            document=kinds <= {"object", "list"},
        )


@dataclass(frozen=True)
class _Column:
    """An expression over the matching run `m` and its published row `v`; `document` where its text is JSON."""

    sql: str
    params: list[Any]
    document: bool = False


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
