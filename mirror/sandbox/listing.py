"""Lists of runs: filtered, ordered, counted and paged."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, TypeVar

from mirror.sandbox.errors import Refused
from mirror.sandbox.fields import COLUMNS, Getter, column, getter
from mirror.sandbox.filters import compile_filter
from mirror.sandbox.run import Project, Run

T = TypeVar("T")

_RANKS: dict[type, int] = {bool: 2, int: 0, float: 0, str: 1, datetime: 3}


class Listing:
    """Returns the runs of a project that match a filter, in order; results are cached until the world changes."""

    def __init__(self, refused: Collection[str] = ()) -> None:
        """`refused` are columns that this server does not accept in filters."""
        self.refused = refused
        self._kept: dict[tuple[Any, ...], list[Run]] = {}
        self._version = -1

    def runs(self, project: Project, filters: str | None, order: str | None) -> list[Run]:
        """Return the project's matching runs in order; ties by creation."""
        version = project.clock.version
        if version != self._version:
            self._kept, self._version = {}, version
        key = (project.entity, project.name, filters, order)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = ordered(self._matching(project, filters), order)
        return found

    def count(self, project: Project, filters: str | None) -> int:
        """Return how many of the project's runs match."""
        return len(self._matching(project, filters))

    def _matching(self, project: Project, filters: str | None) -> list[Run]:
        check = compile_filter(filters, self.refused)
        runs = project.runs.values()
        return list(runs) if check is None else [run for run in runs if check(run)]


def ordered(runs: list[Run], order: str | None) -> list[Run]:
    """Sort runs by `+key`, `-key` or `key`; those without a value, or with NaN, come last. Refuses an unknown key."""
    text = order or "-created_at"
    descending, path = text.startswith("-"), text.lstrip("+-")
    get: Getter | None = getter(path)
    if get is None or (column(path) in COLUMNS and column(path) == "tags"):
        raise Refused(f"invalid order: {text}", 400)
    present: list[tuple[tuple[int, Any], Run]] = []
    absent = []
    for run in runs:
        value = get(run)
        rank = _RANKS.get(type(value))
        if rank is None or (type(value) is float and math.isnan(value)):
            absent.append(run)
        else:
            present.append(((rank, value), run))
    present.sort(key=lambda pair: pair[0], reverse=descending)
    return [run for _, run in present] + absent


def page(items: Sequence[T], after: str | None, first: int | None, limit: int = 1000) -> tuple[int, Sequence[T], bool]:
    """Return the start of a page, its items, at most `limit`, and whether more follow.

    A cursor is an index in the current list: what is added or removed before it shifts the following pages.
    """
    start = 0 if not after else place(after)
    size = min(limit if first is None else max(first, 0), limit)
    return start, items[start : start + size], start + size < len(items)


def cursor(index: int) -> str:
    """Return the cursor after the item at this index."""
    return base64.b64encode(f"v1:{index + 1}".encode()).decode()


def place(text: str) -> int:
    """Return the index of a cursor. Refuses an invalid one."""
    try:
        return int(base64.b64decode(text, validate=True).decode().removeprefix("v1:"))
    except (binascii.Error, ValueError):
        raise Refused(f"invalid cursor: {text[:40]!r}", 400) from None


def connection(items: Sequence[Any], after: str | None, first: int | None) -> dict[str, Any]:
    """Return a page in the form of a GraphQL connection."""
    start, found, more = page(items, after, first)
    edges = [{"node": item, "cursor": cursor(index)} for index, item in enumerate(found, start=start)]
    return {
        "edges": edges,
        "totalCount": len(items),
        "pageInfo": {
            "startCursor": edges[0]["cursor"] if edges else None,
            "endCursor": edges[-1]["cursor"] if edges else None,
            "hasNextPage": more,
            "hasPreviousPage": start > 0,
        },
    }
