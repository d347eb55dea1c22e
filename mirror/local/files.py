"""Finds the official client's files, and checks whether the process that writes one still runs."""

from __future__ import annotations

import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mirror.errors import UsageError
from mirror.local.blocks import NotReadable

RECENT = 300.0
"""A run counts as running if it wrote something within this many seconds; the server waits as long."""

_NAME = re.compile(r".+\.wandb")
_NOT_RUNS = frozenset({"files", "logs", "tmp"})
_TIME = re.compile(r"run-(\d{8}_\d{6})-")
_PROCESS = re.compile(rb"MainThread:(\d+) ")


def find(folders: Sequence[Path], beat: Callable[[], None] = lambda: None) -> list[Path]:
    """Return every `*.wandb` file in and below the folders, each once, a run's earlier files first.

    Links such as `latest-run` add no duplicates. `beat` is called for each folder. Raises UsageError for a folder that
    does not exist.
    """
    found: set[Path] = set()
    for folder in folders:
        if not folder.exists():
            raise UsageError(f"{folder} does not exist; name a folder that holds wandb/ or its run folders")
        found.update(below(folder, beat))
    return sorted(found, key=order)


def below(folder: Path, beat: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Yield the real paths of the files in and below one folder; calls `beat` for each folder."""
    if not folder.is_dir():
        yield Path(os.path.realpath(folder))
        return
    seen: set[str] = set()
    for parent, names, files in os.walk(folder, followlinks=True):
        beat()
        real = os.path.realpath(parent)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        # A run may save many files beside its own, and none of them is another run's.
        if any(_NAME.fullmatch(name) for name in files):
            names[:] = [name for name in names if name not in _NOT_RUNS]
        for name in files:
            if _NAME.fullmatch(name):
                # Not `resolve`, which fails for links in a loop.
                yield Path(os.path.realpath(os.path.join(real, name)))  # noqa: PTH118


def is_run_file(path: str) -> bool:
    """Return True if the file name is one that the client uses."""
    return _NAME.fullmatch(os.path.basename(path)) is not None  # noqa: PTH119 - called for each change of a folder


def order(path: Path) -> tuple[str, int, str]:
    """Return a sort key: the time in the folder's name; folders of the same second have `-1`, `-2` and so on added."""
    name = path.parent.name
    match = _TIME.search(name)
    return (match[1] if match else "", len(name), str(path))


def opened(path: Path) -> BinaryIO:
    """Open a file for reading. Raises OSError, and NotReadable for anything but a regular file: it might never end."""
    # Checked before it is opened, since opening a device may have effects. O_NONBLOCK, since opening a FIFO that has
    # replaced the file would wait for a writer.
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
        raise NotReadable("it is not a regular file")


def is_live(path: Path, modified: float, written: float | None, host: str | None, started: float) -> bool:
    """Return True if the run of a file without an exit record is running: it wrote recently, or its process exists.

    `written` is the newest time in the file, since a copy of an old file was `modified` recently. `started` is when
    the run started; a younger process only has the same process id.
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
    return match is not None and _process_exists(int(match[1]), started)


def _process_exists(pid: int, started: float) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # it exists, and belongs to another user
    except (OSError, OverflowError):
        return False
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        # This system has no such files: only the process id can be checked.
        return True
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK") <= started + 1
