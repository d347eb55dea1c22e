"""A parsed and checked filter, as a typed tree."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from mirror.filters.fields import Target


class Equal(Struct, frozen=True):
    """A value is equal to `value`: a scalar, null, a list, an object, or a time."""

    value: Any


class Compare(Struct, frozen=True):
    """A value of the same type is in this order to `value`."""

    operator: Literal["$gt", "$gte", "$lt", "$lte"]
    value: float | str | bool | datetime | None


class In(Struct, frozen=True):
    """A value is one of `values`, or a string that matches one of `patterns`."""

    values: tuple[Any, ...]
    patterns: tuple[Matches, ...] = ()


class Exists(Struct, frozen=True):
    """There is a value (or, not `wanted`, there is none)."""

    wanted: bool


class Matches(Struct, frozen=True):
    """A string in which the RE2 `pattern`, which includes its flags, is found."""

    pattern: str


class Contains(Struct, frozen=True):
    """A string that contains `text`."""

    text: str


class Type(Struct, frozen=True):
    """A value of one of these kinds: those of `store.leaves`, and `date`."""

    kinds: tuple[str, ...]


class Mod(Struct, frozen=True):
    """A finite number that, truncated to an integer, leaves `remainder` when divided by `divisor`."""

    divisor: int
    remainder: int


class Size(Struct, frozen=True):
    """A list of `length` elements."""

    length: int


class ElementMeets(Struct, frozen=True):
    """A list with an element that passes all of `tests` by itself."""

    tests: tuple[Test, ...]


class ElementIs(Struct, frozen=True):
    """A list with an object that `filter` matches."""

    filter: Node


class Not(Struct, frozen=True):
    """Not all of `tests` hold."""

    tests: tuple[Test, ...]


class Every(Struct, frozen=True):
    """All of `tests` hold, each for some value."""

    tests: tuple[Test, ...]


Test = Equal | Compare | In | Exists | Matches | Contains | Type | Mod | Size | ElementMeets | ElementIs | Not | Every


class Field(Struct, frozen=True):
    """One member `path: condition` of a filter. `target` is a relative path inside $elemMatch."""

    target: Target
    tests: tuple[Test, ...]
    text: str


class Group(Struct, frozen=True):
    """$and, $or or $nor of filters."""

    operator: Literal["$and", "$or", "$nor"]
    parts: tuple[Node, ...]
    text: str


Node = Field | Group
