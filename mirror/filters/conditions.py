"""Parses the condition of a field: operators, or a value that the field must equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from math import isfinite
from typing import Any

from mirror.errors import FilterError
from mirror.filters import regex
from mirror.filters.elsewhere import ELSEWHERE
from mirror.filters.tree import (
    Compare,
    Contains,
    ElementIs,
    ElementMeets,
    Equal,
    Every,
    Exists,
    In,
    Matches,
    Mod,
    Not,
    Size,
    Test,
    Type,
)
from mirror.filters.values import MAX_DEPTH, check_text, clause_text, is_number, is_object, name_text, plain

ElementParser = Callable[[Mapping[str, Any], str, int], ElementMeets | ElementIs]

OPERATORS = (
    *("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$regex", "$options", "$not"),
    *("$all", "$elemMatch", "$size", "$type", "$mod", "$contains"),
)
_TYPES: dict[str | float, str] = {
    "number": "number",
    "string": "string",
    "bool": "bool",
    "null": "null",
    "array": "list",
    "object": "object",
    "date": "date",
    2: "string",
    3: "object",
    4: "list",
    8: "bool",
    9: "date",
    10: "null",
}
_ONE_NUMBER = ("double", "int", "long", "decimal", 1, 16, 18, 19)
_INT64 = 2**63


def conditions(value: Any, clause: str, depth: int, element: ElementParser) -> tuple[Test, ...]:
    """Parse one condition to tests, all of which must hold. `element` parses the operand of $elemMatch."""
    if depth > MAX_DEPTH:
        raise FilterError(f"{clause}: nested deeper than {MAX_DEPTH} levels; write it flatter")
    if not is_object(value):
        return (Equal(plain(value, clause, depth)),)
    dollars = [isinstance(name, str) and name.startswith("$") for name in value]
    if not any(dollars):
        return (Equal(plain(value, clause, depth)),)
    if not all(dollars):
        stray = next(name for name, dollar in zip(value, dollars, strict=True) if not dollar)
        raise FilterError(f"{clause}: one object has both operators and the plain key {clause_text(stray)}; use $and")
    if "$options" in value and "$regex" not in value:
        raise FilterError(f"{clause}: $options without $regex")
    tests = []
    for operator, operand in value.items():
        if operator == "$options":
            continue
        tests.append(_test(operator, operand, value, clause, depth, element))
    return tuple(tests)


def _test(
    operator: str, operand: Any, siblings: Mapping[str, Any], clause: str, depth: int, element: ElementParser
) -> Test:
    match operator:
        case "$eq":
            return Equal(plain(operand, clause, depth))
        case "$ne":
            return Not((Equal(plain(operand, clause, depth)),))
        case "$gt" | "$gte" | "$lt" | "$lte":
            bound = plain(operand, clause, depth)
            if isinstance(bound, (dict, list)):
                raise FilterError(f"{clause}: {operator} takes a number, a string, a bool or a time")
            return Compare(operator, bound)
        case "$in":
            return _in(operator, operand, clause, depth)
        case "$nin":
            return Not((_in(operator, operand, clause, depth),))
        case "$exists":
            if not isinstance(operand, bool) and not (is_number(operand) and operand in (0, 1)):
                raise FilterError(f"{clause}: $exists takes true or false")
            return Exists(bool(operand))
        case "$regex":
            return _regex(operand, siblings.get("$options", ""), clause)
        case "$not":
            if not is_object(operand) or not all(isinstance(n, str) and n.startswith("$") for n in operand):
                raise FilterError(
                    f'{clause}: $not takes operators, as in {{"$not": {{"$gt": 1}}}}; use $ne for a value'
                )
            if not operand:
                raise FilterError(f"{clause}: $not without operators means nothing")
            return Not(conditions(operand, clause, depth + 1, element))
        case "$all":
            return _every(operand, clause, depth, element)
        case "$size":
            if not is_number(operand) or not _is_whole(operand) or operand < 0:
                raise FilterError(f"{clause}: $size takes a whole number, 0 or more")
            return Size(min(int(operand), _INT64 - 1))
        case "$elemMatch":
            if not is_object(operand):
                raise FilterError(f"{clause}: $elemMatch takes an object")
            return element(operand, clause, depth)
        case "$type":
            return _type(operand, clause)
        case "$mod":
            return _mod(operand, clause)
        case "$contains":
            if not isinstance(operand, str):
                raise FilterError(f"{clause}: $contains takes a string")
            check_text(operand, clause)
            return Contains(operand)
        case _:
            if operator in ELSEWHERE:
                raise FilterError(f"{clause}: {name_text(operator)} is not a condition; {ELSEWHERE[operator]}")
            near = get_close_matches(operator.lower(), OPERATORS, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"operators are {', '.join(OPERATORS)}"
            raise FilterError(f"{clause}: unknown operator {name_text(operator)}; {hint}")


def _is_whole(number: float) -> bool:
    return isinstance(number, int) or number.is_integer()


def _in(operator: str, operand: Any, clause: str, depth: int) -> In:
    if not isinstance(operand, (list, tuple)):
        raise FilterError(f"{clause}: {operator} takes a list")
    values, patterns = [], []
    for item in operand:
        if is_object(item) and any(isinstance(name, str) and name.startswith("$") for name in item):
            if "$regex" not in item or set(item) - {"$regex", "$options"}:
                raise FilterError(f"{clause}: {operator} takes values and $regex, no other operator")
            patterns.append(_regex(item["$regex"], item.get("$options", ""), clause))
        else:
            values.append(plain(item, clause, depth + 1))
    return In(tuple(values), tuple(patterns))


def _regex(operand: Any, options: Any, clause: str) -> Matches:
    if not isinstance(operand, str) or not isinstance(options, str):
        raise FilterError(f"{clause}: $regex and $options take strings")
    check_text(operand, clause)
    return Matches(regex.pattern(operand, options, clause))


def _every(operand: Any, clause: str, depth: int, element: ElementParser) -> Test:
    if not isinstance(operand, (list, tuple)):
        raise FilterError(f"{clause}: $all takes a list")
    if not operand:
        return In(())
    tests: list[Test] = []
    for item in operand:
        if is_object(item) and any(isinstance(name, str) and name.startswith("$") for name in item):
            if set(item) != {"$elemMatch"}:
                raise FilterError(f"{clause}: $all takes values and $elemMatch, no other operator")
            tests.extend(conditions(item, clause, depth + 1, element))
        else:
            tests.append(Equal(plain(item, clause, depth + 1)))
    return Every(tuple(tests))


def _type(operand: Any, clause: str) -> Type:
    names = operand if isinstance(operand, (list, tuple)) else [operand]
    kinds = []
    for name in names:
        if isinstance(name, bool) or not isinstance(name, (str, int, float)) or name not in (*_TYPES, *_ONE_NUMBER):
            near = (
                get_close_matches(name, [t for t in _TYPES if isinstance(t, str)], 1) if isinstance(name, str) else []
            )
            hint = (
                f"did you mean {near[0]!r}?" if near else "types are number, string, bool, null, array, object and date"
            )
            raise FilterError(f"{clause}: unknown type {clause_text(name)}; {hint}")
        if name in _ONE_NUMBER:
            raise FilterError(
                f"{clause}: JSON has only one type of number, so use 'number' instead of {clause_text(name)}"
            )
        kinds.append(_TYPES[name])
    if not kinds:
        raise FilterError(f"{clause}: $type takes a type or a list of types")
    return Type(tuple(kinds))


def _mod(operand: Any, clause: str) -> Mod:
    wrong = FilterError(f"{clause}: $mod takes [divisor, remainder], two finite numbers below 2^63")
    if not isinstance(operand, (list, tuple)) or len(operand) != 2:
        raise wrong
    if not all(is_number(n) and (isinstance(n, int) or isfinite(n)) and abs(n) < _INT64 for n in operand):
        raise wrong
    divisor, remainder = (int(n) for n in operand)
    if divisor == 0:
        raise FilterError(f"{clause}: $mod by 0")
    return Mod(divisor, remainder)
