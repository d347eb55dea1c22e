"""Decides what is new in files, and reads it into the store."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from mirror.local import files, run_files
from mirror.local.blocks import NotReadable
from mirror.local.commits import FileResult, RunKey, key_of
from mirror.local.known import COPY, REPLACED, Known, copied_path, is_replaced
from mirror.local.looks import Looks
from mirror.local.pending import NO_ENTITY, Pending
from mirror.local.reader import Identity, Options, Reader, around, identify, same_start
from mirror.local.reading import BeginsAgain, OutOfOrder, Reading, order
from mirror.protocol import LIVE_STATES
from mirror.settings.settings import Settings
from mirror.store import local
from mirror.store.contents import Selection
from mirror.store.database import Database
from mirror.store.records import LocalFile, LocalRun, ProjectKey
from mirror.store.transaction import Transaction
from mirror.sync import removal
from mirror.sync.context import utc_now
from mirror.sync.targets import Target
from mirror.sync.writer import Writer

log = logging.getLogger("mirror.local")


class Ingest:
    """Reads files into one store. `options` may change between calls."""

    def __init__(self, writer: Writer, options: Options, looks: Looks | None = None) -> None:
        self.options = options
        self._writer = writer
        self._looks = looks or Looks()
        self._lock = asyncio.Lock()

    async def read(self, paths: Sequence[Path]) -> list[FileResult]:
        """Mirror what is new in these files. A file that cannot be read is reported in its result; the others are read.

        Commits, but does not publish. Raises StoreError.
        """
        async with self._lock:
            one = _Pass(self._writer, self.options, self._looks)
            try:
                await one.begin(paths)
                for path in paths:
                    await one.read(path)
                await one.pending.commit()
            finally:
                await one.pending.end()
            if self.options.files:
                for problem in await run_files.store(self._writer, self.options.contents, self._looks):
                    log.warning("%s", problem)
        return one.results

    async def idle(self) -> None:
        """Wait until no read is under way."""
        async with self._lock:
            pass

    async def forget(self, target: Target) -> bool:
        """Remove a mirrored project, or runs of it, between two reads: a read continues from what is mirrored.

        Returns False, and removes nothing, if a read is under way.
        """
        if self._lock.locked():
            return False
        async with self._lock:
            await self._writer.write(lambda tx: removal.remove(tx, target))
        return True


class _Pass:
    """The state of one call: the known files, and the changes that wait to be committed."""

    def __init__(self, writer: Writer, options: Options, looks: Looks) -> None:
        self._writer = writer
        self._options = options
        self._looks = looks
        self._results: dict[str, FileResult] = {}
        self._known = Known()
        self.pending = Pending(writer)

    @property
    def results(self) -> list[FileResult]:
        """The result of each file, in the order in which they were read."""
        return list(self._results.values())

    async def begin(self, paths: Sequence[Path]) -> None:
        """Load what the store knows of all files, and of the runs of `paths`."""
        names = {str(path) for path in paths}

        def load(db: Database) -> tuple[dict[str, LocalFile], dict[RunKey, LocalRun]]:
            known = local.files(db)
            wanted: dict[ProjectKey, list[str]] = {}
            for file in (known[path] for path in names & known.keys()):
                wanted.setdefault(ProjectKey(file.entity, file.project), []).append(file.run_id)
            found = {
                (project, run_id): run
                for project, run_ids in wanted.items()
                for run_id, run in local.find(db, project, run_ids).items()
            }
            return known, found

        files_read, runs = await self._writer.read(load)
        self.pending.start_with(runs)
        self._known = Known(files_read.values())

    async def read(self, path: Path) -> None:
        """Read one file to its end, unless that was done together with another file of its run."""
        if str(path) not in self._results:
            await self._read_into_result(path)
        await self.pending.commit_if_large()

    async def _read_into_result(self, path: Path) -> None:
        result = self._results[str(path)] = FileResult(str(path))
        try:
            await self._read_file(path, result)
        except OSError as error:
            result.outcome, result.error = "failed", error.strerror or str(error)
        except NotReadable as error:
            result.outcome, result.error = "failed", str(error)

    async def _read_file(self, path: Path, result: FileResult) -> None:
        found, now = await self._looks.at(path, lambda _: _stat(path, self._options))
        file = self._known.get(str(path))
        same = file is not None and (found.st_size, found.st_mtime_ns) == (file.size, file.mtime)
        if file is not None and file.note is not None:
            other = not same and not await self._is_start_of(path, file)
            if not other and not await self._is_longer(file, found.st_size):
                result.run = f"{key_of(file)[0]}/{file.run_id}"
                result.outcome = "replaced" if is_replaced(file) else "copy"
                return
            self._known.drop(file.path)
            file = None
        if file is not None and not same and (found.st_size < file.read_to or not await self._same_start(path, file)):
            if found.st_size < file.read_to and await self._is_start_of(path, file):
                result.run = f"{key_of(file)[0]}/{file.run_id}"
                result.note = "it is shorter than what was read from it before, which stays mirrored"
                return
            await self._rebuild(key_of(file), path)
            return
        if file is None:
            identity = await self._looks.at(path, lambda _: identify(path))
            if identity is None:
                result.outcome = "empty"
                return
            file = await self._register(path, found.st_size, identity, result)
            if file is None:
                return
        key = key_of(file)
        result.run = f"{key[0]}/{file.run_id}"
        run = await self.pending.run(key)
        if run is not None and not run.local:
            if result.outcome == "new":
                seen = replace(file, read_at=utc_now())
                await self._save(seen)
            result.outcome, result.state = "on the server", run.state
            return
        # It was read by a version that read some values wrongly, or without something that the options now include.
        outdated = file.beside is None or self._options.widens(file.beside.partition(" ")[0])
        if file.read_to and outdated and not await self._gone(key):
            await self._rebuild(key, path)
            return
        if same and file.beside == now:
            await self._check_state(path, key, result)
            return
        await self._read_records(path, file, key, result)

    async def _is_start_of(self, path: Path, file: LocalFile) -> bool:
        return await self._looks.at(path, lambda _: _is_start_of(path, file))

    async def _same_start(self, path: Path, file: LocalFile) -> bool:
        return await self._looks.at(path, lambda _: same_start(path, file))

    async def _size(self, path: str) -> int | None:
        return await self._looks.at(path, lambda _: _size(path))

    async def _is_longer(self, file: LocalFile, size: int) -> bool:
        """Return True if a copy is longer now than the file that it copied, or that file no longer exists."""
        copied = copied_path(file)
        main = None if copied is None else self._known.get(copied)
        if main is None:
            return False
        copied_size = await self._size(main.path)
        return copied_size is None or size > copied_size

    async def _register(self, path: Path, size: int, identity: Identity, result: FileResult) -> LocalFile | None:
        """Register a new file. Returns None if it is not to be read.

        Of several files of one run and start the longest is read, and the others count as copies. If a later start of
        the run was read already, all files of the run are read again, in their order.
        """
        entity = identity.entity or self._options.entity or await self._owner(identity) or NO_ENTITY
        file = LocalFile(str(path), entity, identity.project, identity.run_id, identity.started_at)
        key = key_of(file)
        twin = self._known.twin(file, any_entity=not identity.entity)
        if twin is not None:
            twin_size = await self._size(twin.path)
            if twin_size is not None and size <= twin_size:
                copy = _copy(twin, str(path), twin.path)
                await self._save(copy)
                self._known.add(copy)
                result.run, result.outcome = f"{twin.entity}/{twin.project}/{twin.run_id}", "copy"
                return None
            if size < twin.read_to:
                result.run = f"{twin.entity}/{twin.project}/{twin.run_id}"
                result.note = f"it is shorter than what was read from {twin.path}, which stays mirrored"
                return None
            if twin.damaged or not await self._same_start(path, twin):
                await self._rebuild(key_of(twin), path)
                return None
            moved = replace(twin, path=str(path), size=-1, read_at=utc_now())
            copies = [] if twin_size is None else [_copy(twin, twin.path, str(path))]

            def write(tx: Transaction) -> None:
                local.forget_files(tx, [twin.path])
                local.save_files(tx, [moved, *copies])

            await self.pending.commit()
            await self._writer.write(write)
            self._known.drop(twin.path)
            for one in (moved, *copies):
                self._known.add(one)
            if moved.note is not None:
                result.run, result.outcome = f"{twin.entity}/{twin.project}/{twin.run_id}", "replaced"
                return None
            return moved
        later = [one for one in self._known.of(key) if order(one.started_at) > order(file.started_at)]
        self._known.add(file)
        if not any(one.read_to for one in later):
            result.outcome = "new"
            return file
        if gone := await self._gone(key):
            result.run = f"{key[0]}/{key[1]}"
            result.note = (
                f"it is an earlier start of a run whose later file {gone[0]} no longer exists, so it is not read"
            )
            result.outcome = "replaced"
            kept = replace(file, note=f"{REPLACED}{gone[0]}", read_at=utc_now())
            await self._save(kept)
            self._known.add(kept)
            return None
        await self._rebuild(key, path)
        return None

    async def _gone(self, key: RunKey) -> list[str]:
        """Return the files whose content is mirrored, but which no longer exist."""
        read = [file.path for file in self._known.of(key) if file.note is None and file.read_to]
        return [path for path in read if await self._size(path) is None]

    async def _rebuild(self, key: RunKey, path: Path) -> None:
        """Read all files of a run again, in the order of its starts, and replace what was mirrored.

        `path` is the file that made this necessary.
        """
        await self.pending.commit()
        run = await self.pending.run(key)
        members = list(self._known.of(key))
        # The longest file of a start comes first, so that the others are recognised as copies.
        sizes = {one.path: await self._size(one.path) for one in members}
        paths = {one.path: (order(one.started_at), -size) for one in members if (size := sizes[one.path]) is not None}
        identity = await self._looks.at(path, lambda _: identify(path))
        paths[str(path)] = order(identity.started_at if identity else None), -(await self._size(str(path)) or 0)
        self.pending.drop(key, run, forgotten=[one.path for one in members])
        for one in members:
            self._known.drop(one.path)
        for name in sorted(paths, key=lambda name: (paths[name], files.order(Path(name)))):
            await self._read_into_result(Path(name))

    async def _begin_again(self, path: Path, file: LocalFile, key: RunKey, result: FileResult) -> None:
        """Read a file again as a start that replaces all earlier starts of its run."""
        await self.pending.commit()
        run = await self.pending.run(key)
        stored = await self.pending.stored(key)
        note = f"{REPLACED}{path}, where the run starts again"
        former = [
            replace(one, note=note, read_at=utc_now())
            for one in self._known.of(key)
            if one.note is None and one.path != str(path)
        ]
        self.pending.drop(key, run, saved=former)
        for one in former:
            self._known.add(one)
        fresh = LocalFile(str(path), file.entity, file.project, file.run_id, file.started_at)
        self._known.add(fresh)
        rows = f"{stored.rows if stored is not None else 0:,} history rows"
        where = ", ".join(one.path for one in former) or "a file that no longer exists"
        result.rows, result.outcome = 0, "new"
        result.note = (
            f"its steps start at 0 again and it does not say that it resumes, so it replaces the run's "
            f"earlier start ({rows} of {where})"
        )
        await self._read_records(path, fresh, key, result)

    async def _save(self, file: LocalFile) -> None:
        await self._writer.write(lambda tx: local.save_files(tx, [file]))

    async def _owner(self, identity: Identity) -> str | None:
        """Return the entity under which the server has the run, for a file without one."""
        return await self._writer.read(lambda db: local.owner(db, identity.project, identity.run_id))

    async def _check_state(self, path: Path, key: RunKey, result: FileResult) -> None:
        """Check the run of an unchanged file: its process may have ended without writing an exit record."""
        run = await self.pending.run(key)
        if run is None:
            return
        result.state = run.state
        if run.on_server or run.state not in LIVE_STATES:
            return
        reading = await self.pending.reading(key)
        state = await self._looks.at(path, lambda _: _state(path, reading))
        if state != run.state:
            result.outcome, result.state = "read", state
            self.pending.add(key, reading, state, None, result)

    async def _read_records(self, path: Path, file: LocalFile, key: RunKey, result: FileResult) -> None:
        reading = await self.pending.reading(key)
        before = await self.pending.run(key)
        older = any(order(one.started_at) > order(file.started_at) and one.read_to for one in self._known.of(key))
        reader = Reader(path, file, reading, self._options, older=older)
        pieces = reader.pieces()
        try:
            while (piece := await self._looks.at(path, lambda _: next(pieces, None))) is not None:
                self._known.add(piece.file)
                result.rows += piece.history.rows if piece.history else 0
                ended = piece.last
                result.state = await self._looks.at(path, lambda _: _state(path, reading)) if ended else "running"
                result.note = "; ".join(piece.notes) or result.note
                result.unreadable += piece.errors
                self.pending.add(key, reading, result.state, piece, result)
                await self.pending.commit_if_many_values()
        except BeginsAgain:
            await self._begin_again(path, file, key, result)
            return
        except OutOfOrder:
            await self._out_of_order(path, file, key, result)
            return
        except OSError:
            # What a thread that hangs reads after all is no part of what is committed.
            await self.pending.commit()
            self.pending.forget_reading(key)
            raise
        result.damaged, result.unread_bytes = reader.damaged, reader.unread
        grown = reader.file.read_to > file.read_to or reader.file.beside != file.beside
        changed = grown or (before is not None and before.state != result.state)
        if result.outcome != "new" and changed:
            result.outcome = "read"

    async def _out_of_order(self, path: Path, file: LocalFile, key: RunKey, result: FileResult) -> None:
        """Handle an earlier start that continued after a later one was read: read both again, or skip its last rows."""
        if not await self._gone(key):
            await self._rebuild(key, path)
            return
        await self.pending.commit()
        self.pending.forget_reading(key)
        kept = replace(file, note=f"{REPLACED}a later start of the run", read_at=utc_now())
        await self._save(kept)
        self._known.add(kept)
        result.outcome = "replaced"
        result.note = (
            "it continued after a later start was read, whose file no longer exists; its last rows are left out"
        )


def _copy(file: LocalFile, path: str, of: str) -> LocalFile:
    """Return the record of a file that is not read, since file `of` has the same content."""
    run = file.entity, file.project, file.run_id, file.started_at
    return LocalFile(path, *run, note=f"{COPY}{of}", read_at=utc_now())


def _stat(path: Path, options: Options) -> tuple[os.stat_result, str]:
    return path.stat(), around(path, options)


def _size(path: str) -> int | None:
    """Return the size of a file; None if it does not exist."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _is_start_of(path: Path, file: LocalFile) -> bool:
    """Return True if the file still belongs to the same run and start, or does not contain its run record yet."""
    identity = identify(path)
    if identity is None:
        return True
    return (identity.run_id, order(identity.started_at)) == (file.run_id, order(file.started_at))


def _state(path: Path, reading: Reading) -> str:
    """Return the state of a run according to its files."""
    if reading.exit_code is not None:
        return "finished" if not reading.exit_code else "preempted" if reading.preempting else "failed"
    started = float(reading.started_at or 0)
    live = files.is_live(path, path.stat().st_mtime, reading.last_time, reading.texts.get("host"), started)
    if reading.preempting:
        return "preempting" if live else "preempted"
    return "running" if live else "crashed"


def options_of(settings: Settings) -> Options:
    """Return the options that the settings set for reading files."""
    entity = settings.entity or settings.local.entity or None
    scope = settings.sync
    wanted = Selection(scope.files.globs, scope.files_max, scope.files_budget)
    return Options(
        entity,
        tuple(scope.history),
        scope.system_metrics,
        scope.console,
        scope.metadata,
        scope.files.listed,
        wanted,
    )
