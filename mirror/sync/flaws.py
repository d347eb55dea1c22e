"""Keeps a failure of one run or project from affecting the others: tells errors of data from all other errors."""

from __future__ import annotations

from msgspec.structs import replace

from mirror.errors import MirrorError, one_line
from mirror.store.records import ProjectKey, RunRecord

_TEXTS = ("name", "group_name", "job_type", "sweep", "notes", "description", "git_commit", "host")
_FREE = ("config", "config_meta", "summary", "tags", *_TEXTS)
"""The columns that may hold any value."""


def is_of_data(error: BaseException) -> bool:
    """Return True if the error is probably caused by the values to be written, not by the files or the server."""
    import duckdb

    if isinstance(error, MirrorError):
        return isinstance(error.__cause__, duckdb.DataError)
    return not isinstance(error, OSError | MemoryError)


def bare(record: RunRecord, error: BaseException) -> RunRecord:
    """Return the record without its documents and free texts, which the store did not accept."""
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
    """Return the one-line message for an unexpected error, for the result of a pass."""
    return f"{project}: an unexpected error ended the pass ({_reason(error)}); see the log"


def _reason(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}")[:300]
