"""`mirror log`: the daemon's log, readable, and followed as it grows."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

import typer

from mirror.cli.invocation import invocation
from mirror.cli.output import write_text
from mirror.errors import StoreError, one_line

LOOK_SECONDS = 0.3


def log(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, metavar="N", help="How many of the last lines.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as they are in the file, JSON.")] = False,
) -> None:
    """Show the end of the daemon's log, mirror.log in the home; times are UTC.

    With -f it goes on with new lines, also when the log is rotated, and with a daemon that is started later.
    """
    path = invocation(ctx).home.log
    if not path.exists() and not follow:
        raise StoreError(f"there is no log yet ({path} does not exist): `mirror daemon` writes it")
    for line in _lines(path, lines, follow=follow):
        write_text(f"{line}\n" if as_json else f"{_readable(line)}\n")


def _lines(path: Path, last: int, *, follow: bool) -> Iterator[str]:
    """The last lines of the file, then with `follow` each complete line that is added, also to a file replacing it."""
    file: IO[str] | None = None
    try:
        if path.exists():
            file = _opened(path)
            yield from _complete(file, deque(file, last))
        while follow:
            if file is not None:
                yield from _complete(file, file)
            if path.exists() and (file is None or not _same(path, file)):
                if file is not None:
                    # What was written between the last look and the rotation.
                    yield from _complete(file, file)
                    file.close()
                file = _opened(path)
                continue
            _wait()
    finally:
        if file is not None:
            file.close()


def _complete(file: IO[str], lines: deque[str] | IO[str]) -> Iterator[str]:
    """The lines without their ends. A line that is still being written is left for the next time."""
    for line in lines if isinstance(lines, deque) else iter(file.readline, ""):
        if not line.endswith("\n"):
            file.seek(file.tell() - len(line.encode()))
            return
        yield line.rstrip("\n")


def _opened(path: Path) -> IO[str]:
    try:
        return path.open(encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def _same(path: Path, file: IO[str]) -> bool:
    try:
        now, then = path.stat(), os.fstat(file.fileno())
    except FileNotFoundError:
        return True
    return (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino)


def _wait() -> None:
    time.sleep(LOOK_SECONDS)


def _readable(line: str) -> str:
    """Time, level if it is warning or worse, and message; what is not a line of the daemon stays as it is."""
    try:
        entry = json.loads(line)
        level, message, at = entry["level"], entry["message"], entry["time"]
    except (ValueError, KeyError, TypeError):
        return one_line(line)
    shown = "" if level in ("info", "debug") else f"{level}: "
    return f"{str(at)[:19].replace('T', ' ')} {shown}{one_line(str(message))}"
