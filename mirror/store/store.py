"""The store: gives one writer access to the files of a mirror."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import duckdb

from mirror.errors import StoreDamaged, StoreError
from mirror.settings.home import Home
from mirror.store import (
    blocks,
    compact,
    digests,
    garbage,
    identity,
    opening,
    publish,
    recovery,
    segment_files,
    segments,
    sorting,
    table_views,
    wide,
    wide_marks,
)
from mirror.store.blobs import Blobs
from mirror.store.database import (
    Database,
    disk_full,
    is_damage,
    log_file,
    must_reopen,
    opening_error,
    reason,
    working_error,
)
from mirror.store.garbage import Garbage
from mirror.store.records import ProjectKey, Published
from mirror.store.sharing import Sharing
from mirror.store.steady import fingerprint
from mirror.store.transaction import Transaction

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_RECOVERIES = 3
"""How many repairs opening the state tries: up to two of its log, then one of the file."""

RETIRED_GRACE = timedelta(hours=24)
"""How long a reader may keep a published file open after its segments were merged."""

UNNAMED_INTERVAL = 3600.0
"""Seconds between two looks for content that nothing names any more."""


class Store:
    """Has the state file open for one writer; readers use the published copy.

    One thread at a time. After any error, everything committed before is kept and the store is still usable.
    """

    def __init__(self, home: Home, *, tail_values: int, storage_version: str) -> None:
        self.home = home
        self.tail_values = tail_values
        self.retired_grace = RETIRED_GRACE
        self.sharing: Sharing | None = None
        self.blobs = Blobs(home.blobs)
        self._storage_version = storage_version
        self._lock = threading.RLock()
        self._changed = True
        self._outdated: set[ProjectKey] = set()
        self._skipped_wide: set[ProjectKey] = set()
        self._must_reopen = False
        self._upgraded = False
        self._unnamed_noted = -UNNAMED_INTERVAL
        self._published: tuple[int, int, int] | None = None
        self._db: Database
        self._descriptor: int

    @classmethod
    def open(
        cls,
        home: Home,
        *,
        tail_values: int = 10_000_000,
        storage_version: str = "v1.4.0",
        sharing: Sharing | None = None,
    ) -> Store:
        """Open the store of a home, creating or migrating it if necessary, and publish it if nothing is published yet.

        A damaged or missing state file is rebuilt from the published one. Raises StoreBusy if another process has it
        open, and StoreError if both files are damaged, if the published file belongs to another mirror or is newer, or
        if the state is newer than this program or cannot be read or written.
        """
        store = cls(home, tail_values=tail_values, storage_version=storage_version)
        try:
            home.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            home.history.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise opening_error(home.data, error) from error
        store._open()
        try:
            store.share(sharing)
            if not home.published.exists():
                store.publish()
            elif store._upgraded:
                store._publish_upgraded()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the files. Closing again does nothing."""
        with self._lock:
            if self._descriptor >= 0:
                self._db.close()
                os.close(self._descriptor)
                self._descriptor = -1

    @property
    def spool(self) -> Path:
        """A folder for temporary files, next to the state; emptied when the store is opened."""
        return self.home.data / ".spool"

    @property
    def changed(self) -> bool:
        """True if something is committed that is not published."""
        return self._changed

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Commit everything written inside the block together at its end, or nothing after an error.

        Functions of `mirror.store` that take a Transaction do the writing.
        """
        with self._lock, self._guarded():
            with self._db.transaction():
                tx = Transaction(self._db, self.home.history, self.tail_values)
                yield tx
                tx.finish()
                wide_marks.note(self._db, tx.outdated - self._outdated)
            segment_files.delete_uncommitted(self._db, self.home.history)
            self._changed = True
            self._outdated |= tx.outdated

    def read(self, question: Callable[[Database], Result]) -> Result:
        """Return what a function that only reads finds in the state, such as those of `mirror.store.runs`."""
        with self._lock, self._guarded():
            return question(self._db)

    def seal(self) -> bool:
        """Move the tail to segments if it exceeds its limit. Returns True if it did. Readers see no difference."""
        with self._lock, self._guarded():
            changed = segments.seal(self._db, self.home.history, self.tail_values)
            segment_files.delete_uncommitted(self._db, self.home.history)
            self._changed |= changed
            return changed

    def tend(self) -> bool:
        """Run maintenance after a pass: merge segments, sort leaves, add digests. Returns True if it changed data.

        May take seconds. Readers see no difference. Segments that a merge replaced are deleted `RETIRED_GRACE` after
        readers could last open them.
        """
        with self._lock, self._guarded():
            changed = segments.tend(self._db, self.home.history)
            segment_files.delete_uncommitted(self._db, self.home.history)
            if sorting.is_due(self._db):
                sorting.sort(self._db)
                changed = True
            digests.fill(self._db, self.home.history)
            if time.monotonic() - self._unnamed_noted > UNNAMED_INTERVAL:
                self._unnamed_noted = time.monotonic()
                changed |= self._note_unnamed()
            self._changed |= changed
            return changed

    def collect(self, grace: timedelta, *, dry_run: bool = False) -> Garbage:
        """Delete content that nothing has named for `grace`, and publish before. A dry run only looks."""
        with self._lock, self._guarded():
            if dry_run:
                return garbage.garbage(self._db, self.blobs, grace)
            self._changed |= self._note_unnamed()
            self.publish()
            deleted = garbage.delete_unnamed(self._db, self.blobs, grace)
            self._changed |= deleted.deleted > 0
            found = garbage.added(deleted, garbage.delete_leftovers(self._db, self.blobs, grace))
            return garbage.added(found, garbage.kept(self._db))

    def _note_unnamed(self) -> bool:
        changed = garbage.note_unnamed(self._db)
        if changed:
            self._outdated |= table_views.outdated(self._db)
        return changed

    def publish(self) -> Published | None:
        """Publish everything that is committed. Returns None if it is published already.

        Raises StoreError if the published file has been replaced by another mirror's, or by one newer than the store.
        """
        with self._lock, self._guarded():
            current = fingerprint(self.home.published)
            if not self._changed and current is not None and current == self._published:
                return None
            if current is not None and current != self._published:
                opening.check_published(self._db, self.home)
            started = time.monotonic()
            self._refresh_wide()
            self.share(self.sharing)
            with self._db.transaction():
                if self._outdated:
                    wide_marks.done(self._db, self._outdated - self._skipped_wide, self._skipped_wide)
                identity.count_up(self._db)
            self._outdated.clear()
            size = publish.publish(self._db, self._descriptor, self.home.published, self.sharing)
            self._published = fingerprint(self.home.published)
            self._changed = False
            segment_files.delete_retired(self._db, self.home.history, self.retired_grace)
            garbage.delete_unnamed(self._db, self.blobs, self.retired_grace)
            return Published(self.home.published, time.monotonic() - started, size)

    def share(self, sharing: Sharing | None) -> None:
        """Let others read what is published, from now on. None changes nothing: only the owner opens the folders."""
        self.sharing = sharing
        if sharing is not None:
            try:
                sharing.apply(self.home)
                self.blobs.share(sharing)
            except OSError as error:
                raise StoreError(f"{self.home.data} cannot be shared as publish.mode asks: {reason(error)}") from error

    def _refresh_wide(self) -> None:
        """Bring the wide relations up to date; one that causes a fatal error in DuckDB is left out from then on."""
        if not self._outdated:
            return
        while True:
            refreshed = self._outdated - self._skipped_wide
            try:
                wide.refresh(self._db, sorted(refreshed, key=str))
            except wide.Broken as broken:
                self._skipped_wide.add(broken.project)
                self._reopen()
                wide.leave_out(self._db, broken.project, str(broken))
            else:
                table_views.refresh(self._db, sorted(refreshed, key=str))
                return

    def check(self) -> None:
        """Check the state file on the disk. Raises StoreDamaged after rebuilding it from the published one."""
        with self._lock, self._guarded():
            comparison = blocks.compare(self._descriptor, self.home.published)
            if comparison.suspicious or self._db.is_cut(self._descriptor):
                inode = os.fstat(self._descriptor).st_ino
                self._reopen()
                if inode != os.fstat(self._descriptor).st_ino:
                    raise self._rebuilt("found by reading it")

    def _open(self) -> None:
        """Open the file, bring it up to date, and delete what a killed process left."""
        path = self.home.state
        self._descriptor = -1
        try:
            self._open_or_recover()
            try:
                if self._published is not None and self._changed and not opening.compare_published(self._db, self.home):
                    # The next publish moves it to the folder `aside`.
                    self._published = None
                migrated = opening.migrate(self._db, self.home)
                compacted = compact.is_due(self._db, self._storage_version) and self._compact()
                with self._db.transaction():
                    compact.note_version(self._db, self._storage_version)
                recreated = opening.recreate_views(self._db, self.home)
                opening.delete_leftovers(self._db, self.home)
                shutil.rmtree(self.spool, ignore_errors=True)
                self._outdated.update(wide_marks.outdated(self._db), table_views.outdated(self._db))
            except BaseException:
                self.close()
                raise
        except (duckdb.Error, OSError) as error:
            raise opening_error(path, error) from error
        self._upgraded = bool(migrated)
        self._changed = self._changed or self._upgraded or compacted or recreated

    def _publish_upgraded(self) -> None:
        """Publish at once, since this program cannot read what an older one published. A full disk can wait."""
        try:
            self.publish()
        except StoreError as error:
            logger.warning("%s is upgraded, but not published yet: %s", self.home.state, error)

    def _open_or_recover(self) -> None:
        """Open the file and check it; if it is missing or damaged, recover it from the published file and the log."""
        for _ in range(_RECOVERIES):
            recovery.restore_missing(self.home)
            try:
                self._open_checked()
            except StoreDamaged as error:
                self.close()
                recovery.recover(self.home, error)
            else:
                return
        self._open_checked()

    def _open_checked(self) -> None:
        """Open the file. Raises StoreDamaged if it cannot be read completely, or is empty although one is published."""
        self._published = fingerprint(self.home.published)
        has_log = log_file(self.home.state).exists()
        self._connect()
        try:
            comparison = blocks.compare(self._descriptor, self.home.published)
            if comparison.suspicious or self._must_reopen or self._db.is_cut(self._descriptor):
                self._db.scan()
            empty = identity.of(self._db.run) is None
        except duckdb.Error as error:
            raise opening_error(self.home.state, error) from error
        if empty and self._published is not None:
            raise StoreDamaged(f"{self.home.state} holds no mirror", "no tables")
        self._changed = has_log or not comparison.equal

    def _compact(self) -> bool:
        """Rewrite the file. A disk that is too full for that does not keep the store from opening."""
        try:
            compact.compact(self._db, self._storage_version)
        except (duckdb.Error, OSError) as error:
            if not disk_full(error):
                raise
            logger.warning("%s could not be compacted: no space left on the disk", self.home.state)
        self.close()
        self._connect()
        return True

    def _connect(self) -> None:
        """Open the file, and a descriptor of it for reading.

        The descriptor is closed only after the database, and there is no other one: closing any descriptor releases
        the lock that this process has on the file.
        """
        self._db = Database(self.home.state, self._storage_version)
        try:
            self._descriptor = os.open(self.home.state, os.O_RDONLY)
        except OSError:
            self._db.close()
            raise

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Translate errors of the database, and reopen the file after a fatal one."""
        if self._must_reopen:
            self._reopen()
        try:
            yield
        except (duckdb.Error, OSError) as error:
            inode = os.fstat(self._descriptor).st_ino if self._descriptor >= 0 else None
            if must_reopen(error) or is_damage(error):
                self._reopen()
                if inode != os.fstat(self._descriptor).st_ino and is_damage(error):
                    raise self._rebuilt(reason(error)) from error
            raise working_error(self.home.state, error) from error

    def _rebuilt(self, why: str) -> StoreDamaged:
        message = f"{self.home.state} was damaged ({why}) and was rebuilt from the published file"
        return StoreDamaged(f"{message}; the next pass continues from there", why)

    def _reopen(self) -> None:
        self._must_reopen = True
        self.close()
        self._open()
        self._must_reopen = False
        self._changed = True
