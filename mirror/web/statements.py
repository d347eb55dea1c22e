"""Runs users' SQL and filters in worker processes, which may be killed, and not in the daemon.

A worker (`mirror/web/worker.py`) that takes too long, uses too much memory or crashes is killed and replaced, and the
question fails with a one-line error. Everything here blocks: call it in threads.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

from msgspec import Struct
from starlette.types import Receive

from mirror.errors import QueryError, StoreError, TimedOut
from mirror.settings.home import Home
from mirror.web.worker import CLOSING_SECONDS, LOOK_MS, Abandoned, Worker

WORKERS = 3
"""How many questions are answered at once; further ones wait."""

MOST_BYTES = 64 << 20
"""The longest answer that `ask` accepts, in bytes."""

SPARE_SECONDS = 60.0
LAST_SECONDS = 300.0
"""An idle worker is ended after SPARE_SECONDS, the last one after LAST_SECONDS, so that the page stays fast in use."""

_T = TypeVar("_T")


class Answer(Struct, frozen=True):
    """An answer, and the version of the snapshot that it was read from."""

    content: bytes
    version: str


class Statements:
    """A few workers that answer questions. They are started when needed and kept for a while."""

    def __init__(self, home: Home, *, workers: int = WORKERS, nice: int = 0) -> None:
        """`workers` is how many questions are answered at once, `nice` by how much they give way to other processes."""
        self._home = home
        self._nice = nice
        self._most = workers
        self._changed = threading.Condition()
        self._idle: list[Worker] = []
        self._count = 0
        self._wanted = 0
        self._waiting = 0
        self._dying: list[Worker] = []
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None
        self._failure: str | None = None

    def warm(self) -> None:
        """Start a worker in the background if there is none."""
        with self._changed:
            if not self._count and not self._wanted:
                self._want()

    def ask(
        self, question: str, arguments: Mapping[str, Any], seconds: float, cancelled: threading.Event | None = None
    ) -> Answer:
        """The complete answer to one of `mirror.query.questions`.

        Raises what the question raises, QueryError if it needs too much memory, TimedOut after `seconds`, Abandoned if
        `cancelled` is set, and StoreError if the daemon stops.
        """
        reading = self.stream(question, arguments, seconds, cancelled)
        parts: list[bytes] = []
        length = 0
        while True:
            try:
                parts.append(next(reading))
            except StopIteration as end:
                return Answer(b"".join(parts), end.value)
            length += len(parts[-1])
            if length > MOST_BYTES:
                reading.close()
                raise QueryError(f"the answer is longer than {MOST_BYTES >> 20} MiB; ask for less")

    def stream(
        self, question: str, arguments: Mapping[str, Any], seconds: float, cancelled: threading.Event | None = None
    ) -> Generator[bytes, None, str]:
        """Like `ask`, but yields the answer in pieces, as fast as they are consumed, and returns the version.

        The consumer's own time does not count towards `seconds`. Closing the generator early cancels the question.
        """
        worker = self._acquire(seconds, cancelled)
        try:
            return (yield from worker.answer(question, arguments, seconds, cancelled))
        finally:
            self._release(worker)

    def close(self) -> None:
        """Cancel all questions and end the workers."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        keeper = self._keeper
        if keeper is not None:
            keeper.join(CLOSING_SECONDS)

    def _acquire(self, seconds: float, cancelled: threading.Event | None) -> Worker:
        until = time.monotonic() + seconds
        with self._changed:
            self._failure = None
            self._waiting += 1
            try:
                while not (worker := self._alive()):
                    if self._closing.is_set():
                        raise StoreError("the daemon is stopping")
                    if cancelled is not None and cancelled.is_set():
                        raise Abandoned("nobody waits for the answer")
                    if self._failure is not None:
                        raise StoreError(self._failure)
                    if time.monotonic() > until:
                        raise TimedOut(f"other statements took all of {seconds:g} s; try again")
                    if self._keeper is not None and not self._keeper.is_alive():
                        # It crashed with what was wanted of it.
                        self._wanted = 0
                    if self._wanted < self._waiting and self._count + self._wanted < self._most:
                        self._want()
                    self._changed.wait(LOOK_MS / 1000)
                return worker
            finally:
                self._waiting -= 1

    def _alive(self) -> Worker | None:
        """An idle worker, or None. Workers that were killed from outside are dropped."""
        while self._idle:
            worker = self._idle.pop()
            if not worker.ended:
                return worker
            self._count -= 1
        return None

    def _release(self, worker: Worker) -> None:
        with self._changed:
            if worker.usable and not self._closing.is_set():
                worker.idle_since = time.monotonic()
                self._idle.append(worker)
            else:
                worker.kill()
                self._count -= 1
                self._dying.append(worker)
                # So that the next question need not wait for a start.
                if not self._count and not self._wanted and not self._closing.is_set():
                    self._want()
            self._changed.notify_all()

    def _want(self) -> None:
        """Have the keeper start a worker. If no keeper can be started, all waiting calls fail with that error."""
        if self._keeper is None or not self._keeper.is_alive():
            keeper = threading.Thread(target=self._keep, name="statements", daemon=True)
            try:
                keeper.start()
            except RuntimeError as error:
                self._keeper, self._wanted = None, 0
                self._failure = f"no thread for statements can be started: {error}"
                self._changed.notify_all()
                return
            self._keeper = keeper
        self._wanted += 1
        self._changed.notify_all()

    def _keep(self) -> None:
        """Start and end workers.

        In one thread that outlives all of them, since Linux kills them when the thread that started them ends.
        """
        while True:
            with self._changed:
                if self._closing.is_set():
                    self._wanted = 0
                    for worker in self._idle:
                        worker.kill()
                    self._count -= len(self._idle)
                    self._dying += self._idle
                    self._idle.clear()
                self._end_idle()
                self._dying = [worker for worker in self._dying if not worker.ended]
                if not self._count and not self._wanted and not self._dying:
                    self._keeper = None
                    return
                if not self._wanted:
                    self._changed.wait(LOOK_MS / 1000 if self._dying or self._closing.is_set() else 5.0)
                    continue
            self._start()

    def _start(self) -> None:
        made: Worker | None = None
        failure = ""
        try:
            made = Worker(self._home, self._closing, self._nice)
        except OSError as error:
            failure = f"no process for statements can be started: {error.strerror or error}"
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait hear of it, and the keeper goes on
            failure = f"no process for statements can be started: {type(error).__name__}: {error}"
        with self._changed:
            self._wanted = max(self._wanted - 1, 0)
            if made is None:
                self._failure = failure
            else:
                self._count += 1
                self._idle.append(made)
            self._changed.notify_all()

    def _end_idle(self) -> None:
        now = time.monotonic()
        for worker in list(self._idle):
            if now - worker.idle_since > (SPARE_SECONDS if self._count > 1 else LAST_SECONDS):
                self._idle.remove(worker)
                self._count -= 1
                worker.kill()
                self._dying.append(worker)


async def unless_left(receive: Receive, work: asyncio.Future[_T], cancelled: threading.Event) -> _T:
    """Return the result of work in a thread. Sets `cancelled` if the client disconnects before it is done."""
    left = asyncio.ensure_future(_left(receive))
    either: list[asyncio.Future[Any]] = [work, left]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            cancelled.set()
        return await work
    finally:
        cancelled.set()
        left.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
