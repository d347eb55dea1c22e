"""What of a daemon stands still or does not work, in one list for status, its check, doctor, metrics and the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from mirror.local.watch import Watch
from mirror.store.records import ProjectKey
from mirror.sync.writer import Failure

KINDS = ("config", "projects", "publish", "writer", "schedule", "jobs", "local", "page", "log")
"""Every kind of problem. Its message is the same for as long as the problem is."""

STUCK = 600.0
"""Seconds in which the writer ends whatever it does: it is busy for minutes at most, when it rewrites large files."""

GRAVE = "fail"
SLIGHT = "warn"


@dataclass(frozen=True)
class Problem:
    """`fail` where data stands still or will not be found, `warn` where only something beside it does not work."""

    kind: str
    level: str
    message: str

    def as_json(self) -> dict[str, str]:
        """The documented JSON form."""
        return asdict(self)


def of_config(error: str | None, projects: str | None) -> Iterable[Problem]:
    """The config that was refused, and patterns that could not be looked up."""
    if error:
        yield Problem("config", GRAVE, error)
    if projects:
        yield Problem("projects", GRAVE, projects)


def of_writer(failure: Failure | None, busy_seconds: float, now: datetime) -> Iterable[Problem]:
    """Readers that are shown nothing new, and a thread that does not come back."""
    if failure:
        yield Problem("publish", GRAVE, f"nothing was published since {_time(failure.since)}: {failure.error}")
    if busy_seconds > STUCK:
        since = now - timedelta(seconds=busy_seconds)
        yield Problem("writer", GRAVE, f"the writer has been busy with one thing since {since:%Y-%m-%d %H:%M}Z")


def of_schedule(late: Mapping[ProjectKey, str]) -> Iterable[Problem]:
    """Projects that are not looked at when they should be."""
    if late:
        first = next(iter(late))
        more = f", and {len(late) - 1:,} more projects" if len(late) > 1 else ""
        yield Problem("schedule", GRAVE, f"{first} {late[first]}{more}")


def of_jobs(down: Mapping[str, str]) -> Iterable[Problem]:
    """Parts of the daemon that crashed and did not run well since."""
    for what, error in down.items():
        yield Problem("jobs", GRAVE, f"{what} does not run ({error}); it is started again and again")


def of_surroundings(local: Watch, page: str | None, log: str | None) -> Iterable[Problem]:
    """Local runs that cannot be mirrored, and what stands beside the mirroring."""
    if local.error:
        yield Problem("local", GRAVE, f"local runs: {local.error}")
    if page:
        yield Problem("page", SLIGHT, page)
    if log:
        yield Problem("log", SLIGHT, log)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"
