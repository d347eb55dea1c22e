"""The only module that writes to stdout and to the files given by -o: data, and nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from msgspec import Struct

from mirror.cli.messages import ExitCode, leave, say, warn
from mirror.errors import StoreError, UsageError
from mirror.query.batches import Batches
from mirror.query.formats import EXTENSIONS, FORMATS
from mirror.snapshot.result import Result, Rows

TERMINAL_ROWS = 100
"""Rows of a table on a terminal without --limit."""

FormatOption = Annotated[
    str | None,
    typer.Option("--format", metavar="NAME", help=f"{', '.join(FORMATS)}. Default: table on a terminal, else tsv."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Short for --format csv.")]
FileOption = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write to a file; the format follows its extension."),
]


class Output(Struct, frozen=True):
    """Where a result is written, and in which format. `named` is True if the user chose the format."""

    format: str
    file: Path | None = None
    named: bool = False

    @property
    def terminal(self) -> bool:
        """Whether the output is shown on a terminal."""
        return self.file is None and sys.stdout.isatty()

    def limit(self, given: int | None) -> int | None:
        """Return the limit of rows: as given, else TERMINAL_ROWS for a table on a terminal, else None (all)."""
        return TERMINAL_ROWS if given is None and self.terminal and self.format == "table" else given


def choose(format_name: str | None, *, json: bool = False, csv: bool = False, file: Path | None = None) -> Output:
    """Choose the format: as given, else by the file extension, else table on a terminal, else tsv.

    Raises UsageError for an unknown or a second format, and for binary data on a terminal.
    """
    named = [name for name in (format_name, "json" if json else None, "csv" if csv else None) if name]
    if len(set(named)) > 1:
        raise UsageError(f"give one format, not {' and '.join(dict.fromkeys(named))}")
    if named and named[0] not in FORMATS:
        from mirror.settings.file import nearest

        raise UsageError(f'unknown format "{named[0]}": {nearest(named[0], FORMATS)}')
    if named:
        chosen = named[0]
    elif file is not None:
        if file.suffix.lower() not in EXTENSIONS:
            raise UsageError(f"{file} has no known extension: use {', '.join(EXTENSIONS)}, or add --format")
        chosen = EXTENSIONS[file.suffix.lower()]
    else:
        chosen = "table" if sys.stdout.isatty() else "tsv"
    output = Output(chosen, file, bool(named or file))
    if chosen in ("parquet", "arrow") and output.terminal:
        raise UsageError(f"{chosen} is binary and cannot be printed: add -o FILE.{chosen}, or pipe it")
    return output


def write_result(result: Result | Rows | Batches, output: Output) -> None:
    """Write every row of the result, up to its limit.

    If the limit left out rows, a message on stderr says how many rows there are. A file is replaced in one step; on
    failure an older one stays as it was.
    """
    shown = _to_file(result, output) if output.file else _to_stdout(result, output)
    if result.limit is not None and shown >= result.limit and (total := result.count()) > shown:
        how = "" if output.named and not output.terminal else "; --limit N shows more, -o FILE keeps them all"
        say(f"{shown:,} of {total:,} rows{how}")


def write_text(text: str) -> None:
    """Write text that is itself the data."""
    with _stdout() as stream:
        stream.write(text.encode("utf-8", "replace"))


def _to_stdout(result: Result | Rows | Batches, output: Output) -> int:
    with _stdout() as stream:
        return _write(result, output, stream)


def _to_file(result: Result | Rows | Batches, output: Output) -> int:
    assert output.file is not None
    with replaced(output.file) as scratch, scratch.open("wb") as stream:
        return _write(result, output, stream)


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces it when the block succeeds and is removed when it fails."""
    target = path.resolve()
    scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        try:
            yield scratch
            scratch.replace(target)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def _stdout() -> Iterator[IO[bytes]]:
    """Yield stdout for bytes. If its reader closes the pipe, as `| head` does, the command ends without an error."""
    sys.stdout.flush()
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout again when it exits.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        leave(ExitCode.DONE)
    except OSError as error:
        raise StoreError(f"cannot write to stdout: {error.strerror or error}") from error


def _write(result: Result | Rows | Batches, output: Output, stream: IO[bytes]) -> int:
    """Write the result in its format and return the number of rows."""
    from mirror.query import formats

    counted = _Counter()
    match output.format:
        case "parquet":
            return _write_parquet(result, stream)
        case "arrow":
            return _write_arrow(result, stream, seekable=output.file is not None)
        case "table":
            return _write_table(result, output, stream)
        case "json":
            pieces = formats.json(counted.over(result.json_texts()))
        case "jsonl":
            pieces = formats.jsonl(counted.over(result.json_texts()))
        case "markdown":
            pieces = formats.markdown(result.columns, counted.over(result.texts()), result.numeric)
        case "latex":
            pieces = formats.latex(result.columns, counted.over(result.texts()), result.numeric)
        case "csv":
            pieces = formats.csv(result.columns, counted.over(result.texts()))
        case _:
            pieces = formats.tsv(result.columns, counted.over(result.texts()))
    for piece in pieces:
        stream.write(piece.encode("utf-8", "replace"))
    return counted.rows


def _write_table(result: Result | Rows | Batches, output: Output, stream: IO[bytes]) -> int:
    from mirror.query.table import lay_out

    rows = list(result.texts())
    width = shutil.get_terminal_size().columns if output.terminal else None
    table = lay_out(result.columns, rows, result.numeric, width)
    stream.writelines(f"{line}\n".encode("utf-8", "replace") for line in table.lines)
    if table.left_out:
        stream.flush()
        names = ", ".join(table.left_out[:8]) + (", ..." if len(table.left_out) > 8 else "")
        warn(f"{len(table.left_out)} columns do not fit: {names}; choose some, or use --format json or -o FILE")
    return len(rows)


def _write_arrow(result: Result | Rows | Batches, stream: Any, *, seekable: bool) -> int:
    """Write an Arrow IPC file, or the IPC stream format to a pipe, which cannot be seeked."""
    import pyarrow as pa

    reader = result.arrow()
    rows = 0
    with (pa.ipc.new_file if seekable else pa.ipc.new_stream)(stream, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _write_parquet(result: Result | Rows | Batches, stream: IO[bytes]) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    reader = result.arrow()
    rows = 0
    try:
        with parquet.ParquetWriter(stream, reader.schema, compression="zstd") as writer:
            for batch in reader:
                writer.write_batch(batch)
                rows += batch.num_rows
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise UsageError(
            f"Parquet has no such type ({str(error).splitlines()[0]}): cast the column to VARCHAR"
        ) from error
    return rows


class _Counter:
    """Counts the rows of an iterator."""

    rows = 0

    def over(self, rows: Iterator[Any]) -> Iterator[Any]:
        """Yield the rows and count them."""
        for row in rows:
            self.rows += 1
            yield row
