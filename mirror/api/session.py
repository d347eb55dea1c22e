"""How the Python API asks the server, and pulls into the mirror: through the daemon if one runs."""

from __future__ import annotations

import asyncio
import logging
import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from mirror.api import official
from mirror.errors import AuthError, CommError, MirrorError, SyncError, UsageError, named
from mirror.settings.home import Home
from mirror.snapshot.snapshot import Snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from mirror.remote.client import Server
    from mirror.settings.settings import Settings
    from mirror.sync.context import PassResult

__all__ = ["Session"]

Result = TypeVar("Result")

ASKED_AGAIN_SECONDS = 10.0
"""How long the official client is not asked to connect again after it could not."""

log = logging.getLogger("mirror.api")


class Session:
    """One home and one environment. Opens nothing until it is used."""

    def __init__(self, home: Home, environ: Mapping[str, str], timeout: float | None = None) -> None:
        """Keep the arguments; `timeout` (seconds) overrides the config's."""
        self.home = home
        self.environ = environ
        self._timeout = timeout
        self._official: Any = None
        self._unreachable: CommError | None = None
        self._again_at = 0.0

    @cached_property
    def settings(self) -> Settings:
        """The config. Raises ConfigError."""
        return self._settings(())

    def _settings(self, paths: Sequence[str]) -> Settings:
        from mirror.settings.settings import load

        settings = load(self.home, self.environ, paths)
        if self._timeout is None:
            return settings
        return replace(settings, server=replace(settings.server, timeout=float(self._timeout)))

    def __str__(self) -> str:
        return f"the mirror in {self.home.data}"

    def open_snapshot(self) -> Snapshot:
        """Open the newest snapshot. Raises StoreError."""
        return Snapshot(self.home)

    def local(self, content: Path | None) -> Path | None:
        """Return where mirrored content can be read; None if it was deleted since the snapshot was published."""
        return content if content is not None and content.exists() else None

    def ask(self, work: Callable[[Server], Awaitable[Result]]) -> Result:
        """Run `work` with a connection to the server and return its result. Raises CommError."""
        from mirror.sync.session import connect

        async def connected() -> Result:
            async with connect(self.settings, self.environ) as server:
                return await work(server)

        return in_thread(connected)

    @property
    def api_key(self) -> str | None:
        """The API key for the server; None without one. Raises ConfigError."""
        from mirror.settings import credentials

        try:
            return credentials.find(self.settings.server.base_url, self.environ).key
        except AuthError:
            return None

    @property
    def official(self) -> Any:
        """The official client's `Api` for the same server. Raises MissingPackage, AuthError, CommError.

        It takes half a minute to find out that a server cannot be reached; so that a loop over runs does not wait for
        each, what it found is raised for some seconds without another try.
        """
        if self._official is None:
            if self._unreachable is not None and monotonic() < self._again_at:
                raise self._unreachable
            try:
                self._official = official.connect(self.settings.server, self.environ)
            except AuthError:
                raise
            except CommError as error:
                self._unreachable = CommError(f"{error}; it is asked again in a moment", error.exc)
                self._again_at = monotonic() + ASKED_AGAIN_SECONDS
                raise
        return self._official

    def page(self, entity: str, project: str) -> str:
        """Return the address of a project's page. Raises ConfigError."""
        from mirror.addresses import project_page

        return project_page(self.app_url, entity, project)

    @property
    def app_url(self) -> str:
        """The address of the server's web pages. Raises ConfigError."""
        from mirror.addresses import app_url

        return app_url(self.settings.server.base_url, self.environ)

    def pull(self, paths: Sequence[str], *, afresh: bool = False) -> None:
        """Pull these paths, or everything in the config, in one pass, and publish.

        Goes through the daemon if one runs, else runs in this process. With `afresh`, everything is pulled again.
        Raises CommError if the server could not be reached, StoreBusy if another process writes to this home, SyncError
        for other errors. Warns about runs that failed and will be retried.
        """
        from mirror.control import Control

        control = Control.find(self.home.socket)
        if control is not None:
            events = []
            for event in control.work("flush" if afresh else "sync", list(paths)):
                if event["event"] == "notice":
                    log.warning("%s", event["message"])
                events.append(event)
            results: list[tuple[dict[str, Any], BaseException | None]]
            results = [(result, None) for result in events[-1]["results"]]
        else:
            passes = in_thread(lambda: self._pull_here(paths, afresh=afresh))
            results = [(result.as_json(), result.failure) for result in passes]
        for result, failure in results:
            _raise_failure(result, failure, alone=len(results) == 1)

    def pull_written(self, runs: Iterable[object]) -> None:
        """Pull runs that were just written. Raises SyncError, which says that the write itself succeeded."""
        paths = [str(run) for run in runs]
        try:
            self.pull(paths)
        except MirrorError as error:
            message = f"{', '.join(paths[:3])} was written to the server, but is not mirrored yet ({error}); "
            raise SyncError(f"{message}the next sync pulls it") from error

    async def _pull_here(self, paths: Sequence[str], *, afresh: bool) -> list[PassResult]:
        from mirror.sync import engine, targets
        from mirror.sync.session import open_context

        settings = self._settings(paths)
        if not settings.projects:
            raise UsageError(f"nothing to pull: name a path, or add projects to {self.home.config} (`mirror init`)")
        patterns = [targets.parse(path, settings.entity) for path in settings.projects]
        async with open_context(self.home, settings, self.environ) as opened:
            expanded = await targets.expand(opened.server, patterns)
            return await engine.sync(opened, expanded, afresh=afresh)


def _raise_failure(result: Mapping[str, Any], failure: BaseException | None, *, alone: bool) -> None:
    for run_id, reason in result["failed_runs"].items():
        warnings.warn(f"{result['project']}/{run_id} failed, will be retried: {reason}", stacklevel=5)
    for path, reason in result.get("failed_artifacts", {}).items():
        warnings.warn(f"{path} failed, will be retried: {reason}", stacklevel=5)
    if result["error"]:
        if isinstance(failure, CommError) and (alone or isinstance(failure, AuthError)):
            raise failure
        message = result["error"] if alone else named(result["project"], result["error"])
        error = SyncError(message)
        if result.get("server_error") or result["exit_code"] == CommError.exit_code:
            raise CommError(message, failure or error)
        raise error


def in_thread(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run a coroutine in a new thread and return its result: a notebook's thread already runs an event loop."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work()))
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run, name="mirror-api", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
