"""A piece of SQL with the values bound to its question marks, in order. The text never holds anything a user wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Fragment:
    """SQL text and its parameters."""

    text: str
    params: tuple[Any, ...] = ()


TRUE = Fragment("TRUE")
FALSE = Fragment("FALSE")


def fragment(template: str, *parts: Fragment | str) -> Fragment:
    """`template` with each `{}` replaced by a part; the parameters follow in the same order."""
    texts = [part.text if isinstance(part, Fragment) else part for part in parts]
    params = [value for part in parts if isinstance(part, Fragment) for value in part.params]
    return Fragment(template.format(*texts), tuple(params))


def bound(value: Any) -> Fragment:
    """One question mark."""
    return Fragment("?", (value,))


def joined(separator: str, parts: Iterable[Fragment]) -> Fragment:
    """The parts in a row."""
    parts = list(parts)
    return Fragment(separator.join(p.text for p in parts), tuple(v for p in parts for v in p.params))


def all_of(parts: Iterable[Fragment]) -> Fragment:
    """AND of boolean fragments; TRUE for none. Constants are folded away."""
    return _junction(list(parts), " AND ", neutral=TRUE, decisive=FALSE)


def any_of(parts: Iterable[Fragment]) -> Fragment:
    """OR of boolean fragments; FALSE for none. Constants are folded away."""
    return _junction(list(parts), " OR ", neutral=FALSE, decisive=TRUE)


def negated(part: Fragment) -> Fragment:
    """NOT of a two-valued fragment."""
    if part in (TRUE, FALSE):
        return FALSE if part == TRUE else TRUE
    return fragment("(NOT {})", part)


def certain(part: Fragment) -> Fragment:
    """A boolean that may be null made two-valued: null is false."""
    return part if part in (TRUE, FALSE) else fragment("coalesce({}, FALSE)", part)


def _junction(parts: list[Fragment], word: str, *, neutral: Fragment, decisive: Fragment) -> Fragment:
    if decisive in parts:
        return decisive
    parts = [part for part in parts if part != neutral]
    if not parts:
        return neutral
    return parts[0] if len(parts) == 1 else fragment("({})", joined(word, parts))
