"""A statement that was sent to a mirror on another machine, and its reply as rows, Arrow or a relation of DuckDB."""

from __future__ import annotations

import http.client
import io
import threading
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from mirror.errors import CommError, TimedOut
from mirror.peer import parameters
from mirror.peer.carried import Incoming
from mirror.peer.link import READ_SECONDS, Flight, Link, Reply

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

_BUFFER = 1 << 20


class Shared:
    """What the cursors of one connection share."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.lock = threading.Lock()
        self.snapshot: str | None = None
        self.requests = 0

    @cached_property
    def engine(self) -> DuckDBPyConnection:
        """A DuckDB of its own, which turns Arrow into rows and parses statements. Nothing is stored in it."""
        import duckdb

        engine = duckdb.connect()
        engine.execute("SET GLOBAL TimeZone = 'UTC'").fetchall()
        engine.execute("SET enable_progress_bar = false").fetchall()
        return engine

    def ask(self, sql: str, params: Any, flight: Flight) -> Reply:
        """Send a statement about the connection's snapshot, which the first one fixes. Raises as `Link.ask`."""
        question: dict[str, Any] = {"sql": sql}
        if params:
            question["parameters"] = parameters.dumped(params)
        if self.snapshot is not None:
            question["snapshot"] = self.snapshot
        self.requests += 1
        reply = self.link.ask(question, flight)
        with self.lock:
            self.snapshot = self.snapshot or reply.snapshot
        return reply


class Result:
    """A statement that was sent, and its reply, read once."""

    def __init__(self, shared: Shared, sql: str, params: Any, flight: Flight) -> None:
        self._shared = shared
        self._flight = flight
        self._where = str(shared.link.peer)
        self._reply: Reply | None = None
        self._reply = self._read(lambda: shared.ask(sql, params, flight))
        self._incoming = self._read(lambda: Incoming(io.BufferedReader(self._body, _BUFFER), self._where))
        self._rows: Iterator[Any] | None = None

    @property
    def _body(self) -> Any:
        assert self._reply is not None
        return self._reply.body

    @cached_property
    def header(self) -> list[tuple[str, Any]]:
        """The name and the DuckDB type of each column."""
        import duckdb

        # A type that DuckDB there has and DuckDB here lacks stays a text.
        types = [_type(self._shared.engine, duckdb, text) for text in self._incoming.types]
        return list(zip(self._incoming.names, types, strict=True))

    def rows(self) -> Iterator[Any]:
        """The rows that were not returned yet, as DuckDB's client makes them."""
        if self._rows is None:
            self._rows = self._all_rows()
        return self._rows

    def _all_rows(self) -> Iterator[Any]:
        import pyarrow as pa

        for batch in self._batches():
            if batch.num_rows:
                yield from self._native(pa.Table.from_batches([batch])).fetchall()

    def table(self) -> pa.Table:
        """The result as an Arrow table."""
        import pyarrow as pa

        found = pa.Table.from_batches(list(self._batches()), self._incoming.schema)
        if not self._incoming.as_text:
            return found
        return cast("pa.Table", self._native(found).to_arrow_table())

    def reader(self) -> pa.RecordBatchReader:
        """The result as Arrow batches, as they arrive."""
        import pyarrow as pa

        if self._incoming.as_text:
            return self.table().to_reader()
        return pa.RecordBatchReader.from_batches(self._incoming.schema, self._batches())

    def relation(self) -> Any:
        """The result as a relation of DuckDB."""
        import pyarrow as pa

        return self._native(pa.Table.from_batches(list(self._batches()), self._incoming.schema))

    def end(self) -> None:
        """Give the connection back."""
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.done()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        batches = self._incoming.batches()
        try:
            while (batch := self._read(lambda: next(batches, None))) is not None:
                yield batch
            # What ends the response after the stream, so that the connection can be kept.
            if self._reply is not None:
                self._read(self._body.read)
        finally:
            self.end()

    def _read(self, action: Any) -> Any:
        import duckdb

        try:
            return action()
        except (OSError, http.client.HTTPException, CommError) as error:
            self.end()
            if self._flight.cancelled:
                raise duckdb.InterruptException("INTERRUPT Error: Interrupted!") from error
            if isinstance(error, TimeoutError):
                raise TimedOut(
                    f"{self._where} sent nothing for {READ_SECONDS:g} s; try again, or ask for less"
                ) from error
            if isinstance(error, CommError):
                raise
            raise CommError(
                f"the answer of {self._where} ended half-way, and nothing of it was used; try again", error
            ) from error

    def _native(self, table: pa.Table) -> Any:
        """A relation over the table whose columns have the types that they have there."""
        cursor = self._shared.engine.cursor()
        found = cursor.from_arrow(table)
        wanted = self._incoming.types
        if [str(kind) for kind in found.types] == wanted:
            return found
        names = ", ".join(f"c{index}" for index in range(len(wanted)))
        shown = ", ".join(
            f"{f'c{index}' if isinstance(kind, str) else f'CAST(c{index} AS {kind})'} AS {quoted(name)}"
            for index, (name, kind) in enumerate(self.header)
        )
        return found.query("sent", f"SELECT {shown} FROM sent AS sent({names})")


def quoted(name: str) -> str:
    """Return a name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def _type(engine: DuckDBPyConnection, duckdb: Any, text: str) -> Any:
    try:
        return engine.cursor().dtype(text)
    except duckdb.Error:
        return text
