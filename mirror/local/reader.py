"""Reads one file in pieces that fit a transaction."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from msgspec import Struct
from msgspec.structs import replace

from mirror.errors import CommError
from mirror.local import beside, blocks, files
from mirror.local.console import Console, Line
from mirror.local.protobuf import Malformed
from mirror.local.reading import Lines, Reading
from mirror.local.run import apply
from mirror.local.values import Unreadable, shown, value
from mirror.remote.json_history import KeyGlobs, parse, parse_events
from mirror.store.contents import Selection
from mirror.store.records import ConsolePage, HistoryPage, LocalFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE_BYTES = 16 << 20
"""How much of a file goes into one piece."""

_HEAD = 4096

NO_CONTENT = Selection()
"""Selects no file."""


class Options(Struct, frozen=True):
    """What is read from files. `entity` is used for runs without one, `history` are globs of keys.

    `metadata` includes the whole `wandb-metadata.json`, `files` what is in the folder `files/` beside a file, of which
    `contents` are stored.
    """

    entity: str | None = None
    history: tuple[str, ...] = ("*",)
    system_metrics: bool = False
    console: bool = False
    metadata: bool = False
    files: bool = False
    contents: Selection = NO_CONTENT

    def scope(self) -> str:
        """Return the options that affect what is read, as a text without spaces."""
        flags = {"s": self.system_metrics, "c": self.console, "m": self.metadata}
        globs = "\n".join(sorted(self.history)).encode("utf-8", "replace")
        return f"{crc32(globs):08x}{''.join(letter for letter, wanted in flags.items() if wanted)}"

    def widens(self, scope: str) -> bool:
        """Return True if these options include something that `scope` left out, or have other globs."""
        own = self.scope()
        return own[:8] != scope[:8] or not set(own[8:]) <= set(scope[8:])


class Identity(Struct, frozen=True):
    """The run of a file, and the start of the process that wrote it. The entity is empty if the file has none."""

    entity: str
    project: str
    run_id: str
    started_at: str


class Piece(Struct, frozen=True):
    """The content of some records of a file. `file` has the position after them; the `last` piece ends the file.

    Older history after the step `cut` is removed before the piece is added. `notes` are for the user, `errors` list
    values that cannot be read. `metadata` is the whole document beside the file.
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
    """Return the run of a file from its run record; None if it has none yet. Raises NotReadable, OSError."""
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
    """Return a text that changes with the options and with the documents beside the file."""
    wanted = f"{crc32(repr(options.contents).encode()):08x} " if options.files else ""
    return f"{options.scope()} {wanted}{beside.signature(path, console=options.console)}"


def head(path: Path, read_to: int) -> str:
    """Return a checksum of the start of a file, of a part that cannot change once it is read up to `read_to`."""
    length = min(read_to, _HEAD)
    with files.opened(path) as stream:
        return f"{length}:{crc32(stream.read(length)):08x}"


def same_start(path: Path, file: LocalFile) -> bool:
    """Return True if the file still starts with what was read from it."""
    return not file.head or head(path, int(file.head.partition(":")[0])) == file.head


class Reader:
    """Continues at the position in `file`, and updates `reading`. `older`: a later start of the run was read already.

    `damaged` counts places skipped in this call, `unread` the bytes after the last complete record.
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
        """Yield all complete records, in at least one piece. Raises OSError, BeginsAgain and OutOfOrder."""
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
                # Recorded last, so that all of it is read again if this stops earlier.
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
        """Yield new and changed console lines."""
        console = self.reading.console
        if console is None or not (groups := console.take()):
            return
        if self.reading.log.get("lines"):
            # The file does contain the console, so its lines replace those of output.log.
            self.reading.log = {}
            yield ConsolePage(self.file.run_id, console.begun, [], last=True)
        for group in groups:
            yield ConsolePage(self.file.run_id, group[0][0], group, last=False)

    def _beside(self, lines: Lines) -> dict[str, Any] | None:
        """Read the documents beside the file; returns the metadata if the options include it."""
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
        """Yield the console from `output.log` in pieces, if the file itself has none."""
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
                for text, end, ended in beside.log_lines(self.path, offset, PIECE_BYTES):
                    page.append((console.count + whole + len(page), None, None, text))
                    if ended:
                        offset, count = end, count + 1
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
"""The part of the metadata that the server returns for every run."""


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _read(
    texts: list[str], read: Callable[[list[str]], HistoryPage], errors: list[str], what: str
) -> HistoryPage | None:
    """Convert lines to columns. Lines that cannot be read are left out and reported in `errors`."""
    page, failed = _tried(texts, read)
    if failed is None:
        return page
    readable: list[str] = []
    waiting = [texts]
    while waiting:
        part = waiting.pop()
        _, failed = _tried(part, read)
        if failed is None:
            readable += part
        elif len(part) == 1:
            errors.append(f"{what} {shown(part[0])}: {_reason(part[0], failed)}")
        else:
            middle = len(part) // 2
            waiting += [part[middle:], part[:middle]]
    return read(readable) if readable else None


def _tried(texts: list[str], read: Callable[[list[str]], HistoryPage]) -> tuple[HistoryPage | None, Exception | None]:
    import pyarrow as pa

    try:
        return read(texts), None
    except (CommError, ValueError, TypeError, OverflowError, RecursionError, pa.ArrowException) as error:
        return None, error


def _reason(text: str, error: Exception) -> str:
    try:
        value(text.encode("utf-8", "replace"))
    except Unreadable as unreadable:
        return str(unreadable)
    return shown(str(error))


def _behind(page: HistoryPage, count: int) -> HistoryPage:
    """Number system metrics after `count` earlier ones: their only step is their order in the run."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not count:
        return page
    steps = pc.add(page.values["step"], pa.scalar(count, pa.int64()))
    last = None if page.last_step is None else page.last_step + count
    return replace(page, values=page.values.set_column(0, "step", steps), last_step=last, summary=None)


def _unread(size: int, read_to: int) -> int:
    """Return the bytes after the last record, ignoring a block's end that is too short for a record."""
    left = size - read_to
    return 0 if left < blocks.PIECE_HEADER and size % blocks.BLOCK in blocks.ALIGNMENTS else left
