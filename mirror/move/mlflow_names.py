"""Names that MLflow accepts for metrics, parameters and tags.

Source: `mlflow.utils.validation` of mlflow 3.17. A colon, which servers before 2.17 refuse, is replaced as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from zlib import crc32

LONGEST = 250
"""The longest name in characters."""

_FOREIGN = re.compile(r"[^\w.\- /]")


def cleaned(name: str) -> str:
    """Return a name with `_` for other characters, and for parts that are no folder; a long one ends in a checksum."""
    parts = ["_" if part in ("", ".", "..") else part for part in _FOREIGN.sub("_", name.replace("\n", "_")).split("/")]
    plain = "/".join(parts)
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 9]}-{crc32(name.encode('utf-8', 'replace')):08x}"


def unique(names: Iterable[str]) -> dict[str, str]:
    """Return what each of these names becomes. Names that would become the same get `_2`, `_3` and so on.

    Names that stay as they are come first, so that no other takes their place.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    ordered = sorted(set(names))
    for name in [*(one for one in ordered if cleaned(one) == one), *(one for one in ordered if cleaned(one) != one)]:
        plain = new = cleaned(name)
        number = 1
        while new in taken:
            number += 1
            new = f"{plain[: LONGEST - 12]}_{number}"
        taken.add(new)
        found[name] = new
    return found
