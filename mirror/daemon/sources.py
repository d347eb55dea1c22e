"""Watches the files that settings are read from, including every link and folder on their paths."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

from watchfiles import Change, awatch

log = logging.getLogger("mirror.daemon")

LOOK = 2.0
"""The files are read again after this many seconds without a notification: network file systems send none."""

_MOST_LINKS = 40
"""As many links as Linux follows in one path."""

State = dict[Path, str | None]
"""A digest of each file's content; None for a file that does not exist or cannot be read."""


def state(paths: Iterable[Path]) -> State:
    """Return the current digests of the files."""
    return {path: _digest(path) for path in paths}


async def changes(find: Callable[[], Sequence[Path]], known: State) -> AsyncGenerator[State, None]:
    """Yield the digests of the files each time they change; `known` are the digests that the caller has read.

    `find` returns the files and is called again after each change. A file may be a link, be reached through links, be
    created later, disappear and come back, or be replaced together with its folder.
    """
    while True:
        entries, folders = await asyncio.to_thread(_watched, find())
        async with aclosing(_signals(entries, [folder for folder, _ in folders])) as signals:
            async for _ in signals:
                now = await asyncio.to_thread(state, find())
                if now != known:
                    known = now
                    yield now
                if await asyncio.to_thread(_watched, find()) != (entries, folders):
                    break


async def _signals(entries: set[Path], folders: Sequence[Path]) -> AsyncGenerator[None, None]:
    """Yield at once, when the system reports a change of one of these entries, and every LOOK seconds."""

    def concerns(_: Change, path: str) -> bool:
        return Path(path) in entries

    yield
    try:
        watch = awatch(
            *folders,
            watch_filter=concerns,
            recursive=False,
            debounce=200,
            step=50,
            rust_timeout=int(LOOK * 1000),
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
        async with aclosing(watch):
            async for _ in watch:
                yield
    except (OSError, RuntimeError) as error:
        # The system has no more watches, or a folder was deleted meanwhile.
        log.debug("the config cannot be watched (%s); reading it every %g s", error, LOOK)
    await asyncio.sleep(LOOK)
    yield


def _watched(paths: Iterable[Path]) -> tuple[set[Path], list[tuple[Path, tuple[int, int]]]]:
    """Return the entries on the paths to the files, and their folders."""
    entries = {entry for path in paths for entry in _entries_of(path)}
    return entries, _folders(entries)


def _entries_of(path: Path) -> Iterator[Path]:
    """Yield each folder entry that the path goes through, links included; its folder is written without links."""
    todo = list(reversed(path.absolute().parts[1:]))
    at = Path(path.absolute().anchor)
    links = 0
    while todo:
        name = todo.pop()
        if name == "..":
            at = at.parent
            continue
        entry = at / name
        yield entry
        try:
            target = entry.readlink()
        except OSError:  # not a link, or missing
            at = entry
            continue
        links += 1
        if links > _MOST_LINKS:
            return
        if target.is_absolute():
            at = Path(target.anchor)
        todo.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))


def _folders(entries: Iterable[Path]) -> list[tuple[Path, tuple[int, int]]]:
    """Return the existing folders of the entries, each with device and inode, which identify it if it is replaced."""
    found = []
    for folder in sorted({entry.parent for entry in entries}):
        try:
            status = os.stat(folder)  # noqa: PTH116 - Path.stat does the same, slower
        except OSError:
            continue
        if folder.is_dir():
            found.append((folder, (status.st_dev, status.st_ino)))
    return found


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
