"""A parsed and checked filter, as a typed tree."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from mirror.filters.fields import Target


@dataclass(frozen=True)
class Equal:
    """A value is equal to `value`: a scalar, null, a list, an object, or a time."""

    value: Any


@dataclass(frozen=True)
class Compare:
    """A value of the same type is in this order to `value`."""

    operator: Literal["$gt", "$gte", "$lt", "$lte"]
    value: float | str | bool | datetime | None


@dataclass(frozen=True)
class In:
    """A value is one of `values`, or a string that matches one of `patterns`."""

    values: tuple[Any, ...]
    patterns: tuple[Matches, ...] = ()


@dataclass(frozen=True)
class Exists:
    """There is a value (or, not `wanted`, there is none)."""

    wanted: bool


@dataclass(frozen=True)
class Matches:
    """A string in which the RE2 `pattern`, which includes its flags, is found."""

    pattern: str


@dataclass(frozen=True)
class Contains:
    """A string that contains `text`."""

    text: str


@dataclass(frozen=True)
class Type:
    """A value of one of these kinds: those of `store.leaves`, and `date`."""

    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Mod:
    """A finite number that, truncated to an integer, leaves `remainder` when divided by `divisor`."""

    divisor: int
    remainder: int


@dataclass(frozen=True)
class Size:
    """A list of `length` elements."""

    length: int


@dataclass(frozen=True)
class ElementMeets:
    """A list with an element that passes all of `tests` by itself."""

    tests: tuple[Test, ...]


@dataclass(frozen=True)
class ElementIs:
    """A list with an object that `filter` matches."""

    filter: Node


@dataclass(frozen=True)
class Not:
    """Not all of `tests` hold."""

    tests: tuple[Test, ...]


@dataclass(frozen=True)
class Every:
    """All of `tests` hold, each for some value."""

    tests: tuple[Test, ...]


Test = Equal | Compare | In | Exists | Matches | Contains | Type | Mod | Size | ElementMeets | ElementIs | Not | Every


@dataclass(frozen=True)
class Field:
    """One member `path: condition` of a filter. `target` is a relative path inside $elemMatch."""

    target: Target
    tests: tuple[Test, ...]
    text: str


@dataclass(frozen=True)
class Group:
    """$and, $or or $nor of filters."""

    operator: Literal["$and", "$or", "$nor"]
    parts: tuple[Node, ...]
    text: str


Node = Field | Group
