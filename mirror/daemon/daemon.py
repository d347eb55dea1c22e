"""The daemon: scheduled passes, a control socket, a watched config, a clean shutdown."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mirror import serve
from mirror.daemon import descriptors, health, logs, metrics, problems, sources
from mirror.daemon.clients import Clients
from mirror.daemon.control import application
from mirror.daemon.notify import Notifier
from mirror.daemon.outcomes import Ledger, kept_running, stamp
from mirror.daemon.problems import Problem
from mirror.daemon.pulse import Pulse
from mirror.daemon.schedule import Schedule
from mirror.daemon.slots import PassSlots, is_backfill
from mirror.errors import AuthError, CommError, ConfigError, MirrorError, SyncError, UsageError, named
from mirror.local.commits import FileResult
from mirror.local.watch import Watch, report
from mirror.remote import notices
from mirror.settings import credentials
from mirror.settings import settings as config
from mirror.settings.home import Home
from mirror.settings.socket_path import address, problem
from mirror.store.records import ProjectCursor, ProjectKey
from mirror.store.writes import Writes
from mirror.sync import removal, targets
from mirror.sync.context import Context, PassResult, Progress, utc_now
from mirror.sync.engine import PROJECTS_AT_ONCE
from mirror.sync.project import sync_project
from mirror.sync.session import connect, open_context, scope_of
from mirror.sync.targets import Target
from mirror.version import VERSION
from mirror.web.gate import Gate, Limits
from mirror.web.listener import Listener, Neighbour
from mirror.web.snapshots import Snapshots

if TYPE_CHECKING:
    from starlette.types import ASGIApp

Result = TypeVar("Result")

log = logging.getLogger("mirror.daemon")

CONTROL_LIMITS = Limits(connections=64, answer=None)
"""`answer=None`: a command that is suspended in a terminal may read its answer later."""

CONTROL_GRACE = 30
"""Seconds that answers of the control socket may take when the daemon stops."""

_CONTROL_SHARE = 8

CHECK_PATIENCE = 120.0
"""Seconds that a check of the state file waits for other work of the writer; the check itself takes seconds."""

KEY_PATIENCE = 15.0
"""Seconds that the start waits for the server to accept the key; after that a pass finds out that it is wrong."""


async def run(home: Home, environ: Mapping[str, str]) -> None:
    """Sync on schedule until SIGTERM, SIGINT or a request to /stop; commits are published before it returns.

    Raises ConfigError, AuthError, StoreBusy (another daemon or sync has locked this home) or StoreError.
    """
    known = sources.state(config.sources(home, environ))
    settings = _load(home, environ)
    if reason := problem(home.socket):
        raise UsageError(f"{reason}; use a shorter MIRROR_HOME")
    descriptors.raise_limit()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    # Until the daemon can reload, the signal must not end the process; the config was read just now.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    key = _key(settings, environ)
    async with open_context(home, settings, environ, key_needed=bool(settings.projects)) as context:
        await Daemon(home, environ, settings, context, stopping, known, key).run()


def _load(home: Home, environ: Mapping[str, str]) -> config.Settings:
    settings = config.load(home, environ)
    if not settings.projects and not settings.local.dirs:
        raise ConfigError(f"{home.config} names no projects; add some under `projects`, or run `mirror init`")
    return settings


def _key(settings: config.Settings, environ: Mapping[str, str]) -> str:
    """Return the API key and hide it from the logs. A mirror of local runs only needs none and returns ""."""
    try:
        key = credentials.find(settings.server.base_url, environ).key
    except AuthError:
        if settings.projects:
            raise
        return ""
    logs.hide(key)
    return key


class Daemon:
    """The one process that writes to a home."""

    def __init__(
        self,
        home: Home,
        environ: Mapping[str, str],
        settings: config.Settings,
        context: Context,
        stopping: asyncio.Event,
        known: sources.State,
        key: str,
    ) -> None:
        """Create the daemon. `known` is the state of the files from which `settings` and `key` were read."""
        self._home = home
        self._environ = environ
        self._settings = settings
        self._context = context
        self._clients = Clients(context.server)
        self._known = known
        self._key = key
        self._applying = asyncio.Lock()
        self._schedule = Schedule(self._scheduled_pass, self._find_projects)
        self._locks: dict[ProjectKey, asyncio.Lock] = {}
        self._slots = PassSlots(PROJECTS_AT_ONCE)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = stopping
        self._started_at = utc_now()
        self._config_error: str | None = None
        self._ledger = Ledger()
        self._last = self._ledger.last
        self._patterns_error: str | None = None
        self._publish_error: str | None = None
        self._local = Watch(context.writer, settings)
        self._username: str | None = None
        self._page = Listener(
            home,
            self._describe_for_page,
            [metrics.route(home, self.status), health.route(self._problems)],
            neighbour=Neighbour(serve.PATHS, self._endpoint),
        )
        self._notifier = Notifier(environ)

    async def run(self) -> None:
        """Start everything, wait until the daemon must stop, and shut everything down."""
        listener = self._listen()
        limits = CONTROL_LIMITS.within(_CONTROL_SHARE)
        control = Gate("the control socket", application(self), limits, graceful_seconds=CONTROL_GRACE)
        serving = asyncio.create_task(control.serve(listener))
        pulse = Pulse(self._notifier, self._context.writer, self._describe, self._woke, self._set_back)
        try:
            await self._unless_stopped(self._check_key())
            asyncio.get_running_loop().add_signal_handler(
                signal.SIGHUP, lambda: self.start_task(self._reload_or_log(), "reload")
            )
            self._keep("config watch", self._watch_config)
            self._keep("publishing", self._publish_regularly)
            self._keep("local runs", self._local.run)
            self._keep("pulse", pulse.run)
            log.info("started %s, pid %d, home %s", VERSION, os.getpid(), self._home.data)
            await self._page.listen_on(self._settings.http.listen)
            self._notifier.ready()
            self._schedule.start()
            self._keep("looking for projects", self._find_projects)
            await self._stopping.wait()
            log.info("stopping")
        except _Stopped:
            log.info("stopping")
        finally:
            self._notifier.stopping()
            self._schedule.stop()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            control.stop()
            await asyncio.gather(serving, self._page.close())
            await self._clients.close()
            listener.close()
            self._home.socket.unlink(missing_ok=True)
            await self._context.writer.publish()
            log.info("stopped")

    async def _unless_stopped(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return the result of the work. Raises _Stopped, and cancels the work, if the daemon must stop first."""
        task, stopped = asyncio.create_task(work), asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _Stopped
            return await task
        finally:
            task.cancel()
            stopped.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)

    def stop(self) -> None:
        """Start the shutdown."""
        self._stopping.set()

    def start_task(self, work: Awaitable[Any], what: str = "task") -> None:
        """Run a background task; it is cancelled when the daemon stops, and a crash of it is reported as `what`."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

        def done(task: asyncio.Future[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._crashed(what, error)

        task.add_done_callback(done)

    def _keep(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run endless work in the background until the daemon stops; start it again when it crashes."""

        def crashed(error: BaseException) -> None:
            self._crashed(what, error)
            self._ledger.note_down(what, error)

        self.start_task(kept_running(work, crashed, lambda: self._ledger.note_recovered(what)), what)

    def _crashed(self, what: str, error: BaseException) -> None:
        log.error("%s crashed; the daemon goes on", what, exc_info=error, extra={"fields": {"event": "crash"}})
        self._ledger.note_crash(what, error)

    def _woke(self, seconds: float) -> None:
        log.info("the machine slept for %.0f s; running the passes that are due", seconds)
        self._schedule.wake()

    def _set_back(self, seconds: float) -> None:
        log.warning("the clock was set back by %.0f s; syncing every project now", seconds)
        self._schedule.plan_again()

    def _describe(self) -> str:
        """Return the status line for the service manager."""
        jobs = self._schedule.next_passes().values()
        line = self._ledger.line(len(jobs), sum(bool(job["live"]) for job in jobs))
        messages = [problem.message for problem in self._problems() if problem.level == problems.GRAVE]
        return f"{line}; {messages[0]}" if messages else line

    def _problems(self) -> list[Problem]:
        writer = self._context.writer
        return [
            *problems.of_config(self._config_error, self._patterns_error),
            *problems.of_writer(writer.failure, writer.busy_seconds, utc_now()),
            *problems.of_schedule(self._schedule.late()),
            *problems.of_jobs(self._ledger.down),
            *problems.of_surroundings(self._local, self._page.status()["error"], logs.problem()),
        ]

    def status(self) -> dict[str, Any]:
        """Return the answer to `GET /status`."""
        budget = self._context.server.limiter.snapshot()
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "started_at": stamp(self._started_at),
            "base_url": self._context.server.base_url,
            "config": str(self._home.config),
            "config_error": self._config_error,
            "requests": dict(self._context.server.requests),
            "retries": dict(self._context.server.retries),
            "bytes_received": self._context.server.bytes_received,
            "budget_left": budget.left,
            "budget": asdict(budget),
            "published": self._published(),
            "projects": {str(project): job for project, job in self._schedule.next_passes().items()},
            **self._ledger.as_json(),
            "error": self._patterns_error,
            "local": self._local.status(),
            "http": self._page.status(),
            "problems": [problem.as_json() for problem in self._problems()],
            "writer_busy_s": round(self._context.writer.busy_seconds, 3),
        }

    def _published(self) -> dict[str, Any]:
        writer = self._context.writer
        last = writer.last_published
        return {
            "count": writer.publications,
            "seconds": round(writer.publish_seconds, 3),
            "last_seconds": None if last is None else round(last.seconds, 3),
            "bytes": None if last is None else last.bytes,
            "failed": writer.failures,
            "failing_since": None if writer.failure is None else stamp(writer.failure.since),
            "error": None if writer.failure is None else writer.failure.error,
        }

    def _describe_for_page(self) -> dict[str, Any]:
        """Return what the page shows of the daemon: only fields that change when there is something new to show."""
        failed = {str(project): len(result.failed) for project, result in self._last.items() if result.failed}
        return {
            "version": VERSION,
            "base_url": self._context.server.base_url,
            "errors": [problem.message for problem in self._problems() if problem.level == problems.GRAVE],
            "failed_runs": failed,
        }

    def _endpoint(self, snapshots: Snapshots) -> ASGIApp:
        """Return the endpoint for official clients; it always uses the current settings."""
        # Its parser takes 0.1 s to import, which only a daemon that listens needs.
        from mirror.serve import app

        loop = asyncio.get_running_loop()

        def list_again(run: tuple[str, str, str]) -> None:
            loop.call_soon_threadsafe(self._list_files_again, run)

        return app.application(
            snapshots,
            lambda: credentials.find(self._settings.server.base_url, self._environ).key,
            lambda: app.Policy(
                base_url=self._settings.server.base_url,
                writes=self._settings.http.writes == "pass",
                entity=self._settings.entity,
                username=self._username,
            ),
            list_again,
        )

    def _list_files_again(self, run: tuple[str, str, str]) -> None:
        """Mark the list of a run's files to be pulled by the next pass."""
        entity, project, run_id = run

        def write(tx: Writes) -> None:
            tx.forget_file_lists(ProjectKey(entity, project), [run_id])

        self.start_task(self._context.writer.write(write), f"noting changed files of {'/'.join(run)}")

    async def ingest_now(self, paths: Sequence[str]) -> list[FileResult]:
        """Mirror local runs below these folders; none: those of the config."""
        self._refuse_when_stopping()
        results = await self._local.read_now(paths)
        report(results)
        return results

    async def sync_now(
        self, paths: Sequence[str], *, afresh: bool, progress: Progress, since: datetime | None = None
    ) -> list[PassResult]:
        """Run one pass over the paths; none: everything in the config. Waits for a pass under way."""
        self._refuse_when_stopping()
        failed: dict[str, CommError] = {}
        notices.listener.set(notices.Notices(progress.notice))
        if not paths and not self._settings.projects:
            raise UsageError(f"nothing to sync: name a PATH, or add projects to {self._home.config}")
        wanted = await self._targets(paths or self._settings.projects, failed)
        if not wanted and not failed:
            patterns = ", ".join(paths or self._settings.projects)
            raise UsageError(f"no project on {self._context.server.base_url} matches {patterns}")
        progress.projects_expected(len(wanted))
        results = await asyncio.gather(
            *(self._locked_pass(target, afresh=afresh, since=since, progress=progress) for target in wanted)
        )
        await self._context.writer.publish()
        return [*results, *targets.not_listed(failed)]

    async def publish(self) -> None:
        """Publish everything that is committed."""
        await self._context.writer.publish()

    async def mend(self, paths: Sequence[str]) -> dict[str, list[str]]:
        """Repair inconsistencies in the store of these projects, between their passes; return what was repaired."""
        return await self._unless_stopped(self._mend(paths))

    async def _mend(self, paths: Sequence[str]) -> dict[str, list[str]]:
        done = {}
        for project in [target.project for target in await self._targets(paths)]:
            async with self._locks.setdefault(project, asyncio.Lock()):
                done[str(project)] = await self._context.writer.mend(project)
        return done

    async def forget(self, paths: Sequence[str]) -> None:
        """Remove these projects and runs from the mirror, and publish. Waits for passes over them."""
        await self._unless_stopped(self._forget(paths))

    async def _forget(self, paths: Sequence[str]) -> None:
        patterns = [targets.parse(path, self._settings.entity) for path in paths]
        for target in await self._context.writer.read(lambda store: removal.find(store, patterns)):
            async with self._locks.setdefault(target.project, asyncio.Lock()):
                await self._local.ingest.forget(target)
            log.info("removed from the mirror: %s", ", ".join(target.paths()))
        await self._context.writer.maintain()
        await self._context.writer.publish()

    async def check(self) -> str | None:
        """Return the damage of the state file, or None. Raises SyncError if the writer is busy for too long."""
        writer = self._context.writer
        checking = asyncio.create_task(writer.check())
        try:
            while not (await asyncio.wait([checking], timeout=0.5))[0]:
                if writer.busy_seconds > min(problems.STUCK, CHECK_PATIENCE):
                    raise SyncError("the state file was not checked: the writer is busy; try again later")
        finally:
            checking.cancel()
        return checking.result()

    async def reload(self) -> None:
        """Read the config and the key again and apply them; passes under way keep those that they started with.

        Raises ConfigError or AuthError, and keeps the running settings, if the new ones are not valid.
        """
        await self._unless_stopped(self._reload())

    async def _reload(self) -> None:
        self._notifier.reloading()
        try:
            async with self._applying:
                changed = await self._apply(_load(self._home, self._environ))
        except (ConfigError, AuthError) as error:
            self._config_error = str(error)
            raise
        finally:
            self._notifier.ready()
        if changed:
            await self._find_projects()

    async def _apply(self, settings: config.Settings) -> bool:
        """Apply these settings; return True if anything changed."""
        old = self._settings
        key = _key(settings, self._environ)
        reconnects = (settings.server, bool(settings.projects), key) != (old.server, bool(old.projects), self._key)
        if reconnects:
            server = connect(settings, self._environ, key_needed=bool(settings.projects))
            await self._clients.replace(server)
            self._context = replace(self._context, server=server)
        self._config_error = None
        self._settings, old_key = settings, self._key
        self._key = key
        if reconnects:
            self._username = None
            self.start_task(self._learn_username(), "asking who the key belongs to")
        if settings == old:
            if key != old_key:
                log.info("new API key applied")
            return reconnects
        self._context = replace(self._context, scope=scope_of(settings))
        self._local.configure(settings)
        await self._context.writer.configure(
            tail_values=settings.store.tail_values, publish_interval=settings.publish.min_interval
        )
        await self._page.listen_on(settings.http.listen)
        log.info("config applied: %s", ", ".join(settings.projects) or "local runs only")
        return True

    async def _reload_or_log(self) -> None:
        try:
            await self.reload()
        except MirrorError as error:
            log.error("%s; the running settings stay", error)  # noqa: TRY400 - the message says everything

    async def _check_key(self) -> None:
        """Sign in. Raises AuthError for a wrong key; a server that cannot be reached or is slow is only logged."""
        if not self._settings.projects:
            return
        try:
            await self._sign_in()
        except AuthError:
            raise
        except CommError as error:
            log.warning("%s; retrying on schedule", error)
        except TimeoutError:
            log.warning("%s does not answer; retrying on schedule", self._context.server.base_url)

    async def _sign_in(self) -> None:
        async with self._clients.borrowed() as server, asyncio.timeout(KEY_PATIENCE):
            viewer = await server.viewer()
            if server is self._context.server:
                self._username = viewer.get("username")
                log.info("signed in to %s as %s", server.base_url, self._username)

    async def _learn_username(self) -> None:
        """Sign in and only log failures: passes report a wrong key or an unreachable server themselves."""
        if not self._settings.projects:
            return
        try:
            await self._sign_in()
        except (CommError, AuthError) as error:
            log.warning("%s", error)
        except TimeoutError:
            log.warning("%s does not answer; retrying on schedule", self._context.server.base_url)

    async def _targets(self, paths: Sequence[str], failed: dict[str, CommError] | None = None) -> list[Target]:
        patterns = [targets.parse(path, self._settings.entity) for path in paths]
        async with self._clients.borrowed() as server:
            return await targets.expand(server, patterns, failed)

    async def _find_projects(self) -> None:
        """Find the projects that match the config's patterns now, and schedule them."""
        settings = self._settings
        failed: dict[str, CommError] = {}
        problem: CommError | None = None
        try:
            wanted = [target.project for target in await self._targets(settings.projects, failed)]
        except CommError as error:
            problem = error
            patterns = [targets.parse(path, settings.entity) for path in settings.projects]
            plain = [ProjectKey(pattern.entity, pattern.project) for pattern in patterns if not pattern.wild]
            wanted = list(dict.fromkeys([*plain, *self._schedule.projects()]))
        if settings is not self._settings:
            return  # Settings that were applied meanwhile start their own search.
        if failed:
            kept = [project for project in self._schedule.projects() if project.entity in failed]
            wanted = list(dict.fromkeys([*wanted, *kept]))
        reasons = [named(f"{entity}/*", str(error)) for entity, error in failed.items()]
        self._patterns_error = str(problem) if problem else "; ".join(reasons) or None
        if self._patterns_error:
            log.warning("%s; keeping the projects found until now", self._patterns_error)
        self._schedule.set_projects(wanted, settings.sync)

    async def _scheduled_pass(self, project: ProjectKey) -> bool:
        """Run one pass; return True if a run of the project is running."""
        result = await self._locked_pass(Target(project), afresh=False)
        await self._publish_if_due()
        return result.live > 0

    async def _locked_pass(
        self, target: Target, *, afresh: bool, since: datetime | None = None, progress: Progress | None = None
    ) -> PassResult:
        """Run one pass with the settings at its start; its client stays open until it has ended."""
        lock = self._locks.setdefault(target.project, asyncio.Lock())
        async with (
            lock,
            self._slots.slot(backfill=afresh or await self._is_backfill(target.project)),
            self._clients.borrowed() as server,
        ):
            context = replace(self._context, server=server, progress=progress or self._context.progress)
            try:
                result = await sync_project(context, target.project, run_ids=target.run_ids, afresh=afresh, since=since)
                await self._context.writer.maintain()
            except Exception as error:  # noqa: BLE001 - a bug that one project triggers must not stop the others
                result = await self._crashed_pass(target.project, error)
        logs.log_pass(result, self._last.get(target.project))
        self._ledger.note_pass(result)
        return result

    async def _is_backfill(self, project: ProjectKey) -> bool:
        if (last := self._last.get(project)) is not None:
            return is_backfill(last, ProjectCursor(), {})
        try:
            cursor, unsettled = await self._context.writer.read(
                lambda store: (store.cursor(project), store.unsettled_runs(project))
            )
        except MirrorError:
            # The pass itself fails for the same reason, and reports it.
            return True
        return is_backfill(None, cursor, unsettled)

    async def _crashed_pass(self, project: ProjectKey, error: Exception) -> PassResult:
        """Record a crashed pass as failed, also in the published file, and return its result."""
        self._crashed(f"the pass over {project}", error)
        reason = logs.without_secrets(f"unexpected {type(error).__name__}: {error} (mirror.log has the traceback)")
        try:
            await self._context.writer.write(lambda tx: tx.record_failure(project, reason, utc_now()))
        except MirrorError as problem:
            log.error("%s: the failure could not be recorded: %s", project, problem)  # noqa: TRY400
        return PassResult(project, error=reason, exit_code=1)

    async def _publish_regularly(self) -> None:
        """Publish commits soon, even if no pass follows."""
        while True:
            await asyncio.sleep(max(0.5, self._settings.publish.min_interval))
            await self._publish_if_due()

    async def _publish_if_due(self) -> None:
        # Passes go on even if publishing fails: the writer keeps the failure.
        with suppress(Exception):
            await self._context.writer.publish_if_due()
        self._log_publishing()

    def _log_publishing(self) -> None:
        """Log why publishing fails, once for each reason, and that it works again."""
        failure, logged = self._context.writer.failure, self._publish_error
        self._publish_error = None if failure is None else failure.error
        if failure is None:
            if logged is not None:
                log.info("published again")
        elif failure.error != logged:
            if isinstance(failure.cause, MirrorError):
                log.error("not published: %s", failure.error)
            else:
                self._crashed("publishing", failure.cause)

    async def _watch_config(self) -> None:
        def find() -> list[Path]:
            return config.sources(self._home, self._environ)

        async with aclosing(sources.changes(find, self._known)) as changes:
            async for self._known in changes:
                await self._reload_or_log()

    def _refuse_when_stopping(self) -> None:
        if self._stopping.is_set():
            raise _Stopped

    def _listen(self) -> socket.socket:
        """Open the control socket, replacing one that a killed daemon left: this process has the store's lock."""
        path = self._home.socket
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o177)
        try:
            with address(path) as short:
                listener.bind(short)
        finally:
            os.umask(old)
        return listener


class _Stopped(SyncError):
    """A request came during the shutdown, or was not done before it."""

    def __init__(self) -> None:
        super().__init__("the daemon is stopping")
