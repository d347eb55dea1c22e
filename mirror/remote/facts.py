"""The facts of a run that are stored as the server returned them, for clients of the server's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mirror.remote import queries
from mirror.remote.history_keys import HistoryKeys
from mirror.store.records import RunFacts
from mirror.wandb_json import UNREADABLE, dumps, loads

_PLAIN = (*(name for name in queries.FACT_FIELDS if name != "systemMetrics"), "user", "runInfo")


def of(node: Mapping[str, Any], keys: HistoryKeys | None = None) -> RunFacts:
    """Return the facts in a run's node; `keys` is its `historyKeys` if they were read already."""
    keys = keys or HistoryKeys.read(node.get("historyKeys"))
    fields = {name: node[name] for name in _PLAIN if name in node} | _original_values(node)
    return RunFacts(
        fields,
        _text(node["systemMetrics"]) if "systemMetrics" in node else None,
        keys.facts(),
    )


def of_readable_fields(node: Mapping[str, Any]) -> RunFacts:
    """Return the facts in a node of unknown quality; fields that cannot be read are left out."""
    try:
        return of(node)
    except UNREADABLE:
        readable = {name: node[name] for name in node if _is_readable({name: node[name]})}
        return of(readable)


def _original_values(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the original form of values that the mirror stores in another form, more useful to its readers."""
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
    # Without this field, the duration of a run is the time from its start to its last heartbeat.
    if queries.DURATION_FIELD not in node:
        fields["untold"] = [queries.DURATION_FIELD]
    elif not node[queries.DURATION_FIELD]:
        fields[queries.DURATION_FIELD] = node[queries.DURATION_FIELD]
    if isinstance(text := node.get("config"), str) and (beside := _beside(text)):
        fields["configBeside"] = beside
    return fields


def _beside(text: str) -> dict[str, Any] | None:
    """Return what a config has besides values: descriptions of keys, and the version that old clients wrote."""
    # Counting takes a hundredth of the time of parsing.
    descriptions = text.count('"desc"')
    for without in ('"desc":null', '"desc": null'):
        descriptions -= text.count(without) if descriptions else 0
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


def _text(value: Any) -> str:
    """Return a JSON text unchanged, and any other value as JSON text."""
    return value if isinstance(value, str) and value else dumps(value or None)
