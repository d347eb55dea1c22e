"""The daemon: scheduled passes, a control socket, a watched config, a clean shutdown."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict, replace

from mirror import serve
from mirror.content.pull import selection_of
from mirror.daemon import configuration, health, logs, metrics, problems, sources
from mirror.daemon.clients import Clients
from mirror.daemon.commands import Commands, Stopped, unless_stopped
from mirror.daemon.downloads import Downloads
from mirror.daemon.edited import Edited
from mirror.daemon.lake import Lake
from mirror.daemon.notify import Notifier
from mirror.daemon.outcomes import Ledger, stamp
from mirror.daemon.passes import Passes
from mirror.daemon.problems import Problem
from mirror.daemon.publishing import Publishing
from mirror.daemon.pulse import Pulse
from mirror.daemon.schedule import Schedule
from mirror.daemon.search import ProjectSearch
from mirror.daemon.signing_in import SignIn
from mirror.daemon.tasks import Tasks
from mirror.errors import AuthError, ConfigError, MirrorError, StoreError
from mirror.local.watch import Watch
from mirror.mcp import door as mcp
from mirror.serve.edits import Edits
from mirror.settings import credentials
from mirror.settings import settings as config
from mirror.settings.home import Home
from mirror.settings.socket_path import address
from mirror.store import console, contents
from mirror.store.records import ProjectKey
from mirror.store.transaction import Transaction
from mirror.sync.context import Context, utc_now
from mirror.sync.session import connect, scope_of, sharing
from mirror.sync.targets import Target
from mirror.version import VERSION
from mirror.web.access import Access
from mirror.web.gate import Gate
from mirror.web.listener import Listener, Neighbour

if TYPE_CHECKING:
    from starlette.types import ASGIApp

log = logging.getLogger("mirror.daemon")


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
        # The search needs the schedule, which calls it later.
        self._schedule = Schedule(self._scheduled_pass, lambda: self._search.find())  # noqa: PLW0108
        self._search = ProjectSearch(self._clients, self._schedule, lambda: self._settings)
        self._stopping = stopping
        self._started_at = utc_now()
        self._config_error: str | None = None
        self._ledger = Ledger()
        self._tasks = Tasks(self._ledger)
        self._passes = Passes(lambda: self._context, self._clients, self._ledger, self._tasks.crashed)
        self._publishing = Publishing(context.writer, self._tasks.crashed)
        self._sign_in = SignIn(self._clients)
        self._downloads = Downloads(self._clients, context.writer, lambda: selection_of(self._settings.sync))
        edited = Edited(
            lambda: self._context, lambda: self._settings, self._schedule, self._search, self._passes, self._downloads
        )
        self._edits = Edits(edited.pull, self._tasks.start)
        self._lake = Lake(home, environ, lambda: self._settings.lake)
        self._local = Watch(context.writer, settings)
        self.commands = Commands(
            lambda: self._context,
            lambda: self._settings,
            home.config,
            self._search,
            self._passes,
            self._local,
            self._downloads,
            stopping,
        )
        self._page = Listener(
            home,
            self._describe_for_page,
            [metrics.route(home, self.status), health.route(self._problems)],
            neighbour=Neighbour(serve.PATHS, self._endpoint),
            further_doors=[mcp.door],
        )
        self._notifier = Notifier(environ)

    async def run(self, control: Gate) -> None:
        """Start everything, wait until the daemon must stop, and shut everything down.

        `control` answers the requests on the control socket.
        """
        listener = _listen(self._home.socket)
        serving = asyncio.create_task(self._tasks.kept("control socket", lambda: control.serve(listener)))
        pulse = Pulse(self._notifier, self._context.writer, self._describe, self._woke, self._set_back)
        try:
            log.info("started %s, pid %d, home %s", VERSION, os.getpid(), self._home.data)
            # Before the first answer on the control socket, so that who asks for the page's address gets it.
            await self._listen_on(self._settings.http)
            if self._settings.projects:
                await unless_stopped(self._stopping, self._sign_in.check())
            asyncio.get_running_loop().add_signal_handler(
                signal.SIGHUP, lambda: self._tasks.start(self._reload_or_log(), "reload")
            )
            self._tasks.keep("config watch", self._watch_config)
            self._tasks.keep("publishing", self._publish_regularly)
            self._tasks.keep("local runs", self._local.run)
            self._tasks.keep("files", self._downloads.run)
            self._tasks.keep("lake", self._lake.run)
            self._tasks.keep("pulse", pulse.run)
            self._notifier.ready()
            self._schedule.start()
            self._tasks.keep("looking for projects", self._search.find)
            await self._stopping.wait()
            log.info("stopping")
        except Stopped:
            log.info("stopping")
        finally:
            self._notifier.stopping()
            self._schedule.stop()
            await self._tasks.stop()
            control.stop()
            await asyncio.gather(serving, self._page.close())
            await self._clients.close()
            listener.close()
            self._home.socket.unlink(missing_ok=True)
            await self._context.writer.publish()
            log.info("stopped")

    def stop(self) -> None:
        """Start the shutdown."""
        self._stopping.set()

    def start_task(self, work: Awaitable[Any], what: str) -> None:
        """Run a background task that may outlast the answer; a crash of it is reported as `what`."""
        self._tasks.start(work, what)

    def _woke(self, seconds: float) -> None:
        log.info("the machine slept for %.0f s; running the passes that are due", seconds)
        self._schedule.wake()

    def _set_back(self, seconds: float) -> None:
        log.warning("the clock was set back by %.0f s; syncing every project now", seconds)
        self._schedule.plan_again()
        # The times of the next tries were set by the clock as it was.
        self._tasks.start(self._context.writer.write(contents.retry_now), "planning failed downloads again")
        self._downloads.wake()

    def _describe(self) -> str:
        """Return the status line for the service manager."""
        jobs = self._schedule.next_passes().values()
        line = self._ledger.line(len(jobs), sum(bool(job["live"]) for job in jobs))
        messages = [problem.message for problem in self._problems() if problem.level == problems.GRAVE]
        return f"{line}; {messages[0]}" if messages else line

    def _problems(self) -> list[Problem]:
        writer = self._context.writer
        return [
            *problems.of_config(self._config_error, self._search.error),
            *problems.of_writer(writer.failure, writer.busy_seconds, utc_now()),
            *problems.of_schedule(self._schedule.late()),
            *problems.of_jobs(self._ledger.down),
            *problems.of_downloads(self._downloads.error),
            *problems.of_lake(self._lake.error),
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
            "published": self._publishing.status(),
            "projects": {str(project): job for project, job in self._schedule.next_passes().items()},
            **self._ledger.as_json(),
            "error": self._search.error,
            "local": self._local.status(),
            "files": self._downloads.status(),
            "lake": self._lake.status(),
            "http": self._page.status(),
            "problems": [problem.as_json() for problem in self._problems()],
            "writer_busy_s": round(self._context.writer.busy_seconds, 3),
        }

    def _describe_for_page(self) -> dict[str, Any]:
        """Return what the page shows of the daemon: only fields that change when there is something new to show."""
        failed = {str(project): len(result.failed) for project, result in self._ledger.last.items() if result.failed}
        return {
            "version": VERSION,
            "base_url": self._context.server.base_url,
            "errors": [problem.message for problem in self._problems() if problem.level == problems.GRAVE],
            "failed_runs": failed,
        }

    async def _listen_on(self, http: config.HttpSettings) -> None:
        await self._page.listen_on(http.listen, cert=http.cert, key=http.key, rate=http.rate)

    def _endpoint(self, access: Access) -> ASGIApp:
        """Return the endpoint for official clients; it always uses the current settings."""
        # Its parser takes 0.1 s to import, which only a daemon that listens needs.
        from mirror.serve import app

        loop = asyncio.get_running_loop()

        def list_again(run: tuple[str, str, str]) -> None:
            loop.call_soon_threadsafe(self._list_files_again, run)

        return app.application(
            access.page,
            lambda: credentials.find(self._settings.server.base_url, self._environ).key,
            lambda: app.Policy(
                base_url=self._settings.server.base_url,
                writes=self._settings.http.writes == "pass",
                entity=self._settings.entity,
                username=self._sign_in.username,
            ),
            list_again,
            access,
            self._edits,
        )

    def _list_files_again(self, run: tuple[str, str, str]) -> None:
        """Mark the list of a run's files to be pulled by the next pass."""
        entity, project, run_id = run

        def write(tx: Transaction) -> None:
            console.forget_lists(tx, ProjectKey(entity, project), [run_id])

        self._tasks.start(self._context.writer.write(write), f"noting changed files of {'/'.join(run)}")

    async def reload(self) -> None:
        """Read the config and the key again and apply them; passes under way keep those that they started with.

        Raises ConfigError or AuthError, and keeps the running settings, if the new ones are not valid.
        """
        await unless_stopped(self._stopping, self._reload())

    async def _reload(self) -> None:
        self._notifier.reloading()
        try:
            async with self._applying:
                # In a thread, since the file may be in a network folder.
                changed = await self._apply(await asyncio.to_thread(configuration.load, self._home, self._environ))
        except (ConfigError, AuthError) as error:
            self._config_error = str(error)
            raise
        finally:
            self._notifier.ready()
        if changed:
            await self._search.find()

    async def _apply(self, settings: config.Settings) -> bool:
        """Apply these settings; return True if anything changed."""
        old = self._settings
        key = configuration.find_key(settings, self._environ)
        reconnects = (settings.server, bool(settings.projects), key) != (old.server, bool(old.projects), self._key)
        if reconnects:
            server = connect(settings, self._environ, key_needed=bool(settings.projects))
            await self._clients.replace(server)
            self._context = replace(self._context, server=server)
        self._config_error = None
        self._settings, old_key = settings, self._key
        self._key = key
        if reconnects:
            self._sign_in.username = None
            if settings.projects:
                self._tasks.start(self._sign_in.again(), "asking who the key belongs to")
        if settings == old:
            if key != old_key:
                log.info("new API key applied")
            return reconnects
        self._context = replace(self._context, scope=scope_of(settings))
        self._local.configure(settings)
        await self._context.writer.configure(
            tail_values=settings.store.tail_values,
            publish_interval=settings.publish.min_interval,
            sharing=sharing(settings),
        )
        await self._listen_on(settings.http)
        self._downloads.wake()
        self._lake.wake()
        log.info("config applied: %s", ", ".join(settings.projects) or "local runs only")
        return True

    async def _reload_or_log(self) -> None:
        try:
            await self.reload()
        except MirrorError as error:
            log.error("%s; the running settings stay", error)  # noqa: TRY400 - the message says everything

    async def _scheduled_pass(self, project: ProjectKey) -> bool:
        """Run one pass; return True if a run of the project is running."""
        result = await self._passes.run(Target(project), afresh=False)
        await self._publishing.if_due()
        self._downloads.wake()
        return result.live > 0

    async def _publish_regularly(self) -> None:
        await self._publishing.regularly(lambda: self._settings.publish.min_interval)

    async def _watch_config(self) -> None:
        def find() -> list[Path]:
            return config.sources(self._home, self._environ)

        async with aclosing(sources.changes(find, self._known)) as changes:
            async for self._known in changes:
                await self._reload_or_log()


def _listen(path: Path) -> socket.socket:
    """Open the control socket, replacing one that a killed daemon left: this process has the store's lock."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        with address(path) as short:
            listener.bind(short)
    except OSError as error:
        listener.close()
        raise StoreError(f"the control socket {path} cannot be opened ({error.strerror or error})") from error
    finally:
        os.umask(old)
    return listener
