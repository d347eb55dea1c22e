"""Compiles a Mongo-style filter to a query for runs in the published file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from mirror.errors import FilterError, QueryError, UsageError
from mirror.filters import Compiled, inlined, missing
from mirror.filters import compile as compile_filter
from mirror.snapshot.paths import Project, find_projects, nearest_of, scope
from mirror.snapshot.result import Result
from mirror.store.leaves import INTEGER
from mirror.store.names import identifier

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Named = tuple[int, str, str | None]
"""A run's `rid` (its number in this mirror), its run id, and its display name."""

_DOCUMENTS = {"config": "config", "summary": "summary", "summary_metrics": "summary"}

FEW_LEAVES = 50
"""Up to this many config and summary values are looked up as one column each; more are looked up as lists."""

# The columns of a brief listing.
_BRIEF = ("run_id", "name", "state", "created_at", "duration_s", "tags", "history_rows")


class RunQuery(Struct, frozen=True):
    """A compiled filter over some projects of the mirror."""

    connection: DuckDBPyConnection
    compiled: Compiled
    scope_sql: str
    scope_params: list[Any]
    several_projects: bool
    asked: tuple[Mapping[str, Any] | str | None, str | None] = (None, None)
    """The filter and the order that were compiled."""

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
        """Compile the filter for these projects, or for all if none is named. With `deleted`, include deleted runs.

        Raises FilterError for an invalid filter or order, QueryError for a project that is not mirrored.
        """
        chosen = find_projects(connection, projects, entity) if projects else []
        query = cls._over(connection, chosen, compile_filter(conditions, order), deleted=deleted)
        return replace(query, asked=(conditions, order))

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
        """Compile the filter for a project that is known to be mirrored, for snapshots that are queried repeatedly.

        `holds_list` is a caching version of the function `holds_list` below. Raises FilterError.
        """
        compiled = compile_filter(conditions, order, holds_list=holds_list)
        return cls._over(connection, [project], compiled, deleted=deleted)

    @classmethod
    def of_rids(cls, connection: DuckDBPyConnection, project: Project, rids: Sequence[int]) -> RunQuery:
        """These runs of a project, in no order; the types of their columns are those of all of its runs."""
        here = "r.rid IN (SELECT unnest(?::BIGINT[]))"
        compiled = replace(compile_filter(None, None), where=here, where_params=(list(rids),))
        return cls._over(connection, [project], compiled, deleted=True)

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
        """The matching runs in order, with these columns, or all columns of `runs` if none is named.

        With `brief` the default is a short selection, plus the keys in the filter and the order. A column is one of
        `runs`, `config.KEY` or `summary.KEY`; any other raises UsageError. At most `limit` runs are returned, after
        skipping the first `offset`.
        """
        known = self._run_columns()
        if not columns:
            project = ["entity", "project"] if self.several_projects else []
            asked = [f"{doc}.{key}" for doc, key in self.compiled.keys]
            columns = [*project, *_BRIEF, *asked] if brief else known
        selected, leaves = self._selected(columns, known)
        expressions = ", ".join(f"{column.sql} AS c{index}" for index, column in enumerate(selected))
        matching, params = self._matching()
        if limit is not None or offset:
            # In the inner query, so that columns are looked up for these runs only.
            limited = "" if limit is None else "LIMIT ? "
            matching = f"{matching}\nORDER BY position {limited}OFFSET ?"
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
            documents=frozenset(index for index, column in enumerate(selected) if column.document),
            limit=limit,
            every=self._counting(),
        )

    def count(self) -> int:
        """How many runs match."""
        return int(self.connection.execute(*self._counting()).fetchall()[0][0])

    def rids(self) -> list[int]:
        """The rids of the matching runs, in order, in one query."""
        sql = (
            f"SELECT r.rid\nFROM store.run_records AS r\n"
            f"WHERE ({self.scope_sql})\n  AND ({self.compiled.where})\nORDER BY {self.compiled.order_by}"
        )
        params = [*self.scope_params, *self.compiled.where_params, *self.compiled.order_params]
        return [rid for (rid,) in self.connection.execute(sql, params).fetchall()]

    def explain(self) -> dict[str, Any]:
        """SQL over the published relations, how many runs match, and how many match each clause by itself.

        `sql` finds the same runs as the filter; it is None if no published relation has a field of the filter or the
        order, and `no_sql` says which.
        """
        from mirror.filters import explain

        clauses = explain(self.connection, self.compiled, self.scope_sql, self.scope_params)
        found: dict[str, Any] = {"sql": None, "params": [], "runs": self.count(), "clauses": clauses}
        try:
            return {**found, "sql": self._published()}
        except FilterError as error:
            return {**found, "no_sql": str(error)}

    def _published(self) -> str:
        """The filter as one statement over the published relations, with its values in it. Raises FilterError."""
        lists = partial(holds_list, self.connection)
        compiled = compile_filter(*self.asked, form="relations", holds_list=lists)
        scope = self.scope_sql.removeprefix("TRUE AND ")
        conditions = "\n  AND ".join(part for part in (scope, compiled.where) if part != "TRUE")
        sql = (
            f"SELECT r.entity, r.project, r.run_id, r.name\nFROM runs AS r\n"
            f"{f'WHERE {conditions}' if conditions else ''}\nORDER BY {compiled.order_by}"
        )
        return inlined(sql, [*self.scope_params, *compiled.where_params, *compiled.order_params])

    def warnings(self) -> list[str]:
        """Likely mistakes in the filter: suspicious conditions, and keys that no run has."""
        from mirror.filters import unknown_keys

        unknown = unknown_keys(self.connection, self.compiled, self.scope_sql, self.scope_params)
        return [*self.compiled.warnings, *unknown]

    def unknown_columns(self, columns: Sequence[str]) -> list[str]:
        """A sentence for each of these columns that is a key of config or summary and in no run, naming the nearest.

        Raises QueryError if there is nothing else to show.
        """
        known = self._run_columns()
        keys = [_document_key(name, known) for name in columns if name not in known]
        unknown = list(missing(self.connection, keys, self.scope_sql, self.scope_params).values())
        if unknown and len(unknown) == len(columns):
            raise QueryError(f"nothing to show: {'; '.join(unknown)}")
        return unknown

    def has_column(self, name: str) -> bool:
        """Return True if `runs` has a column of this name."""
        return name in self._run_columns()

    def known_columns(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """Those of `names` that `rows` accepts, and a warning for each column that no run has, naming the nearest.

        A key of config or summary that no run has is a column without values. Raises UsageError if none is left.
        """
        from mirror.filters import unknown_among

        known = self._run_columns()
        columns, refused, keys = [], [], []
        for name in names:
            try:
                key = None if name in known else _document_key(name, known)
            except UsageError as error:
                refused.append(str(error).removeprefix("--select: "))
                continue
            columns.append(name)
            if key:
                keys.append(key)
        if refused and not columns:
            raise UsageError(refused[0])
        # Counted for each key, so this is much less to read than the values.
        found = self.connection.execute(
            "SELECT DISTINCT doc, key FROM store.leaf_keys WHERE runs > 0 AND key IN (SELECT unnest(?::VARCHAR[]))",
            [[key for _, key in keys]],
        ).fetchall()
        counted = set(found)
        return columns, [*refused, *unknown_among(self.connection, [key for key in keys if key not in counted])]

    def _matching(self) -> tuple[str, list[Any]]:
        """SQL for the matching runs, numbered in their order, and its parameters."""
        order = self.compiled.order_by
        sql = (
            f"SELECT r.rid, r.entity, r.project, r.run_id, row_number() OVER (ORDER BY {order}) AS position\n"
            f"FROM store.run_records AS r\nWHERE ({self.scope_sql})\n  AND ({self.compiled.where})"
        )
        return sql, [*self.compiled.order_params, *self.scope_params, *self.compiled.where_params]

    def _counting(self) -> tuple[str, list[Any]]:
        sql = f"SELECT count(*) FROM store.run_records AS r WHERE ({self.scope_sql}) AND ({self.compiled.where})"
        return sql, [*self.scope_params, *self.compiled.where_params]

    def _run_columns(self) -> list[str]:
        cursor = self.connection.execute("SELECT * FROM main.runs LIMIT 0")
        names = [str(column[0]) for column in cursor.description or ()]
        cursor.fetchall()
        return names

    def _selected(self, names: Sequence[str], known: Sequence[str]) -> tuple[list[_Column], list[_Leaf]]:
        """The expression of each column, and the config and summary values that these read."""
        run_columns = set(known)
        keys = {name: None if name in run_columns else _document_key(name, known) for name in names}
        kinds = self._kinds([key for key in keys.values() if key])
        leaves = [_Leaf(*key, frozenset(kinds.get(key, ()))) for key in dict.fromkeys(keys.values()) if key]
        indexes = {(leaf.doc, leaf.key): index for index, leaf in enumerate(leaves)}
        listed = len(leaves) > FEW_LEAVES
        columns = []
        for name in names:
            key = keys[name]
            if key is None:
                columns.append(_Column(f"v.{identifier(name)}", [], document=name in _DOCUMENTS))
            else:
                leaf, index = leaves[indexes[key]], indexes[key]
                element = _of_lists(index) if listed else None
                columns.append(leaf.column(leaf.value(*element) if element else f"d.d{index}"))
        return columns, leaves

    def _kinds(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], set[str]]:
        """The kinds of values, except null, that runs have under each key; integers that fit in int64 are `integer`.

        Counts all runs in scope, matching or not, so that a column's type does not depend on the filter.
        """
        if not keys:
            return {}
        rows = self.connection.execute(
            "SELECT DISTINCT doc, key, CASE WHEN kind <> 'number' THEN kind "
            f"WHEN {INTEGER} THEN 'integer' ELSE 'number' END FROM store.leaves "
            f"WHERE key IN ({', '.join('?' * len(keys))}) AND element IS NULL AND kind <> 'null' "
            f"AND rid IN (SELECT r.rid FROM store.run_records AS r WHERE {self.scope_sql})",
            [*(key for _, key in keys), *self.scope_params],
        ).fetchall()
        kinds: dict[tuple[str, str], set[str]] = {}
        for doc, key, kind in rows:
            kinds.setdefault((doc, key), set()).add(kind)
        return kinds


def among(rids: Sequence[int], *, exactly: bool = False) -> tuple[str, list[Any]]:
    """A condition that selects these runs, of which there must be at least one, and its parameters.

    Unless `exactly` is set it may also select runs with rids between theirs: a few rows too many cost less than a
    list of numbers, which DuckDB binds one by one.
    """
    low, high = min(rids), max(rids)
    if high - low < (len(rids) if exactly else 5 * len(rids) + 100):
        return "rid BETWEEN ? AND ?", [low, high]
    return "rid BETWEEN ? AND ? AND rid IN (SELECT unnest(?::BIGINT[]))", [low, high, list(rids)]


def holds_list(connection: DuckDBPyConnection, doc: str, key: str) -> bool:
    """Return True if any run has a list at this key of its config or summary; for filters, see `RunQuery.of`."""
    sql = "SELECT 1 FROM store.leaves WHERE doc = ? AND key = ? AND kind = 'list' LIMIT 1"
    return bool(connection.execute(sql, [doc, key]).fetchall())


class _Column(Struct, frozen=True):
    """An expression over a run's row `v` and its document values `d`; `document` is True if its text is JSON."""

    sql: str
    params: list[Any]
    document: bool = False


class _Leaf(Struct, frozen=True):
    """A key of config or summary. Its column is numeric if the runs have only numbers under this key."""

    doc: str
    key: str
    kinds: frozenset[str]

    def value(self, text: str, number: str) -> str:
        """The value, as an expression over a leaf's text and number."""
        if self.kinds == {"integer"}:
            return f"TRY_CAST({text} AS BIGINT)"
        if self.kinds and self.kinds <= {"integer", "number"}:
            return number
        return f"{text} = 'true'" if self.kinds == {"bool"} else text

    def column(self, sql: str) -> _Column:
        """The column that shows the value."""
        if "object" not in self.kinds:
            return _Column(sql, [], document=self.kinds == {"list"})
        # The leaf of a non-empty object has no text, so read the object from the document. A JSON pointer, because in
        # a JSON path a key cannot contain a quote, and `*` means all keys.
        path = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in self.key.split("."))
        return _Column(
            f"coalesce({sql}, CAST(json_extract(CAST(v.{self.doc} AS JSON), ?) AS VARCHAR))",
            [path],
            document=self.kinds <= {"object", "list"},
        )


def _each(leaves: Sequence[_Leaf]) -> tuple[str, list[Any]]:
    """SQL for the values of the runs `m`, one column per leaf, and its parameters.

    All columns are aggregates of one scan, since one subquery per column takes DuckDB long to plan.
    """
    values = "".join(
        f", any_value({leaf.value('l.text', 'l.number')}) FILTER (l.doc = ? AND l.key = ?) AS d{index}"
        for index, leaf in enumerate(leaves)
    )
    sql = f"""SELECT l.rid{values} FROM store.leaves AS l
        WHERE l.element IS NULL AND l.key IN ({", ".join("?" * len(leaves)) or "NULL"})
            AND l.rid IN (SELECT rid FROM m) GROUP BY l.rid"""
    named = [part for leaf in leaves for part in (leaf.doc, leaf.key)]
    return sql, [*named, *(leaf.key for leaf in leaves)]


def _listed(leaves: Sequence[_Leaf]) -> tuple[str, list[Any]]:
    """Like `_each`, but with two lists per run instead of columns, because thousands of aggregates need gigabytes."""
    sql = """SELECT m.rid, list(l.text ORDER BY w.place) AS texts, list(l.number ORDER BY w.place) AS numbers
        FROM m CROSS JOIN (
            SELECT unnest(?::VARCHAR[]) AS doc, unnest(?::VARCHAR[]) AS key, unnest(?::BIGINT[]) AS place
        ) AS w LEFT JOIN (
            SELECT * FROM store.leaves WHERE element IS NULL AND rid IN (SELECT rid FROM m)
        ) AS l ON l.rid = m.rid AND l.doc = w.doc AND l.key = w.key GROUP BY m.rid"""
    return sql, [[leaf.doc for leaf in leaves], [leaf.key for leaf in leaves], list(range(len(leaves)))]


def _of_lists(index: int) -> tuple[str, str]:
    """Expressions for the text and the number of the leaf at this index of the lists."""
    return f"d.texts[{index + 1}]", f"d.numbers[{index + 1}]"


def _document_key(name: str, known: Sequence[str]) -> tuple[str, str]:
    for prefix, doc in _DOCUMENTS.items():
        if name.startswith(f"{prefix}.") and len(name) > len(prefix) + 1:
            return doc, name.removeprefix(f"{prefix}.")
    hint = nearest_of(name, known)
    if not hint.startswith("did you mean"):
        # Most often, the key of a config was written without its document.
        hint = f"did you mean config.{name} or summary.{name}?"
    raise UsageError(f"--select: runs have no column {name}; {hint}")
