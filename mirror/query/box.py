"""What people type into the page's search box."""

from __future__ import annotations

import re
from typing import Any

from mirror.filters import terms

_SEARCHED = ("display_name", "name", "tags")


def conditions(text: str) -> dict[str, Any] | str | None:
    """The run filter that a text means: a filter or terms as they are, plain words as a search in names, ids and tags.

    None for an empty text, which all runs match. SQL is not parsed here: the page sends it to another address. Raises
    FilterError for a wrong term.
    """
    words = text.strip()
    if not words or words.startswith("{"):
        return words or None
    if terms.has_term(words):
        return terms.parse(words)
    found = {"$regex": re.sub(r"[.*+?^${}()|\[\]\\]", r"\\\g<0>", words), "$options": "i"}
    return {"$or": [{field: found} for field in _SEARCHED]}
