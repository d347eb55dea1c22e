"""What of a run is kept as the server tells it, for clients of the server's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mirror.remote import queries
from mirror.store.records import RunFacts
from mirror.wandb_json import UNREADABLE, dumps, loads

_PLAIN = (*(name for name in queries.FACT_FIELDS if name != "systemMetrics"), "user", "runInfo")


def of(node: Mapping[str, Any]) -> RunFacts:
    """What a run's node tells."""
    fields = {name: node[name] for name in _PLAIN if name in node}
    if "config" in node and node["config"] is None:
        fields["noConfig"] = True
    return RunFacts(
        fields,
        _text(node["systemMetrics"]) if "systemMetrics" in node else None,
        _keys(node.get("historyKeys")),
    )


def as_far_as_readable(node: Mapping[str, Any]) -> RunFacts:
    """The same of a node that may hold anything; what cannot be read was not told."""
    try:
        return of(node)
    except UNREADABLE:
        sound = {name: node[name] for name in node if _is_readable({name: node[name]})}
        return of(sound)


def _is_readable(node: Mapping[str, Any]) -> bool:
    try:
        of(node)
    except UNREADABLE:
        return False
    return True


def _text(told: Any) -> str:
    """JSON text as it came, or of what came as a value."""
    return told if isinstance(told, str) and told else dumps(told or None)


def _keys(told: Any) -> dict[str, Any] | None:
    """Which keys rose alone, and the entries of those that held something else than numbers."""
    described = loads(told) if isinstance(told, str) else told
    keys = described.get("keys") if isinstance(described, dict) else None
    if not isinstance(keys, dict):
        return None
    entries = {key: entry for key, entry in keys.items() if isinstance(entry, dict)}
    others = {key: entry for key, entry in entries.items() if not _are_numbers(entry.get("typeCounts"))}
    numbers = {key: bool(entry.get("monotonic")) for key, entry in entries.items() if key not in others}
    return {
        "monotonic": [key for key, rose in numbers.items() if rose],
        "falling": [key for key, rose in numbers.items() if not rose],
        "others": others,
    }


def _are_numbers(counts: Any) -> bool:
    one = counts[0] if isinstance(counts, list) and len(counts) == 1 else None
    return isinstance(one, dict) and one.get("type") == "number"
