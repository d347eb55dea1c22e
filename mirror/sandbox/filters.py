"""Mongo-style run filters, compiled once to a predicate on runs."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

from mirror.sandbox import instants, jsontext
from mirror.sandbox.errors import Refused
from mirror.sandbox.fields import MISSING, Getter, Many, column, getter
from mirror.sandbox.run import Run

Check = Callable[[Run], bool]
Find = Callable[[str], Getter]
Test = Callable[[Any], bool]

_BOOLEANS = {"$and", "$or", "$nor"}
_KINDS: dict[type, str] = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
    Many: "array",
    datetime: "date",
    type(None): "null",
}


def compile_filter(text: str | None, refused: Collection[str] = (), find: Find | None = None) -> Check | None:
    """Compile a filter's JSON text to a predicate; None if every run matches.

    Refuses text that is not a JSON object, unknown operators, bad operands, and the columns in `refused`. For a filter
    on something else than runs, `find` returns how a key is read.
    """
    if text is None or text.strip() in ("", "{}", "null"):
        return None
    try:
        value = jsontext.read(text)
    except ValueError:
        raise Refused(f"invalid filters: not JSON: {text[:80]!r}", 400) from None
    return _filter(value, find or _of_runs(refused))


def _of_runs(refused: Collection[str]) -> Find:
    def find(key: str) -> Getter:
        if column(key) in refused:
            raise _bad(f"unknown field: {key}")
        return getter(key) or (lambda _run: MISSING)

    return find


def _bad(message: str) -> Refused:
    return Refused(f"invalid filters: {message}", 400)


def _filter(value: Any, find: Find) -> Check:
    if not isinstance(value, dict):
        raise _bad(f"a filter is an object, not {_kind(value)}")
    checks = [_member(key, item, find) for key, item in value.items()]
    return checks[0] if len(checks) == 1 else _all(checks)


def _all(checks: list[Check]) -> Check:
    if len(checks) == 2:
        first, second = checks
        return lambda run: first(run) and second(run)

    def check(run: Run) -> bool:
        for one in checks:  # noqa: SIM110 - all() over a generator takes twice the time
            if not one(run):
                return False
        return True

    return check


def _some(checks: list[Check]) -> Check:
    if len(checks) == 2:
        first, second = checks
        return lambda run: first(run) or second(run)

    def check(run: Run) -> bool:
        for one in checks:  # noqa: SIM110 - any() over a generator takes twice the time
            if one(run):
                return True
        return False

    return check


def _member(key: str, value: Any, find: Find) -> Check:
    if key in _BOOLEANS:
        if not isinstance(value, list):
            raise _bad(f"{key} takes a list of filters")
        # W&B's own pages send an empty $and for "everything".
        parts = [_filter(part, find) for part in value]
        if key == "$and":
            return _all(parts)
        some = _some(parts)
        return some if key == "$or" else lambda run: not some(run)
    if key.startswith("$"):
        raise _bad(f"unknown operator: {key}")
    return _condition(find(key), value)


def _condition(get: Getter, value: Any) -> Check:
    if isinstance(value, dict) and next(iter(value), "").startswith("$"):
        checks = [_operator(get, name, operand, value) for name, operand in value.items() if name != "$options"]
        if not checks:
            raise _bad("$options needs a $regex")
        return checks[0] if len(checks) == 1 else _all(checks)
    return _any(get, _equal(value))


def _operator(get: Getter, name: str, operand: Any, beside: Mapping[str, Any]) -> Check:
    match name:
        case "$eq":
            return _any(get, _equal(operand))
        case "$ne":
            return _none(get, _equal(operand))
        case "$gt" | "$gte" | "$lt" | "$lte":
            return _any(get, _range(name, operand))
        case "$in" | "$nin":
            if not isinstance(operand, list):
                raise _bad(f"{name} needs a list")
            tests = [_equal(item) for item in operand]
            listed: Test = lambda value: any(test(value) for test in tests)  # noqa: E731
            return _any(get, listed) if name == "$in" else _none(get, listed)
        case "$exists":
            if not isinstance(operand, bool | int):
                raise _bad("$exists needs true or false")
            wanted = bool(operand)
            return lambda run: _there(get(run)) is wanted
        case "$regex":
            return _any(get, _regex(operand, beside.get("$options", "")))
        case "$not":
            if not isinstance(operand, dict) or not next(iter(operand), "").startswith("$"):
                raise _bad("$not needs an object of operators")
            inner = _condition(get, operand)
            return lambda run: not inner(run)
        case _:
            raise _bad(f"unknown operator: {name}")


def _any(get: Getter, test: Test) -> Check:
    def check(run: Run) -> bool:
        value = get(run)
        if isinstance(value, list):
            if type(value) is Many:
                return any(test(item) or (type(item) is list and any(map(test, item))) for item in value)
            return test(value) or any(map(test, value))
        return test(value)

    return check


def _none(get: Getter, test: Test) -> Check:
    inner = _any(get, test)
    return lambda run: not inner(run)


def _there(value: Any) -> bool:
    if type(value) is Many:
        return any(item is not MISSING for item in value)
    return value is not MISSING


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "missing")


def _equal(operand: Any) -> Test:
    if operand is None:
        return lambda value: value is None or value is MISSING
    if isinstance(operand, float) and math.isnan(operand):
        return lambda value: type(value) is float and math.isnan(value)
    kind = _kind(operand)
    if kind in ("object", "array"):
        text = jsontext.write(operand)
        return lambda value: _kind(value) == kind and jsontext.write(value) == text
    instant = instants.read(operand) if isinstance(operand, str) else None

    types = {kept for kept, name in _KINDS.items() if name == kind}

    def test(value: Any) -> bool:
        if type(value) is datetime:
            return value == instant
        return type(value) in types and bool(value == operand)

    return test


def _range(name: str, operand: Any) -> Test:
    if operand is None:
        return (lambda value: value is None or value is MISSING) if name in ("$gte", "$lte") else (lambda _value: False)
    kind = _kind(operand)
    if kind in ("object", "array"):
        raise _bad(f"{name} cannot compare with an {kind}")
    if isinstance(operand, float) and math.isnan(operand):
        return _equal(operand) if name in ("$gte", "$lte") else (lambda _value: False)
    compare: Callable[[Any, Any], bool] = {
        "$gt": operator.gt,
        "$gte": operator.ge,
        "$lt": operator.lt,
        "$lte": operator.le,
    }[name]
    instant = instants.read(operand) if isinstance(operand, str) else None

    types = {kept for kept, name in _KINDS.items() if name == kind}

    def test(value: Any) -> bool:
        if type(value) is datetime:
            return instant is not None and compare(value, instant)
        return type(value) in types and compare(value, operand)

    return test


# The server's regular expressions are RE2's, which has neither look-around nor back-references.
_NOT_RE2 = re.compile(r"\(\?<?[=!]|\\[1-9]|\(\?P=")


def _regex(operand: Any, options: Any) -> Test:
    if not isinstance(operand, str) or not isinstance(options, str) or set(options) - set("ims"):
        raise _bad("$regex needs a string, $options letters of i, m and s")
    if _NOT_RE2.search(operand):
        raise _bad(f"$regex {operand!r} uses syntax that RE2 lacks")
    flags = sum({"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL}[letter] for letter in set(options))
    try:
        pattern = re.compile(operand, flags)
    except re.error as error:
        raise _bad(f"$regex {operand!r}: {error}") from None
    return lambda value: type(value) is str and pattern.search(value) is not None
