"""Names that are chosen by a glob. A name may hold `*` or `[` itself, as that of the project `exp[1]`."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

WILD = frozenset("*?[")


def fitting(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a pattern means, in their order: the one that is called exactly so, else those that it fits."""
    among = list(names)
    return [pattern] if pattern in among else [name for name in among if fnmatchcase(name, pattern)]
