"""How the control socket is reached: the path of a Unix socket may have some hundred bytes, that of a home more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirror.errors import UsageError

LIMIT = 103
"""Bytes that macOS takes in the path of a Unix socket; Linux takes four more."""

_DESCRIPTORS = Path("/proc/self/fd")


def problem(path: Path) -> str | None:
    """Why no socket can be at this path, or None where one can."""
    length = len(os.fsencode(path))
    if length <= LIMIT or _DESCRIPTORS.is_dir():
        return None
    return f"{path} is {length} bytes long, more than the {LIMIT} that a socket's path may have here"


@contextmanager
def address(path: Path) -> Iterator[str]:
    """A path for `bind` and `connect` that leads to this one, however long it is; it holds within the block.

    On Linux a longer one leads through a descriptor of the folder. Raises UsageError where that cannot be had.
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
