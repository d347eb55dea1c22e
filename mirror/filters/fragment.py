"""Pieces of SQL with the values bound to their question marks, in order. The text never contains user input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable


CROWD = 16
"""The most subqueries in one WHERE. DuckDB's planner takes 3 ms for each of 16, and 100 ms for each of 500."""


class Fragment(Struct, frozen=True):
    """SQL text and its parameters. `subqueries` is how many of them it adds to its WHERE."""

    text: str
    params: tuple[Any, ...] = ()
    subqueries: int = 0


TRUE = Fragment("TRUE")
FALSE = Fragment("FALSE")


def fragment(template: str, *parts: Fragment | str) -> Fragment:
    """`template` with each `{}` replaced by a part; the parameters are in the same order."""
    texts = [part.text if isinstance(part, Fragment) else part for part in parts]
    fragments = [part for part in parts if isinstance(part, Fragment)]
    params = tuple(value for part in fragments for value in part.params)
    return Fragment(template.format(*texts), params, sum(part.subqueries for part in fragments))


def among(rids: Fragment) -> Fragment:
    """The condition that the run is in a relation of rids."""
    return Fragment(f"(r.rid IN ({rids.text}))", rids.params, 1)


def bound(value: Any) -> Fragment:
    """One bound parameter."""
    return Fragment("?", (value,))


def joined(separator: str, parts: Iterable[Fragment]) -> Fragment:
    """The parts, joined by `separator`."""
    parts = list(parts)
    params = tuple(value for part in parts for value in part.params)
    return Fragment(separator.join(part.text for part in parts), params, sum(part.subqueries for part in parts))


def all_of(parts: Iterable[Fragment]) -> Fragment:
    """AND of boolean fragments; TRUE for none. Constants are folded."""
    return _combined(list(parts), " AND ", neutral=TRUE, decisive=FALSE)


def any_of(parts: Iterable[Fragment]) -> Fragment:
    """OR of boolean fragments; FALSE for none. Constants are folded."""
    return _combined(list(parts), " OR ", neutral=FALSE, decisive=TRUE)


def negated(part: Fragment) -> Fragment:
    """NOT of a fragment that is never null."""
    if part in (TRUE, FALSE):
        return FALSE if part == TRUE else TRUE
    return fragment("(NOT {})", part)


def certain(part: Fragment) -> Fragment:
    """The boolean fragment with null replaced by false."""
    return part if part in (TRUE, FALSE) else fragment("coalesce({}, FALSE)", part)


def _combined(parts: list[Fragment], word: str, *, neutral: Fragment, decisive: Fragment) -> Fragment:
    if decisive in parts:
        return decisive
    parts = [part for part in parts if part != neutral]
    if not parts:
        return neutral
    while len(parts) > 1 and sum(part.subqueries for part in parts) > CROWD:
        parts = [_as_subquery(bundle, word) for bundle in _bundles(parts)]
    return parts[0] if len(parts) == 1 else fragment("({})", joined(word, parts))


def _bundles(parts: list[Fragment]) -> list[list[Fragment]]:
    """The parts, in their order, in bundles of at most CROWD subqueries each."""
    bundles: list[list[Fragment]] = [[]]
    for part in parts:
        if bundles[-1] and sum(p.subqueries for p in bundles[-1]) + part.subqueries > CROWD:
            bundles.append([])
        bundles[-1].append(part)
    return bundles


def _as_subquery(parts: list[Fragment], word: str) -> Fragment:
    """The parts as one subquery over the runs, with its own `r`."""
    if sum(part.subqueries for part in parts) <= 1:
        return parts[0] if len(parts) == 1 else fragment("({})", joined(word, parts))
    return among(fragment("SELECT r.rid FROM store.run_records AS r WHERE {}", joined(word, parts)))
