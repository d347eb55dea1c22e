"""One file, read in pieces that fit a transaction."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from mirror.errors import CommError
from mirror.local import blocks, files
from mirror.local.run import Lines, Reading, apply
from mirror.local.wire import Malformed
from mirror.remote.columns import KeyGlobs, parse, parse_events
from mirror.remote.lenient import loads
from mirror.store.records import HistoryPage, LocalFile

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_BYTES = 16 << 20
"""How much of a file goes into one piece."""

_HEAD = 4096


@dataclass(frozen=True)
class Options:
    """What is taken from files: `entity` is that of runs that name none, `history` the globs of keys."""

    entity: str | None = None
    history: tuple[str, ...] = ("*",)
    system_metrics: bool = False


@dataclass(frozen=True)
class Identity:
    """Which run a file is of, and which of its processes wrote it. The entity is empty where the file names none."""

    entity: str
    project: str
    run_id: str
    started_at: str


@dataclass(frozen=True)
class Piece:
    """What some records of a file hold. `file` is how far it is read with them; the `last` one reaches to its end.

    `cut` is the step behind which older history is to go before this is added; `notes` are for the user.
    """

    file: LocalFile
    last: bool
    history: HistoryPage | None
    events: HistoryPage | None
    cut: int | None
    notes: tuple[str, ...] = ()


def identify(path: Path) -> Identity | None:
    """Read up to the record that tells which run it is; None where there is none yet. Raises NotReadable, OSError."""
    with files.opened(path) as stream:
        if not blocks.check_header(stream.read(len(blocks.FILE_HEADER))):
            return None
        reading, lines = Reading(), Lines()
        size = os.fstat(stream.fileno()).st_size
        for framed in blocks.records(stream, 0, size, blocks.Tally()):
            try:
                apply(reading, framed.payload, lines, 0)
            except (Malformed, IndexError):
                continue
            if texts := reading.texts:
                run_id = texts.get("run_id") or path.stem.removeprefix("run-")
                project = texts.get("project") or "uncategorized"
                return Identity(texts.get("entity", ""), project, run_id, reading.started_at or "")
    return None


def head(path: Path, read_to: int) -> str:
    """A checksum of the start of a file, of as much as is there for good once it is read up to `read_to`."""
    length = min(read_to, _HEAD)
    with files.opened(path) as stream:
        return f"{length}:{crc32(stream.read(length)):08x}"


def same_start(path: Path, file: LocalFile) -> bool:
    """Whether the file still begins with what was read of it."""
    return not file.head or head(path, int(file.head.partition(":")[0])) == file.head


class Reader:
    """Goes on where `file` ends, and keeps `reading` up to date. `older` tells that a later start of the run was read.

    `damaged` counts places skipped in this call, `unread` the bytes behind the last whole record.
    """

    def __init__(self, path: Path, file: LocalFile, reading: Reading, options: Options, *, older: bool = False) -> None:
        self.path = path
        self.file = file
        self.reading = reading
        self.damaged = 0
        self.unread = 0
        self._options = options
        self._older = older
        self._keys = KeyGlobs(options.history)

    def pieces(self) -> Iterator[Piece]:
        """Everything that is whole now, at least one piece. Raises OSError, BeginsAgain and OutOfOrder."""
        with files.opened(self.path) as stream:
            stat = os.fstat(stream.fileno())
            self.file = replace(self.file, size=stat.st_size, mtime=stat.st_mtime_ns)
            tally, lines, broken = blocks.Tally(), Lines(), 0
            before, start = self.file.damaged, self.file.read_to
            end, damaged, shift = start, before, self.file.shift
            for framed in blocks.records(stream, start, stat.st_size, tally):
                try:
                    shift = apply(self.reading, framed.payload, lines, shift, older=self._older)
                except (Malformed, IndexError):
                    broken += 1
                end, damaged = framed.end, before + framed.damaged + broken
                if end - start >= PIECE_BYTES:
                    self.file = replace(self.file, read_to=end, shift=shift, damaged=damaged)
                    piece = self._piece(lines, last=False)
                    broken += piece.file.damaged - damaged
                    damaged = piece.file.damaged
                    yield piece
                    lines, start = Lines(), end
            self.file = replace(self.file, read_to=end, shift=shift, damaged=damaged)
            yield self._piece(lines, last=True)
            self.unread = _unread(stat.st_size, self.file.read_to)
            self.damaged = max(self.file.damaged, before + tally.damaged + broken) - before

    def _piece(self, lines: Lines, *, last: bool) -> Piece:
        history, bad = self._page(lines.history) if self._options.history else (None, 0)
        events = None
        if self._options.system_metrics and lines.events:
            texts = [text for text in lines.events if _is_json(text)]
            bad += len(lines.events) - len(texts)
            events = _behind(parse_events(self.file.run_id, texts), self.reading.events)
            self.reading.events += len(texts)
        read_to = self.file.read_to
        self.file = replace(self.file, damaged=self.file.damaged + bad, head=head(self.path, read_to))
        cut, self.reading.cut = self.reading.cut, None
        return Piece(self.file, last, history, events, cut, tuple(lines.notes))

    def _page(self, texts: list[str]) -> tuple[HistoryPage | None, int]:
        """The lines as columns, and how many of them hold what is no JSON."""
        if not texts:
            return None, 0
        try:
            return parse(self.file.run_id, texts, self._keys), 0
        except CommError:
            sound = [text for text in texts if _is_json(text)]
            return parse(self.file.run_id, sound, self._keys) if sound else None, len(texts) - len(sound)


def _is_json(text: str) -> bool:
    try:
        return isinstance(loads(text), dict)
    except ValueError:
        return False


def _behind(page: HistoryPage, count: int) -> HistoryPage:
    """System metrics have no step but their place in the run; these come behind so many others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not count:
        return page
    steps = pc.add(page.values["step"], pa.scalar(count, pa.int64()))
    last = None if page.last_step is None else page.last_step + count
    return replace(page, values=page.values.set_column(0, "step", steps), last_step=last, summary=None)


def _unread(size: int, read_to: int) -> int:
    """The bytes behind the last record, but for the few at the end of a block in which no record fits."""
    left = size - read_to
    return 0 if left < blocks.PIECE_HEADER and size % blocks.BLOCK in blocks.ALIGNMENTS else left
