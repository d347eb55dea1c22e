"""A process that answers users' questions, and may be killed at any time.

`mirror.web.worker` starts it and communicates with it over its standard input and output. A frame is a letter, the
length in four bytes, and the content. The worker receives

    A   {"id", "question", "arguments"}   answer this
    C   {"id"}                            cancel the answer to this

and sends

    R                          it is ready; sent once
    P   bytes                  a piece of the answer
    E   {"version", "spent"}   the end of the answer: the snapshot that was read, and whether to replace the worker
    X   {"error", "message", "spent"}   it failed; `error` is a class of `mirror.errors`, or "" for a bug

The process ends at once, whatever it is doing, when its input ends or its parent dies. It inherits only these two
files, writes no others, and keeps one snapshot open, which it closes after a while without questions.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import resource
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from msgspec import Struct

from mirror import errors
from mirror.errors import NEXT_PUBLISHES, MirrorError, QueryError, unreadable
from mirror.query.questions import MEMORY, NEEDED_TOO_MUCH, OUT_OF_MEMORY, Lists, find
from mirror.settings.home import Home
from mirror.snapshot.connection import Watched, open_restricted, refusal, version_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ADDRESSES = MEMORY + (2 << 30)
"""Limit on the address space in bytes, set in the kernel. DuckDB reserves about twice what it uses."""

OWN_MEMORY = 250_000_000
"""Bytes on top of MEMORY for the interpreter, libraries and the answer as text."""

SPENT = 500_000_000
"""A worker that still uses more memory than this after an answer is replaced."""

_MEMORY_LIMIT = f"{MEMORY // 10**6}MB"
THREADS = 2
PIECE = 1 << 20
IDLE_SECONDS = 30.0
"""An unused snapshot is closed after this, because it keeps its disk space while it is open."""

_CHECK_INTERVAL = 0.05
"""Seconds between two checks of memory and cancellation while a question is answered."""


def main(home: str, parent: int, scope: str = "", nice: int = 0) -> None:
    """Answer questions until the input ends; about the copy in the folder `scope`, if it is named."""
    answers = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    # What a crashing library writes to stderr is kept as long as it fits in the pipe.
    os.set_blocking(2, False)
    _die_with(parent)
    _limit()
    os.nice(nice)
    Worker(Home(Path(home), Path(home) / "config.toml", Path(scope) if scope else None), answers).run()


class _Job(Struct):
    """A question that waits for its answer."""

    id: int
    question: str
    arguments: dict[str, Any]
    connection: Watched | None = None
    cancelled: bool = False


class Worker:
    """Answers one question at a time in its main thread; a second thread reads the input and checks the memory."""

    def __init__(self, home: Home, answers: int) -> None:
        self._home = home
        self._answers = answers
        self._asked: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._job: _Job | None = None
        self._lock = threading.Lock()
        self._version = ""
        self._lists: Lists = {}
        self._connection: DuckDBPyConnection | None = None

    def run(self) -> None:
        """Answer until the process is ended."""
        threading.Thread(target=self._listen, daemon=True).start()
        self._send(b"R")
        while True:
            try:
                job = self._asked.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                self._close()
                continue
            self._answer(job)

    def _answer(self, job: _Job) -> None:
        try:
            with self._opened(job.arguments.get("file")).cursor() as cursor:
                job.connection = watched = Watched(cursor)
                try:
                    found = find(job.question)(watched.as_connection(), job.arguments, self._lists)
                    content = found if isinstance(found, bytes) else self._send_pieces(found)
                finally:
                    job.connection = None
                    for opened in watched.open[1:]:
                        opened.close()
            for start in range(0, len(content), PIECE):
                self._send(b"P", content[start : start + PIECE])
            self._send_json(b"E", version=self._version, spent=_resident() > SPENT)
        except (MemoryError, duckdb.OutOfMemoryException):
            self._send_json(b"X", error="QueryError", message=NEEDED_TOO_MUCH, spent=True)
        except duckdb.Error as error:
            refused = refusal(error)
            refused.__cause__ = error
            self._refuse(refused)
        except MirrorError as error:
            self._refuse(error)
        except Exception:  # noqa: BLE001 - the daemon logs it
            self._send_json(b"X", error="", message=traceback.format_exc(), spent=True)
        finally:
            with self._lock:
                self._job = None

    def _send_pieces(self, pieces: Iterator[bytes]) -> bytes:
        """Send all pieces as they are made, but the last one, which is returned: after it nothing can fail."""
        last = b""
        for piece in pieces:
            if last:
                self._send(b"P", last)
            last = piece
        return last

    def _refuse(self, error: MirrorError) -> None:
        cause = error.__cause__
        if isinstance(cause, MemoryError | duckdb.OutOfMemoryException):
            self._send_json(b"X", error="QueryError", message=NEEDED_TOO_MUCH, spent=True)
            return
        spent = isinstance(cause, duckdb.FatalException | duckdb.InternalException) or _resident() > SPENT
        # A class of another module is sent as the one that it is a kind of.
        kind = next(one for one in type(error).__mro__ if one.__module__ == errors.__name__)
        self._send_json(b"X", error=kind.__name__, message=str(error), spent=spent)

    def _opened(self, kept: str | None) -> DuckDBPyConnection:
        """The newest snapshot, or one that is kept in a file of its own."""
        path = Path(kept) if kept else self._home.published
        try:
            while self._connection is None or version_of(path) != self._version:
                # Closed before the new one is opened: for the same path DuckDB would return the database that is open.
                self._close()
                self._version = version_of(path)
                self._connection = open_restricted(
                    path,
                    self._home.history,
                    memory=_MEMORY_LIMIT,
                    threads=THREADS,
                    limited=self._home.scope is not None,
                )
        except FileNotFoundError:
            raise QueryError("nothing is mirrored yet") from None
        except duckdb.OutOfMemoryException:
            raise
        except (OSError, duckdb.Error) as error:
            raise unreadable(path, error, NEXT_PUBLISHES) from error
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._version, self._lists = None, "", {}

    def _listen(self) -> None:
        """Read the input, interrupt cancelled questions, and end the process if it uses too much memory."""
        while True:
            ready, _, _ = select.select([0], [], [], _CHECK_INTERVAL if self._job else None)
            if ready:
                self._receive(*_read())
            if self._job and _resident() > MEMORY + OWN_MEMORY:
                os._exit(OUT_OF_MEMORY)
            with self._lock:
                job = self._job
                if job and job.cancelled and job.connection:
                    # At every check: an interruption between two statements has no effect.
                    job.connection.interrupt_all()

    def _receive(self, kind: bytes, content: bytes) -> None:
        message = json.loads(content)
        with self._lock:
            if kind == b"A":
                self._job = _Job(message["id"], message["question"], message["arguments"])
                self._asked.put(self._job)
            elif self._job and self._job.id == message["id"]:
                self._job.cancelled = True

    def _send_json(self, kind: bytes, **content: Any) -> None:
        self._send(kind, json.dumps(content).encode())

    def _send(self, kind: bytes, content: bytes = b"") -> None:
        for part in (kind + len(content).to_bytes(4, "big"), content):
            data = memoryview(part)
            while data:
                data = data[os.write(self._answers, data) :]


def _read() -> tuple[bytes, bytes]:
    """The next frame of the input; the process ends if the input does."""
    head = _exactly(5)
    return head[:1], _exactly(int.from_bytes(head[1:], "big"))


def _exactly(length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = os.read(0, min(length - len(data), PIECE))
        if not piece:
            os._exit(0)
        data += piece
    return bytes(data)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, on Linux; elsewhere the end of the input does that."""
    # Ctrl-C in a terminal is for the daemon, which ends this process once it has finished its own work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        # If the machine runs out of memory, this process should be killed and not the daemon.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if os.getppid() != parent:
        os._exit(0)


def _limit() -> None:
    """Limit the memory, and prevent writing files and core dumps of gigabytes."""
    addresses = _addresses() + ADDRESSES
    for name, limit in (("RLIMIT_AS", addresses), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
        # macOS refuses or ignores some of these limits; there only the memory check protects.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(getattr(resource, name), (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _addresses() -> int:
    """Bytes of address space that are in use already; 0 where that is unknown."""
    return _statm(0)


def _resident() -> int:
    """Bytes of memory that the process uses now; on other systems than Linux, its maximum until now."""
    if sys.platform == "linux":
        return _statm(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _statm(field: int) -> int:
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - twenty times a second
            return int(file.read().split()[field]) * resource.getpagesize()
    except OSError:
        return 0
