"""The daemon: passes on schedule, a control socket, a watched config, a clean end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import uvicorn
from watchfiles import awatch

from mirror import config, credentials
from mirror.daemon import logs, metrics
from mirror.daemon.control import application
from mirror.daemon.ledger import Ledger, kept_running, stamp
from mirror.daemon.notify import Notifier
from mirror.daemon.pulse import Pulse
from mirror.daemon.schedule import Schedule
from mirror.errors import AuthError, CommError, ConfigError, MirrorError, StoreError, UsageError
from mirror.home import Home
from mirror.local.ingest import FileResult
from mirror.local.watch import Watch, tell
from mirror.serve import app as serve
from mirror.store.records import ProjectKey
from mirror.store.writes import Writes
from mirror.sync import targets
from mirror.sync.context import Context, PassResult, Progress, utc_now
from mirror.sync.project import sync_project
from mirror.sync.session import connect, open_context, scope_of
from mirror.sync.targets import Target
from mirror.version import VERSION
from mirror.web.listener import Listener, Neighbour
from mirror.web.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp

log = logging.getLogger("mirror.daemon")

SOCKET_PATH_LIMIT = 103
"""Bytes that macOS takes in the path of a Unix socket; Linux takes four more."""

KEY_PATIENCE = 15.0
"""Seconds at the start in which the server may say that the key is wrong; after that it is found out on schedule."""


async def run(home: Home, environ: Mapping[str, str]) -> None:
    """Sync on schedule until SIGTERM, SIGINT or a call of /stop; everything is committed and published by then.

    Raises ConfigError, AuthError, StoreBusy (another daemon or sync holds this home) or StoreError.
    """
    settings = _load(home, environ)
    if len(os.fsencode(home.socket)) > SOCKET_PATH_LIMIT:
        raise UsageError(f"{home.socket} is too long a path for a socket; use a shorter MIRROR_HOME")
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    # The config was read just now; until there is something to reload, the signal must not end the process.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    _hide_key(settings, environ)
    async with open_context(home, settings, environ, key_needed=bool(settings.projects)) as context:
        await Daemon(home, environ, settings, context, stopping).run()


def _load(home: Home, environ: Mapping[str, str]) -> config.Settings:
    settings = config.load(home, environ)
    if not settings.projects and not settings.local.dirs:
        raise ConfigError(f"{home.config} names no projects; add some under `projects`, or run `mirror init`")
    return settings


def _hide_key(settings: config.Settings, environ: Mapping[str, str]) -> None:
    """Keep the key out of the logs. A mirror of nothing but local runs needs none."""
    try:
        logs.hide(credentials.find(settings.server.base_url, environ).key)
    except AuthError:
        if settings.projects:
            raise


class Daemon:
    """One process that owns a home."""

    def __init__(
        self,
        home: Home,
        environ: Mapping[str, str],
        settings: config.Settings,
        context: Context,
        stopping: asyncio.Event,
    ) -> None:
        self._home = home
        self._environ = environ
        self._settings = settings
        self._context = context
        self._schedule = Schedule(self._scheduled_pass, self._look_for_projects)
        self._locks: dict[ProjectKey, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = stopping
        self._started_at = utc_now()
        self._config_error: str | None = None
        self._ledger = Ledger()
        self._last = self._ledger.last
        self._wild_error: str | None = None
        self._local = Watch(context.writer, settings)
        self._username: str | None = None
        self._page = Listener(
            home,
            self._described,
            [metrics.route(home, self.status)],
            neighbour=Neighbour(serve.PATHS, self._endpoint),
        )
        self._notifier = Notifier(environ)

    async def run(self) -> None:
        """Start everything, wait for the end, and leave nothing behind."""
        listener = self._listen()
        control = _Quiet(uvicorn.Config(application(self), log_config=None, lifespan="off", access_log=False))
        serving = asyncio.create_task(control.serve(sockets=[listener]))
        pulse = Pulse(self._notifier, self._context.writer, self._describe, self._woke)
        try:
            if not await self._or_stopped(self._check_key()):
                return
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
            self._keep("looking for projects", self._look_for_projects)
            await self._stopping.wait()
            log.info("stopping")
        finally:
            self._notifier.stopping()
            self._schedule.stop()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            control.should_exit = True
            await asyncio.gather(serving, self._page.close())
            listener.close()
            self._home.socket.unlink(missing_ok=True)
            await self._context.writer.publish()
            log.info("stopped")

    async def _or_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Whether the work was done before the daemon was told to stop; it is cancelled else."""
        tasks = [asyncio.create_task(work), asyncio.create_task(self._stopping.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if done := tasks[0].done():
            tasks[0].result()
        for task in tasks:
            task.cancel()
        return done

    def stop(self) -> None:
        """Begin to stop."""
        self._stopping.set()

    def start_task(self, work: Awaitable[Any], what: str = "task") -> None:
        """Run something beside everything else; it is cancelled when the daemon stops, and a crash of it is told."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

        def done(task: asyncio.Future[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._crashed(what, error)

        task.add_done_callback(done)

    def _keep(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do work that has no end until the daemon stops, and begin it anew when it crashed."""
        self.start_task(kept_running(work, lambda error: self._crashed(what, error)), what)

    def _crashed(self, what: str, error: BaseException) -> None:
        log.error("%s crashed; the daemon goes on", what, exc_info=error, extra={"fields": {"event": "crash"}})
        self._ledger.note_crash(what, error)

    def _woke(self, seconds: float) -> None:
        log.info("the machine slept for %.0f s; what is due is done now", seconds)
        self._schedule.wake()

    def _describe(self) -> str:
        jobs = self._schedule.next_passes().values()
        line = self._ledger.line(len(jobs), sum(bool(job["live"]) for job in jobs))
        problem = self._config_error or self._wild_error
        return f"{line}; {problem}" if problem else line

    def status(self) -> dict[str, Any]:
        """What `GET /status` answers."""
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
            "error": self._wild_error,
            "local": self._local.status(),
            "http": self._page.status(),
        }

    def _published(self) -> dict[str, Any]:
        writer = self._context.writer
        last = writer.last_published
        return {
            "count": writer.publications,
            "seconds": round(writer.publish_seconds, 3),
            "last_seconds": None if last is None else round(last.seconds, 3),
            "bytes": None if last is None else last.bytes,
        }

    def _described(self) -> dict[str, Any]:
        """What the page tells of the daemon: only what changes when there is something new."""
        failed = {str(project): len(result.failed) for project, result in self._last.items() if result.failed}
        return {
            "version": VERSION,
            "base_url": self._context.server.base_url,
            "errors": [error for error in (self._config_error, self._wild_error) if error],
            "failed_runs": failed,
        }

    def _endpoint(self, snapshots: Snapshots) -> ASGIApp:
        """What official clients ask; it goes by the settings of the moment."""
        loop = asyncio.get_running_loop()

        def look_again(run: tuple[str, str, str]) -> None:
            loop.call_soon_threadsafe(self._look_again, run)

        return serve.application(
            snapshots,
            lambda: credentials.find(self._settings.server.base_url, self._environ).key,
            lambda: serve.Policy(
                base_url=self._settings.server.base_url,
                writes=self._settings.http.writes == "pass",
                entity=self._settings.entity,
                username=self._username,
            ),
            look_again,
        )

    def _look_again(self, run: tuple[str, str, str]) -> None:
        """Have the list of a run's files pulled with the next pass."""
        entity, project, run_id = run

        def write(tx: Writes) -> None:
            tx.forget_file_lists(ProjectKey(entity, project), [run_id])

        self.start_task(self._context.writer.write(write), f"noting changed files of {'/'.join(run)}")

    async def ingest_now(self, paths: Sequence[str]) -> list[FileResult]:
        """Mirror local runs below these folders, or below those of the config."""
        results = await self._local.take(paths)
        tell(results)
        return results

    async def sync_now(
        self, paths: Sequence[str], *, afresh: bool, progress: Progress, since: datetime | None = None
    ) -> list[PassResult]:
        """One pass over the paths, or over everything in the config; waits for a pass that is under way."""
        failed: dict[str, CommError] = {}
        if not paths and not self._settings.projects:
            raise UsageError(f"nothing to sync: name a PATH, or add projects to {self._home.config}")
        wanted = await self._targets(paths or self._settings.projects, failed)
        if not wanted and not failed:
            patterns = ", ".join(paths or self._settings.projects)
            raise UsageError(f"no project on {self._context.server.base_url} fits {patterns}")
        context = replace(self._context, progress=progress)
        progress.projects_expected(len(wanted))
        results = await asyncio.gather(
            *(self._locked_pass(context, target, afresh=afresh, since=since) for target in wanted)
        )
        await self._context.writer.publish()
        return [*results, *targets.not_listed(failed)]

    async def publish(self) -> None:
        """Show readers all that is committed."""
        await self._context.writer.publish()

    async def mend(self, paths: Sequence[str]) -> dict[str, list[str]]:
        """Bring what disagrees within the store in line for these projects, between their passes."""
        done = {}
        for project in [target.project for target in await self._targets(paths)]:
            async with self._locks.setdefault(project, asyncio.Lock()):
                done[str(project)] = await self._context.writer.mend(project)
        return done

    async def reload(self) -> None:
        """Read the config again and go on by it. Raises ConfigError and keeps the running settings if it is invalid."""
        self._notifier.reloading()
        try:
            await self._apply(_load(self._home, self._environ))
        except (ConfigError, AuthError) as error:
            self._config_error = str(error)
            raise
        finally:
            self._notifier.ready()

    async def _apply(self, settings: config.Settings) -> None:
        old = self._settings
        if settings.server != old.server or bool(settings.projects) != bool(old.projects):
            server = connect(settings, self._environ, key_needed=bool(settings.projects))
            _hide_key(settings, self._environ)
            former, self._context = self._context.server, replace(self._context, server=server)
            server.requests, server.retries, server.bytes_received = (
                former.requests,
                former.retries,
                former.bytes_received,
            )
            self.start_task(_close_later(former, settings.server.timeout), "closing a connection")
        self._config_error = None
        self._settings = settings
        if settings == old:
            return
        self._context = replace(self._context, scope=scope_of(settings))
        self._local.configure(settings)
        await self._context.writer.configure(
            tail_values=settings.store.tail_values, publish_interval=settings.publish.min_interval
        )
        await self._page.listen_on(settings.http.listen)
        log.info("config applied: %s", ", ".join(settings.projects) or "local runs only")
        await self._look_for_projects()

    async def _reload_or_log(self) -> None:
        try:
            await self.reload()
        except MirrorError as error:
            log.error("%s; the running settings stay", error)  # noqa: TRY400 - the message is the whole story

    async def _check_key(self) -> None:
        """A wrong key ends the daemon at once; a server that is out of reach or slow does not."""
        if not self._settings.projects:
            return
        try:
            async with asyncio.timeout(KEY_PATIENCE):
                viewer = await self._context.server.viewer()
            self._username = viewer.get("username")
            log.info("signed in to %s as %s", self._context.server.base_url, self._username)
        except AuthError:
            raise
        except CommError as error:
            log.warning("%s; it is tried again on schedule", error)
        except TimeoutError:
            log.warning("%s does not answer; it is tried again on schedule", self._context.server.base_url)

    async def _targets(self, paths: Sequence[str], failed: dict[str, CommError] | None = None) -> list[Target]:
        patterns = [targets.parse(path, self._settings.entity) for path in paths]
        return await targets.expand(self._context.server, patterns, failed)

    async def _look_for_projects(self) -> None:
        """Find the projects that the config's patterns mean now, and schedule them."""
        failed: dict[str, CommError] = {}
        try:
            wanted = [target.project for target in await self._targets(self._settings.projects, failed)]
            self._wild_error = "; ".join(map(str, failed.values())) or None
            if failed:
                log.warning("%s; the projects known so far stay", self._wild_error)
                kept = [project for project in self._schedule.projects() if project.entity in failed]
                wanted = list(dict.fromkeys([*wanted, *kept]))
        except CommError as error:
            self._wild_error = str(error)
            log.warning("%s; the projects known so far stay", error)
            patterns = [targets.parse(path, self._settings.entity) for path in self._settings.projects]
            plain = [ProjectKey(pattern.entity, pattern.project) for pattern in patterns if not pattern.wild]
            wanted = list(dict.fromkeys([*plain, *self._schedule.projects()]))
        self._schedule.set_projects(wanted, self._settings.sync)

    async def _scheduled_pass(self, project: ProjectKey) -> bool:
        """One pass; returns whether something runs in the project."""
        result = await self._locked_pass(self._context, Target(project), afresh=False)
        await self._publish_if_due()
        return result.live > 0

    async def _locked_pass(
        self, context: Context, target: Target, *, afresh: bool, since: datetime | None = None
    ) -> PassResult:
        lock = self._locks.setdefault(target.project, asyncio.Lock())
        async with lock:
            try:
                result = await sync_project(context, target.project, run_ids=target.run_ids, afresh=afresh, since=since)
                await self._context.writer.settle()
            except Exception as error:  # noqa: BLE001 - a bug that one project brings out must not stop the others
                result = await self._crashed_pass(target.project, error)
        logs.tell_pass(result, self._last.get(target.project))
        self._ledger.note_pass(result)
        return result

    async def _crashed_pass(self, project: ProjectKey, error: Exception) -> PassResult:
        """The pass as one that failed, also in the published file."""
        self._crashed(f"the pass over {project}", error)
        reason = logs.without_secrets(f"unexpected {type(error).__name__}: {error} (mirror.log has the traceback)")
        try:
            await self._context.writer.write(lambda tx: tx.record_failure(project, reason, utc_now()))
        except MirrorError as problem:
            log.error("%s: the failure could not be recorded: %s", project, problem)  # noqa: TRY400
        return PassResult(project, error=reason, exit_code=1)

    async def _publish_regularly(self) -> None:
        """What was committed is seen by readers soon, also when no pass follows."""
        while True:
            await asyncio.sleep(max(0.5, self._settings.publish.min_interval))
            await self._publish_if_due()

    async def _publish_if_due(self) -> None:
        try:
            await self._context.writer.publish_if_due()
        except StoreError as error:
            log.error("not published: %s", error)  # noqa: TRY400 - the message is the whole story

    def _outdated(self) -> bool:
        try:
            return _load(self._home, self._environ) != self._settings
        except ConfigError:
            return True

    async def _watch_config(self) -> None:
        folder = self._home.config.parent
        if not folder.is_dir():
            return
        if self._outdated():
            # It changed while nobody watched.
            await self._reload_or_log()
        async for changes in awatch(folder, recursive=False, debounce=200, step=50, stop_event=self._stopping):
            if any(path == str(self._home.config) for _, path in changes):
                await self._reload_or_log()

    def _listen(self) -> socket.socket:
        """The control socket; one that a killed daemon left is replaced, since the store is ours by now."""
        path = self._home.socket
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(old)
        return listener


class _Quiet(uvicorn.Server):
    """A server that leaves the signals to the daemon."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _close_later(server: Any, seconds: float) -> None:
    """Let requests under way end on the old connection."""
    try:
        await asyncio.sleep(seconds)
    finally:
        await server.close()
