"""Filters and orders of run sets, as reports and saved views of the W&B app write them, as filters of the API.

The app writes a tree, `{"op": "OR", "filters": [{"op": "AND", "filters": [LEAF, ...]}]}`, or since 2025 a flat list,
`{"filterFormat": "filterV2", "filters": [LEAF, ...]}`, whose leaves name their `connector`; AND binds tighter than OR.
A leaf is `{"key": {"section": "config", "name": "lr"}, "op": ">", "value": 0.1}`; `"disabled"` ones have no effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from mirror.errors import FilterError

_COMPARISONS = {
    "!=": "$ne",
    ">": "$gt",
    ">=": "$gte",
    "<": "$lt",
    "<=": "$lte",
    "IN": "$in",
    "NIN": "$nin",
    "REGEX": "$regex",
}
_SECTIONS = {"config": "config.", "summary": "summary_metrics.", "run": "", "runs": ""}
_RUN_NAMES = {"userName": "username", "user": "username", "runtime": "duration"}
_MOST_LEVELS = 100

Filter = dict[str, Any]


def to_filter(tree: Any, now: datetime) -> Filter:
    """Return the filter of the API for a run set's; {} for one that selects every run.

    `now` is naive UTC, for "within the last N seconds". Raises FilterError for what cannot be translated.
    """
    if tree in (None, {}):
        return {}
    if not isinstance(tree, Mapping):
        raise FilterError(f"the filter {_shown(tree)} is not an object")
    found = _flat(tree.get("filters"), now, 0) if tree.get("filterFormat") == "filterV2" else _node(tree, now, 0)
    return found or {}


def path_of(key: Any) -> str:
    """Return the API's name of a field, from its section and name. Raises FilterError for an unknown section."""
    section, name = (key.get("section"), key.get("name")) if isinstance(key, Mapping) else (None, None)
    if not isinstance(name, str) or section not in _SECTIONS:
        raise FilterError(f"the field {_shown(key)} is not one of config, summary or run")
    return _RUN_NAMES.get(name, name) if section in ("run", "runs") else f"{_SECTIONS[section]}{name}"


def to_order(sort: Any) -> str | None:
    """Return the order of a run set as `+field` or `-field`; None if it has none. Raises FilterError."""
    keys = sort.get("keys") if isinstance(sort, Mapping) else None
    if keys is None and isinstance(sort, Mapping) and sort.get("key"):
        keys = [sort]
    if not isinstance(keys, Sequence) or not keys or not isinstance(keys[0], Mapping):
        return None
    return f"{'+' if keys[0].get('ascending') else '-'}{path_of(keys[0].get('key'))}"


def _node(node: Any, now: datetime, level: int) -> Filter | None:
    """Return the filter of a group or a leaf; None if it has no effect."""
    if not isinstance(node, Mapping):
        raise FilterError(f"the filter {_shown(node)} is not an object")
    if level > _MOST_LEVELS:
        raise FilterError("the filter is nested too deeply")
    if node.get("key") is not None:
        return _leaf(node, now)
    op, filters = str(node.get("op", "AND")).upper(), node.get("filters")
    if op not in ("AND", "OR"):
        raise FilterError(f"the operator {_shown(node.get('op'))} of a group is not AND or OR")
    if filters is None:
        return None
    if not isinstance(filters, list):
        raise FilterError(f"the filters {_shown(filters)} are not a list")
    if node.get("disabled"):
        return None
    return _joined(op, [_node(each, now, level + 1) for each in filters])


def _flat(items: Any, now: datetime, level: int) -> Filter | None:
    """Return the filter of a list whose items name what joins them to the one before."""
    if items is None:
        return None
    if not isinstance(items, list) or level > _MOST_LEVELS:
        raise FilterError(f"the filters {_shown(items)} are not a list")
    groups: list[list[Filter | None]] = [[]]
    for place, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise FilterError(f"the filter {_shown(item)} is not an object")
        connector = str(item.get("connector") or "AND").upper()
        if connector not in ("AND", "OR"):
            raise FilterError(f"the connector {_shown(item.get('connector'))} is not AND or OR")
        nested = isinstance(item.get("filters"), list)
        if nested and item.get("disabled"):
            continue
        found = _flat(item["filters"], now, level + 1) if nested else _leaf(item, now)
        if found is None:
            continue
        if place and connector == "OR" and groups[-1]:
            groups.append([])
        groups[-1].append(found)
    return _joined("OR", [_joined("AND", group) for group in groups])


def _joined(op: str, parts: Sequence[Filter | None]) -> Filter | None:
    found = [part for part in parts if part is not None]
    if len(found) < 2:
        return found[0] if found else None
    return {"$and" if op == "AND" else "$or": found}


def _leaf(leaf: Mapping[str, Any], now: datetime) -> Filter | None:
    key, op, value = leaf.get("key"), leaf.get("op"), leaf.get("value")
    # The app keeps rows of its form that are not filled in yet, and the official client leaves them out, too.
    unfinished = not isinstance(key, Mapping) or key.get("name") in (None, "")
    if leaf.get("disabled") or unfinished or (value is None and op not in ("=", "==", "!=")):
        return None
    assert isinstance(key, Mapping)
    if key.get("section") == "tags":
        return _tag(str(key["name"]), str(op), value)
    path = path_of(key)
    if op in ("=", "=="):
        # The app writes a star for "any value".
        return {path: {"$exists": True}} if value == "*" else {path: _state(path, value)}
    if op == "WITHINSECONDS":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FilterError(f"{path}: {_shown(value)} is not a number of seconds")
        return {path: {"$gte": f"{(now - timedelta(seconds=value)).isoformat(timespec='seconds')}Z"}}
    if op not in _COMPARISONS:
        raise FilterError(f"{path}: the operator {_shown(op)} is not known")
    return {path: {_COMPARISONS[str(op)]: _state(path, value)}}


def _tag(name: str, op: str, value: Any) -> Filter:
    """Return the filter for a tag, `name` = true or false; or for the tags among some, where `name` is free."""
    if op in ("IN", "NIN"):
        listed = value if isinstance(value, list) else [value]
        return {"tags": {_COMPARISONS[op]: listed}}
    if op not in ("=", "==", "!="):
        raise FilterError(f"tags: the operator {_shown(op)} is not known")
    has = (value is not False) == (op != "!=")
    return {"tags": name} if has else {"tags": {"$ne": name}}


def _state(path: str, value: Any) -> Any:
    """Return a value; states are written with a capital by the app."""
    if path != "state":
        return value
    if isinstance(value, list):
        return [each.lower() if isinstance(each, str) else each for each in value]
    return value.lower() if isinstance(value, str) else value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
