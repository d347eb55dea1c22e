"""What a pass works with, and what it reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from mirror.errors import CommError, MirrorError
from mirror.remote.client import Server
from mirror.store.records import ProjectKey
from mirror.sync.writer import Writer


class Progress(Protocol):
    """Hears how a pass gets on. Totals may grow while it runs."""

    def projects_expected(self, projects: int) -> None:
        """That many projects are to be looked at."""

    def runs_expected(self, project: ProjectKey, runs: int) -> None:
        """That many runs more are to be looked at."""

    def runs_done(self, project: ProjectKey, runs: int) -> None:
        """That many runs more are mirrored, their history aside."""

    def rows_expected(self, project: ProjectKey, rows: int) -> None:
        """That many history rows more are to come."""

    def rows_done(self, project: ProjectKey, rows: int) -> None:
        """That many history rows more are mirrored."""

    def finished(self, result: PassResult) -> None:
        """The project's pass ended."""

    def notice(self, text: str) -> None:
        """Something goes wrong at the server, and is still tried again."""


class Silent:
    """Tells nobody."""

    def projects_expected(self, projects: int) -> None:
        """Tell nobody."""

    def runs_expected(self, project: ProjectKey, runs: int) -> None:
        """Tell nobody."""

    def runs_done(self, project: ProjectKey, runs: int) -> None:
        """Tell nobody."""

    def rows_expected(self, project: ProjectKey, rows: int) -> None:
        """Tell nobody."""

    def rows_done(self, project: ProjectKey, rows: int) -> None:
        """Tell nobody."""

    def finished(self, result: PassResult) -> None:
        """Tell nobody."""

    def notice(self, text: str) -> None:
        """Tell nobody."""


@dataclass(frozen=True)
class Scope:
    """What of a project is mirrored."""

    filters: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[str] = ("*",)
    system_metrics: bool = False
    reconcile_interval: float = 6 * 3600.0
    metadata: bool = False
    console: bool = False
    files: bool = False

    @property
    def filters_text(self) -> str:
        """The filter as it is remembered with a project."""
        return json.dumps(self.filters, sort_keys=True)

    @property
    def history_text(self) -> str:
        """The key globs as they are remembered with a project."""
        return json.dumps(sorted(set(self.history)))


@dataclass
class PassResult:
    """What one pass over one project brought. `failed` names runs that could not be mirrored whole, and why.

    `older` counts the runs that the pass was told to leave for later.
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
            "error": self.error,
            "exit_code": self.exit_code,
            "server_error": isinstance(self.failure, CommError),
        }


@dataclass(frozen=True)
class Context:
    """One server, one store, one scope."""

    server: Server
    writer: Writer
    scope: Scope
    progress: Progress = field(default_factory=Silent)


def utc_now() -> datetime:
    """This machine's clock as naive UTC. Never compared with the server's."""
    return datetime.now(UTC).replace(tzinfo=None)
