"""Follows the folders of `[local] dirs`: what a live run writes is mirrored within a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from mirror.errors import MirrorError, UsageError
from mirror.local import changes, files
from mirror.local.commits import FileResult
from mirror.local.ingest import Ingest, options_of
from mirror.local.looks import Beat, Hangs, Looks
from mirror.settings.settings import Settings
from mirror.sync.writer import Writer

log = logging.getLogger("mirror.local")

RESCAN = 30.0
"""Seconds after which all files are checked again: for new folders, runs that died, and file systems that report no
changes."""

_POLL = 2.0
"""Seconds between two checks if the folders cannot be watched."""


class Watch:
    """Keeps the local runs of a daemon current."""

    def __init__(self, writer: Writer, settings: Settings) -> None:
        self._looks = Looks()
        self.ingest = Ingest(writer, options_of(settings), self._looks)
        self._error: str | None = None
        self._writer = writer
        self._folders: tuple[Path, ...] = ()
        self._missing: list[str] = []
        self._hanging: list[str] = []
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

    @property
    def error(self) -> str | None:
        """Why local runs are not mirrored; None if they are."""
        if self._error is None and self._hanging:
            return f"{', '.join(self._hanging)} does not answer; runs elsewhere are mirrored"
        return self._error

    def status(self) -> dict[str, Any]:
        """Return the entry of `GET /status`."""
        return {"dirs": [str(folder) for folder in self._folders], "error": self.error}

    async def run(self) -> None:
        """Read everything once, then what changes, until cancelled."""
        while True:
            self._changed.clear()
            answering, paths = await self._look()
            if not answering:
                await self._wait(RESCAN if self._folders else None)
                continue
            await self._read(paths)
            try:
                await self._follow(answering)
            except OSError as error:
                log.warning("local dirs cannot be watched (%s); checking them every %g s", error, _POLL)
                await self._wait(_POLL)

    async def _look(self) -> tuple[list[Path], list[Path]]:
        """Return the folders of the config that answer, and the files in them."""
        asked = self._folders
        found = await asyncio.gather(*map(self._found, asked), return_exceptions=True)
        answering, paths, missing, hanging = [], set(), [], []
        for folder, there in zip(asked, found, strict=True):
            if isinstance(there, UsageError):
                missing.append(str(folder))
            elif isinstance(there, Hangs):
                hanging.append(str(folder))
            elif isinstance(there, BaseException):
                raise there
            else:
                answering.append(folder)
                paths.update(there)
        if missing and missing != self._missing:
            log.warning("local dirs: %s not found; checked again every %g s", ", ".join(missing), RESCAN)
        if hanging and hanging != self._hanging:
            log.error("local dirs: %s does not answer; checked again every %g s", ", ".join(hanging), RESCAN)
        self._missing, self._hanging = missing, hanging
        return answering, sorted(paths, key=files.order)

    async def _found(self, folder: Path) -> list[Path]:
        """Return the files in and below a folder. Raises UsageError if it does not exist, and Hangs."""
        self._looks.follow([folder])
        real, found = await self._looks.at(folder, lambda beat: (folder.resolve(), files.find([folder], beat)))
        self._looks.follow([real])
        return found

    async def read_now(self, paths: Sequence[str]) -> list[FileResult]:
        """Mirror and publish what is new below these folders, by default below those of the config."""
        folders = [Path(path) for path in paths] or list(self._folders)
        wanted: set[Path] = set()
        results: list[FileResult] = []
        for folder in folders:
            try:
                wanted.update(await self._found(folder))
            except Hangs as error:
                results.append(FileResult(str(folder), outcome="failed", error=error.strerror))
        results += await self.ingest.read(sorted(wanted, key=files.order))
        await self._writer.publish()
        return results

    async def _follow(self, folders: Sequence[Path]) -> None:
        """Read what changes, until the settings change, or other folders answer."""
        async with aclosing(changes.of(folders, self._changed, RESCAN)) as notified:
            async for changed in notified:
                paths = await self._files_of(changed)
                if not changed:
                    answering, found = await self._look()
                    if answering != folders:
                        return
                    paths.update(found)
                await self._read(sorted(paths, key=files.order))

    async def _files_of(self, changed: set[str]) -> set[Path]:
        """Return changed run files, and the run files in new folders."""
        places: dict[str, list[str]] = {}
        for name in changed:
            places.setdefault(self._looks.place_of(name), []).append(name)

        def look(names: Sequence[str], beat: Beat) -> set[Path]:
            return {path for name in names for path in files.below(Path(name), beat) if path.is_file()}

        asked = [self._looks.at(names[0], lambda beat, names=names: look(names, beat)) for names in places.values()]  # type: ignore[misc]
        paths: set[Path] = set()
        for found in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(found, Hangs):
                continue  # the next look at all folders says so
            if isinstance(found, BaseException):
                raise found
            paths.update(found)
        return paths

    async def _read(self, paths: Sequence[Path]) -> None:
        try:
            results = await self.ingest.read(paths)
            # A file that stays unreadable is reported once, although it is read again and again.
            report(
                [self._not_reported(one) for one in results if not one.error or self._failed.get(one.path) != one.error]
            )
            self._failed.update((result.path, result.error) for result in results)
            await self._writer.publish_if_due()
            self._error = None
        except MirrorError as error:
            self._error = str(error)
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
