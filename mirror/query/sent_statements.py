"""Statements that a mirror's client on another machine sends (`mirror.peer`): one that reads, answered as Arrow.

Unlike the query API's, they may have parameters of any type, and every type of DuckDB arrives as it is here.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson

from mirror.peer import carried, parameters
from mirror.query.sql import reading

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

PIECE = 1 << 20
"""About how many bytes are sent at once."""

_BATCH = 100_000


def answer(connection: DuckDBPyConnection, asked: Mapping[str, Any]) -> Iterator[bytes]:
    """Run the statement `sql` with its `parameters`, and yield the head, then the answer in pieces.

    The head is a JSON object: `rows`, null if the answer is longer than one piece, or `refused` with the class and the
    message of DuckDB's error. Raises QueryError for a statement that does more than read.
    """
    import duckdb

    params = parameters.loaded(asked.get("parameters")) or None
    statement = reading(connection, asked["sql"])
    try:
        pieces = _pieces(*_run(connection, statement, params))
        first, rows = next(pieces)
    except (duckdb.OutOfMemoryException, duckdb.FatalException, duckdb.InternalException, duckdb.InterruptException):
        raise
    except duckdb.Error as error:
        message = _with_place(connection, statement, params, error)
        yield orjson.dumps({"refused": {"class": type(error).__name__, "message": message}})
        return
    yield orjson.dumps({"rows": rows})
    yield first
    for piece, _ in pieces:
        yield piece


def _run(
    connection: DuckDBPyConnection, statement: str, params: Any
) -> tuple[pa.RecordBatchReader, list[str], list[str], list[int]]:
    """Start the statement: its batches, names and DuckDB types of its columns, and which columns are sent as text."""
    cursor = connection.cursor()
    relation = cursor.sql(statement, params=params)
    names, types = list(relation.columns), list(relation.types)
    carriers = [carried.carrier(kind) for kind in types]
    casts = carried.casts(names, carriers)
    if casts is not None:
        relation = cursor.sql(casts.format(f"({statement}\n)"), params=params)
    lost = [index for index, kind in enumerate(carriers) if kind]
    return relation.to_arrow_reader(_BATCH), names, [str(kind) for kind in types], lost


def _with_place(connection: DuckDBPyConnection, statement: str, params: Any, error: Exception) -> str:
    """The message of an error with the line that it is in, as DuckDB gives it to those who execute the statement.

    For a relation, DuckDB 2.0 may leave the line out, and 1.5 quotes one of another text.
    """
    import duckdb

    message, _, place = str(error).partition("\n\nLINE ")
    quoted = place.partition(": ")[2].partition("\n")[0].removeprefix("...").removesuffix("...")
    if quoted and quoted in statement:
        return str(error)
    try:
        connection.cursor().execute(statement, params).fetchmany(1)
    except duckdb.Error as again:
        if type(again) is type(error):
            return str(again)
    return message


def _pieces(
    reader: pa.RecordBatchReader, names: list[str], types: list[str], lost: list[int]
) -> Iterator[tuple[bytes, int | None]]:
    """Yield the stream in pieces; with the last one, how many rows there were."""
    import pyarrow as pa

    sink = _Sink()
    first = next(iter(reader), None)
    plain = pa.schema([field.with_name(name) for field, name in zip(reader.schema, names, strict=True)])
    packing = carried.Packing.of(first, plain)
    schema = carried.schema_of(packing.schema, types, lost)
    rows = 0
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression=packing.compression)) as writer:
        for batch in chain([] if first is None else [first], reader):
            rows += batch.num_rows
            writer.write_batch(packing.packed(batch, schema))
            if sink.held >= PIECE:
                yield sink.take(), None
        last, metadata = carried.closing(schema, rows)
        writer.write_batch(last, custom_metadata=metadata)
    yield sink.take(), rows


class _Sink(io.RawIOBase):
    """A file that keeps what is written until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self.held = 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Keep the bytes."""
        part = bytes(data)
        self._parts.append(part)
        self.held += len(part)
        return len(part)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        parts, self._parts, self.held = self._parts, [], 0
        return b"".join(parts)
