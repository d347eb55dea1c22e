"""Parses a Mongo-style filter, JSON text or Python values, to the typed tree. Checks everything before any SQL runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, NoReturn, cast

from mirror.errors import FilterError
from mirror.filters.conditions import ElementParser, conditions
from mirror.filters.elsewhere import ELSEWHERE
from mirror.filters.fields import Relative, resolve, steps_of
from mirror.filters.tree import ElementIs, ElementMeets, Field, Group, Node
from mirror.filters.values import MAX_DEPTH, check_text, clause_text, is_object, name_text

EVERYTHING = Group("$and", (), "")
MAX_ELEM_MATCH = 6
"""How deep $elemMatch may be nested. Each level doubles the time of DuckDB's planner."""

_GROUPS = ("$and", "$or", "$nor")


def parse(filter: Mapping[str, Any] | str | None) -> Node:  # noqa: A002
    """The tree of a filter; None and `{}` match every run. Raises FilterError, which names the clause and the fault."""
    if filter is None:
        return EVERYTHING
    value = read_json(filter) if isinstance(filter, str) else filter
    if isinstance(value, (list, tuple)) and value and all(is_object(stage) for stage in value):
        raise FilterError(_pipeline_message(value))
    if not is_object(value):
        raise FilterError(f"a filter is an object, not {clause_text(value)}")
    return _filter(value, 0, 1)


def read_json(text: str) -> Any:
    """Parse JSON text, including NaN and Infinity. Raises FilterError for duplicate keys in an object."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise FilterError(f"the filter is not valid JSON, at {where}: {error.msg}") from None
    except FilterError:
        raise
    except RecursionError:
        raise FilterError(_too_deep()) from None
    except ValueError as error:
        # Python refuses integers of more than 4,300 digits.
        raise FilterError(f"the filter is not valid JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise FilterError(f"the key {clause_text(twice)} occurs twice in one object; put both conditions into $and")
    return members


def _filter(value: Mapping[str, Any], inside: int, depth: int) -> Node:
    """All members of a filter as one node. Inside of `inside` > 0 $elemMatch, paths are relative to an element."""
    if depth > MAX_DEPTH:
        raise FilterError(_too_deep())
    parts = tuple(part for name, member in value.items() for part in _member(name, member, inside, depth))
    return parts[0] if len(parts) == 1 else Group("$and", parts, "$and")


def _member(name: str, value: Any, inside: int, depth: int) -> tuple[Node, ...]:
    if not isinstance(name, str):
        raise FilterError(f"{name!r} is not a field; keys of a filter are strings")
    check_text(name, clause_text(name))
    if name in _GROUPS:
        return (_group(cast("Literal['$and', '$or', '$nor']", name), value, inside, depth),)
    if name == "$comment":
        return ()
    if name.startswith("$"):
        _refuse_operator(name, value)
    target = _relative(name) if inside else resolve(name)
    text = f"{name_text(name)} {clause_text(value)}"
    tests = conditions(value, text, depth, _element(inside + 1))
    return (Field(target, tests, text),)


def _group(operator: Literal["$and", "$or", "$nor"], value: Any, inside: int, depth: int) -> Group:
    clause = f"{operator} {clause_text(value)}"
    if not isinstance(value, (list, tuple)):
        raise FilterError(f"{clause}: {operator} takes a list of filters")
    # The hosted server's own "no filter" is {"$or": [{"$and": []}]}.
    if not value and operator != "$and":
        raise FilterError(f"{clause}: {operator} without filters means nothing; leave it out to match every run")
    for part in value:
        if not is_object(part):
            raise FilterError(f"{clause}: {operator} takes a list of filters, and {clause_text(part)} is not a filter")
    return Group(operator, tuple(_filter(part, inside, depth + 1) for part in value), operator)


def _element(inside: int) -> ElementParser:
    """The parser for the operand of the `inside`th nested $elemMatch: operators, or a filter on an object."""

    def element(value: Mapping[str, Any], clause: str, depth: int) -> ElementMeets | ElementIs:
        if inside > MAX_ELEM_MATCH:
            raise FilterError(f"{clause}: $elemMatch is nested deeper than {MAX_ELEM_MATCH} levels")
        first = next(iter(value), "")
        if isinstance(first, str) and first.startswith("$") and first not in (*_GROUPS, "$comment"):
            return ElementMeets(conditions(value, clause, depth + 1, _element(inside + 1)))
        return ElementIs(_filter(value, inside, depth + 1))

    return element


def _relative(path: str) -> Relative:
    return Relative(steps_of(path, path))


def _refuse_operator(name: str, value: Any) -> NoReturn:
    shown = name_text(name)
    clause = f"{shown} {clause_text(value)}"
    if name == "$not":
        raise FilterError(f'{clause}: $not belongs after a field, as in {{"state": {{"$not": ...}}}}; use $nor here')
    if name in ELSEWHERE:
        raise FilterError(f"{clause}: {shown} is not a filter; {ELSEWHERE[name]}")
    near = get_close_matches(name.lower(), _GROUPS, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else "it must follow a field; only $and, $or and $nor can come first"
    raise FilterError(f"{clause}: {shown} does not combine filters; {hint}")


def _pipeline_message(stages: Sequence[Mapping[str, Any]]) -> str:
    """The error message for a list of objects, which may be the stages of an aggregation."""
    names = dict.fromkeys(name for stage in stages for name in stage if name in ELSEWHERE)
    if not names:
        return f"a filter is an object, not {clause_text(stages)}; filters are combined by $and and $or"
    hints = "; ".join(f"{name}: {ELSEWHERE[name]}" for name in names)
    return f"a filter is an object, not a list of stages. {hints}"


def _too_deep() -> str:
    return f"the filter is nested deeper than {MAX_DEPTH} levels; write it flatter"
