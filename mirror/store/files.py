"""Files that must not be lost: written whole, made durable, and put in place at once."""

from __future__ import annotations

import os
from pathlib import Path

_BLOCK = 8 << 20


def sync_file(path: Path) -> None:
    """Have the file's content on the disk before this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


sync_folder = sync_file
"""Have the names in a folder on the disk before this returns."""


def copy_from(descriptor: int, target: Path) -> int:
    """Write everything behind an open file into a new file, durably; the number of bytes.

    The source stays open: closing any descriptor of a file drops the lock that DuckDB holds on it in this process.
    """
    position = 0
    out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        while block := os.pread(descriptor, _BLOCK, position):
            view = memoryview(block)
            while view:
                view = view[os.write(out, view) :]
            position += len(block)
        os.fsync(out)
    finally:
        os.close(out)
    return position
