"""What was read of runs and waits to be committed, many files per transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from mirror.local import commits
from mirror.local.commits import Change, Drop, FileResult, RunKey
from mirror.local.reader import Piece
from mirror.local.reading import Reading
from mirror.local.run import record
from mirror.store import local
from mirror.store.records import LocalFile, LocalRun
from mirror.sync.writer import Writer

NO_ENTITY = "local"
"""The entity of runs without one, if the settings have none either."""

COMMIT_VALUES = 1_000_000
COMMIT_FILES = 200
"""What was read is committed at these sizes: one large transaction takes DuckDB half the time of many small ones."""


class Pending:
    """The runs as they are after the waiting changes, and these changes."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._runs: dict[RunKey, LocalRun | None] = {}
        self._readings: dict[RunKey, Reading] = {}
        self._drops: list[Drop] = []
        self._changes: list[Change] = []
        self._values = 0
        self._committing: tuple[list[Change], asyncio.Task[list[LocalRun]]] | None = None

    def start_with(self, runs: Mapping[RunKey, LocalRun]) -> None:
        """Start with these stored records of runs, so that `run` does not load them one by one."""
        self._runs = dict(runs)

    async def run(self, key: RunKey) -> LocalRun | None:
        """Return the run's stored record, including what was read of it since."""
        if key not in self._runs:
            self._runs[key] = await self.stored(key)
        return self._runs[key]

    async def stored(self, key: RunKey) -> LocalRun | None:
        """Return the run's record as it is in the store."""
        project, run_id = key
        return (await self._writer.read(lambda db: local.find(db, project, [run_id]))).get(run_id)

    async def reading(self, key: RunKey) -> Reading:
        """Return how far the run was read."""
        if key not in self._readings:
            stored = await self._writer.read(lambda db: local.reading(db, *key))
            self._readings[key] = Reading.from_json(stored) if stored else Reading()
        return self._readings[key]

    def forget_reading(self, key: RunKey) -> None:
        """Load the reading of a run from the store when it is next used."""
        self._readings.pop(key, None)

    def drop(
        self, key: RunKey, run: LocalRun | None, *, forgotten: Sequence[str] = (), saved: Sequence[LocalFile] = ()
    ) -> None:
        """Remove what was read of a run with the next transaction."""
        self._drops.append(Drop(key, list(forgotten), list(saved)))
        self._readings[key] = Reading()
        self._runs[key] = run if run is not None and (run.on_server or not run.local) else None

    def add(self, key: RunKey, reading: Reading, state: str, piece: Piece | None, result: FileResult) -> None:
        """Add a change to the next transaction."""
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
        unreadable: list[str] = []
        run_record = record(reading, project.entity, project.project, state, unreadable)
        # The values of the summary are reported again with each piece.
        result.unreadable += [line for line in unreadable if line not in result.unreadable]
        self._changes.append(Change(run_record, mark, reading.as_json(), piece, result))
        self._values += piece.history.values.num_rows if piece and piece.history else 0

    async def commit_if_large(self) -> None:
        """Start a transaction if many values or changes wait."""
        if self._values >= COMMIT_VALUES or len(self._changes) >= COMMIT_FILES:
            await self._begin_commit()

    async def commit_if_many_values(self) -> None:
        """Start a transaction if many values wait, while a file is read further."""
        if self._values >= COMMIT_VALUES:
            await self._begin_commit()

    async def commit(self) -> None:
        """Commit the waiting changes, except those of runs that were pulled from the server meanwhile."""
        await self._begin_commit()
        await self._finish_commit()

    async def end(self) -> None:
        """Wait for the current transaction, also after an error."""
        if self._committing is not None:
            await asyncio.gather(self._committing[1], return_exceptions=True)

    async def _begin_commit(self) -> None:
        """Start to write the waiting changes, while more is read."""
        await self._finish_commit()
        changes, self._changes, self._values = self._changes, [], 0
        drops, self._drops = self._drops, []
        if changes or drops:
            task = asyncio.create_task(self._writer.write(lambda tx: commits.write(tx, drops, changes)))
            self._committing = changes, task

    async def _finish_commit(self) -> None:
        if self._committing is None:
            return
        (changes, task), self._committing = self._committing, None
        for refused in await task:
            self._runs[refused.project, refused.run_id] = refused
            for change in changes:
                if (change.mark.project, change.mark.run_id) == (refused.project, refused.run_id):
                    change.result.outcome, change.result.rows = "on the server", 0
