"""One file, read in pieces that fit a transaction."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from mirror.errors import CommError
from mirror.local import beside, blocks, files
from mirror.local.console import Console, Line
from mirror.local.protobuf import Malformed
from mirror.local.reading import Lines, Reading
from mirror.local.run import apply
from mirror.local.values import Unreadable, shown, value
from mirror.remote.json_history import KeyGlobs, parse, parse_events
from mirror.store.records import ConsolePage, HistoryPage, LocalFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE_BYTES = 16 << 20
"""How much of a file goes into one piece."""

_HEAD = 4096


@dataclass(frozen=True)
class Options:
    """What is taken from files: `entity` is that of runs that name none, `history` the globs of keys.

    `metadata` asks for all of `wandb-metadata.json`.
    """

    entity: str | None = None
    history: tuple[str, ...] = ("*",)
    system_metrics: bool = False
    console: bool = False
    metadata: bool = False

    def scope(self) -> str:
        """What is taken, as a word without spaces."""
        asked = {"s": self.system_metrics, "c": self.console, "m": self.metadata}
        globs = "\n".join(sorted(self.history)).encode("utf-8", "replace")
        return f"{crc32(globs):08x}{''.join(letter for letter, wanted in asked.items() if wanted)}"

    def widens(self, scope: str) -> bool:
        """Whether this takes what another scope left out, other globs included."""
        own = self.scope()
        return own[:8] != scope[:8] or not set(own[8:]) <= set(scope[8:])


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

    `cut` is the step behind which older history is to go before this is added; `notes` are for the user,
    `errors` what of it no reader takes. `metadata` is the whole document beside the file.
    """

    file: LocalFile
    last: bool
    history: HistoryPage | None
    events: HistoryPage | None
    cut: int | None
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    console: tuple[ConsolePage, ...] = ()
    metadata: dict[str, Any] | None = None


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
            except (Malformed, IndexError, Unreadable):
                continue
            if texts := reading.texts:
                run_id = texts.get("run_id") or path.stem.removeprefix("run-")
                project = texts.get("project") or "uncategorized"
                return Identity(texts.get("entity", ""), project, run_id, reading.started_at or "")
    return None


def around(path: Path, options: Options) -> str:
    """What is taken of a file, and what lies beside it: another text where either has changed."""
    return f"{options.scope()} {beside.signature(path, console=options.console)}"


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
        if options.console and reading.console is None:
            reading.console = Console()
        elif not options.console:
            reading.console = None

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
                except Unreadable as error:
                    lines.errors.append(str(error))
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
            found = around(self.path, self._options)
            if self._older:
                self.file = replace(self.file, beside=found)
            changed = found != self.file.beside
            metadata = self._beside(lines) if changed else None
            yield replace(self._piece(lines, last=True), metadata=metadata)
            if changed:
                errors: list[str] = []
                yield from self._log(errors)
                # Noted last, so that all of it is read again if this ends before.
                self.file = replace(self.file, beside=found)
                yield Piece(self.file, True, None, None, None, errors=tuple(errors))
            self.unread = _unread(stat.st_size, self.file.read_to)
            self.damaged = max(self.file.damaged, before + tally.damaged + broken) - before

    def _piece(self, lines: Lines, *, last: bool) -> Piece:
        run_id, errors = self.file.run_id, lines.errors
        history = events = None
        if self._options.history and lines.history:
            history = _read(lines.history, lambda texts: parse(run_id, texts, self._keys), errors, "history line")
        if self._options.system_metrics and lines.events:
            events = _read(lines.events, lambda texts: parse_events(run_id, texts), errors, "system metrics")
            if events is not None:
                events = _behind(events, self.reading.events)
                self.reading.events += events.rows
        self.file = replace(self.file, head=head(self.path, self.file.read_to))
        cut, self.reading.cut = self.reading.cut, None
        console = tuple(self._console())
        return Piece(self.file, last, history, events, cut, tuple(lines.notes), tuple(errors), console)

    def _console(self) -> Iterator[ConsolePage]:
        """What is new in the console."""
        console = self.reading.console
        if console is None or not (groups := console.take()):
            return
        if self.reading.log.get("lines"):
            # The file holds the console after all, so the lines of output.log are the same ones.
            self.reading.log = {}
            yield ConsolePage(self.file.run_id, console.begun, [], last=True)
        for group in groups:
            yield ConsolePage(self.file.run_id, group[0][0], group, last=False)

    def _beside(self, lines: Lines) -> dict[str, Any] | None:
        """Read the documents beside the file; gives the metadata if all of it is asked for."""
        documents = beside.read(self.path)
        lines.errors += documents.errors
        metadata = documents.metadata
        git = metadata.get("git")
        info = {name: metadata[name] for name in _INFO if metadata.get(name) not in (None, [], {}, "")}
        self.reading.beside = {
            "config": {k: v for k, v in documents.config.items() if not self.reading.config.holds((k,))},
            "summary": documents.summary,
            "host": _text(metadata.get("host")),
            "git_commit": _text(git.get("commit")) if isinstance(git, dict) else None,
            "info": info,
        }
        return metadata if self._options.metadata and metadata else None

    def _log(self, errors: list[str]) -> Iterator[Piece]:
        """The console from `output.log`, piece by piece, where the file itself has none."""
        console = self.reading.console
        if console is None or console.count > console.begun:
            return
        run_id, log = self.file.run_id, self.reading.log
        offset, count = log.get("offset", 0), log.get("lines", 0)
        try:
            if beside.log_size(self.path) < offset:
                offset = count = 0
            while True:
                page: list[Line] = []
                start, whole = offset, count
                for text, behind, ended in beside.log_lines(self.path, offset, PIECE_BYTES):
                    page.append((console.count + whole + len(page), None, None, text))
                    if ended:
                        offset, count = behind, count + 1
                self.reading.log = {"offset": offset, "lines": count, "open": whole + len(page) - count}
                if page:
                    pages = (ConsolePage(run_id, page[0][0], page, last=True),)
                    yield Piece(self.file, True, None, None, None, console=pages)
                if offset == start:
                    return
        except (OSError, blocks.NotReadable) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            errors.append(f"files/{beside.LOG} beside it cannot be read: {reason}")


_INFO = ("program", "args", "os", "python", "gpu", "gpu_count", "cpu_count", "git")
"""What the server tells of every run's metadata."""


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _read(
    texts: list[str], read: Callable[[list[str]], HistoryPage], errors: list[str], what: str
) -> HistoryPage | None:
    """The lines as columns. Those that no reader takes are left out and told, the others are read."""
    page, failed = _tried(texts, read)
    if failed is None:
        return page
    sound: list[str] = []
    waiting = [texts]
    while waiting:
        part = waiting.pop()
        _, failed = _tried(part, read)
        if failed is None:
            sound += part
        elif len(part) == 1:
            errors.append(f"{what} {shown(part[0])}: {_reason(part[0], failed)}")
        else:
            middle = len(part) // 2
            waiting += [part[middle:], part[:middle]]
    return read(sound) if sound else None


def _tried(texts: list[str], read: Callable[[list[str]], HistoryPage]) -> tuple[HistoryPage | None, Exception | None]:
    import pyarrow as pa

    try:
        return read(texts), None
    except (CommError, ValueError, TypeError, OverflowError, RecursionError, pa.ArrowException) as error:
        return None, error


def _reason(text: str, error: Exception) -> str:
    try:
        value(text.encode("utf-8", "replace"))
    except Unreadable as told:
        return str(told)
    return shown(str(error))


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
