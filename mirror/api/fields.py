"""The fields of a run by the names of the server's API, for `Run.load` and as attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mirror.api.run import Run

STORED_AS_REPORTED = ("projectId", "readOnly")
"""Fields that are stored as the server reported them."""

FIELDS: dict[str, Callable[[Run], Any]] = {
    "id": lambda run: run.storage_id,
    "name": lambda run: run.id,
    "displayName": lambda run: run.name,
    "state": lambda run: run.state,
    "tags": lambda run: run.tags,
    "group": lambda run: run.group,
    "jobType": lambda run: run.job_type,
    "sweepName": lambda run: run.sweep_name,
    "commit": lambda run: run.commit,
    "host": lambda run: run.host,
    "createdAt": lambda run: run.created_at,
    "heartbeatAt": lambda run: run.heartbeat_at,
    "updatedAt": lambda run: run.updated_at,
    "description": lambda run: run.description,
    "notes": lambda run: run.notes,
    "config": lambda run: run.config,
    "rawconfig": lambda run: run.rawconfig,
    "summaryMetrics": lambda run: run.summary_metrics,
    "historyLineCount": lambda run: run._fact("server_rows"),  # noqa: SLF001
    "historyKeys": lambda run: run.history_keys,
    "user": lambda run: {"name": run.user.name, "username": run.user.username} if run._fact("username") else None,  # noqa: SLF001
}
"""Fields that are derived from what the mirror holds."""
