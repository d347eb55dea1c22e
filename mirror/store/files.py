"""Files that must not be lost: written whole, made durable, and put in place at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
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


def copy_from(descriptor: int, target: Path, *, first: int = _BLOCK, see: Callable[[bytes], None] | None = None) -> int:
    """Write everything behind an open file into a new file, durably; the number of bytes.

    `see` is shown each piece, the first of which has `first` bytes.

    The source stays open: closing any descriptor of a file drops the lock that DuckDB holds on it in this process.
    """
    position = 0
    out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        while block := os.pread(descriptor, _BLOCK if position else first, position):
            if see is not None:
                see(block)
            view = memoryview(block)
            while view:
                view = view[os.write(out, view) :]
            position += len(block)
        os.fsync(out)
    finally:
        os.close(out)
    return position


def copy(source: Path, target: Path) -> int:
    """Write a file's content into a new file, durably, for the owner alone; the number of bytes."""
    descriptor = os.open(source, os.O_RDONLY)
    try:
        return copy_from(descriptor, target)
    finally:
        os.close(descriptor)


def digest(path: Path) -> str:
    """The SHA-256 of a file; a gigabyte a second."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
