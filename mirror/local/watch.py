"""Follows the folders of `[local] dirs`: what a live run writes is mirrored within a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from watchfiles import Change, awatch

from mirror.errors import MirrorError
from mirror.local import files
from mirror.local.commits import FileResult
from mirror.local.ingest import Ingest, options_of
from mirror.settings.settings import Settings
from mirror.sync.writer import Writer

log = logging.getLogger("mirror.local")

RESCAN = 30.0
"""Seconds after which all files are checked again: for new folders, runs that died, and file systems that report no
changes."""

_QUIET = 0.5
"""Seconds without a change after which everything is checked again, following a start or a new folder."""

_POLL = 2.0
"""Seconds between two checks if the folders cannot be watched."""


class Watch:
    """Keeps the local runs of a daemon current."""

    def __init__(self, writer: Writer, settings: Settings) -> None:
        self.ingest = Ingest(writer, options_of(settings))
        self.error: str | None = None
        self._writer = writer
        self._folders: tuple[Path, ...] = ()
        self._missing: list[str] = []
        self._failed: dict[str, str | None] = {}
        self._unreadable: dict[str, set[str]] = {}
        self._changed = asyncio.Event()
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Apply changed settings."""
        self.ingest.options = options_of(settings)
        folders = tuple(Path(folder).expanduser() for folder in settings.local.dirs)
        if folders != self._folders:
            self._folders = folders
            self._changed.set()

    def status(self) -> dict[str, Any]:
        """Return the entry of `GET /status`."""
        return {"dirs": [str(folder) for folder in self._folders], "error": self.error}

    async def run(self) -> None:
        """Read everything once, then what changes, until cancelled."""
        while True:
            self._changed.clear()
            folders = [folder for folder in self._folders if folder.exists()]
            missing = [str(folder) for folder in self._folders if folder not in folders]
            if missing and missing != self._missing:
                log.warning("local dirs: %s not found; checked again every %g s", ", ".join(missing), RESCAN)
            self._missing = missing
            if not folders:
                await self._wait(RESCAN if self._folders else None)
                continue
            await self._read(await asyncio.to_thread(files.find, folders))
            try:
                await self._follow(folders)
            except (OSError, RuntimeError) as error:
                # Too many folders for this system, or one that was removed.
                log.warning("local dirs cannot be watched (%s); checking them every %g s", error, _POLL)
                await self._wait(_POLL)

    async def read_now(self, paths: Sequence[str]) -> list[FileResult]:
        """Mirror and publish what is new below these folders, by default below those of the config."""
        folders = [Path(path) for path in paths] or list(self._folders)
        results = await self.ingest.read(await asyncio.to_thread(files.find, folders))
        await self._writer.publish()
        return results

    async def _follow(self, folders: Sequence[Path]) -> None:
        """Read what changes, until the settings change."""
        async for changes in _watched(folders, self._changed):
            paths = await asyncio.to_thread(_files_of, [path for _, path in changes])
            if not changes:
                if len([folder for folder in self._folders if folder.exists()]) != len(folders):
                    return
                paths.update(await asyncio.to_thread(files.find, folders))
            await self._read(sorted(paths, key=files.order))

    async def _read(self, paths: Sequence[Path]) -> None:
        try:
            results = await self.ingest.read(paths)
            # A file that stays unreadable is reported once, although it is read again and again.
            report(
                [self._not_reported(one) for one in results if not one.error or self._failed.get(one.path) != one.error]
            )
            self._failed.update((result.path, result.error) for result in results)
            await self._writer.publish_if_due()
            self.error = None
        except MirrorError as error:
            self.error = str(error)
            log.error("local runs: %s", error)  # noqa: TRY400 - the message is the whole story

    def _not_reported(self, result: FileResult) -> FileResult:
        """Remove what was reported before of the file, such as an unreadable value in the summary of a live run."""
        if not result.unreadable:
            return result
        reported = self._unreadable.setdefault(result.path, set())
        fresh = [line for line in result.unreadable if line not in reported]
        reported.update(fresh)
        return replace(result, unreadable=fresh)

    async def _wait(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()


async def _watched(folders: Sequence[Path], stop: asyncio.Event) -> AsyncIterator[set[tuple[Change, str]]]:
    """Yield changed run files and new folders; an empty set if everything should be checked again.

    That is every RESCAN seconds, and when changes pause after the start and after new folders: what was written before
    a folder was watched is not reported.
    """
    due, unwatched = time.monotonic() + RESCAN, True
    async for changes in awatch(
        *folders,
        watch_filter=_is_of_interest,
        debounce=300,
        step=50,
        stop_event=stop,
        rust_timeout=int(_QUIET * 1000),
        yield_on_timeout=True,
        ignore_permission_denied=True,
    ):
        if changes:
            unwatched = unwatched or any(not files.is_run_file(path) for _, path in changes)
            yield changes
        if time.monotonic() >= due or (unwatched and not changes):
            due, unwatched = time.monotonic() + RESCAN, False
            yield set()


def _files_of(changed: Sequence[str]) -> set[Path]:
    """Return changed run files, and the run files in new folders."""
    return {path for name in changed for path in files.below(Path(name)) if path.is_file()}


def _is_of_interest(change: Change, path: str) -> bool:
    if change is Change.deleted:
        return False
    return files.is_run_file(path) or (change is Change.added and os.path.isdir(path))  # noqa: PTH112


def report(results: Sequence[FileResult]) -> None:
    """Log one line for each file that had something new or could not be read completely."""
    for result in results:
        if result.error:
            log.warning("%s cannot be read: %s", result.path, result.error)
        elif result.outcome in ("new", "read"):
            log.info("%s run=%s state=%s rows=%d", result.path, result.run, result.state, result.rows)
            for line in result.unreadable:
                log.warning("%s of %s: %s", result.run, result.path, line)
            if result.note:
                log.warning("%s: %s", result.path, result.note)
            if trouble := result.trouble():
                log.warning("%s: %s", result.path, trouble)
