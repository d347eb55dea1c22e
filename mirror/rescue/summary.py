"""Finds the values of a file's summary that the server lost, or of which it has older ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from mirror.metrics import STEP
from mirror.store.checks import HISTORY
from mirror.store.reader import Reader
from mirror.store.records import ProjectKey, RunRecord

OWN = (STEP, "_timestamp", "_runtime")
"""Values that nobody edits: they show how far the run's process had got."""

_AFTERWARDS = timedelta(seconds=1)
"""The server's times are whole seconds."""


def lost(reader: Reader, project: ProjectKey, record: RunRecord, file: Mapping[str, Any], last: int) -> dict[str, Any]:
    """The top-level values to send to the server.

    These are the values that it lacks, unless somebody may have deleted them (the server's summary is as new as the
    file's, and the run was edited since); and, if the file's summary is newer, replacements for values that nobody can
    have edited: those in OWN, and those equal to what the run logged up to the server's `last` step. If the run was
    not edited, all older values are replaced. Other values on the server are left unchanged.
    """
    theirs = record.summary
    fresh = {key: value for key, value in file.items() if key not in theirs}
    other = {key: value for key, value in file.items() if key in theirs and not _same(value, theirs[key])}
    other.pop("_wandb", None)
    newer, edited = _is_newer(file, theirs), _was_edited(record)
    if edited and not newer:
        return {}
    if other and newer:
        if edited:
            stale = _as_logged(reader, project, record.run_id, theirs, [*other], last)
            other = {key: value for key, value in other.items() if key in OWN or key in stale}
        fresh |= {key: _over(value, theirs[key]) for key, value in other.items()}
    return fresh


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _is_newer(file: Mapping[str, Any], server: Mapping[str, Any]) -> bool:
    for key in ("_timestamp", STEP):
        here, there = file.get(key), server.get(key)
        if isinstance(here, int | float):
            return not isinstance(there, int | float) or here > there
    return False


def _was_edited(record: RunRecord) -> bool:
    """Return True if somebody other than the run's process may have changed the run after its last heartbeat."""
    if record.updated_at is None or record.heartbeat_at is None:
        return True
    return record.updated_at > record.heartbeat_at + _AFTERWARDS


def _as_logged(
    reader: Reader, project: ProjectKey, run_id: str, theirs: Mapping[str, Any], keys: list[str], last: int
) -> set[str]:
    """The keys whose value on the server equals the last one logged up to a step."""
    rows = reader.run(
        f"SELECT key, arg_max(value, step), arg_max(coalesce(text, ''), step) FROM {HISTORY} "
        "WHERE entity = ? AND project = ? AND run_id = ? AND step <= ? AND key IN (SELECT unnest(?::VARCHAR[])) "
        "GROUP BY key",
        [project.entity, project.project, run_id, last, keys],
    )
    return {key for key, number, text in rows if _is_value(theirs[key], number, text)}


def _is_value(value: Any, number: float | None, text: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number is not None and _same(float(value), number)
    return bool(text) and (value == text or json.dumps(value) == text)


def _over(file: Any, server: Any) -> Any:
    """The file's value; for objects, merged with the members that only the server has."""
    if not isinstance(file, dict) or not isinstance(server, dict) or "_type" in file or "_type" in server:
        return file
    both = {key: _over(value, server[key]) if key in server else value for key, value in file.items()}
    return {**server, **both}
