"""Writes runs as offline run folders of the official client, which `wandb sync` uploads."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from mirror.errors import StoreError, UsageError
from mirror.local.beside import CONFIG, LOG, SUMMARY
from mirror.local.block_writer import BlockWriter
from mirror.move import records
from mirror.move.chosen import Chosen
from mirror.move.file_names import file_name, refusal
from mirror.protocol import METADATA
from mirror.snapshot import console, history_keys, whole_runs
from mirror.snapshot.whole_runs import Logged, RunFile, WholeRun

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_LINES_AT_ONCE = 10_000


class Written(Struct):
    """What was written. `left_out` has a sentence for each file that was not, and for rows that are not uploaded."""

    runs: int = 0
    rows: int = 0
    files: int = 0
    bytes: int = 0
    left_out: list[str] = field(default_factory=list)


def prepare(folder: Path) -> None:
    """Create the folder. Raises UsageError if there is something in it, or if it cannot be created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = next(folder.iterdir(), None) is not None
    except OSError as error:
        raise UsageError(f"--wandb {folder}: {error.strerror or error}; name a new folder") from error
    if occupied:
        raise UsageError(f"--wandb {folder}: it is not empty; name a new folder")


def write(
    connection: DuckDBPyConnection,
    chosen: Chosen,
    folder: Path,
    *,
    keep_sweeps: bool,
    done: Callable[[int], object] = lambda _: None,
) -> Written:
    """Write each run to a folder of its own, which appears when it is complete. `done` gets the number of runs so far.

    Raises StoreError if the disk is full or the folder cannot be written.
    """
    written = Written()
    try:
        for page in chosen.pages(connection):
            lines = whole_runs.console_sizes(connection, [one.rid for one in page])
            files = whole_runs.files(connection, page)
            for found in whole_runs.logged(connection, page):
                one = found.run
                with _run_folder(folder, one) as scratch:
                    run = _Run(connection, one, scratch, written, keep_sweeps)
                    run.write(found, files.get(one.run_id, ()), lines.get(one.rid, 0))
                written.runs += 1
                done(written.runs)
    except OSError as error:
        raise StoreError(f"cannot write {error.filename or folder}: {error.strerror or error}") from error
    return written


@contextmanager
def _run_folder(parent: Path, one: WholeRun) -> Iterator[Path]:
    """Give a folder that gets its name when the block ends, and is deleted if it fails."""
    scratch = parent / f".{uuid.uuid4().hex}.part"
    (scratch / "files").mkdir(parents=True)
    try:
        yield scratch
        stamp = "19700101_000000" if one.created_at is None else f"{one.created_at:%Y%m%d_%H%M%S}"
        plain = name = f"offline-run-{stamp}-{file_name(one.run_id)}"
        number = 0
        # Runs of two projects may have the same id and second, and file systems may ignore the case of letters.
        while (parent / name).exists():
            number += 1
            name = f"{plain}-{number}"
        scratch.rename(parent / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Run(Struct):
    connection: DuckDBPyConnection
    one: WholeRun
    folder: Path
    written: Written
    keep_sweep: bool

    def write(self, logged: Logged, files: Sequence[RunFile], lines: int) -> None:
        """Write the run's file and the files beside it."""
        names = self._files(files, console=lines > 0)
        with (self.folder / f"run-{file_name(self.one.run_id)}.wandb").open("wb") as stream:
            writer = BlockWriter(stream)
            for number, record in enumerate(self._records(logged, names, lines), start=1):
                writer.write(records.numbered(number, record))

    def _records(self, logged: Logged, names: list[str], lines: int) -> Iterator[bytes]:
        one = self.one
        first = next(logged.events, None)
        yield records.header()
        yield records.run(one, records.started_at(one, first), keep_sweep=self.keep_sweep)
        yield from records.metrics(one, history_keys.names(self.connection, one.rid))
        if (listed := records.files(names)) is not None:
            yield listed
        made = records.HistoryRecords(one)
        for step, values in logged.history:
            self.written.rows += 1
            yield made.record(step, values)
        if made.too_long:
            self.written.left_out.append(
                f"{one.path}: {made.too_long:,} history rows of more than 10 MiB: `wandb sync` skips them"
            )
        for _, values in chain([first] if first else [], logged.events):
            if (record := records.stats(values)) is not None:
                yield record
        for start in range(0, lines, _LINES_AT_ONCE):
            for line in console.lines(self.connection, one.rid, start, _LINES_AT_ONCE):
                yield records.console(line)
        yield records.summary(one)
        yield from records.end(one)

    def _files(self, files: Sequence[RunFile], *, console: bool) -> list[str]:
        """Copy the mirrored files and write the client's documents; returns the names of those to be uploaded.

        `wandb sync` writes the config, the summary and the console's log itself, so they are not among these.
        """
        own = {CONFIG, SUMMARY, *([LOG] if console else [])}
        names = []
        for found in files:
            if found.path is None:
                continue
            if (reason := self._copy(found)) is not None:
                self.written.left_out.append(f"{self.one.path}: file {found.name!r} {reason}")
            elif found.name not in own:
                names.append(found.name)
        for name, text in records.documents(self.one).items():
            target = self.folder / "files" / name
            if not target.exists():
                target.write_text(text, encoding="utf-8", errors="replace")
        return names if METADATA in names else [METADATA, *names]

    def _copy(self, found: RunFile) -> str | None:
        """Copy one file; returns why it cannot be. A copy, not a link: `wandb sync` writes to some of the files."""
        root = self.folder / "files"
        assert found.path is not None
        if (reason := refusal(found.name)) is not None:
            return reason
        target = root / found.name
        try:
            if target.exists():
                return "differs from another file only in the case of its name, which is the same here"
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return f"cannot be written here: {error.strerror or error}"
        try:
            shutil.copyfile(found.path, target)
        except OSError as error:
            if error.filename2 is not None or error.filename != str(found.path):
                raise
            return f"cannot be read in the mirror: {error.strerror or error}; `mirror doctor` looks for what is wrong"
        self.written.files += 1
        self.written.bytes += target.stat().st_size
        return None
