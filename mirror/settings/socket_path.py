"""The address of the control socket: a Unix socket's path may have about 100 bytes, that of a home more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirror.errors import UsageError

LIMIT = 103
"""Bytes that macOS accepts in the path of a Unix socket; Linux accepts four more."""

_DESCRIPTORS = Path("/proc/self/fd")


def problem(path: Path) -> str | None:
    """Return why no socket can be created at this path, or None."""
    length = len(os.fsencode(path))
    if length <= LIMIT or _DESCRIPTORS.is_dir():
        return None
    return f"{path} is {length} bytes long, more than the {LIMIT} that a socket's path may have here"


@contextmanager
def address(path: Path) -> Iterator[str]:
    """Yield a path for `bind` and `connect` that leads to `path`, however long that is; valid within the block.

    On Linux a longer path goes through a descriptor of its folder. Raises UsageError on systems without those.
    """
    if len(os.fsencode(path)) <= LIMIT:
        yield str(path)
        return
    if reason := problem(path):
        raise UsageError(f"{reason}; use a shorter MIRROR_HOME")
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield str(_DESCRIPTORS / str(folder) / path.name)
    finally:
        os.close(folder)
