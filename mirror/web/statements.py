"""What people ask in their own words is answered in processes that may be killed, and not in the daemon.

A worker (`mirror/query/worker.py`) that takes too long, grows too large or crashes is killed and replaced; the question
fails with one line. Everything here blocks: call it in threads.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from starlette.types import Receive

from mirror import errors
from mirror.errors import MirrorError, QueryError, StoreError, TimedOut
from mirror.query.questions import NEEDED_TOO_MUCH, OUT_OF_MEMORY
from mirror.settings.home import Home

WORKERS = 3
"""Questions answered at once; further ones wait."""

MOST_BYTES = 64 << 20
"""Bytes of an answer that is taken whole."""

START_SECONDS = 30.0
CLOSING_SECONDS = 2.0
GRACE_SECONDS = 0.5
"""How long a worker may take to break off what it does, before it is killed."""

SPARE_SECONDS = 60.0
LAST_SECONDS = 300.0
"""An idle worker is ended after so long, the last one after longer, so that the page stays quick while it is used."""

_LOOK_MS = 50
_PIECE = 1 << 20
_HEAD = 5
_KEPT_NAMES = ("HOME", "LANG", "PATH", "TMPDIR", "TZ", "VIRTUAL_ENV")
_KEPT_BEGINNINGS = ("DYLD_", "LC_", "LD_", "PYTHON")
"""The environment of a worker: nothing in it is secret."""

_T = TypeVar("_T")


class Abandoned(MirrorError):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Answer:
    """An answer, and the version of the snapshot that was read for it."""

    content: bytes
    version: str


class Statements:
    """Has questions answered by a few workers, which are started when they are needed and kept for a while."""

    def __init__(self, home: Home, *, workers: int = WORKERS) -> None:
        self._home = home
        self._most = workers
        self._changed = threading.Condition()
        self._idle: list[_Worker] = []
        self._count = 0
        self._wanted = 0
        self._waiting = 0
        self._dying: list[_Worker] = []
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None
        self._failure: str | None = None

    def warm(self) -> None:
        """Have a worker ready soon."""
        with self._changed:
            if not self._count and not self._wanted:
                self._want()

    def ask(
        self, question: str, arguments: Mapping[str, Any], seconds: float, cancelled: threading.Event | None = None
    ) -> Answer:
        """The answer to one of `mirror.query.questions`, whole.

        Raises what the question raises, QueryError where it needs too much memory, TimedOut after so many seconds,
        Abandoned when `cancelled` is set, and StoreError when the daemon stops.
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
        """The same piece by piece, as fast as they are taken; what the generator returns is the version.

        The time of whoever takes them does not count. Closing it early ends the question.
        """
        worker = self._take(seconds, cancelled)
        try:
            return (yield from worker.answer(question, arguments, seconds, cancelled))
        finally:
            self._give_back(worker)

    def close(self) -> None:
        """Break everything off and end the workers."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        keeper = self._keeper
        if keeper is not None:
            keeper.join(CLOSING_SECONDS)

    def _take(self, seconds: float, cancelled: threading.Event | None) -> _Worker:
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
                    if self._wanted < self._waiting and self._count + self._wanted < self._most:
                        self._want()
                    self._changed.wait(_LOOK_MS / 1000)
                return worker
            finally:
                self._waiting -= 1

    def _alive(self) -> _Worker | None:
        """An idle worker, if there is one. Those that somebody killed meanwhile are forgotten."""
        while self._idle:
            worker = self._idle.pop()
            if not worker.ended:
                return worker
            self._count -= 1
        return None

    def _give_back(self, worker: _Worker) -> None:
        with self._changed:
            if worker.usable and not self._closing.is_set():
                worker.idle_since = time.monotonic()
                self._idle.append(worker)
            else:
                worker.kill()
                self._count -= 1
                self._dying.append(worker)
                # The next question is not to wait for a start.
                if not self._count and not self._wanted and not self._closing.is_set():
                    self._want()
            self._changed.notify_all()

    def _want(self) -> None:
        self._wanted += 1
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, name="statements", daemon=True)
            self._keeper.start()
        self._changed.notify_all()

    def _keep(self) -> None:
        """Start workers and end them.

        All in one thread that lives as long as any of them: Linux kills them with the thread that started them.
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
                    self._changed.wait(_LOOK_MS / 1000 if self._dying or self._closing.is_set() else 5.0)
                    continue
            self._start()

    def _start(self) -> None:
        made: _Worker | None = None
        try:
            made = _Worker(self._home, self._closing)
        except OSError as error:
            failure = f"no process for statements can be started: {error.strerror or error}"
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


class _Over(Exception):
    """There is a reason to wait no longer."""


@dataclass
class _Wait:
    """How long to wait for a worker."""

    closing: threading.Event
    cancelled: threading.Event | None
    seconds: float
    until: float = 0.0

    def begin(self, seconds: float) -> None:
        """The time runs from now on."""
        self.until = time.monotonic() + seconds

    @property
    def over(self) -> MirrorError | None:
        """Why to wait no longer."""
        if self.closing.is_set():
            return StoreError("the daemon is stopping")
        if self.cancelled is not None and self.cancelled.is_set():
            return Abandoned("nobody waits for the answer")
        if time.monotonic() > self.until:
            return TimedOut(f"this took longer than {self.seconds:g} s and was stopped")
        return None


class _Worker:
    """One process. It answers one question at a time."""

    def __init__(self, home: Home, closing: threading.Event) -> None:
        """Start it. Raises OSError."""
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from mirror.query.worker import main;"
            f" main({str(home.data)!r}, {os.getpid()})"
        )
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in _KEPT_NAMES or name.startswith(_KEPT_BEGINNINGS)
        }
        # A new process with three pipes: it must not hold any file of the daemon.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=kept,
            bufsize=0,
            close_fds=True,
        )
        self._closing = closing
        self._input, self._output, self._said = (
            stream.fileno() for stream in (self._process.stdin, self._process.stdout, self._process.stderr) if stream
        )
        os.set_blocking(self._input, False)
        os.set_blocking(self._said, False)
        self._answers, self._room = select.poll(), select.poll()
        self._answers.register(self._output, select.POLLIN)
        self._room.register(self._input, select.POLLOUT)
        self._buffer = bytearray()
        self._ready = False
        self._asked = 0
        self.usable = True
        self.idle_since = time.monotonic()

    @property
    def ended(self) -> bool:
        """Whether the process is gone, and nothing of it is left."""
        if self._process.poll() is None:
            return False
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        return True

    def kill(self) -> None:
        """End it at once."""
        self.usable = False
        self._process.kill()

    def answer(
        self, question: str, arguments: Mapping[str, Any], seconds: float, cancelled: threading.Event | None
    ) -> Generator[bytes, None, str]:
        """The pieces of the answer; returns the version. As `Statements.stream`."""
        asked = _encoded({"id": self._asked + 1, "question": question, "arguments": arguments})
        self._asked += 1
        # Whoever leaves early leaves a worker in the midst of its answer.
        self.usable = False
        wait = _Wait(self._closing, cancelled, seconds)
        try:
            if not self._ready:
                wait.begin(START_SECONDS)
                self._frame(wait)
                self._ready = True
            wait.begin(seconds)
            self._send(b"A", asked, wait)
            kind, content = self._frame(wait)
            while kind == b"P":
                handed_over = time.monotonic()
                yield content
                wait.until += time.monotonic() - handed_over
                kind, content = self._frame(wait)
        except _Over:
            reason = wait.over
            assert reason is not None
            self._break_off()
            raise reason from None
        told = json.loads(content)
        self.usable = not told["spent"]
        if kind == b"E":
            return str(told["version"])
        raise _refusal(told)

    def _break_off(self) -> None:
        """Have it stop what it does, and kill it if it does not."""
        if self._ready and not self._closing.is_set():
            wait = _Wait(self._closing, None, GRACE_SECONDS)
            wait.begin(GRACE_SECONDS)
            try:
                self._send(b"C", _encoded({"id": self._asked}), wait)
                kind, content = self._frame(wait)
                while kind == b"P":
                    kind, content = self._frame(wait)
                self.usable = not json.loads(content)["spent"]
            except (_Over, MirrorError):
                self.kill()
        else:
            self.kill()

    def _send(self, kind: bytes, text: bytes, wait: _Wait) -> None:
        data = memoryview(kind + len(text).to_bytes(4, "big") + text)
        try:
            while data:
                if self._room.poll(_LOOK_MS):
                    data = data[os.write(self._input, data[:_PIECE]) :]
                elif wait.over:
                    raise _Over
        except BrokenPipeError:
            raise self._death() from None

    def _frame(self, wait: _Wait) -> tuple[bytes, bytes]:
        """The next frame. Raises _Over when there is a reason to wait no longer; nothing that came is lost then."""
        while True:
            if len(self._buffer) >= _HEAD:
                end = _HEAD + int.from_bytes(self._buffer[1:_HEAD], "big")
                if len(self._buffer) >= end:
                    kind, content = bytes(self._buffer[:1]), bytes(self._buffer[_HEAD:end])
                    del self._buffer[:end]
                    return kind, content
            if self._answers.poll(_LOOK_MS):
                piece = os.read(self._output, _PIECE)
                if not piece:
                    raise self._death()
                self._buffer += piece
            elif wait.over:
                raise _Over

    def _death(self) -> MirrorError:
        """Why the process is gone."""
        code = self._process.wait(CLOSING_SECONDS)
        try:
            said = os.read(self._said, _PIECE).decode(errors="replace")
        except BlockingIOError:
            said = ""
        if code == OUT_OF_MEMORY or "bad_alloc" in said:
            return QueryError(NEEDED_TOO_MUCH)
        lines = said.strip().splitlines()
        why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        why += f": {lines[-1]}" if lines else ""
        if not self._ready:
            return StoreError(f"the process that answers statements does not start ({why})")
        if code == -signal.SIGKILL:
            return QueryError(
                "the statement was ended by the system, which may be short of memory: ask for less at once"
            )
        return QueryError(f"the statement brought down the process that ran it ({why})")


def _encoded(message: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(message)
    except TypeError:
        raise QueryError("the text holds half of a character (a lone surrogate); write it whole") from None


def _refusal(told: Mapping[str, Any]) -> Exception:
    kind = getattr(errors, told["error"], None) if told["error"] else None
    if isinstance(kind, type) and issubclass(kind, MirrorError):
        return kind(told["message"])
    return RuntimeError(f"in the worker: {told['message']}")


async def unless_left(receive: Receive, work: asyncio.Future[_T], cancelled: threading.Event) -> _T:
    """What the work in a thread returns. `cancelled` is set when the client leaves before it is done."""
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
