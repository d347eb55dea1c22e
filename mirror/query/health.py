"""Decides whether the mirror is as fresh as its config requires."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from mirror.patterns import fitting
from mirror.settings.settings import Settings

MISSED = 3
"""How many intervals may go by without a successful pass."""

MARGIN = 60.0
"""Seconds added to that, for the pass itself and for publishing."""


class Verdict(Struct, frozen=True):
    """The state of one project: `ok`, `failed` (its last pass) or `stale`, which takes precedence. Times in seconds."""

    project: str
    state: str
    lag_s: float | None
    allowed_s: float
    reason: str
    ahead: bool = False
    """True if the last successful pass is dated in the future, so that the lag is unknown."""

    def as_json(self) -> dict[str, Any]:
        """The documented JSON form."""
        return {
            "project": self.project,
            "state": self.state,
            "lag_s": self.lag_s,
            "allowed_s": self.allowed_s,
            "reason": self.reason,
        }


def judge(settings: Settings, projects: Sequence[dict[str, Any]], max_age: float | None = None) -> list[Verdict]:
    """One verdict for each project of the config, or for each mirrored project if the config names none.

    `projects` is the result of `project_status`. Without `max_age` a project may miss MISSED of its intervals. A
    pattern that matches no mirrored project is stale.
    """
    known = [project["project"] for project in projects]
    patterns = settings.projects or known
    verdicts: dict[str, Verdict] = {}
    for pattern in patterns:
        names = set(fitting(pattern, known))
        for project in (project for project in projects if project["project"] in names):
            verdicts[project["project"]] = _verdict(project, _allowed(settings, project, max_age))
        if not names:
            verdicts[pattern] = Verdict(pattern, "stale", None, _allowed(settings, {}, max_age), "never synced")
    return [verdicts[name] for name in sorted(verdicts)]


def _allowed(settings: Settings, project: dict[str, Any], max_age: float | None) -> float:
    if max_age is not None:
        return max_age
    interval = settings.sync.live_interval if project.get("running") else settings.sync.interval
    return MISSED * interval + MARGIN


def ahead(project: dict[str, Any]) -> str | None:
    """Why the lag of a project is unknown, if its last successful pass is dated in the future; else None."""
    at = project["last_success_at"]
    if at is None or project["lag_s"] is not None:
        return None
    return f"the last good pass is dated {at:%Y-%m-%d %H:%M:%S}Z, which is in the future: the clock was set back"


def _verdict(project: dict[str, Any], allowed: float) -> Verdict:
    name, lag, error = project["project"], project["lag_s"], project["last_error"]
    if reason := ahead(project):
        return Verdict(name, "stale", None, allowed, reason, ahead=True)
    if lag is None or lag > allowed:
        return Verdict(name, "stale", lag, allowed, error or ("never synced" if lag is None else "no pass since"))
    if error:
        return Verdict(name, "failed", lag, allowed, error)
    return Verdict(name, "ok", lag, allowed, "")
