"""The fields of a run that filters and orders can use, as functions from the run to the value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mirror.sandbox.errors import Refused
from mirror.sandbox.run import Run

Getter = Callable[[Run], Any]


class Missing:
    """The value of a path that does not exist."""


class Many(list[Any]):
    """The values of a path through an array: one for each object in it, which may be MISSING; may be empty."""


MISSING = Missing()


def _seconds(run: Run) -> float | None:
    """Return the duration of a run; None if it is zero, since `computeSeconds` is 0 for an unknown duration."""
    return ((run.heartbeat_at or run.created_at) - run.created_at).total_seconds() or None


COLUMNS: dict[str, Getter] = {
    "name": lambda run: run.run_id,
    "displayName": lambda run: run.labels.display_name,
    "state": lambda run: run.state,
    "tags": lambda run: run.tags,
    "group": lambda run: run.labels.group,
    "jobType": lambda run: run.labels.job_type,
    "sweep": lambda run: run.labels.sweep,
    "username": lambda run: run.labels.user,
    "createdAt": lambda run: run.created_at,
    "heartbeatAt": lambda run: run.heartbeat_at,
    "updatedAt": lambda run: run.updated_at,
    "notes": lambda run: run.labels.notes,
    "description": lambda run: run.labels.description,
    "host": lambda run: run.labels.host,
    "commit": lambda run: run.labels.commit,
    "duration": _seconds,
}
ALIASES = {
    "display_name": "displayName",
    "job_type": "jobType",
    "sweepName": "sweep",
    "sweep_name": "sweep",
    "created_at": "createdAt",
    "heartbeat_at": "heartbeatAt",
    "updated_at": "updatedAt",
    "computeSeconds": "duration",
}


def column(path: str) -> str:
    """Return the canonical name of a column."""
    return ALIASES.get(path, path)


def getter(path: str) -> Getter | None:
    """Return a function that finds the value of a path in a run; None if no run can have it.

    Refuses `summary.`, as the server does.
    """
    name = column(path)
    if name in COLUMNS:
        find = COLUMNS[name]
        # A field without a value is both null and missing.
        return lambda run: MISSING if (value := find(run)) is None else value
    first, _, rest = path.partition(".")
    if first == "summary":
        raise Refused(f"invalid filter key {path!r}: write summary_metrics", 400)
    parts = rest.split(".") if rest else []
    if first == "config" and parts:
        return _config(parts)
    if first == "summary_metrics" and parts:
        if len(parts) == 1:
            key = parts[0]
            return lambda run: run.summary_document.get(key, MISSING)
        return lambda run: walk(run.summary_document, parts)
    return None


def _config(parts: list[str]) -> Getter:
    key, rest = parts[0], parts[1:]
    # `config.K` and `config.K.value` are the same, since an entry is stored as `{"value": .., "desc": ..}`.
    if rest[:1] == ["value"]:
        rest = rest[1:]

    def find(run: Run) -> Any:
        document = run.config_document
        entry = MISSING if document is None else document.get(key, MISSING)
        if type(entry) is dict and "value" in entry:
            entry = entry["value"]
        return walk(entry, rest) if rest else entry

    return find


def walk(value: Any, parts: list[str]) -> Any:
    """Follow a path as MongoDB does: through objects by key, through arrays by every element or by index."""
    for index, part in enumerate(parts):
        if type(value) is dict:
            value = value.get(part, MISSING)
        elif isinstance(value, list):
            found = Many()
            indexed = part.isdigit() and int(part) < len(value)
            if indexed:
                _gather(found, walk(value[int(part)], parts[index + 1 :]))
            for item in value:
                # In addition to the element at that index, an object counts only if it has a key of that name.
                if type(item) is dict and (not indexed or part in item):
                    _gather(found, walk(item, parts[index:]))
            return found
        else:
            return MISSING
    return value


def _gather(found: Many, answer: Any) -> None:
    if isinstance(answer, Many):
        found.extend(answer)
    else:
        found.append(answer)
