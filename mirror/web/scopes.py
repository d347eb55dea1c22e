"""What readers of some projects read: a copy of the published file that holds only these, kept current on demand."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, field

from mirror.errors import StoreError
from mirror.settings.home import Home
from mirror.snapshot import scoped
from mirror.snapshot.connection import version_of
from mirror.web.snapshots import Snapshots
from mirror.web.worker import harmless_environment

log = logging.getLogger("mirror.web")

IDLE_SECONDS = 600.0
"""A copy that nobody has used for so long is deleted."""

REST = 10.0
"""A copy is made again only after this many times the time that it took: a mirror may be published every second."""

PATIENCE = 2.0
"""While a copy is made that takes longer than this, its readers get the former one."""

COPY_SECONDS = 600.0


class _Scope(Struct):
    """A copy, what reads it, and of which version of the published file it was made."""

    home: Home
    patterns: tuple[str, ...]
    snapshots: Snapshots
    made_of: str = ""
    made_at: float = 0.0
    cost: float = 0.0
    used_at: float = field(default_factory=time.monotonic)
    making: threading.Lock = field(default_factory=threading.Lock)

    def is_current(self, version: str) -> bool:
        """Return True if the copy is there and need not be made again now."""
        self.used_at = time.monotonic()
        young = self.used_at - self.made_at < REST * self.cost
        return bool(self.made_of) and (self.made_of == version or young) and self.home.published.exists()


class Scopes:
    """The copies of one home. Safe for use by several threads."""

    def __init__(self, home: Home, nice: int = 0) -> None:
        """Delete what a killed process left. `nice` is that of the workers."""
        self._home = home
        self._nice = nice
        self._lock = threading.Lock()
        self._scopes: dict[tuple[str, ...], _Scope] = {}
        self._copying: set[subprocess.Popen[bytes]] = set()
        self._stopping = False
        shutil.rmtree(home.scopes, ignore_errors=True)

    def current(self, patterns: Sequence[str]) -> Snapshots | None:
        """What a reader of these projects reads, if there is a copy that is new enough."""
        scope = self._scopes.get(_key(patterns))
        return scope.snapshots if scope is not None and scope.is_current(self._version()) else None

    def former(self, patterns: Sequence[str]) -> tuple[Snapshots | None, bool]:
        """What may be read while a newer copy is made, if that takes long; and whether it is being made already."""
        scope = self._scopes.get(_key(patterns))
        if scope is None or not scope.made_of or scope.cost <= PATIENCE or not scope.home.published.exists():
            return None, False
        return scope.snapshots, scope.making.locked()

    def newest(self, patterns: Sequence[str]) -> Snapshots:
        """The same, after a copy was made if necessary. This takes seconds for a large mirror.

        Raises StoreError if no copy can be made.
        """
        key = _key(patterns)
        with self._lock:
            scope = self._scopes.get(key)
            if scope is None:
                folder = self._home.scopes / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
                home = Home(self._home.data, self._home.config, folder)
                scope = self._scopes[key] = _Scope(home, key, Snapshots(home, nice=self._nice))
        with scope.making:
            version = self._version()
            if not scope.is_current(version):
                self._make(scope, version)
        return scope.snapshots

    def close_idle(self) -> None:
        """Close what nobody uses, and delete copies that nobody has used for a long time."""
        now = time.monotonic()
        with self._lock:
            old = {key: one for key, one in self._scopes.items() if now - one.used_at > IDLE_SECONDS}
            for key in old:
                del self._scopes[key]
            others = list(self._scopes.values())
        for scope in old.values():
            _end(scope)
        for scope in others:
            scope.snapshots.close_idle()

    def stop(self) -> None:
        """Kill processes that copy, so that the daemon need not wait for them."""
        with self._lock:
            self._stopping = True
            for process in self._copying:
                process.kill()

    def close(self) -> None:
        """End all workers, and delete the copies."""
        with self._lock:
            scopes, self._scopes = list(self._scopes.values()), {}
        for scope in scopes:
            _end(scope)
        shutil.rmtree(self._home.scopes, ignore_errors=True)

    def _version(self) -> str:
        try:
            return version_of(self._home.published)
        except FileNotFoundError:
            return ""

    def _make(self, scope: _Scope, version: str) -> None:
        started = time.monotonic()
        code = f"import sys; sys.path[:] = {sys.path!r}; from {scoped.__name__} import main; main()"
        arguments = [str(self._home.data), str(scope.home.scope), *scope.patterns]
        try:
            # In a process of its own: the copy may need much time and memory.
            with subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", code, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=harmless_environment(),
            ) as process:
                reason = self._outcome(process)
        except OSError as error:
            reason = str(error)
        if not reason:
            scope.made_of, scope.made_at = version, time.monotonic()
            scope.cost = scope.made_at - started
            return
        if self._stopping:
            raise StoreError("the daemon is stopping")
        line = reason.splitlines()[-1]
        log.error("the copy for readers of %s cannot be made: %s", ", ".join(scope.patterns), line)
        if not scope.made_of:
            raise StoreError(
                f"the copy for readers of {', '.join(scope.patterns)} cannot be made ({line}); see the log"
            )

    def _outcome(self, process: subprocess.Popen[bytes]) -> str:
        """Wait for a process that copies, and return why it failed; "" if it did not. `stop` kills it."""
        with self._lock:
            self._copying.add(process)
            if self._stopping:
                process.kill()
        try:
            _, errors = process.communicate(timeout=COPY_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return f"it took longer than {COPY_SECONDS:g} s"
        finally:
            with self._lock:
                self._copying.discard(process)
        return "" if process.returncode == 0 else errors.decode(errors="replace").strip() or "it was killed"


def _key(patterns: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(patterns)))


def _end(scope: _Scope) -> None:
    scope.snapshots.close()
    folder: Path | None = scope.home.scope
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
