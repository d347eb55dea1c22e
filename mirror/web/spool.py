"""Keeps what a worker has answered until the client has read it, so that slow clients do not keep a worker."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

from mirror.web.worker import Abandoned

IN_MEMORY = 4 << 20
"""Bytes of an answer that are kept in memory; what follows goes to a temporary file."""

MOST_WAITING = 1 << 30
"""Bytes of an answer that are kept at all. Beyond this the worker waits for the client."""

_PIECE = 1 << 20


class Spool:
    """A queue of bytes from a thread to the event loop, in which it must be created."""

    def __init__(self, folder: Path) -> None:
        """Prepare to keep bytes; a file in `folder`, without a name, is opened when it is needed."""
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._file: IO[bytes] | None = None
        self._written = 0
        self._read = 0
        self._ended = False
        self._error: BaseException | None = None
        self.abandoned = threading.Event()

    def fill(self, pieces: Iterator[bytes]) -> None:
        """Keep all pieces, in a thread. An error is raised by `pieces` after those that came before it."""
        try:
            for piece in pieces:
                self._put(piece)
        except BaseException as error:  # noqa: BLE001 - raised where the pieces are read
            self._error = error
        finally:
            with self._changed:
                self._ended = True
            self._notify()

    def abandon(self) -> None:
        """Have the thread end soon: nobody reads any more."""
        self.abandoned.set()
        with self._changed:
            self._changed.notify_all()
            self._close()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield what arrived, as it arrives; raise the error that ended it."""
        while True:
            self._arrived.clear()
            with self._changed:
                piece = self._next()
                ended = self._ended
            if piece is None and self._read < self._written:
                piece = await asyncio.to_thread(self._from_file)
            if piece is not None:
                yield piece
            elif ended:
                if self._error is not None:
                    raise self._error
                return
            else:
                await self._arrived.wait()

    def _put(self, piece: bytes) -> None:
        with self._changed:
            while self._held + self._written - self._read > MOST_WAITING and not self.abandoned.is_set():
                self._changed.wait()
            if self.abandoned.is_set():
                raise Abandoned("nobody waits for the answer")
            if self._written == self._read and (not self._held or self._held + len(piece) <= IN_MEMORY):
                self._pieces.append(piece)
                self._held += len(piece)
            else:
                self._to_file(piece)
        self._notify()

    def _next(self) -> bytes | None:
        if not self._pieces:
            return None
        piece = self._pieces.popleft()
        self._held -= len(piece)
        self._changed.notify_all()
        return piece

    def _to_file(self, piece: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with the spool
        elif self._written == self._read:
            self._file.truncate(0)
            self._written = self._read = 0
        self._file.seek(self._written)
        self._file.write(piece)
        self._written += len(piece)

    def _from_file(self) -> bytes | None:
        with self._changed:
            if self._file is None:
                return None
            self._file.seek(self._read)
            piece = self._file.read(min(_PIECE, self._written - self._read))
            self._read += len(piece)
            self._changed.notify_all()
            return piece

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._written = self._read = 0

    def _notify(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)
