"""Names selected by a glob. A name may itself contain `*` or `[`, such as the project `exp[1]`."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

WILD = frozenset("*?[")


def fitting(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the names that a pattern selects, in their order: the one equal to it, otherwise all that match it."""
    candidates = list(names)
    return [pattern] if pattern in candidates else [name for name in candidates if fnmatchcase(name, pattern)]


_LIKE = 0.6
"""How much a name must be like another one to be suggested, by difflib's measure."""


def nearest_project(text: str, known: Iterable[str]) -> str | None:
    """Return the project that was probably meant by "entity/project", or by a project's name alone.

    `known` are "entity/project". None if none is like it; never the text itself.
    """
    from difflib import SequenceMatcher

    def like(one: str, other: str) -> float:
        return SequenceMatcher(None, one, other).ratio()

    entity, slash, name = text.strip("/").lower().rpartition("/")
    found: list[tuple[float, str]] = []
    for path in dict.fromkeys(known):
        owner, _, project = path.lower().partition("/")
        of_name, of_entity = like(name, project), like(entity, owner) if slash else 1.0
        if path != text and (min(of_name, of_entity) >= _LIKE or (slash and name == project)):
            found.append((of_name + of_entity, path))
    return max(found, key=lambda one: one[0])[1] if found else None
