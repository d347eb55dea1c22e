"""What people type into the page's search box."""

from __future__ import annotations

import re
from typing import Any

_SEARCHED = ("display_name", "name", "tags")


def conditions(text: str) -> dict[str, Any] | str | None:
    """The run filter that a text means: a filter as it is, plain words as a search in names, ids and tags.

    None for an empty text, which all runs match. SQL is not parsed here: the page sends it to another address.
    """
    words = text.strip()
    if not words or words.startswith("{"):
        return words or None
    found = {"$regex": re.sub(r"[.*+?^${}()|\[\]\\]", r"\\\g<0>", words), "$options": "i"}
    return {"$or": [{field: found} for field in _SEARCHED]}
