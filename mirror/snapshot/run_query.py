"""Runs that match a Mongo-style filter, as a query over the published file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mirror.errors import UsageError
from mirror.filters import Compiled
from mirror.filters import compile as compile_filter
from mirror.snapshot.paths import Project, find_projects, nearest_of, scope
from mirror.snapshot.result import Result

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Named = tuple[int, str, str | None]
"""This mirror's own number of a run, its id, and the name that people see."""

_DOCUMENTS = {"config": "config", "summary": "summary", "summary_metrics": "summary"}

FEW_LEAVES = 50
"""Values of documents that are looked up as a column each; more are looked up as a list."""

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
        return cls._over(connection, chosen, compile_filter(conditions, order), deleted=deleted)

    @classmethod
    def of(
        cls,
        connection: DuckDBPyConnection,
        project: Project,
        conditions: Mapping[str, Any] | str | None,
        order: str | None,
        holds_list: Callable[[str, str], bool],
        *,
        deleted: bool = False,
    ) -> RunQuery:
        """Compile the filter for a project that is known to be mirrored, over a snapshot that is asked again and again.

        `holds_list` is the function of this name below, with its answers kept. Raises FilterError.
        """
        compiled = compile_filter(conditions, order, holds_list=holds_list)
        return cls._over(connection, [project], compiled, deleted=deleted)

    @classmethod
    def _over(
        cls, connection: DuckDBPyConnection, chosen: Sequence[Project], compiled: Compiled, *, deleted: bool
    ) -> RunQuery:
        scope_sql, params = scope(chosen, "r")
        if not deleted:
            scope_sql = f"{scope_sql} AND r.deleted_at IS NULL"
        return cls(connection, compiled, scope_sql, list(params), len(chosen) != 1)

    def rows(
        self, columns: Sequence[str] = (), *, brief: bool = False, limit: int | None = None, offset: int = 0
    ) -> Result:
        """The matching runs in order, with these columns; without any, all of `runs`.

        `brief` means the telling columns instead, and the keys that the filter and the order name. A column is one
        of `runs`, or `config.KEY` or `summary.KEY`; a name of anything else is a UsageError. `offset` runs are left
        out before `limit` are taken.
        """
        known = self._run_columns()
        if not columns:
            project = ["entity", "project"] if self.several_projects else []
            asked = [f"{doc}.{key}" for doc, key in self.compiled.keys]
            columns = [*project, *_BRIEF, *asked] if brief else known
        selected, leaves = self._selected(columns, known)
        expressions = ", ".join(f"{column.sql} AS c{place}" for place, column in enumerate(selected))
        matching, params = self._matching()
        if limit is not None or offset:
            # Inside, so that columns are looked up for these runs only.
            most = "" if limit is None else "LIMIT ? "
            matching = f"{matching}\nORDER BY position {most}OFFSET ?"
            params = [*params, *([] if limit is None else [limit]), offset]
        values, of_leaves = _each(leaves) if len(leaves) <= FEW_LEAVES else _listed(leaves)
        sql = f"""WITH m AS MATERIALIZED ({matching}), d AS ({values})
        SELECT {expressions} FROM m JOIN store.run_rows AS v ON v.rid = m.rid LEFT JOIN d ON d.rid = m.rid
        ORDER BY m.position"""
        return Result(
            self.connection,
            sql,
            [*params, *of_leaves, *(param for column in selected for param in column.params)],
            labels=columns,
            documents=frozenset(place for place, column in enumerate(selected) if column.document),
            limit=limit,
            every=self._counting(),
        )

    def count(self) -> int:
        """How many runs match."""
        return int(self.connection.execute(*self._counting()).fetchall()[0][0])

    def rids(self) -> list[int]:
        """This mirror's own numbers of the matching runs, in order. One query, however many."""
        sql = (
            f"SELECT r.rid\nFROM store.runs AS r\n"
            f"WHERE ({self.scope_sql})\n  AND ({self.compiled.where})\nORDER BY {self.compiled.order_by}"
        )
        params = [*self.scope_params, *self.compiled.where_params, *self.compiled.order_params]
        return [rid for (rid,) in self.connection.execute(sql, params).fetchall()]

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

    def _selected(self, names: Sequence[str], known: Sequence[str]) -> tuple[list[_Column], list[_Leaf]]:
        """The expression of each column, and the values of documents that they read."""
        there = set(known)
        keys = {name: None if name in there else _document_key(name, known) for name in names}
        kinds = self._kinds([key for key in keys.values() if key])
        leaves = [_Leaf(*key, frozenset(kinds.get(key, ()))) for key in dict.fromkeys(keys.values()) if key]
        places = {(leaf.doc, leaf.key): place for place, leaf in enumerate(leaves)}
        listed = len(leaves) > FEW_LEAVES
        columns = []
        for name in names:
            key = keys[name]
            if key is None:
                columns.append(_Column(f"v.{_quoted(name)}", [], document=name in _DOCUMENTS))
            else:
                leaf, place = leaves[places[key]], places[key]
                row = _of_lists(place) if listed else None
                columns.append(leaf.column(leaf.value(*row) if row else f"d.d{place}"))
        return columns, leaves

    def _kinds(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], set[str]]:
        """What the runs in scope have under each key of a document, null aside; whole numbers that fit are `integer`.

        Of all that are in scope, matching or not: the type of a column does not change with the filter.
        """
        if not keys:
            return {}
        rows = self.connection.execute(
            "SELECT DISTINCT doc, key, CASE WHEN kind <> 'number' THEN kind "
            "WHEN regexp_full_match(text, '-?[0-9]{1,18}') THEN 'integer' ELSE 'number' END FROM store.leaves "
            f"WHERE key IN ({', '.join('?' * len(keys))}) AND element IS NULL AND kind <> 'null' "
            f"AND rid IN (SELECT r.rid FROM store.runs AS r WHERE {self.scope_sql})",
            [*(key for _, key in keys), *self.scope_params],
        ).fetchall()
        found: dict[tuple[str, str], set[str]] = {}
        for doc, key, kind in rows:
            found.setdefault((doc, key), set()).add(kind)
        return found


def among(rids: Sequence[int], *, exactly: bool = False) -> tuple[str, list[Any]]:
    """A condition that holds for these runs, with its parameters. There is one run at least.

    Unless they are meant `exactly` it may hold for others between them, too: some rows too many cost less than a list
    of numbers, which DuckDB takes one by one.
    """
    low, high = min(rids), max(rids)
    if high - low < (len(rids) if exactly else 5 * len(rids) + 100):
        return "rid BETWEEN ? AND ?", [low, high]
    return "rid BETWEEN ? AND ? AND rid IN (SELECT unnest(?::BIGINT[]))", [low, high, list(rids)]


def holds_list(connection: DuckDBPyConnection, doc: str, key: str) -> bool:
    """Whether any run has a list at this key of its config or summary; for filters, see `RunQuery.of`."""
    sql = "SELECT 1 FROM store.leaves WHERE doc = ? AND key = ? AND kind = 'list' LIMIT 1"
    return bool(connection.execute(sql, [doc, key]).fetchall())


@dataclass(frozen=True)
class _Column:
    """An expression over the published row `v` and its documents' values `d`; `document` where its text is JSON."""

    sql: str
    params: list[Any]
    document: bool = False


@dataclass(frozen=True)
class _Leaf:
    """One value of a document. It is a number where the runs have nothing but numbers under this key."""

    doc: str
    key: str
    kinds: frozenset[str]

    def value(self, text: str, number: str) -> str:
        """The value as an expression over the text and the number of a leaf."""
        if self.kinds == {"integer"}:
            return f"TRY_CAST({text} AS BIGINT)"
        if self.kinds and self.kinds <= {"integer", "number"}:
            return number
        return f"{text} = 'true'" if self.kinds == {"bool"} else text

    def column(self, sql: str) -> _Column:
        """The column that shows the value."""
        if "object" not in self.kinds:
            return _Column(sql, [], document=self.kinds == {"list"})
        # An object with members has no text of its own: it stands in the document.
        # A JSON pointer, since a JSON path cannot name a key that holds a quote, and takes `*` for all keys.
        path = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in self.key.split("."))
        return _Column(
            f"coalesce({sql}, CAST(json_extract(CAST(v.{self.doc} AS JSON), ?) AS VARCHAR))",
            [path],
            document=self.kinds <= {"object", "list"},
        )


def _each(leaves: Sequence[_Leaf]) -> tuple[str, list[Any]]:
    """The values of the runs `m`, a column a leaf: all of a run in one go, since a subquery a column plans slowly."""
    values = "".join(
        f", any_value({leaf.value('l.text', 'l.number')}) FILTER (l.doc = ? AND l.key = ?) AS d{place}"
        for place, leaf in enumerate(leaves)
    )
    sql = f"""SELECT l.rid{values} FROM store.leaves AS l
        WHERE l.element IS NULL AND l.key IN ({", ".join("?" * len(leaves)) or "NULL"})
            AND l.rid IN (SELECT rid FROM m) GROUP BY l.rid"""
    named = [part for leaf in leaves for part in (leaf.doc, leaf.key)]
    return sql, [*named, *(leaf.key for leaf in leaves)]


def _listed(leaves: Sequence[_Leaf]) -> tuple[str, list[Any]]:
    """As `_each`, with two lists a run instead of the columns, in which each leaf has its place.

    Thousands of aggregates take DuckDB gigabytes.
    """
    sql = """SELECT m.rid, list(l.text ORDER BY w.place) AS texts, list(l.number ORDER BY w.place) AS numbers
        FROM m CROSS JOIN (
            SELECT unnest(?::VARCHAR[]) AS doc, unnest(?::VARCHAR[]) AS key, unnest(?::BIGINT[]) AS place
        ) AS w LEFT JOIN (
            SELECT * FROM store.leaves WHERE element IS NULL AND rid IN (SELECT rid FROM m)
        ) AS l ON l.rid = m.rid AND l.doc = w.doc AND l.key = w.key GROUP BY m.rid"""
    return sql, [[leaf.doc for leaf in leaves], [leaf.key for leaf in leaves], list(range(len(leaves)))]


def _of_lists(place: int) -> tuple[str, str]:
    """The text and the number of the leaf at a place of the lists."""
    return f"d.texts[{place + 1}]", f"d.numbers[{place + 1}]"


def _document_key(name: str, known: Sequence[str]) -> tuple[str, str]:
    for prefix, doc in _DOCUMENTS.items():
        if name.startswith(f"{prefix}.") and len(name) > len(prefix) + 1:
            return doc, name.removeprefix(f"{prefix}.")
    hint = nearest_of(name, [*known, "config.KEY", "summary.KEY"])
    raise UsageError(f"--select: runs have no column {name}; {hint}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
