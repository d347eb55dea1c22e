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
    fields = {name: node[name] for name in _PLAIN if name in node} | _otherwise(node)
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


def _otherwise(node: Mapping[str, Any]) -> dict[str, Any]:
    """What is mirrored as something else than it was told, since that serves those who read the mirror better."""
    fields: dict[str, Any] = {}
    for document, absent in (("config", "noConfig"), ("summaryMetrics", "noSummary")):
        if document in node and node[document] is None:
            fields[absent] = True
    if "state" in node and not node["state"]:
        fields["state"] = node["state"]
    if "commit" in node and not node["commit"]:
        commit = ((node.get("runInfo") or {}).get("git") or {}).get("commit")
        if node["commit"] != commit:
            fields["commit"] = node["commit"]
    # Where nothing else is told, how long a run lived is its duration.
    if queries.DURATION_FIELD not in node:
        fields["untold"] = [queries.DURATION_FIELD]
    elif not node[queries.DURATION_FIELD]:
        fields[queries.DURATION_FIELD] = node[queries.DURATION_FIELD]
    if isinstance(text := node.get("config"), str) and (beside := _beside(text)):
        fields["configBeside"] = beside
    return fields


def _beside(text: str) -> dict[str, Any] | None:
    """What a config holds beside the values: descriptions of keys, and the version that old clients wrote."""
    # Counting takes a hundredth of the time of reading.
    descriptions = text.count('"desc"') - text.count('"desc": null') - text.count('"desc":null')
    if not descriptions and '"wandb_version"' not in text:
        return None
    config = loads(text)
    if not isinstance(config, dict):
        return None
    found = {
        "descriptions": {
            key: entry["desc"]
            for key, entry in config.items()
            if isinstance(entry, dict) and "value" in entry and entry.get("desc") is not None
        },
        "entries": {key: config[key] for key in ("wandb_version",) if key in config},
    }
    return found if any(found.values()) else None


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
