"""The daemon: passes on schedule, a control socket, a watched config, a clean end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import uvicorn
from watchfiles import awatch

from mirror import config, credentials
from mirror.daemon.control import application
from mirror.daemon.schedule import Schedule
from mirror.errors import AuthError, CommError, ConfigError, MirrorError, StoreError, UsageError
from mirror.home import Home
from mirror.local.ingest import FileResult
from mirror.local.watch import Watch, tell
from mirror.serve import app as serve
from mirror.store.records import ProjectKey
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


async def run(home: Home, environ: Mapping[str, str]) -> None:
    """Sync on schedule until SIGTERM, SIGINT or a call of /stop; everything is committed and published by then.

    Raises ConfigError, AuthError, StoreBusy (another daemon or sync holds this home) or StoreError.
    """
    settings = _load(home, environ)
    if len(os.fsencode(home.socket)) > SOCKET_PATH_LIMIT:
        raise UsageError(f"{home.socket} is too long a path for a socket; use a shorter MIRROR_HOME")
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    async with open_context(home, settings, environ) as context:
        await Daemon(home, environ, settings, context, stopping).run()


def _load(home: Home, environ: Mapping[str, str]) -> config.Settings:
    settings = config.load(home, environ)
    if not settings.projects:
        raise ConfigError(f"{home.config} names no projects; add some under `projects`, or run `mirror init`")
    return settings


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
        self._last: dict[ProjectKey, PassResult] = {}
        self._wild_error: str | None = None
        self._local = Watch(context.writer, settings)
        self._username: str | None = None
        self._page = Listener(home, self._described, neighbour=Neighbour(serve.PATHS, self._endpoint))

    async def run(self) -> None:
        """Start everything, wait for the end, and leave nothing behind."""
        await self._check_key()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: self.start_task(self._reload_or_log()))
        listener = self._listen()
        control = _Quiet(uvicorn.Config(application(self), log_config=None, lifespan="off", access_log=False))
        serving = asyncio.create_task(control.serve(sockets=[listener]))
        watching = asyncio.create_task(self._watch_config())
        publishing = asyncio.create_task(self._publish_regularly())
        following = asyncio.create_task(self._local.run())
        try:
            log.info("started %s, pid %d, home %s", VERSION, os.getpid(), self._home.data)
            await self._page.listen_on(self._settings.http.listen)
            self._schedule.start()
            await self._look_for_projects()
            await self._stopping.wait()
            log.info("stopping")
        finally:
            self._schedule.stop()
            for task in (*self._tasks, watching, publishing, following):
                task.cancel()
            await asyncio.gather(*self._tasks, watching, publishing, following, return_exceptions=True)
            control.should_exit = True
            await asyncio.gather(serving, self._page.close())
            listener.close()
            self._home.socket.unlink(missing_ok=True)
            await self._context.writer.publish()
            log.info("stopped")

    def stop(self) -> None:
        """Begin to stop."""
        self._stopping.set()

    def start_task(self, work: Awaitable[Any]) -> None:
        """Run something beside everything else; it is cancelled when the daemon stops."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def status(self) -> dict[str, Any]:
        """What `GET /status` answers."""
        budget = self._context.server.limiter.snapshot()
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "started_at": f"{self._started_at.isoformat(timespec='seconds')}Z",
            "base_url": self._context.server.base_url,
            "config": str(self._home.config),
            "config_error": self._config_error,
            "requests": dict(self._context.server.requests),
            "budget_left": budget.left,
            "budget": asdict(budget),
            "projects": {str(project): job for project, job in self._schedule.next_passes().items()},
            "last_passes": {str(project): result.as_json() for project, result in self._last.items()},
            "error": self._wild_error,
            "local": self._local.status(),
            "http": self._page.status(),
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
        return serve.application(
            snapshots,
            lambda: credentials.find(self._settings.server.base_url, self._environ).key,
            lambda: serve.Policy(
                base_url=self._settings.server.base_url,
                writes=self._settings.http.writes == "pass",
                entity=self._settings.entity,
                username=self._username,
            ),
        )

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
        wanted = await self._targets(paths or self._settings.projects, failed)
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
        try:
            settings = _load(self._home, self._environ)
        except ConfigError as error:
            self._config_error = str(error)
            raise
        self._config_error = None
        old, self._settings = self._settings, settings
        if settings == old:
            return
        if settings.server != old.server:
            server = connect(settings, self._environ)
            former, self._context = self._context.server, replace(self._context, server=server)
            self.start_task(_close_later(former, settings.server.timeout))
        self._context = replace(self._context, scope=scope_of(settings))
        self._local.configure(settings)
        await self._context.writer.configure(
            tail_values=settings.store.tail_values, publish_interval=settings.publish.min_interval
        )
        await self._page.listen_on(settings.http.listen)
        log.info("config applied: %s", ", ".join(settings.projects))
        await self._look_for_projects()

    async def _reload_or_log(self) -> None:
        try:
            await self.reload()
        except MirrorError as error:
            log.error("%s; the running settings stay", error)  # noqa: TRY400 - the message is the whole story

    async def _check_key(self) -> None:
        """A wrong key ends the daemon at once; a server that is out of reach does not."""
        try:
            viewer = await self._context.server.viewer()
            self._username = viewer.get("username")
            log.info("signed in to %s as %s", self._context.server.base_url, self._username)
        except AuthError:
            raise
        except CommError as error:
            log.warning("%s; it is tried again on schedule", error)

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
        return result.live > 0

    async def _locked_pass(
        self, context: Context, target: Target, *, afresh: bool, since: datetime | None = None
    ) -> PassResult:
        lock = self._locks.setdefault(target.project, asyncio.Lock())
        async with lock:
            result = await sync_project(context, target.project, run_ids=target.run_ids, afresh=afresh, since=since)
        self._last[target.project] = result
        _log_pass(result)
        await self._context.writer.settle()
        await self._context.writer.publish_if_due()
        return result

    async def _publish_regularly(self) -> None:
        """What was committed is seen by readers soon, also when no pass follows."""
        while True:
            await asyncio.sleep(max(0.5, self._settings.publish.min_interval))
            try:
                await self._context.writer.publish_if_due()
            except StoreError as error:
                log.error("not published: %s", error)  # noqa: TRY400 - the message is the whole story

    async def _watch_config(self) -> None:
        folder = self._home.config.parent
        if not folder.is_dir():
            return
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


def _log_pass(result: PassResult) -> None:
    """One line a pass."""
    counts = f"runs={result.runs} rows={result.rows} requests={result.requests} seconds={result.seconds:.2f}"
    if result.error:
        log.error("%s %s error=%s", result.project, counts, result.error)
    elif result.failed:
        log.warning("%s %s failed=%s", result.project, counts, ",".join(sorted(result.failed)))
    else:
        log.info("%s %s", result.project, counts)
