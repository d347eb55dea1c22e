"""Watches the files that the settings come from, through every link and folder on the way to them."""

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
"""Seconds after which the files are read again whatever the system tells: network file systems tell nothing."""

_MOST_LINKS = 40
"""As many as Linux follows in one path."""

State = dict[Path, str | None]
"""A digest of what each file holds; None for one that is not there or cannot be read."""


def state(paths: Iterable[Path]) -> State:
    """What the files hold now."""
    return {path: _digest(path) for path in paths}


async def changes(find: Callable[[], Sequence[Path]], known: State) -> AsyncGenerator[State, None]:
    """Yield what the files hold each time that it is not what it was; `known` is what the caller has read.

    `find` names the files and is asked again after each change. A file may be a link, lie behind links, come later, go
    and come back, or be replaced together with its folder.
    """
    while True:
        entries, folders = await asyncio.to_thread(_watched, find())
        async with aclosing(_told(entries, [folder for folder, _ in folders])) as told:
            async for _ in told:
                now = await asyncio.to_thread(state, find())
                if now != known:
                    known = now
                    yield now
                if await asyncio.to_thread(_watched, find()) != (entries, folders):
                    break


async def _told(entries: set[Path], folders: Sequence[Path]) -> AsyncGenerator[None, None]:
    """Yield at once, when the system tells of one of these entries, and every LOOK seconds."""

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
        # No watches are left, or a folder went away between two looks.
        log.debug("the config cannot be watched (%s); looked at every %g s", error, LOOK)
    await asyncio.sleep(LOOK)
    yield


def _watched(paths: Iterable[Path]) -> tuple[set[Path], list[tuple[Path, tuple[int, int]]]]:
    """The entries on the ways to the files, and their folders."""
    entries = {entry for path in paths for entry in _way(path)}
    return entries, _folders(entries)


def _way(path: Path) -> Iterator[Path]:
    """Each entry of a folder that decides where the path leads, its folder written without links."""
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
        except OSError:  # no link, or not there
            at = entry
            continue
        links += 1
        if links > _MOST_LINKS:
            return
        if target.is_absolute():
            at = Path(target.anchor)
        todo.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))


def _folders(entries: Iterable[Path]) -> list[tuple[Path, tuple[int, int]]]:
    """The folders of the entries that are there, each with what tells it from another one under its name."""
    found = []
    for folder in sorted({entry.parent for entry in entries}):
        try:
            told = os.stat(folder)  # noqa: PTH116 - Path.stat says the same, slower
        except OSError:
            continue
        if folder.is_dir():
            found.append((folder, (told.st_dev, told.st_ino)))
    return found


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
