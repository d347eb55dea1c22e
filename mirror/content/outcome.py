"""What a round of downloads reports: its progress and its outcome."""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct, field

from mirror.store.records import ProjectKey
from mirror.sync.context import utc_now


class Progress(Protocol):
    """Receives progress events of a round."""

    def files_expected(self, project: ProjectKey, files: int) -> None:
        """This many more files will be downloaded."""

    def files_done(self, project: ProjectKey, files: int) -> None:
        """This many more files are here, failed or are left out."""


class Silent:
    """A no-op Progress."""

    def files_expected(self, project: ProjectKey, files: int) -> None:
        """Do nothing."""

    def files_done(self, project: ProjectKey, files: int) -> None:
        """Do nothing."""


class Outcome(Struct):
    """What a round did.

    `beyond_run` and `beyond_budget` count files that `files_max` and `files_budget` leave out, `tables` W&B Tables that
    were converted.
    """

    stored: int = 0
    downloaded_bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    beyond_run: int = 0
    beyond_budget: int = 0
    tables: int = 0
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What is recorded for `mirror status`."""
        return {
            "at": utc_now().isoformat(timespec="seconds"),
            "stored": self.stored,
            "downloaded_bytes": self.downloaded_bytes,
            "failed": len(self.failed),
            "beyond_run": self.beyond_run,
            "beyond_budget": self.beyond_budget,
            "error": self.error,
        }
