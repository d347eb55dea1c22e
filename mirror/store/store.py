"""The store: one writer's hold on the files of a mirror."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from mirror.errors import StoreDamaged
from mirror.settings.home import Home
from mirror.store import (
    aside,
    blocks,
    checks,
    compact,
    digests,
    facts,
    history,
    identity,
    local,
    migrations,
    projects,
    publish,
    recovery,
    runs,
    segments,
    sorting,
    views,
    wide,
)
from mirror.store import console as extras
from mirror.store.database import (
    Database,
    disk_full,
    gives_up,
    is_damage,
    log_file,
    opening_error,
    reason,
    spill_folder,
    working_error,
)
from mirror.store.records import (
    ConsoleLine,
    HistoryMark,
    KnownRun,
    LocalFile,
    LocalRun,
    ProjectCursor,
    ProjectKey,
    ProjectStatus,
    Published,
    RunExtras,
)
from mirror.store.writes import Writes

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_RECOVERIES = 3
"""How often opening tries to mend the state: first perhaps its log, twice, then the file."""

RETIRED_GRACE = timedelta(hours=24)
"""How long a reader may keep a published file open whose segments were merged since."""


class Store:
    """Holds the state file for one writer; readers use the published copy.

    One thread at a time. After any error what was committed before is there, and the store can be used on.
    """

    def __init__(self, home: Home, *, tail_values: int, storage_version: str) -> None:
        self.home = home
        self.tail_values = tail_values
        self.retired_grace = RETIRED_GRACE
        self._storage_version = storage_version
        self._lock = threading.RLock()
        self._changed = True
        self._outdated: set[ProjectKey] = set()
        self._given_up_wide: set[ProjectKey] = set()
        self._given_up = False
        self._seen: tuple[int, int, int] | None = None
        self._db: Database
        self._descriptor: int

    @classmethod
    def open(cls, home: Home, *, tail_values: int = 10_000_000, storage_version: str = "v1.4.0") -> Store:
        """Open the store of a home, made or migrated as need be, and publish it when nothing is published yet.

        A state file that is damaged or missing is made anew from the published one. Raises StoreBusy when another
        process has it open, StoreError when both are damaged, when the published file is another mirror's or newer,
        and when the state is newer than this program, or cannot be read or written.
        """
        store = cls(home, tail_values=tail_values, storage_version=storage_version)
        try:
            home.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            home.history.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise opening_error(home.data, error) from error
        store._open()
        try:
            if not home.published.exists():
                store.publish()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Let go of the files. Closing again does nothing."""
        with self._lock:
            if self._descriptor >= 0:
                self._db.close()
                os.close(self._descriptor)
                self._descriptor = -1

    @property
    def spool(self) -> Path:
        """A folder beside the files for what is only needed for a while; emptied when the store is opened."""
        return self.home.data / ".spool"

    @property
    def changed(self) -> bool:
        """Whether anything was committed that is not published."""
        return self._changed

    @contextmanager
    def transaction(self) -> Iterator[Writes]:
        """What is written inside is committed together at the end, or, after an error, not at all."""
        with self._lock, self._guarded():
            with self._db.transaction():
                writes = Writes(self._db, self.home.history, self.tail_values)
                yield writes
                writes.finish()
            segments.settle_placed(self._db, self.home.history)
            self._changed = True
            self._outdated |= writes.written

    def projects(self) -> list[ProjectKey]:
        """All projects of the store, by name."""
        return self._read(projects.everything)

    def cursor(self, project: ProjectKey) -> ProjectCursor:
        """How far a project is mirrored."""
        return self._read(lambda db: projects.cursor(db, project))

    def project_facts(self, project: ProjectKey) -> dict[str, Any] | None:
        """What the server told of a project; None where nothing was."""
        return self._read(lambda db: facts.of_project(db, project))

    def server_told_at(self, base_url: str) -> datetime | None:
        """When a server told of itself last."""
        return self._read(lambda db: facts.server_told_at(db, base_url))

    def runs_without_facts(self, project: ProjectKey) -> list[str]:
        """The runs on the server of which what clients of its API want was never asked for."""
        return self._read(lambda db: facts.lacking(db, project))

    def runs_not_exported(self, project: ProjectKey, live_states: Sequence[str]) -> list[str]:
        """Ended runs with nested values of which it is not known that the server has exported all."""
        return self._read(lambda db: facts.not_exported(db, project, live_states))

    def known_runs(self, project: ProjectKey, run_ids: Collection[str] | None = None) -> dict[str, KnownRun]:
        """What the mirror holds of each run of a project, or of these runs, deleted ones too, by run id."""
        return self._read(lambda db: runs.known(db, project, run_ids))

    def unsettled_runs(self, project: ProjectKey) -> dict[str, KnownRun]:
        """As `known_runs`, of those that are live, lack history, failed, or are to be pulled again."""
        return self._read(lambda db: runs.unsettled(db, project))

    def app_url(self, project: ProjectKey) -> str | None:
        """Where the addresses of the project's runs lead to, if that was made sure since the store was opened."""
        return self._read(lambda db: db.app_urls.get(project))

    def count_runs(self, project: ProjectKey) -> tuple[int, int]:
        """How many runs of a project the mirror holds, and how many of them it takes to be on the server."""
        return self._read(lambda db: runs.count(db, project))

    def local_files(self) -> dict[str, LocalFile]:
        """Every local file that was read, by path."""
        return self._read(local.files)

    def local_runs(self, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, LocalRun]:
        """How each of these runs stands, if it is mirrored."""
        return self._read(lambda db: local.find(db, project, run_ids))

    def run_owner(self, project: str, run_id: str) -> str | None:
        """The entity of a run that came from the server, when only its project's name is known."""
        return self._read(lambda db: local.owner(db, project, run_id))

    def local_reading(self, project: ProjectKey, run_id: str) -> str | None:
        """What reading of a local run's files goes on from."""
        return self._read(lambda db: local.reading(db, project, run_id))

    def extras(
        self, project: ProjectKey, *, events: bool, console: bool, files: bool, lists: bool = False
    ) -> list[RunExtras]:
        """The runs of which some may be missing: system metrics, console lines, metadata files, lists of files."""
        return self._read(lambda db: extras.find(db, project, events=events, console=console, files=files, lists=lists))

    def console_lines(self, project: ProjectKey, lines: Mapping[str, int]) -> dict[str, ConsoleLine]:
        """The line of this number of each run, as far as it is mirrored."""
        return self._read(lambda db: extras.lines(db, project, lines))

    def key_rows(self, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """How many values are mirrored of each history key, by run."""
        return self._read(lambda db: runs.key_rows(db, project, run_ids))

    def history_marks(self, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, HistoryMark]:
        """The last mirrored history line of each of these runs that has any values."""
        return self._read(lambda db: history.marks(db, project, run_ids))

    def status(self) -> list[ProjectStatus]:
        """How each project stands."""
        return self._read(projects.status)

    def seal(self) -> bool:
        """Move the tail into segments when it outgrew its limit; whether it did. Readers see no difference."""
        with self._lock, self._guarded():
            changed = segments.seal(self._db, self.home.history, self.tail_values)
            segments.settle_placed(self._db, self.home.history)
            self._changed |= changed
            return changed

    def tend(self) -> bool:
        """Merge the segments that are due, and sort the leaves if many are out of order; whether there was any to do.

        Takes seconds where there is much, so it is for the end of a pass. Readers see no difference. What a merge
        replaced is deleted `RETIRED_GRACE` after readers last could open it.
        """
        with self._lock, self._guarded():
            changed = segments.tend(self._db, self.home.history)
            segments.settle_placed(self._db, self.home.history)
            if sorting.is_due(self._db):
                sorting.sort(self._db)
                changed = True
            digests.fill(self._db, self.home.history)
            self._changed |= changed
            return changed

    def publish(self) -> Published | None:
        """Show readers all that is committed; None when they see it already.

        Raises StoreError when the published file has become another mirror's, or newer than the store.
        """
        with self._lock, self._guarded():
            found = publish.seen(self.home.published)
            if not self._changed and found is not None and found == self._seen:
                return None
            if found is not None and found != self._seen:
                self._look_at_published()
            started = time.monotonic()
            self._refresh_wide()
            with self._db.transaction():
                identity.count_up(self._db)
            size = publish.publish(self._db, self._descriptor, self.home.published)
            self._seen = publish.seen(self.home.published)
            self._changed = False
            segments.delete_retired(self._db, self.home.history, self.retired_grace)
            return Published(self.home.published, time.monotonic() - started, size)

    def _refresh_wide(self) -> None:
        """Bring the wide relations up to date; one that makes DuckDB give up the file is left out from then on."""
        while True:
            try:
                wide.refresh(self._db, sorted(self._outdated - self._given_up_wide, key=str))
            except wide.Broken as broken:
                self._given_up_wide.add(broken.project)
                self._reopen()
                wide.leave_out(self._db, broken.project, str(broken))
            else:
                self._outdated.clear()
                return

    def check(self) -> None:
        """Look through the state file on the disk. Raises StoreDamaged, having gone on from the published one."""
        with self._lock, self._guarded():
            watch = blocks.look_through(self._descriptor, self.home.published)
            if watch.doubtful or self._db.is_cut(self._descriptor):
                held = os.fstat(self._descriptor).st_ino
                self._reopen()
                if held != os.fstat(self._descriptor).st_ino:
                    raise self._replaced("found by reading it")

    def _look_at_published(self) -> None:
        """See that the store may take the place of the published file; one that cannot be read is kept."""
        published = self.home.published
        mine = identity.of(self._db.run)
        assert mine is not None
        try:
            theirs = identity.read(published)
        except FileNotFoundError:
            return
        except StoreDamaged as error:
            kept = aside.put(self.home, [published], keep=True)
            logger.warning("%s; it is published anew, and the damaged one is kept in %s", error, kept)
            return
        identity.refuse_stranger(self.home.state, mine, published, theirs)

    def _open(self) -> None:
        """Open the file, bring it up to date, and clear away what a killed process left."""
        path = self.home.state
        self._descriptor = -1
        try:
            self._hold_whole()
            try:
                self._compare_published()
                migrated = migrations.migrate(self._db)
                compacted = compact.is_due(self._db, self._storage_version) and self._compact()
                with self._db.transaction():
                    compact.note_version(self._db, self._storage_version)
                renewed = self._renew_views()
                segments.delete_leftovers(self._db, self.home.history)
                publish.delete_leftovers(self.home.published)
                recovery.delete_leftovers(self.home)
                compact.delete_leftover(path)
                shutil.rmtree(spill_folder(path), ignore_errors=True)
                shutil.rmtree(self.spool, ignore_errors=True)
                self._outdated.update(projects.everything(self._db))
            except BaseException:
                self.close()
                raise
        except (duckdb.Error, OSError) as error:
            raise opening_error(path, error) from error
        self._changed = self._changed or bool(migrated) or compacted or renewed

    def _hold_whole(self) -> None:
        """Open a file that can be read through: if need be what the published file and the log give."""
        for _ in range(_RECOVERIES):
            recovery.fetch_missing(self.home)
            try:
                self._hold_checked()
            except StoreDamaged as error:
                self.close()
                recovery.recover(self.home, error)
            else:
                return
        self._hold_checked()

    def _hold_checked(self) -> None:
        """Open the file. Raises StoreDamaged when it cannot be read through, or is empty beside a published one."""
        self._seen = publish.seen(self.home.published)
        logged = log_file(self.home.state).exists()
        self._hold()
        try:
            watch = blocks.look_through(self._descriptor, self.home.published)
            if watch.doubtful or self._given_up or self._db.is_cut(self._descriptor):
                self._db.scan()
            empty = identity.of(self._db.run) is None
        except duckdb.Error as error:
            raise opening_error(self.home.state, error) from error
        if empty and self._seen is not None:
            raise StoreDamaged(f"{self.home.state} holds no mirror", "no tables")
        self._changed = logged or not watch.equal

    def _compare_published(self) -> None:
        """Raise StoreError when the published file is another mirror's, or newer than the store."""
        if self._seen is None or not self._changed:
            return
        mine = identity.of(self._db.run)
        assert mine is not None
        try:
            theirs = identity.read(self.home.published)
        except StoreDamaged:
            # It is kept when it is published anew.
            self._seen = None
            return
        identity.refuse_stranger(self.home.state, mine, self.home.published, theirs)

    def _renew_views(self) -> bool:
        """Make the views anew if they changed. A segment that cannot be read does not keep the store from opening."""
        try:
            with self._db.transaction():
                return views.recreate(self._db, self.home.history)
        except duckdb.Error as error:
            if not checks.unreadable(self._db, self.home.history):
                raise
            logger.warning(
                "the views of %s could not be made anew (%s); run `mirror verify --repair`",
                self.home.state,
                str(error).splitlines()[0],
            )
            return False

    def _compact(self) -> bool:
        """Write the file anew; a disk that is too full for that does not keep the store from opening."""
        try:
            compact.compact(self._db, self._storage_version)
        except (duckdb.Error, OSError) as error:
            if not disk_full(error):
                raise
            logger.warning("%s could not be compacted: no space left on the disk", self.home.state)
        self.close()
        self._hold()
        return True

    def _hold(self) -> None:
        """Open the file, and a descriptor of it for reading.

        The descriptor is closed only after the database, and there is no other one: closing any of them drops the lock
        that this process has on the file.
        """
        self._db = Database(self.home.state, self._storage_version)
        try:
            self._descriptor = os.open(self.home.state, os.O_RDONLY)
        except OSError:
            self._db.close()
            raise

    def _read(self, look: Callable[[Database], Result]) -> Result:
        with self._lock, self._guarded():
            return look(self._db)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn errors of the database into ours, and open the file again when DuckDB gave it up."""
        if self._given_up:
            self._reopen()
        try:
            yield
        except (duckdb.Error, OSError) as error:
            held = os.fstat(self._descriptor).st_ino if self._descriptor >= 0 else None
            if gives_up(error) or is_damage(error):
                self._reopen()
                if held != os.fstat(self._descriptor).st_ino and is_damage(error):
                    raise self._replaced(reason(error)) from error
            raise working_error(self.home.state, error) from error

    def _replaced(self, why: str) -> StoreDamaged:
        told = f"{self.home.state} was damaged ({why}) and is made anew from what was published"
        return StoreDamaged(f"{told}; the next pass goes on from there", why)

    def _reopen(self) -> None:
        self._given_up = True
        self.close()
        self._open()
        self._given_up = False
        self._changed = True
