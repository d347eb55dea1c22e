"""What one run or one project brings down must not bring down the others: which errors are of what data."""

from __future__ import annotations

from dataclasses import replace

from mirror.errors import MirrorError, one_line
from mirror.store.records import ProjectKey, RunRecord

_TEXTS = ("name", "group_name", "job_type", "sweep", "notes", "description", "git_commit", "host")
_FREE = ("config", "config_meta", "summary", "tags", *_TEXTS)
"""What may hold anything."""


def is_of_data(error: BaseException) -> bool:
    """Whether the error is likely about the values that were to be written, and not about the files or the server."""
    import duckdb

    if isinstance(error, MirrorError):
        return isinstance(error.__cause__, duckdb.DataError)
    return not isinstance(error, OSError | MemoryError)


def bare(record: RunRecord, error: BaseException) -> RunRecord:
    """The record without its documents and free texts, which the store did not take."""
    flaw = f"the record of {record.entity}/{record.project}/{record.run_id} could not be written ({_reason(error)})"
    return replace(
        record,
        config={},
        config_meta=None,
        summary={},
        tags=(),
        info=None,
        name=None,
        group_name=None,
        job_type=None,
        sweep=None,
        notes=None,
        description=None,
        git_commit=None,
        host=None,
        unread=_FREE,
        flaw=flaw,
    )


def unexpected(project: ProjectKey, error: BaseException) -> str:
    """The one line that a result says of an error that no part of the pass knows."""
    return f"{project}: an unexpected error ended the pass ({_reason(error)}); the log has more"


def _reason(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}")[:300]
