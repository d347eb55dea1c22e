"""Filters as terms: one word each, KEY OP VALUE, as in `config.lr<0.01`. They become the Mongo tree of JSON filters.

    state=finished   config.lr<0.01   tags=baseline   created_at>7d   name~^deep   summary.val/acc!=null

All terms must hold. There is no "or" and there are no brackets: JSON filters and SQL have these.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mirror.errors import FilterError
from mirror.filters.fields import COLUMNS, Column, Document, Tags, resolve
from mirror.filters.moments import EXAMPLES
from mirror.filters.parse import read_json

_TERM = re.compile(r"""(?P<key>"(?:[^"\\]|\\.)*"|.+?)(?P<operator>==|!=|!~|<=|>=|=|<|>|~)(?P<value>.*)""", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_SPECIAL = {"nan": math.nan, "inf": math.inf, "infinity": math.inf}
_LITERALS = {"true": True, "false": False, "null": None}
_PYTHON = {"True": "true", "False": "false", "None": "null"}
_OPERATORS = {"!=": "$ne", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte", "~": "$regex"}
_STATES = ("running", "finished", "crashed", "failed", "killed", "pending", "preempted", "preempting")

# In JSON filters `name` is the run id, as in the official API. In terms it is the name that people see.
_NAMES = {"name": "display_name", "id": "name", "run_id": "name"}

HOW = "use KEY OP VALUE in one word, such as state=finished; the operators are = != < <= > >= ~ !~"


def parse(line: str) -> dict[str, Any]:
    """The filter of a line that people write: a JSON object, or terms separated by spaces; `{}` for an empty line.

    Raises FilterError, in one line that names the term.
    """
    if line.lstrip().startswith(("{", "[")):
        found = read_json(line)
        if not isinstance(found, dict):
            raise FilterError(f"a filter is an object or terms, not {line.strip()[:60]}; {HOW}")
        return found
    return conditions(words(line))


def has_term(line: str) -> bool:
    """Return True if a word of the line is KEY OP VALUE, so that the line is not a search for plain words."""
    try:
        return any(_TERM.fullmatch(word) for word in words(line))
    except FilterError:
        return True


def conditions(terms: Sequence[str]) -> dict[str, Any]:
    """The filter that holds where each of the terms does. Raises FilterError for the first that is not one."""
    found: dict[str, Any] = {}
    repeated: list[dict[str, Any]] = []
    for term in terms:
        key, condition = _condition(term)
        if key not in found:
            found[key] = condition
        elif (both := _merged(found[key], condition)) is not None:
            found[key] = both
        else:
            repeated.append({key: condition})
    return {**found, "$and": repeated} if repeated else found


def combined(filter_: Mapping[str, Any] | str | None, terms: Sequence[str]) -> Mapping[str, Any] | str | None:
    """A JSON filter, if there is one, and terms as one filter; the JSON itself if there are no terms."""
    if not terms:
        return filter_
    of_terms = conditions(terms)
    given = read_json(filter_) if isinstance(filter_, str) else filter_
    return of_terms if not given else {"$and": [given, of_terms]}


def words(line: str) -> list[str]:
    """Split a line at spaces, except in quotes that begin a key or a value."""
    found: list[str] = []
    word, quote, previous = "", "", ""
    escaped = False
    for char in line:
        if quote:
            word += char
            if escaped or (char == "\\" and quote == '"'):
                escaped = not escaped
            elif char == quote:
                quote = ""
        elif char.isspace():
            if word:
                found.append(word)
            word = ""
        else:
            if char in "\"'" and (not word or previous in "=<>~"):
                quote = char
            word += char
        previous = char
    if quote:
        raise FilterError(f"the term {word!r} has no closing {quote}")
    return [*found, word] if word else found


def _condition(term: str) -> tuple[str, Any]:
    """The field of one term, and its condition."""
    split = _TERM.fullmatch(term)
    if split is None:
        raise FilterError(_no_operator(term))
    try:
        key = _key(split["key"])
        target = resolve(key)
        operator = "=" if split["operator"] == "==" else split["operator"]
        if operator in ("~", "!~"):
            return key, _matching(target, operator, split["value"])
        value = _value(target, key, operator, split["value"])
    except FilterError as error:
        raise FilterError(f"the term {term!r}: {error}") from None
    return key, value if operator == "=" else {_OPERATORS[operator]: value}


def _key(text: str) -> str:
    key = _unquoted(text) if text.startswith('"') else text.strip()
    return _NAMES.get(key, key)


def _matching(target: Column | Tags | Document, operator: str, text: str) -> dict[str, Any]:
    if isinstance(target, Column) and target.type != "text":
        raise FilterError(f"{operator} is for text, and this field is a {target.type}; compare it with < or >")
    pattern = {"$regex": _unquoted(text) if text[:1] in ("'", '"') else text}
    return pattern if operator == "~" else {"$not": pattern}


def _value(target: Column | Tags | Document, key: str, operator: str, text: str) -> Any:
    """The value of a term. Only config and summary hold several types; elsewhere the field decides."""
    if text[:1] in ("'", '"'):
        value: Any = _unquoted(text)
    elif text[:1] in ("=", "<", ">", "~"):
        raise FilterError(f"the value begins with {text[0]}, as an operator does; write it in quotes if that is meant")
    elif not text:
        raise FilterError('there is no value; write null for none, and "" for an empty text')
    elif isinstance(target, Document):
        return _of_any_type(text)
    else:
        value = None if text == "null" else text
    if not isinstance(target, Column) or value is None:
        return value
    if target.type == "number":
        number = _number(value)
        if number is None:
            raise FilterError(f"{key} is a number{' of seconds' if key.startswith('duration') else ''}, not {value!r}")
        return number
    # Nothing happens at the first moment of a day.
    if target.type == "time" and operator in ("=", "!=") and "T" not in value:
        raise FilterError(f"a time is compared with < or >, as in {key}>7d; times are {EXAMPLES}")
    return value


def _of_any_type(text: str) -> Any:
    if text in _LITERALS:
        return _LITERALS[text]
    if text in _PYTHON:
        raise FilterError(f'write {_PYTHON[text]} for the value, or "{text}" in quotes for the text')
    if text[0] in "[{":
        raise FilterError("lists and objects need a JSON filter, as in --filter '{\"config.layers\": [64, 128]}'")
    number = _number(text)
    return text if number is None else number


def _number(text: str) -> float | int | None:
    if not _NUMBER.fullmatch(text):
        special = _SPECIAL.get(text.lstrip("+-").lower())
        return None if special is None else -special if text.startswith("-") else special
    try:
        return int(text)
    except ValueError:
        return float(text)


def _unquoted(text: str) -> str:
    """The text in quotes: JSON in double quotes, as it stands in single ones."""
    if len(text) >= 2 and text.startswith("'") and text.endswith("'"):
        return text[1:-1]
    try:
        value = json.loads(text, strict=False)
    except ValueError:
        value = None
    if not isinstance(value, str):
        raise FilterError(f'{text} is not a text in quotes; in double quotes, write \\\\ for \\ and \\" for "')
    return value


def _merged(one: Any, other: Any) -> dict[str, Any] | None:
    """Two conditions on one key as one, if both are operators and no operator occurs twice; else None."""
    operators = [
        isinstance(condition, dict) and all(name.startswith("$") for name in condition) for condition in (one, other)
    ]
    return {**one, **other} if all(operators) and not set(one) & set(other) else None


def _no_operator(term: str) -> str:
    text = term if term.isprintable() and len(term) <= 60 else term[:57].encode("unicode_escape").decode() + "..."
    if term.lstrip().startswith("{"):
        return f"{text} is JSON, not a term: give it to --filter"
    if term.lower() in _STATES:
        return f"{text!r} is not a term; did you mean state={term.lower()}?"
    if term in COLUMNS or term == "tags" or term.startswith(("config.", "summary.", "summary_metrics.")):
        shell = f"(quote terms with < or >, which the shell uses itself: '{text}>0')"
        return f"the term {text!r} has no operator; {HOW} {shell}"
    return f"{text!r} is not a term; {HOW}"
