"""Compiles a filter and an order to DuckDB SQL over `store.run_records AS r`. All values are bound parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from mirror.filters import published, sources
from mirror.filters.columns import converted, type_warnings
from mirror.filters.fields import Column, Document, Relative, Tags
from mirror.filters.fragment import FALSE, TRUE, Fragment, all_of, among, any_of, certain, fragment, negated
from mirror.filters.moments import now_utc
from mirror.filters.order import DEFAULT_ORDER, ordering
from mirror.filters.parse import parse
from mirror.filters.predicates import of_path
from mirror.filters.rows import Row, column_row
from mirror.filters.tree import Compare, Equal, Every, Exists, Field, Group, In, Node, Not, Size, Test, Type

Form = Literal["leaves", "json", "relations"]


class Clause(Struct, frozen=True):
    """One condition or group of a filter, as it was written, with SQL that selects the runs that match it alone."""

    text: str
    where: str
    params: tuple[Any, ...]
    depth: int


class Compiled(Struct, frozen=True):
    """A filter and an order as SQL over `store.run_records AS r`. `where` is never null.

    `clauses` are in the order of the filter, each before its parts. `keys` are the config and summary keys in filter
    and order, as (doc, key). `warnings` report what is legal but probably a mistake.
    """

    where: str
    where_params: tuple[Any, ...]
    order_by: str
    order_params: tuple[Any, ...]
    clauses: tuple[Clause, ...]
    keys: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]

    @property
    def sql(self) -> str:
        """The complete statement: the `rid` of each matching run, in order."""
        return f"SELECT r.rid FROM store.run_records AS r WHERE {self.where} ORDER BY {self.order_by}"

    @property
    def params(self) -> tuple[Any, ...]:
        """The values for the question marks of `sql`."""
        return self.where_params + self.order_params


def compile(  # noqa: A001
    filter: Mapping[str, Any] | str | None = None,  # noqa: A002
    order: str | None = None,
    *,
    form: Form = "leaves",
    holds_list: sources.HoldsList = lambda _doc, _key: True,
    now: datetime | None = None,
) -> Compiled:
    """Compile a filter, as Python values or JSON text, and an order (newest first by default).

    `holds_list` may return False for a doc and key where no run has a list, which makes the SQL shorter. `form="json"`
    reads the documents themselves instead of `store.leaves`: it finds the same rows, far more slowly, and is the
    reference for tests. `form="relations"` is SQL over the published relation `runs AS r` and those beside it, for
    people; it raises FilterError for a field that none of them has. Relative times such as "7d" are before `now` (naive
    UTC; default: the current time). Raises FilterError, in one line that names the clause. Runs no SQL of the filter.
    """
    tree = parse(filter)
    order_by, order_keys = ordering(DEFAULT_ORDER if order is None else order, published=form == "relations")
    compiler = _Compiler(form, holds_list, now or now_utc())
    where = compiler.node(tree, 0)
    names = published.renamed if form == "relations" else str
    return Compiled(
        names(where.text),
        where.params,
        names(order_by.text),
        order_by.params,
        tuple(replace(clause, where=names(clause.where)) for clause in compiler.clauses),
        tuple(dict.fromkeys([*compiler.keys, *order_keys])),
        tuple(dict.fromkeys(compiler.warnings)),
    )


class _Compiler:
    """Walks the tree once and collects SQL, clauses, keys and warnings."""

    def __init__(self, form: Form, holds_list: sources.HoldsList, now: datetime) -> None:
        self.form = form
        self.holds_list = holds_list
        self.now = now
        self.clauses: list[Clause] = []
        self.keys: list[tuple[str, str]] = []
        self.warnings: list[str] = []

    def node(self, node: Node, depth: int) -> Fragment:
        position = len(self.clauses)
        if isinstance(node, Field):
            where = all_of(self._field(node))
        else:
            # A top-level $and is the filter itself, not a clause of it.
            named = bool(node.text) and (depth > 0 or node.operator != "$and")
            parts = self._merged(node, [self.node(part, depth + named) for part in node.parts])
            where = all_of(parts) if node.operator == "$and" else any_of(parts)
            if node.operator == "$nor":
                where = negated(where)
            if not named:
                return where
        self.clauses.insert(position, Clause(node.text, where.text, where.params, depth))
        return where

    def _merged(self, group: Group, parts: list[Fragment]) -> list[Fragment]:
        """The parts, with equalities on the same key (`$or` of them, or `$and` of `$ne`) merged to one subquery."""
        by_key: dict[Document, list[int]] = {}
        for position, part in enumerate(group.parts):
            if _equality(part, group) is not None and isinstance(part, Field) and isinstance(part.target, Document):
                by_key.setdefault(part.target, []).append(position)
        kept = dict(enumerate(parts))
        for target, positions in by_key.items():
            if len(positions) < 2:
                continue
            tests = [test for position in positions if (test := _equality(group.parts[position], group)) is not None]
            union = In(
                tuple(value for test in tests for value in test.values),
                tuple(pattern for test in tests for pattern in test.patterns),
            )
            merged = self._on_document(union, target)
            for position in positions:
                del kept[position]
            kept[positions[0]] = negated(merged) if group.operator == "$and" else merged
        return [kept[position] for position in sorted(kept)]

    def _field(self, field: Field) -> list[Fragment]:
        match field.target:
            case Column() as column:
                self.warnings.extend(type_warnings(field.tests, column, field.text))
                tests = converted(field.tests, column, field.text, self.now)
                if self.form == "relations":
                    published.refuse_unpublished(column)
                return [_on_column(test, column_row(column)) for test in tests]
            case Tags() as tags:
                self.warnings.extend(_without_tags(field.tests, tags, field.text))
                return [_on_tags(test, tags, self.form) for test in field.tests]
            case Document() as document:
                self.keys.append((document.doc, document.key))
                return [self._on_document(test, document) for test in field.tests]
            case Relative():
                raise AssertionError("a relative path occurs only inside $elemMatch")

    def _on_document(self, test: Test, target: Document) -> Fragment:
        def some(test: Test) -> Fragment:
            if self.form == "json":
                return sources.in_document(target, _passes(test))
            if self.form == "relations":
                return published.in_values(target, _passes(test), self.holds_list, of_objects=_of_objects(test))
            if isinstance(test, Equal) and isinstance(test.value, dict):
                return sources.in_objects(target, _passes(test))
            return sources.in_leaves(target, _passes(test), self.holds_list)

        def missing() -> Fragment:
            # In a document, a missing value is one of the values.
            return negated(sources.is_present(target)) if self.form == "leaves" else FALSE

        return _on_values(test, some, missing)


def _on_values(test: Test, some: Callable[[Test], Fragment], missing: Callable[[], Fragment]) -> Fragment:
    """The runs for which a test holds: `some` value of the path passes, or the path is `missing` and that passes."""
    match test:
        case Not(tests):
            return negated(all_of(_on_values(t, some, missing) for t in tests))
        case Every(tests):
            return all_of(_on_values(t, some, missing) for t in tests)
        case Exists(wanted):
            return some(test) if wanted else negated(some(Exists(wanted=True)))
        case In(values, patterns) if any(isinstance(value, dict) for value in values):
            parts: list[Test] = [Equal(value) for value in values if isinstance(value, dict)]
            parts.append(In(tuple(value for value in values if not isinstance(value, dict)), patterns))
            return any_of(_on_values(t, some, missing) for t in parts)
        case _:
            return any_of([some(test), missing()]) if _matches_null(test) else some(test)


def _equality(node: Node, group: Group) -> In | None:
    """The values of a condition that is only an equality or, in `$and`, only the negation of one; else None."""
    match node:
        case Field(Document(), (Not((Equal() | In() as test,)),)) if group.operator == "$and":
            pass
        case Field(Document(), (Equal() | In() as test,)) if group.operator != "$and":
            pass
        case _:
            return None
    return In((test.value,)) if isinstance(test, Equal) else test


def _passes(test: Test) -> sources.Passes:
    return lambda row, level: of_path(test, row, level)


def _on_column(test: Test, row: Row) -> Fragment:
    """The runs for which a test holds for a column. A column without a value counts as null and as missing."""
    has_value = Fragment(f"({row.column} IS NOT NULL)")
    match test:
        case Not(tests):
            return negated(all_of(_on_column(t, row) for t in tests))
        case Every(tests):
            return all_of(_on_column(t, row) for t in tests)
        case Exists(wanted):
            return has_value if wanted else negated(has_value)
        case Type(kinds):
            own = has_value if row.static in kinds else FALSE
            return any_of([own, negated(has_value)]) if "null" in kinds else own
        case _:
            return certain(of_path(test, row))


def _of_objects(test: Test) -> bool:
    """Return True if an object, or the missing value, may pass."""
    match test:
        case Exists() | Equal(dict()):
            return True
        case Type(kinds):
            return "object" in kinds
        case _:
            return _matches_null(test)


def _on_tags(test: Test, tags: Tags, form: Form) -> Fragment:
    """The runs for whose tags a test holds. Every run has the list, perhaps empty; one position may have no tag."""

    def some(test: Test) -> Fragment:
        if tags.index is None and isinstance(test, Exists):
            return TRUE
        if form == "relations":
            return published.in_tags(tags, _passes(test), whole=_wants_lists(test))
        matches = of_path(test, sources.TAG)
        values = sources.tag_values(tags, whole=_wants_lists(test))
        return FALSE if matches == FALSE else among(fragment("SELECT v.rid FROM ({}) AS v WHERE {}", values, matches))

    return _on_values(test, some, lambda: negated(some(Exists(wanted=True))))


def _without_tags(tests: tuple[Test, ...], tags: Tags, clause: str) -> list[str]:
    """A warning if the filter seems to look for runs without tags."""
    absent = [test for test in tests if test == Exists(wanted=False) or _matches_null(test)]
    if tags.index is not None or not absent:
        return []
    return [f'{clause}: tags is always a list, never null; find runs without tags by {{"tags": {{"$size": 0}}}}']


def _matches_null(test: Test) -> bool:
    match test:
        case Equal(None) | Compare("$gte" | "$lte", None):
            return True
        case In(values, _):
            return None in values
        case _:
            return False


def _wants_lists(test: Test) -> bool:
    match test:
        case Size() | Equal(list()):
            return True
        case In(values, _):
            return any(isinstance(value, list) for value in values)
        case Type(kinds):
            return "list" in kinds
        case _:
            return False
