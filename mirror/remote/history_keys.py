"""Reads `historyKeys`, in which the server describes the keys of a run's history: {"keys": {...}, "lastStep": 12}."""

from __future__ import annotations

from typing import Any, Self

from msgspec import Struct

from mirror.metrics import STEP
from mirror.wandb_json import loads


class HistoryKeys(Struct, frozen=True):
    """What the server reports of a run's keys; a part of another form than expected counts as not reported.

    `keys` has the entry of each key, None if none are reported; `last_step` is whatever the server sent.
    """

    keys: dict[str, Any] | None = None
    last_step: Any = None

    @classmethod
    def read(cls, value: Any) -> Self:
        """Read the field, which is an object or its JSON text. Raises ValueError for a text that is not JSON."""
        described = loads(value) if isinstance(value, str) else value
        if not isinstance(described, dict):
            return cls()
        keys = described.get("keys")
        return cls(keys if isinstance(keys, dict) else None, described.get("lastStep"))

    def counts(self) -> dict[str, int] | None:
        """Return the number of values of each key: the sum of `keys.K.typeCounts`. Keys without it are left out."""
        if self.keys is None:
            return None
        counts = {}
        for key, entry in self.keys.items():
            types = entry.get("typeCounts") if isinstance(entry, dict) else None
            if isinstance(types, list):
                counts[key] = sum(valid_count(kind.get("count")) for kind in types if isinstance(kind, dict))
        return counts

    def logged(self) -> dict[str, int | None] | None:
        """Return every key that was logged, with its number of values if the server reports that completely.

        None if the keys are not known: an object is mirrored as its inner keys, which are not reported.
        """
        if self.keys is None:
            return None
        counts = {key: _type_counts(entry) for key, entry in self.keys.items() if key != STEP}
        if any("map" in types for types in counts.values()):
            return None
        return {
            key: sum(types.values()) if all(isinstance(count, int) for count in types.values()) and types else None
            for key, types in counts.items()
        }

    def facts(self) -> dict[str, Any] | None:
        """Return which keys are monotonic, and the entries of keys with other values than numbers."""
        if self.keys is None:
            return None
        entries = {key: entry for key, entry in self.keys.items() if isinstance(entry, dict)}
        others = {key: entry for key, entry in entries.items() if not _are_numbers(entry.get("typeCounts"))}
        monotonic = {key: bool(entry.get("monotonic")) for key, entry in entries.items() if key not in others}
        return {
            "monotonic": [key for key, rises in monotonic.items() if rises],
            "falling": [key for key, rises in monotonic.items() if not rises],
            "others": others,
        }


def valid_count(count: Any) -> int:
    """Return a count of lines or values; 0 for what is not a count of 64 bits."""
    return count if isinstance(count, int) and 0 <= count < 2**63 else 0


def _type_counts(entry: Any) -> dict[str, Any]:
    counts = entry.get("typeCounts") if isinstance(entry, dict) else None
    listed = counts if isinstance(counts, list) else []
    return {str(kind.get("type")): kind.get("count") for kind in listed if isinstance(kind, dict)}


def _are_numbers(counts: Any) -> bool:
    one = counts[0] if isinstance(counts, list) and len(counts) == 1 else None
    return isinstance(one, dict) and one.get("type") == "number"
