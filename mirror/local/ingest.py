"""Brings what files hold that is not mirrored yet into the store, many files a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mirror.config import Settings
from mirror.local import files
from mirror.local.blocks import NotReadable
from mirror.local.reader import Identity, Options, Piece, Reader, identify, same_start
from mirror.local.run import Reading, record
from mirror.store.records import HistoryPage, LocalFile, LocalRun, ProjectKey, RunRecord
from mirror.store.runs import LIVE_STATES
from mirror.store.store import Store
from mirror.store.writes import Writes
from mirror.sync.context import utc_now
from mirror.sync.writer import Writer

NO_ENTITY = "local"
"""The entity of runs that name none, where no other one is set."""

COMMIT_VALUES = 1_000_000
COMMIT_FILES = 200
"""When what was read is committed: one large transaction takes DuckDB half the time of many small ones."""

RunKey = tuple[ProjectKey, str]


@dataclass
class FileResult:
    """What one file brought. `outcome` is new, read, nothing new, on the server, copy, empty or failed."""

    path: str
    run: str | None = None
    outcome: str = "nothing new"
    state: str | None = None
    rows: int = 0
    damaged: int = 0
    unread_bytes: int = 0
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The documented JSON form."""
        return {**vars(self), "trouble": self.trouble()}

    def trouble(self) -> str | None:
        """What of the file could not be read, in words."""
        parts = []
        if self.damaged:
            parts.append(f"{self.damaged:,} damaged {'place was' if self.damaged == 1 else 'places were'} skipped")
        if self.unread_bytes and self.state not in LIVE_STATES:
            parts.append(f"the last {self.unread_bytes:,} bytes are no whole record")
        return "; ".join(parts) or None


@dataclass(frozen=True)
class _Change:
    """What waits to be committed."""

    record: RunRecord
    mark: LocalRun
    reading: str
    piece: Piece | None
    result: FileResult


class Ingest:
    """Reads files into one store. `options` may change between two calls."""

    def __init__(self, writer: Writer, options: Options) -> None:
        self.options = options
        self._writer = writer
        self._lock = asyncio.Lock()

    async def take(self, paths: Sequence[Path]) -> list[FileResult]:
        """Mirror what is new in these files; a file that cannot be read is told in its result and stops no other one.

        What is committed is not published yet. Raises StoreError.
        """
        async with self._lock:
            one = _Pass(self._writer, self.options)
            try:
                await one.begin(paths)
                for path in paths:
                    await one.take(path)
                await one.commit()
            finally:
                await one.end()
        return one.results


class _Pass:
    """One call: what is known of files and runs, and what waits to be committed."""

    def __init__(self, writer: Writer, options: Options) -> None:
        self.results: list[FileResult] = []
        self._writer = writer
        self._options = options
        self._known: dict[str, LocalFile] = {}
        self._runs: dict[RunKey, LocalRun | None] = {}
        self._readings: dict[RunKey, Reading] = {}
        self._changes: list[_Change] = []
        self._values = 0
        self._committing: tuple[list[_Change], asyncio.Task[list[LocalRun]]] | None = None

    async def begin(self, paths: Sequence[Path]) -> None:
        """Look up what is known already, of all files and of the runs of these."""
        given = {str(path) for path in paths}

        def look(store: Store) -> tuple[dict[str, LocalFile], dict[RunKey, LocalRun | None]]:
            known = store.local_files()
            wanted: dict[ProjectKey, list[str]] = {}
            for file in (known[path] for path in given & known.keys()):
                wanted.setdefault(ProjectKey(file.entity, file.project), []).append(file.run_id)
            found = {
                (project, run_id): run
                for project, run_ids in wanted.items()
                for run_id, run in store.local_runs(project, run_ids).items()
            }
            return known, dict(found)

        self._known, self._runs = await self._writer.read(look)

    async def take(self, path: Path) -> None:
        """Read one file as far as it goes."""
        result = FileResult(str(path))
        self.results.append(result)
        try:
            await self._take(path, result)
        except OSError as error:
            result.outcome, result.error = "failed", error.strerror or str(error)
        except NotReadable as error:
            result.outcome, result.error = "failed", str(error)
        if self._values >= COMMIT_VALUES or len(self._changes) >= COMMIT_FILES:
            await self._begin_commit()

    async def _take(self, path: Path, result: FileResult) -> None:
        stat = path.stat()  # noqa: ASYNC240 - a stat is over sooner than a thread is found for it
        file = self._known.get(str(path))
        same = file is not None and (stat.st_size, stat.st_mtime_ns) == (file.size, file.mtime)
        if file is not None and not same and (stat.st_size < file.read_to or not same_start(path, file)):
            await self._start_over(file)
            file = None
        if file is None:
            identity = await asyncio.to_thread(identify, path)
            if identity is None:
                result.outcome = "empty"
                return
            file = await self._enter(path, stat.st_size, identity, result)
            if file is None:
                return
        key = _key(file)
        result.run = f"{key[0]}/{file.run_id}"
        if file.note is not None:
            result.outcome = "copy"
            return
        run = await self._run(key)
        if run is not None and not run.local:
            if result.outcome == "new":
                seen = replace(file, read_at=utc_now())
                await self._writer.write(lambda tx: tx.save_local_files([seen]))
            result.outcome, result.state = "on the server", run.state
            return
        if same:
            await self._look_again(path, key, result)
            return
        await self._read(path, file, key, result)

    async def _enter(self, path: Path, size: int, identity: Identity, result: FileResult) -> LocalFile | None:
        """A file that was not seen before; None for a copy of another one."""
        entity = identity.entity or self._options.entity or await self._owner(identity) or NO_ENTITY
        twins = [
            known
            for known in self._known.values()
            if (known.run_id, known.project, known.started_at)
            == (identity.run_id, identity.project, identity.started_at)
            and known.note is None
            and (not identity.entity or known.entity == entity)
        ]
        if twins:
            twin = twins[0]
            if Path(twin.path).exists():  # noqa: ASYNC240
                copy = replace(twin, path=str(path), note=f"a copy of {twin.path}", read_at=utc_now())
                await self._writer.write(lambda tx: tx.save_local_files([copy]))
                self._known[copy.path] = copy
                result.run, result.outcome = f"{twin.entity}/{twin.project}/{twin.run_id}", "copy"
                return None
            moved = replace(twin, path=str(path), size=-1, read_at=utc_now())
            if size >= twin.read_to and same_start(path, twin):

                def write(tx: Writes) -> None:
                    tx.forget_local_files([twin.path])
                    tx.save_local_files([moved])

                await self._writer.write(write)
                del self._known[twin.path]
                self._known[moved.path] = moved
                return moved
            await self._start_over(twin)
        file = LocalFile(str(path), entity, identity.project, identity.run_id, identity.started_at)
        self._known[file.path] = file
        result.outcome = "new"
        return file

    async def _owner(self, identity: Identity) -> str | None:
        """The entity under which the server has the run, for a file that names none."""
        return await self._writer.read(lambda store: store.run_owner(identity.project, identity.run_id))

    async def _start_over(self, file: LocalFile) -> None:
        """Forget a run whose file was replaced by another one, so that all its files are read again."""
        await self.commit()
        project, run_id = key = _key(file)
        run = await self._run(key)
        gone = [known.path for known in self._known.values() if _key(known) == key]

        def write(tx: Writes) -> None:
            tx.forget_local_files(gone)
            if run is not None and run.local:
                tx.forget_run(project, run_id)

        await self._writer.write(write)
        for path in gone:
            del self._known[path]
        self._runs.pop(key, None)
        self._readings.pop(key, None)

    async def _run(self, key: RunKey) -> LocalRun | None:
        """How the run stands, with what this call has read of it."""
        if key not in self._runs:
            project, run_id = key
            found = await self._writer.read(lambda store: store.local_runs(project, [run_id]))
            self._runs[key] = found.get(run_id)
        return self._runs[key]

    async def _reading(self, key: RunKey) -> Reading:
        if key not in self._readings:
            kept = await self._writer.read(lambda store: store.local_reading(*key))
            self._readings[key] = Reading.from_json(kept) if kept else Reading()
        return self._readings[key]

    async def _look_again(self, path: Path, key: RunKey, result: FileResult) -> None:
        """The file is as it was, but a run that ended without a word is seen to have ended."""
        run = self._runs[key]
        if run is None:
            return
        result.state = run.state
        if run.on_server or run.state not in LIVE_STATES:
            return
        reading = await self._reading(key)
        state = _state(path, reading)
        if state != run.state:
            result.outcome, result.state = "read", state
            self._add(key, reading, state, None, result)

    async def _read(self, path: Path, file: LocalFile, key: RunKey, result: FileResult) -> None:
        reading = await self._reading(key)
        before = self._runs[key]
        reader = Reader(path, file, reading, self._options)
        pieces = reader.pieces()
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            self._known[file.path] = piece.file
            result.rows += piece.history.rows if piece.history else 0
            result.state = _state(path, reading) if piece.last else "running"
            self._add(key, reading, result.state, piece, result)
            if self._values >= COMMIT_VALUES:
                await self._begin_commit()
        result.damaged, result.unread_bytes = reader.damaged, reader.unread
        changed = reader.file.read_to > file.read_to or (before is not None and before.state != result.state)
        if result.outcome != "new" and changed:
            result.outcome = "read"

    def _add(self, key: RunKey, reading: Reading, state: str, piece: Piece | None, result: FileResult) -> None:
        """Have something committed with the next transaction."""
        project, run_id = key
        run = self._runs[key]
        reading.texts["run_id"] = run_id
        mark = LocalRun(
            project,
            run_id,
            local=True,
            on_server=run is not None and run.on_server,
            guessed=project.entity == NO_ENTITY and "entity" not in reading.texts,
            rows=0,
            state=state,
        )
        self._runs[key] = mark
        told = record(reading, project.entity, project.project, state)
        change = _Change(told, mark, reading.as_json(), piece, result)
        self._changes.append(change)
        self._values += piece.history.values.num_rows if piece and piece.history else 0

    async def commit(self) -> None:
        """Commit what waits, but for runs that came from the server in the meantime."""
        await self._begin_commit()
        await self._finish_commit()

    async def _begin_commit(self) -> None:
        """Have what waits written while more is read."""
        await self._finish_commit()
        changes, self._changes, self._values = self._changes, [], 0
        if changes:
            self._committing = changes, asyncio.create_task(self._writer.write(lambda tx: _write(tx, changes)))

    async def end(self) -> None:
        """Wait for what is being written, also after an error."""
        if self._committing is not None:
            await asyncio.gather(self._committing[1], return_exceptions=True)

    async def _finish_commit(self) -> None:
        if self._committing is None:
            return
        (changes, task), self._committing = self._committing, None
        for refused in await task:
            self._runs[refused.project, refused.run_id] = refused
            for change in changes:
                if (change.mark.project, change.mark.run_id) == (refused.project, refused.run_id):
                    change.result.outcome, change.result.rows = "on the server", 0


def _write(tx: Writes, changes: Sequence[_Change]) -> list[LocalRun]:
    """Write everything that was read; gives the runs that are not local any more, of which nothing is written."""
    refused: list[LocalRun] = []
    now = utc_now()
    for project in dict.fromkeys(change.mark.project for change in changes):
        here = [change for change in changes if change.mark.project == project]
        standing = tx.local_runs(project, [change.mark.run_id for change in here])
        refused += [run for run in standing.values() if not run.local]
        taken = [c for c in here if c.mark.run_id not in standing or standing[c.mark.run_id].local]
        on_server = {run.run_id for run in standing.values() if run.on_server}
        tx.upsert_runs([change.record for change in taken if change.mark.run_id not in on_server], now=now)
        tx.mark_local(list({change.mark.run_id: (change.mark, change.reading) for change in taken}.values()))
        pieces = [change.piece for change in taken if change.piece is not None]
        pages: list[HistoryPage] = []
        for piece in pieces:
            if piece.cut is not None:
                if pages:
                    tx.append_history(project, pages)
                pages = []
                tx.cut_history(project, piece.file.run_id, last_step=piece.cut)
            if piece.history is not None:
                pages.append(piece.history)
            if piece.events is not None:
                tx.append_system_metrics(project, piece.events)
        if pages:
            tx.append_history(project, pages)
    files = {c.piece.file.path: replace(c.piece.file, read_at=now) for c in changes if c.piece is not None}
    tx.save_local_files(list(files.values()))
    return refused


def _key(file: LocalFile) -> RunKey:
    return ProjectKey(file.entity, file.project), file.run_id


def _state(path: Path, reading: Reading) -> str:
    """The state of a run as its files tell it."""
    if reading.exit_code is not None:
        return "failed" if reading.exit_code else "finished"
    started = float(reading.started_at or 0)
    live = files.is_live(path, path.stat().st_mtime, reading.texts.get("host"), started)
    return "running" if live else "crashed"


def options_of(settings: Settings) -> Options:
    """What the settings say is to be taken from files."""
    entity = settings.entity or settings.local.entity or None
    return Options(entity, tuple(settings.sync.history), settings.sync.system_metrics)
