"""A download under way: a file that grows, and the digests of what is in it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

_PIECE = 1 << 20


class Part:
    """Receives a content of `expected` bytes into the file at `path`; what an earlier try left there is kept.

    With `resumable` off, a download that breaks off must begin again: nothing would show that the content changed.
    """

    def __init__(self, path: Path, expected: int, *, resumable: bool) -> None:
        self.path = path
        self.expected = expected
        self.resumable = resumable
        self.size = 0
        self._start()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if resumable:
                self._read_earlier()
            else:
                self.restart()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if not self.size:
            self.path.unlink(missing_ok=True)

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
        view = memoryview(piece)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._add(piece)

    def restart(self) -> None:
        """Drop everything that was received."""
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
        """Close the file, which stays for the next try."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def checkable(md5: str | None) -> bytes | None:
    """Return the MD5 digest; None for none, and for what some object stores list in its place."""
    try:
        digest = base64.b64decode(md5 or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == hashlib.md5(usedforsecurity=False).digest_size else None
