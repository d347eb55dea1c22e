"""Where the official client's files lie, and whether the process behind one still runs."""

from __future__ import annotations

import os
import re
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mirror.errors import UsageError
from mirror.local.blocks import NotReadable

RECENT = 300.0
"""Seconds in which a run must have written something to count as running; the server gives up on a run as late."""

_NAME = re.compile(r".+\.wandb")
_NOT_RUNS = frozenset({"files", "logs", "tmp"})
_TIME = re.compile(r"run-(\d{8}_\d{6})-")
_PROCESS = re.compile(rb"MainThread:(\d+) ")


def find(folders: Sequence[Path]) -> list[Path]:
    """Every `*.wandb` file in and below the folders, each once, a run's earlier files first.

    A link such as `latest-run` leads to no second one. Raises UsageError for a folder that is not there.
    """
    found: set[Path] = set()
    for folder in folders:
        if not folder.exists():
            raise UsageError(f"{folder} is not there; name a folder that holds wandb/ or its run folders")
        found.update(below(folder))
    return sorted(found, key=order)


def below(folder: Path) -> Iterator[Path]:
    """The files of one folder, by their real paths."""
    if not folder.is_dir():
        yield Path(os.path.realpath(folder))
        return
    seen: set[str] = set()
    for place, names, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        # What a run saves beside its file may be much, and holds no other run.
        if any(_NAME.fullmatch(name) for name in files):
            names[:] = [name for name in names if name not in _NOT_RUNS]
        for name in files:
            if _NAME.fullmatch(name):
                # Not `resolve`, which fails for links in a circle.
                yield Path(os.path.realpath(os.path.join(real, name)))  # noqa: PTH118


def is_run_file(path: str) -> bool:
    """Whether a path is named as the client names its files."""
    return _NAME.fullmatch(os.path.basename(path)) is not None  # noqa: PTH119 - called for each change of a folder


def order(path: Path) -> tuple[str, int, str]:
    """Sorts the files of a run by the time in their folder's name; of one second, `-1`, `-2` and so on come later."""
    name = path.parent.name
    match = _TIME.search(name)
    return (match[1] if match else "", len(name), str(path))


def opened(path: Path) -> BinaryIO:
    """A file to be read. Raises NotReadable for what is no regular file, which might never end, and OSError."""
    # Looked at before it is opened, which may do something to a device; O_NONBLOCK, since to open a FIFO that came in
    # its place would wait for somebody who writes to it.
    _check(os.stat(path))  # noqa: PTH116
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(os.fstat(number))
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotReadable("it is no regular file")


def is_live(path: Path, modified: float, written: float | None, host: str | None, started: float) -> bool:
    """Whether the run of a file without an exit record goes on: it wrote just now, or its process lives here.

    `written` is the newest time that the file names, since a copy of an old file was `modified` just now. `started` is
    when the run began; a process that is younger only has the same number.
    """
    if abs(time.time() - min(modified, written or modified)) < RECENT:
        return True
    if host and host != socket.gethostname():
        return False
    try:
        with opened(path.parent / "logs" / "debug.log") as stream:
            log = stream.read(4096)
    except (OSError, NotReadable):
        return False
    match = _PROCESS.search(log)
    return match is not None and _lives(int(match[1]), started)


def _lives(pid: int, started: float) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # it is there, and belongs to somebody else
    except (OSError, OverflowError):
        return False
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        # No such files on this system: the number is all there is.
        return True
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK") <= started + 1
