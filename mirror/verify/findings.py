"""The findings of a verification, and the verdict on each project."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct, field

from mirror.store.damage import Damage
from mirror.store.records import ProjectKey


class Level(StrEnum):
    """What a finding means."""

    DIFFERS = "differs"
    """The mirror differs from the server, or is inconsistent."""

    BEHIND = "behind"
    """The server has changed since the last pass; the next pass pulls it."""

    NOTE = "note"
    """Worth knowing, but not a difference: the server is inconsistent, or something is outside of the scope."""


class Finding(Struct, frozen=True):
    """One difference. `by` is where `expected` comes from: the server, or another place in the mirror.

    `flush` names the runs that must be pulled again to repair it. Not `proven`: a part of the run was not compared.
    """

    level: Level
    run_id: str | None
    field: str
    mirror: str
    expected: str
    cause: str
    by: str = "server"
    flush: tuple[str, ...] = ()
    proven: bool = True

    def as_json(self, project: ProjectKey) -> dict[str, Any]:
        """The documented JSON form."""
        return {
            "project": str(project),
            "run_id": self.run_id,
            "field": self.field,
            "mirror": self.mirror,
            "expected": self.expected,
            "expected_by": self.by,
            "cause": self.cause,
        }

    def line(self, project: ProjectKey) -> str:
        """The finding as one line of text."""
        where = f"{project}/{self.run_id}" if self.run_id else f"{project}"
        has = f"the {self.by} has" if self.by == "server" else "should be"
        return f"{self.level}: {where} {self.field}: mirror has {self.mirror}, {has} {self.expected} ({self.cause})"


def of_damage(damage: Damage) -> Finding:
    """The finding for a place where the mirror is inconsistent."""
    flush = damage.lost or ((damage.run_id,) if damage.run_id else ())
    return Finding(
        Level.DIFFERS, damage.run_id, damage.field, damage.found, damage.expected, damage.cause, "mirror", flush
    )


class Missing(Struct, frozen=True):
    """What the mirror lacks of a run, or what is not proven, and what brings it."""

    what: str
    detail: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}: {self.detail} ({self.advice})"


class Completeness(Struct):
    """Whether everything that the server holds of a run is in the mirror, and proven.

    `size` is the bytes of its files and of the artifacts that it logged. `by_size` counts those of which the server
    lists no digest, so that they were only compared by size.
    """

    run_id: str
    rows: int = 0
    files: int = 0
    artifacts: int = 0
    size: int = 0
    by_size: int = 0
    missing: list[Missing] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The documented JSON form."""
        return {
            "run_id": self.run_id,
            "safe_to_delete": not self.missing,
            "history_rows": self.rows,
            "files": self.files,
            "artifacts": self.artifacts,
            "bytes": self.size,
            "compared_by_size": self.by_size,
            "missing": [{"what": one.what, "detail": one.detail, "advice": one.advice} for one in self.missing],
        }


class Verdict(Struct):
    """The verification of one project: how much was compared, and the findings.

    `values` counts the mirrored history values, `compared` those that were read again and compared one by one.
    `alone` names the runs that only the mirror has, because they were deleted on the server or came from local files.
    `complete` says of each run whether the mirror has everything, if that was asked.
    """

    project: ProjectKey
    deep: bool
    runs: int = 0
    rows: int = 0
    keys: int = 0
    values: int = 0
    compared: int = 0
    requests: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    alone: frozenset[str] = frozenset()
    error: str | None = None
    exit_code: int = 0
    complete: list[Completeness] | None = None

    def of(self, level: Level) -> list[Finding]:
        """The findings of one level."""
        return [finding for finding in self.findings if finding.level is level]

    @property
    def equal(self) -> bool:
        """True if nothing differs. Runs that only changed since the last pass do not count as different."""
        return self.error is None and not self.of(Level.DIFFERS)

    def to_flush(self) -> list[str]:
        """The runs that must be pulled again, without those that the server does not have."""
        named = {run_id for finding in self.of(Level.DIFFERS) for run_id in finding.flush}
        return sorted(named - self.alone)

    def lost(self) -> list[str]:
        """The runs whose values were lost and cannot be pulled again."""
        segments = [finding for finding in self.of(Level.DIFFERS) if finding.field == "segment"]
        return sorted(self.alone & {run_id for finding in segments for run_id in finding.flush})

    def as_json(self) -> dict[str, Any]:
        """The documented JSON form."""
        return {
            "project": str(self.project),
            "equal": self.equal,
            "runs": self.runs,
            "history_rows": self.rows,
            "keys": self.keys,
            "values": self.values,
            "values_compared": self.compared,
            "requests": self.requests,
            "seconds": round(self.seconds, 3),
            "differences": [finding.as_json(self.project) for finding in self.of(Level.DIFFERS)],
            "behind": [finding.as_json(self.project) for finding in self.of(Level.BEHIND)],
            "notes": [finding.as_json(self.project) for finding in self.of(Level.NOTE)],
            "error": self.error,
            "exit_code": self.exit_code,
        } | ({} if self.complete is None else {"complete": [run.as_json() for run in self.complete]})
