"""SQL for one test on one value; it may be null. Values only match values of the same kind."""

from __future__ import annotations

from datetime import datetime
from math import inf, nextafter
from typing import Any, assert_never

from mirror.filters.fields import Relative
from mirror.filters.fragment import FALSE, TRUE, Fragment, all_of, any_of, bound, certain, fragment, joined, negated
from mirror.filters.rows import Row, elements, json_row, marked, pointer, walk
from mirror.filters.tree import (
    Compare,
    Contains,
    ElementIs,
    ElementMeets,
    Equal,
    Every,
    Exists,
    Field,
    In,
    Matches,
    Mod,
    Node,
    Not,
    Size,
    Test,
    Type,
)

_EXACT = 2**53
_MAX = 1.7976931348623157e308
_SIGNS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_IS_INTEGER = "regexp_full_match({}, '-?[0-9]+')"


def meets(test: Test, row: Row, level: int = 0) -> Fragment:
    """SQL: this one value passes. $not and $exists apply to the value itself, as for an element in $elemMatch."""
    match test:
        case Equal(value):
            return equal(value, row)
        case Compare(operator, value):
            return _compare(operator, value, row)
        case In(values, patterns):
            return _among(values, patterns, row)
        case Exists(wanted):
            return TRUE if wanted else FALSE
        case Matches(pattern):
            return all_of([row.is_kind("string"), fragment("regexp_matches({}, {})", row.text, bound(pattern))])
        case Contains(text):
            return all_of([row.is_kind("string"), fragment("contains({}, {})", row.text, bound(text))])
        case Type(kinds):
            return row.is_kind(*kinds)
        case Mod(divisor, remainder):
            return _remainder(divisor, remainder, row)
        case Size(length):
            size = fragment("json_array_length({})", row.document)
            return _guarded(row.is_kind("list"), fragment("{} = {}", size, bound(length)))
        case ElementMeets() | ElementIs():
            n = f"n{level}"
            inner = element_meets(test, json_row(f"{n}.y"), level + 1)
            found = fragment(f"len(list_filter({{}}, lambda {n}: {{}})) > 0", elements(row.document, level), inner)
            return _guarded(row.is_kind("list"), found)
        case Not(tests):
            return negated(all_of(certain(meets(t, row, level)) for t in tests))
        case Every(tests):
            return all_of(certain(meets(t, row, level)) for t in tests)
        case _:
            assert_never(test)


def element_meets(test: ElementMeets | ElementIs, row: Row, level: int = 0) -> Fragment:
    """SQL: the value is a list element that meets the operand of $elemMatch."""
    is_element = (
        Fragment(row.element) if row.element not in ("TRUE", "FALSE") else {"TRUE": TRUE}.get(row.element, FALSE)
    )
    match test:
        case ElementMeets(tests):
            return all_of([is_element, *(certain(meets(t, row, level)) for t in tests)])
        case ElementIs(node):
            return all_of([is_element, _guarded(row.is_kind("object"), _matches(node, row.document, level))])


def _matches(node: Node, document: Fragment, level: int) -> Fragment:
    """SQL: one JSON object matches a whole filter. Never null."""
    if isinstance(node, Field):
        assert isinstance(node.target, Relative)
        values = marked(walk(document, node.target.steps, level), level)
        return all_of(_holds(test, values, level) for test in node.tests)
    parts = [_matches(part, document, level) for part in node.parts]
    if node.operator == "$and":
        return all_of(parts)
    return any_of(parts) if node.operator == "$or" else negated(any_of(parts))


def _holds(test: Test, values: Fragment, level: int) -> Fragment:
    """SQL: a test holds for the values of a path, which are in the form that `marked` returns."""
    e = f"e{level}"
    match test:
        case Not(tests):
            return negated(all_of(_holds(t, values, level) for t in tests))
        case Every(tests):
            return all_of(_holds(t, values, level) for t in tests)
        case Exists(False):
            return negated(_holds(Exists(wanted=True), values, level))
        case _:
            row = json_row(f"{e}.y", element=f"{e}.element")
            return certain(
                fragment(f"len(list_filter({{}}, lambda {e}: {{}})) > 0", values, of_path(test, row, level + 1))
            )


def of_path(test: Test, row: Row, level: int = 0) -> Fragment:
    """SQL: one of the values of a path, among which are a list and each of its elements, passes."""
    match test:
        case Size():
            return all_of([fragment("NOT {}", row.element), meets(test, row, level)])
        case ElementMeets() | ElementIs():
            return element_meets(test, row, level)
        case Exists(True):
            return row.present
        case _:
            return meets(test, row, level)


def equal(value: Any, row: Row) -> Fragment:
    """Equality by type and value."""
    match value:
        case None:
            return row.is_kind("null", "missing")
        case bool():
            return all_of([row.is_kind("bool"), fragment("{} = {}", row.text, bound("true" if value else "false"))])
        case int() | float():
            return _equal_number(value, row)
        case str():
            return all_of([row.is_kind("string"), fragment("{} = {}", row.text, bound(value))])
        case datetime():
            return fragment("{} = {}", row.time or "NULL", bound(value))
        case list():
            return _guarded(row.is_kind("list"), _same(value, row.document, []))
        case _:
            # The row of an object with members has no text, so the document is read.
            return _guarded(row.is_kind("object"), _same(value, row.document, []))


def _same(value: Any, document: Fragment, path: list[str]) -> Fragment:
    """SQL: the JSON at a path equals this value; the keys of objects must be in the same order."""
    here = fragment("json_extract({}, {})", document, bound(pointer(path))) if path else document
    if isinstance(value, list):
        shape = fragment("json_type({}) = 'ARRAY' AND json_array_length({}) = {}", here, here, bound(len(value)))
        parts = [_same(element, document, [*path, str(index)]) for index, element in enumerate(value)]
    elif isinstance(value, dict):
        keys = joined(", ", [bound(name) for name in value])
        same_keys = fragment("json_keys({}) = CAST([{}] AS VARCHAR[])", here, keys)
        shape = fragment("json_type({}) = 'OBJECT' AND {}", here, same_keys)
        parts = [_same(member, document, [*path, name]) for name, member in value.items()]
    else:
        return _same_scalar(value, here)
    return all_of([shape, *parts])


def _same_scalar(value: Any, here: Fragment) -> Fragment:
    if value is None:
        return fragment("json_type({}) = 'NULL'", here)
    if isinstance(value, bool):
        return fragment(f"json_type({{}}) = 'BOOLEAN' AND CAST({{}} AS VARCHAR) = '{str(value).lower()}'", here, here)
    # The lambda evaluates the value once, although the test uses it several times.
    return fragment("len(list_filter([{}], lambda s: {})) > 0", here, equal(value, json_row("s")))


def _equal_number(value: float, row: Row) -> Fragment:
    if value != value:  # noqa: PLR0124 - NaN; isnan() fails on integers beyond all doubles
        return Fragment(f"isnan({row.number})")
    if abs(value) < _EXACT or value in (inf, -inf):
        return fragment("{} = {}", row.number, bound(float(value)))
    whole, nearest, below = _neighbours(int(value))
    double = fragment("{} = {}", row.number, bound(below)) if int(below) == whole else FALSE
    exact = fragment(
        f"CASE WHEN {_IS_INTEGER.format(row.text)} THEN {row.text} = {{}} ELSE {{}} END", bound(str(whole)), double
    )
    return all_of([fragment("{} = {}", row.number, bound(nearest)), exact])


def _compare(operator: str, value: Any, row: Row) -> Fragment:
    sign = _SIGNS[operator]
    match value:
        case None:
            return row.is_kind("null", "missing") if "=" in sign else FALSE
        case bool():
            return all_of(
                [row.is_kind("bool"), fragment(f"{row.text} {sign} {{}}", bound("true" if value else "false"))]
            )
        case int() | float():
            return _compare_number(sign, value, row)
        case datetime():
            return fragment(f"{row.time or 'NULL'} {sign} {{}}", bound(value))
        case _:
            return all_of([row.is_kind("string"), fragment(f"{row.text} {sign} {{}}", bound(value))])


def _compare_number(sign: str, value: float, row: Row) -> Fragment:
    if value != value:  # noqa: PLR0124 - NaN; isnan() fails on integers beyond all doubles
        return Fragment(f"isnan({row.number})") if "=" in sign else FALSE
    # DuckDB sorts NaN above infinity; in MongoDB it is in no range.
    finite = [Fragment(f"{row.number} <= CAST('infinity' AS DOUBLE)")] if ">" in sign else []
    if abs(value) < _EXACT or value in (inf, -inf):
        return all_of([fragment(f"{row.number} {sign} {{}}", bound(float(value))), *finite])
    whole, nearest, below = _neighbours(int(value))
    digits = str(whole)
    if int(below) == whole or sign in (">", "<="):
        double = fragment(f"{row.number} {sign} {{}}", bound(below))
    else:
        double = fragment(f"{row.number} {'>' if sign == '>=' else '<='} {{}}", bound(below))
    # Of integers with the same sign, the longer text is further from zero; texts of equal length sort like the numbers.
    away = sign if whole > 0 else sign.translate({ord("<"): ">", ord(">"): "<"})
    strict = away[0]
    beyond = fragment(
        f"{row.number} {sign[0]} {{}} OR ({row.number} = {{}} AND (length({row.text}) {strict} {{}}"
        f" OR (length({row.text}) = {{}} AND {row.text} {away} {{}})))",
        bound(nearest),
        bound(nearest),
        bound(len(digits)),
        bound(len(digits)),
        bound(digits),
    )
    return all_of(
        [fragment(f"CASE WHEN {_IS_INTEGER.format(row.text)} THEN {{}} ELSE {{}} END", beyond, double), *finite]
    )


def _neighbours(whole: int) -> tuple[int, float, float]:
    """The integer, the double that represents it in `number`, and the largest double that is not above it."""
    try:
        nearest = float(whole)
    except OverflowError:
        nearest = _MAX if whole > 0 else -_MAX
    return whole, nearest, nearest if int(nearest) <= whole else nextafter(nearest, -inf)


def _among(values: tuple[Any, ...], patterns: tuple[Matches, ...], row: Row) -> Fragment:
    texts = [v for v in values if isinstance(v, str)]
    numbers = [float(v) for v in values if _is_small(v)]
    rest = [v for v in values if not isinstance(v, str) and not _is_small(v)]
    tests = [equal(value, row) for value in rest]
    if texts:
        tests.append(all_of([row.is_kind("string"), _one_of(row.text, texts)]))
    if numbers:
        tests.append(_one_of(row.number, numbers))
    tests.extend(meets(pattern, row) for pattern in patterns)
    return any_of(tests)


def _is_small(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _EXACT


def _one_of(expression: str, values: list[Any]) -> Fragment:
    return fragment(f"{expression} IN ({{}})", joined(", ", [bound(value) for value in dict.fromkeys(values)]))


def _remainder(divisor: int, remainder: int, row: Row) -> Fragment:
    """SQL for $mod. Integers past 2^53 are exact, from their digits; a remainder has the sign of the dividend."""
    whole = (
        f"coalesce(CASE WHEN abs({row.number}) >= {_EXACT} THEN TRY_CAST({row.text} AS HUGEINT) END,"
        f" TRY_CAST(trunc({row.number}) AS HUGEINT))"
    )
    test = fragment(f"{whole} % CAST({{}} AS HUGEINT) = CAST({{}} AS HUGEINT)", bound(divisor), bound(remainder))
    return _guarded(Fragment(f"isfinite({row.number})"), test)


def _guarded(guard: Fragment, test: Fragment) -> Fragment:
    """`test`, evaluated only where `guard` holds. DuckDB may reorder a conjunction, but not a CASE."""
    if FALSE in (guard, test):
        return FALSE
    return test if guard == TRUE else fragment("CASE WHEN {} THEN {} END", guard, test)
