"""Keeps the newest published snapshot open while requests use it, in a process that also writes the mirror."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from mirror.errors import NEXT_PUBLISHES, MirrorError, QueryError, StoreError, TimedOut, unreadable
from mirror.settings.home import Home
from mirror.snapshot.connection import Watched, open_restricted, version_of
from mirror.snapshot.pins import Pins, link

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "2GB"
"""Memory limit for the queries of all requests together. They do not spill to disk, where the daemon's files are."""

THREADS = 2
IDLE_SECONDS = 30.0
"""An unused snapshot is closed after this: an open one keeps its disk space after a newer one is published."""

_CHECK_INTERVAL = 0.1
"""Seconds between two checks whether a query must end."""

_IDLE_CHECKS = 50
_CLOSING_SECONDS = 1.0


class _Open(Struct):
    """An open snapshot, how many requests use it, and since when none does."""

    version: str
    connection: DuckDBPyConnection
    users: int = 0
    idle_since: float = 0.0


class SnapshotPool:
    """Opens connections to the newest snapshot. Safe for use by several threads."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._limits = _Limits(self._closing)
        self._current: _Open | None = None
        self._pins = Pins(home.published)

    def version(self) -> str:
        """The version of the published file, without opening it; "" if nothing was published yet."""
        try:
            return version_of(self._home.published)
        except FileNotFoundError:
            return ""

    @contextmanager
    def connection(self, seconds: float) -> Iterator[DuckDBPyConnection]:
        """A separate connection to the newest snapshot, whose queries are interrupted after `seconds`.

        Raises QueryError if nothing was published yet, TimedOut if the time is up, StoreError for a file that cannot
        be read.
        """
        snapshot = self._acquire()
        try:
            with snapshot.connection.cursor() as cursor, self._limits.over(cursor, seconds) as connection:
                yield connection
        finally:
            self._release(snapshot)

    def kept(self, version: str | None) -> tuple[str, Path] | None:
        """Return the version and the file of a snapshot that is kept for a while: the newest one without a version.

        None if that version is no longer kept. Raises QueryError if nothing was published yet.
        """
        return self._pins.newest() if version is None else self._pins.find(version)

    def close_idle(self) -> None:
        """Close the snapshot if no request has used it for IDLE_SECONDS, and delete kept ones that are not used."""
        self._pins.close_idle()
        with self._lock:
            idle = self._current
            if idle is None or idle.users or time.monotonic() - idle.idle_since < IDLE_SECONDS:
                return
            self._current = None
        idle.connection.close()

    def close(self) -> None:
        """Interrupt all queries and close the snapshot once no request uses it, so that the process can end."""
        self._closing.set()
        self._pins.close()
        with self._lock:
            last, self._current = self._current, None
            unused = last is not None and not last.users
        if last is not None and unused:
            last.connection.close()
        self._limits.wait()

    def _acquire(self) -> _Open:
        with self._lock:
            version = self.version()
            former = self._current
            if former is None or former.version != version:
                self._current = self._open(version)
                if former is not None and not former.users:
                    former.connection.close()
            assert self._current is not None
            self._current.users += 1
            return self._current

    def _release(self, snapshot: _Open) -> None:
        with self._lock:
            snapshot.users -= 1
            snapshot.idle_since = time.monotonic()
            done = not snapshot.users and snapshot is not self._current
        if done:
            snapshot.connection.close()

    def _open(self, version: str) -> _Open:
        """Open the published file, of this version or by now a newer one, through a temporary hard link.

        Within a process DuckDB uses one database for all connections to the same path, even after the file was
        replaced. The link is only needed while opening; one that a killed process left is deleted with the other
        leftovers of publishing when the store is opened.
        """
        import duckdb

        published = self._home.published
        name = published.with_name(f".{published.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
        try:
            link(published, name)
            connection = open_restricted(
                name,
                self._home.history,
                memory=MEMORY,
                threads=THREADS,
                published=published,
                limited=self._home.scope is not None,
            )
            return _Open(version, connection)
        except FileNotFoundError:
            raise QueryError("nothing is mirrored yet") from None
        except (OSError, duckdb.Error) as error:
            raise unreadable(published, error, NEXT_PUBLISHES) from error
        finally:
            name.unlink(missing_ok=True)


class _Limit(Struct):
    """A connection, when its time is up, and whether it was interrupted."""

    watched: Watched
    until: float
    interrupted: bool = False


class _Limits:
    """Interrupts queries that run too long, or that run when the pool closes. One thread checks all of them."""

    def __init__(self, closing: threading.Event) -> None:
        self._closing = closing
        self._running: dict[int, _Limit] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, connection: DuckDBPyConnection, seconds: float) -> Iterator[DuckDBPyConnection]:
        """The connection; its queries and those of its cursors are interrupted when the time is up."""
        import duckdb

        limit = _Limit(Watched(connection), time.monotonic() + seconds)
        with self._lock:
            self._running[id(limit)] = limit
            if self._thread is None:
                self._thread = threading.Thread(target=self._check, name="web-limit", daemon=True)
                self._thread.start()
        try:
            yield limit.watched.as_connection()
        except (MirrorError, duckdb.Error) as error:
            if self._closing.is_set():
                raise StoreError("the daemon is stopping") from error
            if limit.interrupted:
                raise TimedOut(f"this took longer than {seconds:g} s and was stopped") from error
            raise
        finally:
            with self._lock:
                del self._running[id(limit)]
            for cursor in limit.watched.open[1:]:
                cursor.close()

    def wait(self) -> None:
        """Wait a short time for the thread to end, as it does once the pool is closed and nothing runs."""
        thread = self._thread
        if thread is not None:
            thread.join(_CLOSING_SECONDS)

    def _check(self) -> None:
        idle = 0
        while True:
            # Once the event is set, wait() returns at once, so sleep instead.
            if self._closing.wait(_CHECK_INTERVAL):
                time.sleep(_CHECK_INTERVAL / 10)
            now = time.monotonic()
            with self._lock:
                idle = 0 if self._running else idle + 1
                for limit in self._running.values():
                    # At every check: an interruption between two statements has no effect.
                    if now >= limit.until or self._closing.is_set():
                        limit.interrupted = True
                        limit.watched.interrupt_all()
                if idle >= _IDLE_CHECKS or (idle and self._closing.is_set()):
                    self._thread = None
                    return
