"""Writes files that must not be lost: completely, durably, and atomically."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from mirror.errors import StoreError

_BLOCK = 1 << 20

_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO}
"""Reading fails with these if a file is lost or damaged. With others, such as a missing permission, it may be whole."""


def sync_file(path: Path) -> None:
    """Flush the file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


sync_folder = sync_file
"""Flush the names in a folder to the disk."""


def copy_from(
    descriptor: int, target: Path, *, first: int = _BLOCK, on_piece: Callable[[bytes], None] | None = None
) -> int:
    """Copy an open file to a new file, durably. Returns the number of bytes.

    `on_piece` is called with each piece; the first one has `first` bytes.
    The source stays open: closing any descriptor of a file releases the lock that DuckDB has on it in this process.
    """
    position = 0
    out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        while block := os.pread(descriptor, _BLOCK if position else first, position):
            if on_piece is not None:
                on_piece(block)
            view = memoryview(block)
            while view:
                view = view[os.write(out, view) :]
            position += len(block)
        os.fsync(out)
    finally:
        os.close(out)
    return position


def copy(source: Path, target: Path) -> int:
    """Copy a file to a new file, durably, readable by its owner only. Returns the number of bytes."""
    descriptor = os.open(source, os.O_RDONLY)
    try:
        return copy_from(descriptor, target)
    finally:
        os.close(descriptor)


def digest(path: Path) -> str:
    """The SHA-256 of a file, at about a gigabyte per second."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def problem(path: Path, size: int, recorded: str | None = None) -> str | None:
    """What is wrong with a file: its size or, if its digest is given, its content. None if nothing is wrong."""
    try:
        found = path.stat().st_size
        if found != size:
            return f"a file of {found:,} bytes"
        if recorded is not None and digest(path) != recorded:
            return "a file that was changed since it was written"
    except FileNotFoundError:
        return "no file"
    except OSError as error:
        return f"a file that cannot be read ({error.strerror or error})"
    return None


def check_damaged(path: Path) -> None:
    """Raise StoreError if a file that seems damaged may be whole, but cannot be read now. Call it before a repair."""
    try:
        digest(path)
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise StoreError(
                f"{path} cannot be read ({error.strerror or error}), but may be whole, so it is not repaired; check "
                "who owns it, and its disk"
            ) from error
