"""Where a file goes while it comes in: into memory as long as it is small, onto the disk beyond."""

from __future__ import annotations

from io import BufferedWriter
from pathlib import Path
from types import TracebackType
from typing import Self

Source = bytes | Path
"""What a file holds, or where it lies."""


class Sink:
    """Takes a file piece by piece. Its folder is made once it is needed, private to this user."""

    def __init__(self, path: Path, in_memory: int) -> None:
        self._path = path
        self._in_memory = in_memory
        self._content = bytearray()
        self._file: BufferedWriter | None = None

    def write(self, piece: bytes) -> None:
        """Take the next piece. Raises OSError where the disk does not."""
        if self._file is None and len(self._content) + len(piece) <= self._in_memory:
            self._content += piece
            return
        if self._file is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._path.open("wb")
            self._file.write(self._content)
            self._content.clear()
        self._file.write(piece)

    def source(self) -> Source:
        """What was taken."""
        if self._file is None:
            return bytes(self._content)
        self._file.flush()
        return self._path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
