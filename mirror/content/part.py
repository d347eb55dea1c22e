"""A download under way: a file that grows, and the digests of what is in it."""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from mirror.threads import in_thread

_PIECE = 1 << 20


class Part:
    """Receives a content of `expected` bytes into the file at `path`; what an earlier try left there is kept.

    With `resumable` off, a download that breaks off must begin again: nothing would show that the content changed.
    Writing, restarting and what an earlier try left may have to wait for the disk: that is for threads.
    """

    def __init__(self, path: Path, expected: int, *, resumable: bool) -> None:
        self.path = path
        self.expected = expected
        self.resumable = resumable
        self.size = 0
        self._guard = threading.Lock()
        self._used = self._closed = False
        self._start()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if resumable:
                self._read_earlier()
            else:
                self.restart()
        except BaseException:
            os.close(self._descriptor)
            raise

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Keep the file open for the block. Raises OSError if it is closed already."""
        with self._guard:
            if self._closed:
                raise OSError(errno.EBADF, "the download was cancelled")
            self._used = True
        try:
            yield
        finally:
            with self._guard:
                self._used = False
                if self._closed:
                    os.close(self._descriptor)

    def _start(self) -> None:
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def _read_earlier(self) -> None:
        """Add what is in the file to the digests; a file that is too long is emptied."""
        if os.fstat(self._descriptor).st_size > self.expected:
            self.restart()
        while piece := os.read(self._descriptor, _PIECE):
            self._add(piece)

    def _add(self, piece: bytes | bytearray) -> None:
        self._sha256.update(piece)
        self._md5.update(piece)
        self.size += len(piece)

    def write(self, piece: bytes | bytearray) -> None:
        """Add the next bytes. Raises OSError if the disk fails."""
        with self._open():
            view = memoryview(piece)
            while view:
                view = view[os.write(self._descriptor, view) :]
            self._add(piece)

    def restart(self) -> None:
        """Drop everything that was received."""
        with self._open():
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            self.size = 0
            self._start()

    @property
    def digest(self) -> str:
        """The SHA-256 of what was received, in hexadecimal."""
        return self._sha256.hexdigest()

    def fault(self, md5: str | None) -> str | None:
        """Return why this is not the content that the server lists, with this MD5 in Base64; None if it is."""
        if self.size != self.expected:
            return f"has {self.size:,} bytes instead of {self.expected:,}"
        if (wanted := checkable(md5)) is not None and self._md5.digest() != wanted:
            return "has another MD5 digest than the server lists"
        return None

    def close(self) -> None:
        """Close the file, which stays for the next try unless it is empty.

        One that a thread is still writing is closed by that thread: until then its descriptor must not be used again.
        """
        with self._guard:
            closes = not self._closed and not self._used
            self._closed = True
        if closes:
            os.close(self._descriptor)
        if not self.size:
            self.path.unlink(missing_ok=True)


@asynccontextmanager
async def opened(path: Path, expected: int, *, resumable: bool) -> AsyncIterator[Part]:
    """Open a part for the block; in a thread if it was begun before, since it may hold gigabytes."""

    def begin() -> Part:
        return Part(path, expected, resumable=resumable)

    # A thread for each small file would take longer than the rest of it.
    part = await in_thread(begin, Part.close) if _was_begun(path) else begin()
    try:
        yield part
    finally:
        part.close()


def _was_begun(path: Path) -> bool:
    return path.exists()


def checkable(md5: str | None) -> bytes | None:
    """Return the MD5 digest; None for none, and for what some object stores list in its place."""
    try:
        digest = base64.b64decode(md5 or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == hashlib.md5(usedforsecurity=False).digest_size else None
