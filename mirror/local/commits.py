"""Changes that were read from files and wait to be committed, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from mirror.local.reader import Piece
from mirror.protocol import LIVE_STATES
from mirror.remote.json_history import parse_events
from mirror.store import console, history, local, metadata, runs, staging
from mirror.store.records import ConsolePage, HistoryPage, LocalFile, LocalRun, ProjectKey, RunRecord
from mirror.store.transaction import Transaction
from mirror.sync.context import utc_now

RunKey = tuple[ProjectKey, str]


class FileResult(Struct):
    """The result of one file. `outcome` is new, read, nothing new, on the server, copy, replaced, empty or failed.

    `note` explains how the file was ordered among the other files of its run, if that had to be decided. `unreadable`
    lists values that cannot be read; the rest is mirrored.
    """

    path: str
    run: str | None = None
    outcome: str = "nothing new"
    state: str | None = None
    rows: int = 0
    damaged: int = 0
    unread_bytes: int = 0
    error: str | None = None
    note: str | None = None
    unreadable: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The documented JSON form."""
        return {**asdict(self), "trouble": self.trouble()}

    def trouble(self) -> str | None:
        """Describe the parts of the file that could not be read; None if there are none."""
        parts = []
        if self.damaged:
            parts.append(f"{self.damaged:,} damaged {'place was' if self.damaged == 1 else 'places were'} skipped")
        if self.unread_bytes and self.state not in LIVE_STATES:
            parts.append(f"the last {self.unread_bytes:,} bytes are an incomplete record")
        return "; ".join(parts) or None


class Change(Struct, frozen=True):
    """One change that waits to be committed."""

    record: RunRecord
    mark: LocalRun
    reading: str
    piece: Piece | None
    result: FileResult


class Drop(Struct, frozen=True):
    """Removes what was read of a run, in the same transaction that writes what is read again.

    `forgotten` are the paths of files to be read again, `saved` files that are not read any more.
    """

    key: RunKey
    forgotten: list[str]
    saved: list[LocalFile]


def write(tx: Transaction, drops: Sequence[Drop], changes: Sequence[Change]) -> list[LocalRun]:
    """Write everything that was read. Returns the runs that are no longer local; nothing of them is written."""
    refused: list[LocalRun] = []
    for drop in drops:
        forget(tx, drop)
    now = utc_now()
    for project in dict.fromkeys(change.mark.project for change in changes):
        of_project = [change for change in changes if change.mark.project == project]
        stored = local.find(tx.db, project, [change.mark.run_id for change in of_project])
        refused += [run for run in stored.values() if not run.local]
        accepted = [c for c in of_project if c.mark.run_id not in stored or stored[c.mark.run_id].local]
        on_server = {run.run_id for run in stored.values() if run.on_server}
        runs.upsert(tx, [change.record for change in accepted if change.mark.run_id not in on_server], now=now)
        local.save(tx, list({change.mark.run_id: (change.mark, change.reading) for change in accepted}.values()))
        pieces = [change.piece for change in accepted if change.piece is not None]
        pages: list[HistoryPage] = []
        for piece in pieces:
            if piece.cut is not None:
                if pages:
                    history.append(tx, project, pages)
                pages = []
                staging.cut(tx, project, piece.file.run_id, last_step=piece.cut)
            if piece.history is not None:
                pages.append(piece.history)
            if piece.events is not None:
                history.append_system_metrics(tx, project, piece.events)
            if piece.console:
                console.put_console(tx, project, piece.console)
        documents = {p.file.run_id: p.metadata for p in pieces if p.metadata is not None}
        if documents:
            metadata.put_files(tx, project, documents)
        if pages:
            history.append(tx, project, pages)
    files = {c.piece.file.path: replace(c.piece.file, read_at=now) for c in changes if c.piece is not None}
    local.save_files(tx, list(files.values()))
    return refused


def forget(tx: Transaction, drop: Drop) -> None:
    """Remove what was read of a run from files: all of it, or what the server's record does not cover."""
    project, run_id = drop.key
    run = local.find(tx.db, project, [run_id]).get(run_id)
    if run is not None and run.local and run.on_server:
        staging.cut(tx, project, run_id, last_step=-1)
        history.replace_system_metrics(tx, project, parse_events(run_id, []))
        console.put_console(tx, project, [ConsolePage(run_id, 0, [], last=True)])
    elif run is not None and run.local:
        local.forget(tx, project, run_id)
    local.forget_files(tx, drop.forgotten)
    local.save_files(tx, drop.saved)


def key_of(file: LocalFile) -> RunKey:
    """Return the run of a file."""
    return ProjectKey(file.entity, file.project), file.run_id
