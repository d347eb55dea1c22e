"""A process that answers questions of people, and may be killed at any time.

It is started by `mirror.web.worker` and speaks with it over its standard input and output. A frame is a letter, the
length in four bytes, and the content. To the worker go

    A   {"id", "question", "arguments"}   answer this
    C   {"id"}                            break off the answer to this

and from it come

    R                          it is ready; sent once
    P   bytes                  a piece of the answer
    E   {"version", "spent"}   the end of the answer: the snapshot that was read, and whether to replace the worker
    X   {"error", "message", "spent"}   there is no answer; `error` is a class of `mirror.errors`, or "" for a bug

The end of its input ends the process at once, whatever it does, and so does the death of its parent. It inherits no
file but these two, writes none, and holds one snapshot open, which it closes when it is not asked for a while.
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from mirror.errors import NEXT_PUBLISHES, MirrorError, QueryError, unreadable
from mirror.query.questions import MEMORY, NEEDED_TOO_MUCH, OUT_OF_MEMORY, QUESTIONS, Lists
from mirror.settings.home import Home
from mirror.snapshot.connection import Watched, open_restricted, refusal, version_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ADDRESSES = MEMORY + (2 << 30)
"""Bytes of address space, which the kernel refuses to exceed. DuckDB reserves about twice of what it uses."""

OWN_MEMORY = 250_000_000
"""Bytes on top of MEMORY for the interpreter, libraries and the answer as text."""

SPENT = 500_000_000
"""A worker that holds so much after an answer is replaced."""

_MEMORY_LIMIT = f"{MEMORY // 10**6}MB"
THREADS = 2
PIECE = 1 << 20
IDLE_SECONDS = 30.0
"""A snapshot keeps its disk space as long as it is open, so that one which nobody asks for is closed."""

_LOOK = 0.05
"""Seconds between two looks at memory and cancelled questions while one is answered."""


def main(home: str, parent: int) -> None:
    """Answer questions until the input ends."""
    answers = os.dup(1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    # What a library says while it dies is kept as far as there is room for it.
    os.set_blocking(2, False)
    _die_with(parent)
    _limit()
    Worker(Home(Path(home), Path(home) / "config.toml"), answers).run()


@dataclass
class _Job:
    """A question that waits for its answer."""

    id: int
    question: str
    arguments: dict[str, Any]
    connection: Watched | None = None
    cancelled: bool = False


class Worker:
    """Answers one question after the other in its main thread, while another one listens and looks at the memory."""

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
            with self._newest().cursor() as cursor:
                job.connection = watched = Watched(cursor)
                try:
                    content = QUESTIONS[job.question](watched.as_connection(), job.arguments, self._lists)
                finally:
                    job.connection = None
                    for made in watched.open[1:]:
                        made.close()
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

    def _refuse(self, error: MirrorError) -> None:
        cause = error.__cause__
        if isinstance(cause, MemoryError | duckdb.OutOfMemoryException):
            self._send_json(b"X", error="QueryError", message=NEEDED_TOO_MUCH, spent=True)
            return
        spent = isinstance(cause, duckdb.FatalException | duckdb.InternalException) or _resident() > SPENT
        self._send_json(b"X", error=type(error).__name__, message=str(error), spent=spent)

    def _newest(self) -> DuckDBPyConnection:
        path = self._home.published
        try:
            while self._connection is None or version_of(path) != self._version:
                # Closed before the new one is opened: for the same path DuckDB would return the database that is open.
                self._close()
                self._version = version_of(path)
                self._connection = open_restricted(path, self._home.history, memory=_MEMORY_LIMIT, threads=THREADS)
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
        """Take what comes, break off what is cancelled, and end the process for its memory or with its input."""
        while True:
            ready, _, _ = select.select([0], [], [], _LOOK if self._job else None)
            if ready:
                self._heard(*_read())
            if self._job and _resident() > MEMORY + OWN_MEMORY:
                os._exit(OUT_OF_MEMORY)
            with self._lock:
                job = self._job
                if job and job.cancelled and job.connection:
                    # Again and again: an interruption between two statements is lost.
                    job.connection.interrupt_all()

    def _heard(self, kind: bytes, content: bytes) -> None:
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
        data = memoryview(kind + len(content).to_bytes(4, "big") + content)
        while data:
            data = data[os.write(self._answers, data) :]


def _read() -> tuple[bytes, bytes]:
    """The next frame of the input; its end is that of the process."""
    head = _exactly(5)
    return head[:1], _exactly(int.from_bytes(head[1:], "big"))


def _exactly(length: int) -> bytes:
    found = bytearray()
    while len(found) < length:
        piece = os.read(0, min(length - len(found), PIECE))
        if not piece:
            os._exit(0)
        found += piece
    return bytes(found)


def _die_with(parent: int) -> None:
    """Be killed when the parent dies, on Linux by the kernel; elsewhere the input ends."""
    # Ctrl-C in a terminal is for the daemon, which ends this process when it has ended what it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        # Where the machine runs out of memory, this process is to go and not the daemon.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if os.getppid() != parent:
        os._exit(0)


def _limit() -> None:
    """Bound the memory, write no file, leave no core dump of gigabytes behind."""
    addresses = _addresses() + ADDRESSES
    for name, limit in (("RLIMIT_AS", addresses), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
        # macOS refuses or ignores some of them; there the look at the memory remains.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(getattr(resource, name), (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _addresses() -> int:
    """Bytes of address space that are taken already; unknown ones are not counted."""
    return _statm(0)


def _resident() -> int:
    """Bytes of memory that the process takes now; elsewhere than on Linux the most that it ever took."""
    if sys.platform == "linux":
        return _statm(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _statm(place: int) -> int:
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - twenty times a second
            return int(file.read().split()[place]) * resource.getpagesize()
    except OSError:
        return 0
