"""The inputs of a pass, its progress events and its result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct, field

from mirror.errors import CommError, MirrorError
from mirror.store.records import ProjectKey

if TYPE_CHECKING:
    # A command asks the server first, and imports the store while it waits.
    from mirror.remote.client import Server
    from mirror.remote.page_size import PageSize
    from mirror.sync.early import EarlyRecords
    from mirror.sync.writer import Writer


class Progress(Protocol):
    """Receives progress events of a pass. Totals may grow while it runs."""

    def projects_expected(self, projects: int) -> None:
        """This many projects will be synced."""

    def runs_expected(self, project: ProjectKey, runs: int) -> None:
        """This many more runs will be pulled."""

    def runs_done(self, project: ProjectKey, runs: int) -> None:
        """This many more runs are mirrored, without their history."""

    def rows_expected(self, project: ProjectKey, rows: int) -> None:
        """This many more history rows will be pulled."""

    def rows_done(self, project: ProjectKey, rows: int) -> None:
        """This many more history rows are mirrored."""

    def finished(self, result: PassResult) -> None:
        """The project's pass ended."""

    def notice(self, text: str) -> None:
        """A request to the server failed and is being retried."""


class Silent:
    """A no-op Progress."""

    def projects_expected(self, projects: int) -> None:
        """Do nothing."""

    def runs_expected(self, project: ProjectKey, runs: int) -> None:
        """Do nothing."""

    def runs_done(self, project: ProjectKey, runs: int) -> None:
        """Do nothing."""

    def rows_expected(self, project: ProjectKey, rows: int) -> None:
        """Do nothing."""

    def rows_done(self, project: ProjectKey, rows: int) -> None:
        """Do nothing."""

    def finished(self, result: PassResult) -> None:
        """Do nothing."""

    def notice(self, text: str) -> None:
        """Do nothing."""


class Scope(Struct, frozen=True):
    """The part of a project that is mirrored."""

    filters: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[str] = ("*",)
    system_metrics: bool = False
    reconcile_interval: float = 6 * 3600.0
    metadata: bool = False
    console: bool = False
    files: bool = False
    artifacts: bool = False
    reports: bool = False

    @property
    def filters_text(self) -> str:
        """The filter as it is stored with a project."""
        return json.dumps(self.filters, sort_keys=True)

    @property
    def history_text(self) -> str:
        """The key globs as they are stored with a project."""
        return json.dumps(sorted(set(self.history)))


class PassResult(Struct):
    """The result of one pass over one project.

    `failed` has the runs that could not be mirrored completely, and why, and `failed_artifacts` versions as
    "entity/project/name:v3", or the project if its artifacts could not be listed.
    `older` counts the runs that `since` left for a later pass.
    """

    project: ProjectKey
    runs: int = 0
    new_runs: int = 0
    deleted: int = 0
    rows: int = 0
    requests: int = 0
    seconds: float = 0.0
    live: int = 0
    older: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    failed_artifacts: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    exit_code: int = 0
    failure: MirrorError | None = None

    def as_json(self) -> dict[str, Any]:
        """The documented JSON form."""
        return {
            "project": str(self.project),
            "runs": self.runs,
            "new_runs": self.new_runs,
            "deleted": self.deleted,
            "history_rows": self.rows,
            "requests": self.requests,
            "seconds": round(self.seconds, 3),
            "live_runs": self.live,
            "older_runs": self.older,
            "failed_runs": self.failed,
            "failed_artifacts": self.failed_artifacts,
            "error": self.error,
            "exit_code": self.exit_code,
            "server_error": isinstance(self.failure, CommError),
        }


class Context(Struct, frozen=True):
    """One server, one store, one scope.

    `configured` are the projects that the config names, for messages about others, `early` records that were requested
    before the store was open, and `sizes` the pages that fit a project's records.
    """

    server: Server
    writer: Writer
    scope: Scope
    progress: Progress = field(default_factory=Silent)
    configured: tuple[str, ...] = ()
    early: dict[ProjectKey, EarlyRecords] = field(default_factory=dict)
    sizes: dict[ProjectKey, PageSize] = field(default_factory=dict)


def utc_now() -> datetime:
    """This machine's clock as naive UTC. Never compared with the server's."""
    return datetime.now(UTC).replace(tzinfo=None)
