"""The daemon's side of a worker process: start it, ask one question at a time, cancel, kill.

The worker's side and the protocol are in `mirror/query/worker.py`. Everything here blocks: call it in threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping
from typing import Any

import orjson
from msgspec import Struct

from mirror import errors
from mirror.errors import MirrorError, QueryError, StoreError, TimedOut
from mirror.query.questions import NEEDED_TOO_MUCH, OUT_OF_MEMORY
from mirror.settings.home import Home

START_SECONDS = 30.0
CLOSING_SECONDS = 2.0
GRACE_SECONDS = 0.5
"""How long a worker may take to cancel a question before it is killed."""

LOOK_MS = 50
_PIECE = 1 << 20
_HEAD = 5
_KEPT_NAMES = ("HOME", "LANG", "PATH", "TMPDIR", "TZ", "VIRTUAL_ENV")
_KEPT_BEGINNINGS = ("DYLD_", "LC_", "LD_", "PYTHON")
"""The variables that a worker inherits, none of which are secret: these names, and names with these prefixes."""


class Abandoned(MirrorError):
    """The client has disconnected."""


class _Over(Exception):
    """The wait is over for the reason in `_Wait.over`."""


class _Wait(Struct):
    """How long to wait for a worker."""

    closing: threading.Event
    cancelled: threading.Event | None
    seconds: float
    until: float = 0.0

    def begin(self, seconds: float) -> None:
        """Start the time now."""
        self.until = time.monotonic() + seconds

    @property
    def over(self) -> MirrorError | None:
        """Why not to wait any longer; None to keep waiting."""
        if self.closing.is_set():
            return StoreError("the daemon is stopping")
        if self.cancelled is not None and self.cancelled.is_set():
            return Abandoned("nobody waits for the answer")
        if time.monotonic() > self.until:
            return TimedOut(f"this took longer than {self.seconds:g} s and was stopped")
        return None


def harmless_environment() -> dict[str, str]:
    """The variables that other processes inherit, without secrets."""
    return {
        name: value for name, value in os.environ.items() if name in _KEPT_NAMES or name.startswith(_KEPT_BEGINNINGS)
    }


class Worker:
    """One worker process. It answers one question at a time."""

    def __init__(self, home: Home, closing: threading.Event, nice: int = 0) -> None:
        """Start the process. Raises OSError."""
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from mirror.query.worker import main;"
            f" main({str(home.data)!r}, {os.getpid()}, {str(home.scope or '')!r}, {nice})"
        )
        # Not forked, and with three pipes only: it must not inherit any of the daemon's files.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=harmless_environment(),
            bufsize=0,
            close_fds=True,
        )
        self._closing = closing
        self._input, self._output, self._errors = (
            stream.fileno() for stream in (self._process.stdin, self._process.stdout, self._process.stderr) if stream
        )
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            # As much as a piece of an answer, else a dozen switches between the processes for each.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, _PIECE)
        os.set_blocking(self._input, False)
        os.set_blocking(self._errors, False)
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
        """True if the process has ended; its pipes are closed then."""
        if self._process.poll() is None:
            return False
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        return True

    def kill(self) -> None:
        """Kill the process."""
        self.usable = False
        self._process.kill()

    def answer(
        self, question: str, arguments: Mapping[str, Any], seconds: float, cancelled: threading.Event | None
    ) -> Generator[bytes, None, str]:
        """Yield the pieces of the answer and return the version, as `Statements.stream` describes."""
        asked = _encoded({"id": self._asked + 1, "question": question, "arguments": arguments})
        self._asked += 1
        # Until the answer is complete: if the generator is closed early, the worker is still busy with it.
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
                yielded_at = time.monotonic()
                yield content
                wait.until += time.monotonic() - yielded_at
                kind, content = self._frame(wait)
        except _Over:
            reason = wait.over
            assert reason is not None
            self._cancel()
            raise reason from None
        message = json.loads(content)
        self.usable = not message["spent"]
        if kind == b"E":
            return str(message["version"])
        raise _error(message)

    def _cancel(self) -> None:
        """Cancel the question, and kill the process if it does not stop in time."""
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
        """The next frame. Raises _Over if the wait is over; what was received until then stays in the buffer."""
        while True:
            if len(self._buffer) >= _HEAD:
                end = _HEAD + int.from_bytes(self._buffer[1:_HEAD], "big")
                if len(self._buffer) >= end:
                    with memoryview(self._buffer) as buffer:
                        kind, content = bytes(buffer[:1]), bytes(buffer[_HEAD:end])
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
        """The error that says why the process ended."""
        code = self._process.wait(CLOSING_SECONDS)
        try:
            stderr = os.read(self._errors, _PIECE).decode(errors="replace")
        except BlockingIOError:
            stderr = ""
        if code == OUT_OF_MEMORY or "bad_alloc" in stderr:
            return QueryError(NEEDED_TOO_MUCH)
        lines = stderr.strip().splitlines()
        why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        why += f": {lines[-1]}" if lines else ""
        if not self._ready:
            return StoreError(f"the process that answers statements does not start ({why})")
        if code == -signal.SIGKILL:
            return QueryError(
                "the statement was killed by the system, which may be short of memory: request less at once"
            )
        return QueryError(f"the statement crashed the process that ran it ({why})")


def _encoded(message: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(message)
    except TypeError:
        raise QueryError("the text contains half of a character (a lone surrogate); remove or complete it") from None


def _error(message: Mapping[str, Any]) -> Exception:
    kind = getattr(errors, message["error"], None) if message["error"] else None
    if isinstance(kind, type) and issubclass(kind, MirrorError):
        return kind(message["message"])
    return RuntimeError(f"in the worker: {message['message']}")
