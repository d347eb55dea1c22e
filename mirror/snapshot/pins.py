"""Keeps published snapshots for clients on other machines, which send several statements about the same one."""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from pathlib import Path

from msgspec import Struct, field

from mirror.errors import QueryError
from mirror.snapshot.connection import version_of

KEPT = 4
"""How many snapshots are kept; each keeps the disk space of a published file."""

SECONDS = 600.0
"""A snapshot is kept for this long after it was last used."""


class _Pin(Struct):
    path: Path
    used: float = field(default_factory=time.monotonic)


class Pins:
    """Hard links to a published file as it was, by version. Safe for use by several threads."""

    def __init__(self, published: Path) -> None:
        self._published = published
        self._pins: dict[str, _Pin] = {}
        self._lock = threading.Lock()

    def newest(self) -> tuple[str, Path]:
        """Return the version of the published file as it is now, and a path under which it stays.

        Raises QueryError if nothing was published yet.
        """
        published = self._published
        with self._lock:
            try:
                version = version_of(published)
                if not self._keeps(version):
                    # Named as what publishing leaves behind, which is deleted when the store is opened.
                    path = published.with_name(f".{published.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
                    link(published, path)
                    # It may have been published again meanwhile; a copy has a version of its own anyway.
                    version = version_of(path)
                    self._pins[version] = _Pin(path)
            except FileNotFoundError:
                raise QueryError("nothing is mirrored yet") from None
            found = self._used(version)
            self._drop()
            return found

    def find(self, version: str) -> tuple[str, Path] | None:
        """Return the same of a version that was the newest before; None if it is no longer kept."""
        with self._lock:
            return self._used(version) if self._keeps(version) else None

    def close_idle(self) -> None:
        """Delete the links that nobody used for SECONDS."""
        with self._lock:
            self._drop()

    def close(self) -> None:
        """Delete all links."""
        with self._lock:
            for pin in self._pins.values():
                pin.path.unlink(missing_ok=True)
            self._pins.clear()

    def _keeps(self, version: str) -> bool:
        # A store that is opened again deletes what it takes for leftovers.
        return version in self._pins and self._pins[version].path.exists()

    def _used(self, version: str) -> tuple[str, Path]:
        self._pins[version].used = time.monotonic()
        return version, self._pins[version].path

    def _drop(self) -> None:
        by_use = sorted(self._pins, key=lambda version: self._pins[version].used)
        now = time.monotonic()
        for place, version in enumerate(by_use):
            if len(by_use) - place > KEPT or now - self._pins[version].used > SECONDS:
                self._pins.pop(version).path.unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """Make a hard link to the file, or a copy of it on a file system without hard links."""
    try:
        target.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
