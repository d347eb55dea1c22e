"""The problems of a daemon, in one list for status, its check, doctor, metrics and the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import asdict

from mirror.local.watch import Watch
from mirror.store.records import ProjectKey
from mirror.sync.writer import Failure

KINDS = ("config", "projects", "publish", "writer", "schedule", "jobs", "local", "files", "lake", "page", "log")
"""Every kind of problem. Its message stays the same while the problem lasts."""

STUCK = 600.0
"""The writer is stuck after this many seconds of work: rewriting large files takes minutes at most."""

GRAVE = "fail"
SLIGHT = "warn"


class Problem(Struct, frozen=True):
    """`fail` if data does not arrive or will not be found, `warn` if only something else does not work."""

    kind: str
    level: str
    message: str

    def as_json(self) -> dict[str, str]:
        """The documented JSON form."""
        return asdict(self)


def of_config(error: str | None, projects: str | None) -> Iterable[Problem]:
    """Yield the refusal of the config, and the failure to look up its patterns."""
    if error:
        yield Problem("config", GRAVE, error)
    if projects:
        yield Problem("projects", GRAVE, projects)


def of_writer(failure: Failure | None, busy_seconds: float, now: datetime) -> Iterable[Problem]:
    """Yield failing publication, and a stuck writer thread."""
    if failure:
        yield Problem("publish", GRAVE, f"nothing was published since {_time(failure.since)}: {failure.error}")
    if busy_seconds > STUCK:
        since = now - timedelta(seconds=busy_seconds)
        yield Problem("writer", GRAVE, f"the writer has been busy with one job since {since:%Y-%m-%d %H:%M}Z")


def of_schedule(late: Mapping[ProjectKey, str]) -> Iterable[Problem]:
    """Yield the projects whose passes are late."""
    if late:
        first = next(iter(late))
        more = f", and {len(late) - 1:,} more projects" if len(late) > 1 else ""
        yield Problem("schedule", GRAVE, f"{first} {late[first]}{more}")


def of_jobs(down: Mapping[str, str]) -> Iterable[Problem]:
    """Yield the parts of the daemon that crashed and have not recovered."""
    for what, error in down.items():
        yield Problem("jobs", GRAVE, f"{what} keeps crashing ({error}) and is started again each time")


def of_downloads(error: str | None) -> Iterable[Problem]:
    """Yield why the content of files is not downloaded."""
    if error:
        yield Problem("files", SLIGHT, f"files are not downloaded: {error}")


def of_lake(error: str | None) -> Iterable[Problem]:
    """Yield why nothing is exported to the lake."""
    if error:
        yield Problem("lake", SLIGHT, f"nothing is exported to the lake: {error}")


def of_surroundings(local: Watch, page: str | None, log: str | None) -> Iterable[Problem]:
    """Yield local runs that cannot be mirrored, and failures of the page and the log."""
    if local.error:
        yield Problem("local", GRAVE, f"local runs: {local.error}")
    if page:
        yield Problem("page", SLIGHT, page)
    if log:
        yield Problem("log", SLIGHT, log)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"
