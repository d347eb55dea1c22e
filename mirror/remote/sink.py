"""The target of a download: memory while it is small, a file on disk once it is larger."""

from __future__ import annotations

from io import BufferedWriter
from pathlib import Path
from types import TracebackType
from typing import Self

Source = bytes | Path
"""A file's content, or its path."""


class Sink:
    """Receives a file piece by piece. Its folder is made when it is needed, private to this user."""

    def __init__(self, path: Path, in_memory: int) -> None:
        self._path = path
        self._in_memory = in_memory
        self._pieces: list[bytes] = []
        self._size = 0
        self._file: BufferedWriter | None = None

    def write(self, piece: bytes) -> None:
        """Write the next piece. Raises OSError if the disk fails."""
        self._size += len(piece)
        if self._size <= self._in_memory:
            self._pieces.append(piece)
            return
        if self._file is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._path.open("wb")
            self._file.writelines(self._pieces)
            self._pieces.clear()
        self._file.write(piece)

    def source(self) -> Source:
        """Return what was written: its bytes, or the path of the file."""
        if self._file is None:
            return b"".join(self._pieces)
        self._file.flush()
        return self._path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
