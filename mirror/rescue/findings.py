"""The findings of a comparison of files with the server, and what can be sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct, field

from mirror.store.records import KnownRun, ProjectKey, RunRecord
from mirror.verify.findings import Finding, Verdict
from mirror.verify.history import Compared, Rows


class Difference(Finding, frozen=True):
    """A finding whose `mirror` is the value in the run's files, and `expected` the server's."""

    def as_json(self, project: ProjectKey) -> dict[str, Any]:
        """The documented JSON form."""
        return {
            "project": str(project),
            "run_id": self.run_id,
            "field": self.field,
            "file": self.mirror,
            "server": self.expected,
            "cause": self.cause,
        }

    def line(self, project: ProjectKey) -> str:
        """The difference as one line of text."""
        where = f"{project}/{self.run_id}"
        has = f"the file has {self.mirror}, the server has {self.expected}"
        return f"{self.level}: {where} {self.field}: {has} ({self.cause})"


class Look(Struct):
    """One run in its files and on the server. `refused` is why nothing of it may be sent, or None.

    `tail` are the rows that the server lacks after its last one, `summary` the values to send, `exit_code` the exit
    code in the file.
    """

    project: ProjectKey
    known: KnownRun
    paths: list[Path]
    record: RunRecord
    compared: Compared = field(default_factory=Compared)
    tail: Rows | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None
    exit_code: int = 0

    @property
    def path(self) -> str:
        """`entity/project/run_id`."""
        return f"{self.project}/{self.known.run_id}"

    @property
    def sendable(self) -> bool:
        """True if there is something that the server lost and that may be sent."""
        return self.refused is None and bool(self.tail or self.summary)

    def offer(self) -> str:
        """What can be sent, in words."""
        parts = [] if self.tail is None else [f"{self.tail}"]
        if self.summary:
            parts.append(f"{len(self.summary):,} summary {'value' if len(self.summary) == 1 else 'values'}")
        return " and ".join(parts)


class Comparison(Struct):
    """One project: the verdict, and the runs that the server has."""

    verdict: Verdict
    looks: list[Look] = field(default_factory=list)
