"""Marks runs that the next pass pulls again. Readers see the old values until the new ones are complete."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mirror.store import console, history_cursors, rids, staging
from mirror.store.records import ProjectKey
from mirror.store.transaction import Transaction


def request(tx: Transaction, project: ProjectKey, run_ids: Sequence[str]) -> None:
    """Have these runs pulled again completely and at once, even if they failed and wait for a retry.

    Includes their system metrics, console, metadata file and list of files.
    """
    console.forget(tx, rids.find(tx.db, project, run_ids).values())
    request_history(tx, project, run_ids)


def request_history(tx: Transaction, project: ProjectKey, run_ids: Sequence[str]) -> None:
    """Have the whole history of these runs pulled again at once, even if they failed and wait for a retry.

    Raises StoreError for a run whose record was never written.
    """
    mark(tx, [cursor.rid for cursor in history_cursors.find(tx.db, project, run_ids).values()])


def mark(tx: Transaction, numbers: Collection[int]) -> None:
    """Like `request_history`, for runs given by `rid`."""
    staging.drop(tx, numbers)
    condition, params = rids.among(numbers)
    tx.db.run(f"UPDATE store.run_history SET refresh = true, next_try_at = NULL WHERE {condition}", params)
