"""A worker process as the daemon holds it: started, asked one question at a time, stopped, killed.

The other side, and what goes over the pipes, is `mirror/query/worker.py`. Everything here blocks: call it in threads.
"""

from __future__ import annotations

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
from typing import Any

import orjson

from mirror import errors
from mirror.errors import MirrorError, QueryError, StoreError, TimedOut
from mirror.query.questions import NEEDED_TOO_MUCH, OUT_OF_MEMORY
from mirror.settings.home import Home

START_SECONDS = 30.0
CLOSING_SECONDS = 2.0
GRACE_SECONDS = 0.5
"""How long a worker may take to break off what it does, before it is killed."""

LOOK_MS = 50
_PIECE = 1 << 20
_HEAD = 5
_KEPT_NAMES = ("HOME", "LANG", "PATH", "TMPDIR", "TZ", "VIRTUAL_ENV")
_KEPT_BEGINNINGS = ("DYLD_", "LC_", "LD_", "PYTHON")
"""The environment of a worker: nothing in it is secret."""


class Abandoned(MirrorError):
    """Nobody waits for the answer any more."""


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


class Worker:
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
                if self._room.poll(LOOK_MS):
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
            if self._answers.poll(LOOK_MS):
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
