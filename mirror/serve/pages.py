"""Pages of lists in the shape of a GraphQL connection."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from mirror.errors import QueryError
from mirror.serve.documents import Elsewhere

_OURS = "mirror~"
"""What cursors of this mirror begin with: the server cannot go on with its lists, nor the mirror with the server's."""


def cursor(listing: str, place: int) -> str:
    """What a page ends with: its list, and how many of it were told by then."""
    return _OURS + base64.urlsafe_b64encode(f"{listing}:{place}".encode()).decode()


def goes_on(body: bytes) -> bool:
    """Whether a request goes on with a list of which the mirror gave the first page."""
    return f'"{_OURS}'.encode() in body


def place_of(text: str) -> tuple[str, int]:
    """The list and the place that a cursor names.

    Raises Elsewhere for one of the server's, QueryError for one of ours that was changed.
    """
    if not text.startswith(_OURS):
        raise Elsewhere(f"{text[:40]!r} is no cursor of this mirror; ask for the first page again")
    try:
        name, _, place = base64.urlsafe_b64decode(text.removeprefix(_OURS).encode()).decode().partition(":")
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
