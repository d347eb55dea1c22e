"""Schedules the passes: one APScheduler job per project; its interval depends on whether a run is running."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta, timezone

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from mirror.settings.settings import SyncSettings
from mirror.store.records import ProjectKey

JITTER = 0.1
"""Passes are spread by this share of an interval, so that projects do not all send requests at the same moment."""

LATE = 60.0
"""A pass that is overdue, or planned later than its interval, by more than this many seconds is reported as late."""

_LISTING = "projects"


class Schedule:
    """One job per project. Passes of a project never overlap, and missed ones are merged into one."""

    def __init__(
        self, run_pass: Callable[[ProjectKey], Awaitable[bool]], find_projects: Callable[[], Awaitable[None]]
    ) -> None:
        self._run_pass = run_pass
        self._find_projects = find_projects
        self._intervals = SyncSettings()
        self._live: dict[ProjectKey, bool] = {}
        self._under_way: set[ProjectKey] = set()
        self._again: set[ProjectKey] = set()
        self._scheduler = AsyncIOScheduler(
            timezone=timezone.utc,  # noqa: UP017 - APScheduler compares with this very object
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def start(self) -> None:
        """Start to run jobs."""
        self._scheduler.start()

    def stop(self) -> None:
        """Start no more jobs, and cancel those under way."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def wake(self) -> None:
        """Check the clock now: jobs that became due while timers stood still start at once."""
        self._scheduler.wakeup()

    def plan_again(self) -> None:
        """Run every pass now and plan from the current time: after the clock was set back, plans are far away.

        The scheduler leaves out a project whose pass is under way; that one is run again when it ends.
        """
        self._again |= self._under_way
        for project, live in self._live.items():
            self._scheduler.reschedule_job(str(project), trigger=self._trigger(live=live))
            self._scheduler.modify_job(str(project), next_run_time=datetime.now(timezone.utc))  # noqa: UP017
        if self._scheduler.get_job(_LISTING) is not None:
            self._scheduler.reschedule_job(_LISTING, trigger=self._trigger(live=False))

    def late(self) -> dict[ProjectKey, str]:
        """Return the projects whose next pass is overdue, too far away or not planned, each with that reason."""
        now = datetime.now(timezone.utc)  # noqa: UP017
        reasons = {}
        for project, live in self._live.items():
            job = self._scheduler.get_job(str(project))
            due = job.next_run_time if job else None
            seconds = self._intervals.live_interval if live else self._intervals.interval
            if due is None:
                reasons[project] = "is not scheduled any more"
            elif due < now - timedelta(seconds=LATE):
                reasons[project] = f"has been due since {due:%Y-%m-%d %H:%M:%S}Z"
            elif due > now + timedelta(seconds=seconds * (1 + JITTER) + LATE):
                reasons[project] = f"will not be synced before {due:%Y-%m-%d %H:%M:%S}Z"
        return reasons

    def projects(self) -> list[ProjectKey]:
        """Return the scheduled projects."""
        return list(self._live)

    def set_projects(self, projects: Iterable[ProjectKey], intervals: SyncSettings) -> None:
        """Schedule these projects: new ones at once, the others at their planned time."""
        wanted = dict.fromkeys(projects)
        changed = intervals != self._intervals
        self._intervals = intervals
        for project in [known for known in self._live if known not in wanted]:
            del self._live[project]
            self._scheduler.remove_job(str(project))
        for project in wanted:
            if project not in self._live:
                self._live[project] = False
                self._scheduler.add_job(
                    self._job,
                    self._trigger(live=False),
                    args=[project],
                    id=str(project),
                    next_run_time=datetime.now(timezone.utc),  # noqa: UP017
                )
            elif changed:
                self._scheduler.reschedule_job(str(project), trigger=self._trigger(live=self._live[project]))
        if changed or self._scheduler.get_job(_LISTING) is None:
            self._scheduler.add_job(self._list, self._trigger(live=False), id=_LISTING, replace_existing=True)

    def next_passes(self) -> dict[ProjectKey, dict[str, object]]:
        """Return for each project whether a run is running (`live`), and when its next pass is."""
        jobs = {project: self._scheduler.get_job(str(project)) for project in self._live}
        return {
            project: {
                "live": self._live[project],
                "next_pass": job.next_run_time.isoformat(timespec="seconds") if job and job.next_run_time else None,
            }
            for project, job in jobs.items()
        }

    def note_live(self, project: ProjectKey, *, live: bool) -> None:
        """Plan the next pass of a project by whether a run is running, if that has changed."""
        if project in self._live and live != self._live[project]:
            self._live[project] = live
            self._scheduler.reschedule_job(str(project), trigger=self._trigger(live=live))

    async def _job(self, project: ProjectKey) -> None:
        self._under_way.add(project)
        try:
            live = await self._run_pass(project)
            while project in self._again:
                self._again.discard(project)
                live = await self._run_pass(project)
        except asyncio.CancelledError:
            # During shutdown the scheduler would log the cancelled job as a failure.
            if self._scheduler.running:
                raise
            return
        finally:
            self._under_way.discard(project)
        self.note_live(project, live=live)

    async def _list(self) -> None:
        try:
            await self._find_projects()
        except asyncio.CancelledError:
            if self._scheduler.running:
                raise

    def _trigger(self, *, live: bool) -> IntervalTrigger:
        seconds = self._intervals.live_interval if live else self._intervals.interval
        start = datetime.now(timezone.utc) + timedelta(seconds=seconds)  # noqa: UP017
        return IntervalTrigger(seconds=seconds, start_date=start, jitter=seconds * JITTER, timezone=timezone.utc)  # noqa: UP017
