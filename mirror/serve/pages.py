"""Pages of lists in the shape of a GraphQL connection."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from mirror.errors import QueryError


def cursor(listing: str, place: int) -> str:
    """What a page ends with: its list, and how many of it were told by then."""
    return base64.urlsafe_b64encode(f"{listing}:{place}".encode()).decode()


def place_of(text: str) -> tuple[str, int]:
    """The list and the place that a cursor names. Raises QueryError for one that was not made here."""
    try:
        name, _, place = base64.urlsafe_b64decode(text.encode()).decode().partition(":")
        return name, max(int(place), 0)
    except (binascii.Error, ValueError):
        raise QueryError(f"{text[:40]!r} is no cursor of this mirror; ask for the first page again") from None


def start_of(arguments: Mapping[str, Any]) -> int:
    """Where the page that is asked for begins."""
    return place_of(arguments["after"])[1] if arguments.get("after") else 0


def connection(edges: list[dict[str, Any]], start: int, *, more: bool, total: int | None = None) -> dict[str, Any]:
    """A page that begins behind `start` others, with the length of its list where that is given."""
    info = {
        "startCursor": edges[0]["cursor"] if edges else None,
        "endCursor": edges[-1]["cursor"] if edges else None,
        "hasNextPage": more,
        "hasPreviousPage": start > 0,
    }
    return {"edges": edges, "pageInfo": info, **({} if total is None else {"totalCount": total})}
