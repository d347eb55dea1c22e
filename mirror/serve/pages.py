"""Pages of lists in the form of a GraphQL connection."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from mirror.errors import QueryError
from mirror.serve.documents import NotServed

_OURS = "mirror~"
"""The prefix of this mirror's cursors: the server cannot continue the mirror's lists, nor the mirror the server's."""


def cursor(listing: str, place: int) -> str:
    """Return the cursor of an entry: its list, and its number in it, from 1."""
    return _OURS + base64.urlsafe_b64encode(f"{listing}:{place}".encode()).decode()


def continues_list(body: bytes) -> bool:
    """Return True if a request continues a list whose first page came from the mirror."""
    return f'"{_OURS}'.encode() in body


def read_cursor(text: str) -> tuple[str, int]:
    """Return the list and the number that a cursor holds.

    Raises NotServed for a cursor of the server, QueryError for a malformed one of the mirror.
    """
    if not text.startswith(_OURS):
        raise NotServed(f"{text[:40]!r} is not a cursor of this mirror; ask for the first page again")
    try:
        name, _, place = base64.urlsafe_b64decode(text.removeprefix(_OURS).encode()).decode().partition(":")
        return name, max(int(place), 0)
    except (binascii.Error, ValueError):
        raise QueryError(f"{text[:40]!r} is not a cursor of this mirror; ask for the first page again") from None


def start_of(arguments: Mapping[str, Any]) -> int:
    """Return how many entries precede the requested page."""
    return read_cursor(arguments["after"])[1] if arguments.get("after") else 0


def connection(edges: list[dict[str, Any]], start: int, *, more: bool, total: int | None = None) -> dict[str, Any]:
    """Return a page that follows `start` entries, with the length of the whole list if `total` is given."""
    info = {
        "startCursor": edges[0]["cursor"] if edges else None,
        "endCursor": edges[-1]["cursor"] if edges else None,
        "hasNextPage": more,
        "hasPreviousPage": start > 0,
    }
    return {"edges": edges, "pageInfo": info, **({} if total is None else {"totalCount": total})}
