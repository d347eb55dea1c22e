"""Filters as SQL over the published relations, for people to read, run and change.

`config_values` and `summary_values` have less than the tables of the store: no rows for elements of lists and for
objects with members. So lists are searched in their text, and what an object may match in the documents.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from mirror.errors import FilterError
from mirror.filters.fields import Column, Document, Tags
from mirror.filters.fragment import FALSE, Fragment, among, fragment
from mirror.filters.rows import Row
from mirror.filters.sources import (
    TAG,
    HoldsList,
    Passes,
    at_key,
    in_document,
    in_elements,
    in_lists,
    some_of,
    tag_values,
)

_VALUE = Row("l.kind", "l.number", "l.text", "FALSE")
"""A row of `config_values AS l` or `summary_values AS l`, by the names of `store.leaves` until `renamed`."""

_TAG = Row("'string'", "CAST(NULL AS DOUBLE)", "t.tag", "TRUE", static="string", column="t.tag")
"""A row of `run_tags AS t`."""

_NAMES = (
    (r"\bstore\.leaves AS l WHERE l\.doc = '(config|summary)' AND ", r"\1_values AS l WHERE "),
    (r"\bstore\.run_records AS ", "runs AS "),
    (r"\bstore\.tag_positions AS ", "run_tags AS "),
    (r" AND l\.element IS NULL\b", ""),
    (r"\bl\.text\b", "l.value"),
    (r"\b([a-z])\.rid\b", r"\1.run_path"),
)

_EXACT_DIGITS = 15
"""A decimal of so many digits becomes exactly the double that Python reads from it."""


def refuse_unpublished(column: Column) -> None:
    """Raise FilterError for a field that is a column of no published relation."""
    if column.name == "description":
        raise FilterError("no relation has the field description")


def in_values(target: Document, passes: Passes, holds_list: HoldsList, *, of_objects: bool) -> Fragment:
    """A value of the path passes. `of_objects`: an object may pass, or the missing value."""
    if of_objects:
        return in_document(target, passes)
    branches = [at_key(target, target.key, passes(_VALUE, 0))]
    if holds_list(target.doc, target.key) and (found := in_elements(passes)) != FALSE:
        branches.append(at_key(target, target.key, found))
    return some_of([*branches, *in_lists(target, passes, holds_list)])


def in_tags(tags: Tags, passes: Passes, *, whole: bool) -> Fragment:
    """A tag passes, or the one at a position. `whole`: the list of all tags of the run may pass, too."""
    if tags.index is None and not whole:
        return among(fragment("SELECT t.rid FROM store.tag_positions AS t WHERE {}", passes(_TAG, 0)))
    return among(fragment("SELECT v.rid FROM ({}) AS v WHERE {}", tag_values(tags, whole=whole), passes(TAG, 0)))


def renamed(sql: str) -> str:
    """The SQL with the names of the published relations; it has no text of a user in it, since all values are bound."""
    for table, relation in _NAMES:
        sql = re.sub(table, relation, sql)
    return sql


def inlined(sql: str, params: tuple[Any, ...] | list[Any]) -> str:
    """The statement with its values in the place of the question marks."""
    pieces = re.split(r"('[^']*')|\?", sql)
    values = iter(params)
    # Every second piece is what the group found: a quoted text, or nothing where there was a question mark.
    return "".join(
        piece if position % 2 == 0 else _literal(next(values)) if piece is None else piece
        for position, piece in enumerate(pieces)
    )


def _literal(value: Any) -> str:
    """The value as SQL of the type that it has when it is bound."""
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).upper()
        case int():
            return str(value)
        case float():
            return _number(value)
        case datetime():
            return f"TIMESTAMP '{value}'"
        case list() | tuple():
            return f"[{', '.join(map(_literal, value))}]"
        case _:
            quoted = "'" + str(value).replace("'", "''") + "'"
            # A statement ends at a null character.
            return quoted if "\0" not in quoted else "(" + quoted.replace("\0", "' || chr(0) || '") + ")"


def _number(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN
        return f"CAST('{value}' AS DOUBLE)"
    text = repr(value).removesuffix(".0")
    exact = "e" in text or len(text.strip("-0.").replace(".", "")) <= _EXACT_DIGITS
    return text if exact else f"{text}e0"
