"""Fields by the names of the server's API, which objects also have as attributes; those of a run, for `Run.load`."""

from __future__ import annotations

STORED_AS_REPORTED = ("projectId", "readOnly")
"""Fields that are stored as the server reported them."""

FIELDS = {
    "id": "storage_id",
    "name": "id",
    "displayName": "name",
    "state": "state",
    "tags": "tags",
    "group": "group",
    "jobType": "job_type",
    "sweepName": "sweep_name",
    "commit": "commit",
    "host": "host",
    "createdAt": "created_at",
    "heartbeatAt": "heartbeat_at",
    "updatedAt": "updated_at",
    "description": "description",
    "notes": "notes",
    "config": "config",
    "rawconfig": "rawconfig",
    "summaryMetrics": "summary_metrics",
    "historyLineCount": "_server_rows",
    "historyKeys": "history_keys",
    "user": "_user_record",
}
"""Fields that are derived from what the mirror holds, and the attributes of `Run` that have them."""


def camel(name: str) -> str:
    """Convert a Python name to the server's spelling: "created_at" becomes "createdAt"."""
    first, *others = name.split("_")
    return first + "".join(word.title() for word in others)
