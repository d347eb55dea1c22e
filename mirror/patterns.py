"""Names selected by a glob. A name may itself contain `*` or `[`, such as the project `exp[1]`."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

WILD = frozenset("*?[")


def fitting(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the names that a pattern selects, in their order: the one equal to it, otherwise all that match it."""
    candidates = list(names)
    return [pattern] if pattern in candidates else [name for name in candidates if fnmatchcase(name, pattern)]
