"""SQL expressions for one value, whether it is in a row of `store.leaves`, in JSON, or in a column.

A `Row` has SQL expressions for the kind of a value, its number, its text, and whether it is an element of a list. The
functions for JSON build the values that a path finds in a document, following MongoDB: objects by key, lists by each
object in them or by position.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from mirror.filters.fields import Column, is_index
from mirror.filters.fragment import FALSE, TRUE, Fragment, bound, fragment

_NUMERIC = "('BIGINT', 'UBIGINT', 'HUGEINT', 'DOUBLE')"
_KIND = (
    "CASE json_type({0}) WHEN 'VARCHAR' THEN 'string' WHEN 'BOOLEAN' THEN 'bool' WHEN 'NULL' THEN 'null'"
    " WHEN 'ARRAY' THEN 'list' WHEN 'OBJECT' THEN 'object'"
    " ELSE CASE WHEN {0} IS NULL THEN 'missing' ELSE 'number' END END"
)
_NUMBER = "CASE WHEN json_type({0}) IN " + _NUMERIC + " THEN TRY_CAST({0} AS DOUBLE) END"
_TEXT = "CASE WHEN json_type({0}) = 'VARCHAR' THEN json_extract_string({0}, '$') ELSE CAST({0} AS VARCHAR) END"


class Row(Struct, frozen=True):
    """SQL for one value. `json` is set if the value is JSON; `static` and `column` are set for a column of a run."""

    kind: str
    number: str
    text: str
    element: str
    json: Fragment | None = None
    time: str | None = None
    static: Literal["string", "number", "date"] | None = None
    column: str | None = None

    def is_kind(self, *kinds: str) -> Fragment:
        """SQL: the value is of one of these kinds. For a column, null is only checked if `null` is among them."""
        if self.static is not None:
            if self.static in kinds:
                return TRUE
            return Fragment(f"({self.column} IS NULL)") if "null" in kinds else FALSE
        if len(kinds) == 1:
            return Fragment(f"{self.kind} = '{kinds[0]}'")
        names = ", ".join(f"'{kind}'" for kind in kinds)
        return Fragment(f"{self.kind} IN ({names})")

    @property
    def present(self) -> Fragment:
        """SQL: there is a value. Always true for a row of a table."""
        return TRUE if self.json is None else fragment("{} IS NOT NULL", self.json)

    @property
    def document(self) -> Fragment:
        """SQL for the value as JSON; only for lists, and for objects that are elements."""
        return self.json if self.json is not None else Fragment(f"CAST({self.text} AS JSON)")


def json_row(value: str, *, element: str = "TRUE") -> Row:
    """The row of a JSON value; SQL NULL means missing."""
    return Row(_KIND.format(value), _NUMBER.format(value), _TEXT.format(value), element, Fragment(value))


def column_row(column: Column) -> Row:
    """The row of a column of `store.run_records AS r`."""
    name = f"r.{column.name}"
    match column.type:
        case "number":
            return Row("'number'", name, f"CAST({name} AS VARCHAR)", "FALSE", static="number", column=name)
        case "time":
            return Row("'date'", "NULL", name, "FALSE", time=name, static="date", column=name)
        case _:
            return Row("'string'", "NULL", name, "FALSE", static="string", column=name)


def pointer(steps: tuple[str, ...] | list[str]) -> str:
    """The JSON pointer for these keys. Unlike a JSON path, it can express any key."""
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def walk(start: Fragment, steps: tuple[str, ...], level: int = 0, *, of_list: bool = False) -> Fragment:
    """SQL for the values that a path finds from one JSON value, as JSON[]; NULL in it means that nothing was found.

    `level` makes the lambda parameters of nested walks distinct. `of_list`: `start` is a list.
    """
    values = fragment("[{}]", start)
    for position, step in enumerate(steps):
        values = _through_list(start, step, level) if of_list and position == 0 else _step(values, step, level)
    return values


def walk_objects(start: Fragment, steps: list[str]) -> Fragment:
    """SQL for the value that keys find from a JSON object, or NULL; lists are not entered."""
    value = start
    for step in steps:
        # Only objects are stepped into, because json_extract on a list would use digits as a position.
        value = fragment(
            "list_extract(list_transform(list_filter([{}], lambda o: json_type(o) = 'OBJECT'),"
            " lambda o: json_extract(o, {})), 1)",
            value,
            bound(pointer([step])),
        )
    return value


def marked(values: Fragment, level: int = 0) -> Fragment:
    """SQL for each value of a JSON[] and each element of lists in it: STRUCT(y JSON, element BOOLEAN)[]."""
    m, n = f"m{level}", f"n{level}"
    return fragment(
        f"flatten(list_transform({{}}, lambda {m}: list_concat([{{{{'y': {m}, 'element': FALSE}}}}],"
        f" CASE WHEN json_type({m}) = 'ARRAY' THEN list_transform(json_extract({m}, '$[*]'),"
        f" lambda {n}: {{{{'y': {n}, 'element': TRUE}}}}) ELSE [] END)))",
        values,
    )


def elements(value: Fragment, level: int = 0) -> Fragment:
    """SQL for the elements of a JSON list, in the form that `marked` returns."""
    n = f"n{level}"
    return fragment(f"list_transform(json_extract({{}}, '$[*]'), lambda {n}: {{{{'y': {n}, 'element': TRUE}}}})", value)


def _step(values: Fragment, step: str, level: int) -> Fragment:
    x = f"x{level}"
    return fragment(
        f"flatten(list_transform({{}}, lambda {x}: CASE json_type({x}) WHEN 'OBJECT' THEN [json_extract({x}, {{}})]"
        f" WHEN 'ARRAY' THEN {{}} ELSE [NULL] END))",
        values,
        bound(pointer([step])),
        _through_list(Fragment(x), step, level),
    )


def _through_list(value: Fragment, step: str, level: int) -> Fragment:
    """SQL for what one step finds in a list: the key in each object, and the element at a position."""
    y = f"y{level}"
    key = bound(pointer([step]))
    inside = fragment(
        f"list_transform(list_filter(json_extract({{}}, '$[*]'), lambda {y}: json_type({y}) = 'OBJECT'),"
        f" lambda {y}: json_extract({y}, {{}}))",
        value,
        key,
    )
    if not is_index(step):
        return inside
    at_position = fragment(f"list_filter([json_extract({{}}, {{}})], lambda {y}: {y} IS NOT NULL)", value, key)
    return fragment("list_concat({}, {})", at_position, inside)
