"""The newest published snapshot, open for as long as somebody asks, in a process that also writes the mirror."""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mirror.errors import NEXT_PUBLISHES, MirrorError, QueryError, StoreError, TimedOut, unreadable
from mirror.settings.home import Home
from mirror.snapshot.connection import Watched, open_restricted, version_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "2GB"
"""What the queries of all requests together may take; there is no spilling to disk beside the daemon's own files."""

THREADS = 2
IDLE_SECONDS = 30.0
"""An old snapshot that is open keeps its disk space, so that one which nobody asks for is closed."""

_LOOK = 0.1
"""Seconds between two looks at whether a query must end."""

_IDLE_LOOKS = 50
_CLOSING_SECONDS = 1.0


@dataclass
class _Open:
    """One snapshot, how many requests use it, and since when none does."""

    version: str
    connection: DuckDBPyConnection
    users: int = 0
    idle_since: float = 0.0


class SnapshotPool:
    """Hands out connections to the newest snapshot. Safe to be used by several threads."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._limits = _Limits(self._closing)
        self._current: _Open | None = None

    def version(self) -> str:
        """What changes with every publishing; empty before the first. Opens nothing."""
        try:
            return version_of(self._home.published)
        except FileNotFoundError:
            return ""

    @contextmanager
    def connection(self, seconds: float) -> Iterator[DuckDBPyConnection]:
        """A connection of its own to the newest snapshot; after so many seconds its queries are broken off.

        Raises QueryError when nothing was published yet, TimedOut when the time is up, StoreError for a file that
        cannot be read.
        """
        snapshot = self._take()
        try:
            with snapshot.connection.cursor() as cursor, self._limits.over(cursor, seconds) as connection:
                yield connection
        finally:
            self._give_back(snapshot)

    def close_idle(self) -> None:
        """Close the snapshot when nobody asked for a while."""
        with self._lock:
            idle = self._current
            if idle is None or idle.users or time.monotonic() - idle.idle_since < IDLE_SECONDS:
                return
            self._current = None
        idle.connection.close()

    def close(self) -> None:
        """Break off every query and close the snapshot as soon as nobody uses it, so that the process can end."""
        self._closing.set()
        with self._lock:
            last, self._current = self._current, None
            done = last is not None and not last.users
        if last is not None and done:
            last.connection.close()
        self._limits.wait()

    def _take(self) -> _Open:
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

    def _give_back(self, snapshot: _Open) -> None:
        with self._lock:
            snapshot.users -= 1
            snapshot.idle_since = time.monotonic()
            done = not snapshot.users and snapshot is not self._current
        if done:
            snapshot.connection.close()

    def _open(self, version: str) -> _Open:
        """Open the published file, which has this version or by now a newer one, under a name of its own.

        Within a process DuckDB gives every connection to the same path the same database, also after the file was
        replaced. The name is needed for the moment of opening only; one that a killed process left is deleted with
        the other leftovers of publishing when the store is opened.
        """
        import duckdb

        published = self._home.published
        name = published.with_name(f".{published.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
        try:
            _link(published, name)
            return _Open(version, open_restricted(name, self._home.history, memory=MEMORY, threads=THREADS))
        except FileNotFoundError:
            raise QueryError("nothing is mirrored yet") from None
        except (OSError, duckdb.Error) as error:
            raise unreadable(published, error, NEXT_PUBLISHES) from error
        finally:
            name.unlink(missing_ok=True)


@dataclass
class _Limit:
    """What runs until when, and whether it was broken off."""

    watched: Watched
    until: float
    broken: bool = False


class _Limits:
    """Breaks off what runs too long, or when everything is closed. One thread looks after all, while there is any."""

    def __init__(self, closing: threading.Event) -> None:
        self._closing = closing
        self._running: dict[int, _Limit] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, connection: DuckDBPyConnection, seconds: float) -> Iterator[DuckDBPyConnection]:
        """The connection, whose queries and those of its cursors are broken off when the time is up."""
        import duckdb

        limit = _Limit(Watched(connection), time.monotonic() + seconds)
        with self._lock:
            self._running[id(limit)] = limit
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="web-limit", daemon=True)
                self._thread.start()
        try:
            yield limit.watched.as_connection()
        except (MirrorError, duckdb.Error) as error:
            if self._closing.is_set():
                raise StoreError("the daemon is stopping") from error
            if limit.broken:
                raise TimedOut(f"this took longer than {seconds:g} s and was stopped") from error
            raise
        finally:
            with self._lock:
                del self._running[id(limit)]
            for cursor in limit.watched.open[1:]:
                cursor.close()

    def wait(self) -> None:
        """Wait for the thread to end, which it does when everything is closed and nothing runs; not for long."""
        thread = self._thread
        if thread is not None:
            thread.join(_CLOSING_SECONDS)

    def _look(self) -> None:
        idle = 0
        while True:
            # Waiting for what is set already would take no time at all.
            if self._closing.wait(_LOOK):
                time.sleep(_LOOK / 10)
            now = time.monotonic()
            with self._lock:
                idle = 0 if self._running else idle + 1
                for limit in self._running.values():
                    # Again and again: an interruption between two statements is lost.
                    if now >= limit.until or self._closing.is_set():
                        limit.broken = True
                        limit.watched.interrupt_all()
                if idle >= _IDLE_LOOKS or (idle and self._closing.is_set()):
                    self._thread = None
                    return


def _link(source: Path, target: Path) -> None:
    """A second name for the file, or a copy of it on a file system that has no such names."""
    try:
        target.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
