"""A connection to a mirror on another machine, with the face of a DuckDB connection."""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, cast

from mirror.errors import QueryError
from mirror.peer.address import Peer
from mirror.peer.link import Flight, Link
from mirror.peer.result import Result, Shared, quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection


def connect(peer: Peer, link: Link | None = None) -> Connection:
    """Connect to a mirror, whose newest snapshot the connection shows from now on; a `link` may be shared.

    Raises CommError, AuthError, and StoreError if the two programs do not understand each other's files.
    """
    from mirror.store import migrations

    connection = Connection(Shared(link or Link(peer)))
    # The first statement fixes the snapshot.
    migrations.check_readable(cast("Any", str(peer)), lambda sql: connection.execute(sql).fetchall())
    return connection


class Connection:
    """Reads one snapshot of a mirror on another machine; to see a newer one, connect again.

    Statements run there, read-only. The methods are those of a DuckDB connection that read: `execute` and `fetchall`,
    `fetchone`, `fetchmany`; `sql(...)` and `.df()`, `.pl()`, `.arrow()`. Values are the same as DuckDB returns here.
    A cursor is for one thread; `cursor` makes another one.
    """

    def __init__(self, shared: Shared) -> None:
        """Use `mirror.connect(url)` to get one."""
        self._shared = shared
        self._open: Result | None = None
        self._flight = Flight()

    @property
    def requests(self) -> int:
        """How many statements were sent by the connection and its cursors."""
        return self._shared.requests

    @property
    def peer(self) -> Peer:
        """The mirror's address."""
        return self._shared.link.peer

    def cursor(self) -> Connection:
        """Return another cursor over the same snapshot."""
        return Connection(self._shared)

    def execute(self, query: str, parameters: Any = None) -> Connection:
        """Run one read-only statement; its rows are fetched afterwards."""
        self._end()
        self._flight = Flight()
        self._open = Result(self._shared, query, parameters, self._flight)
        return self

    def sql(self, query: str, *, alias: str = "", params: Any = None) -> Relation:  # noqa: ARG002 - DuckDB's signature
        """Return the result of a read-only statement, which runs when the result is first read."""
        self._flight = Flight()
        return Relation(self._shared, query, params, self._flight)

    query = sql

    def table(self, table_name: str) -> Relation:
        """Return all rows of a relation."""
        return self.sql(f"SELECT * FROM {quoted(table_name)}")

    @property
    def description(self) -> list[tuple[Any, ...]] | None:
        """Name and type of each column, in DB-API's format."""
        if self._open is None:
            return None
        return [(name, kind, None, None, None, None, None) for name, kind in self._open.header]

    def fetchall(self) -> list[Any]:
        """Return all rows that were not fetched yet."""
        return list(self._result.rows())

    def fetchmany(self, size: int = 1) -> list[Any]:
        """Return at most `size` further rows."""
        return list(itertools.islice(self._result.rows(), size))

    def fetchone(self) -> Any:
        """Return the next row; None after the last one."""
        return next(self._result.rows(), None)

    def df(self) -> Any:
        """Return the result as a pandas DataFrame."""
        return self._result.relation().df()

    fetchdf = df

    def pl(self) -> Any:
        """Return the result as a polars DataFrame."""
        return self._result.relation().pl()

    def to_arrow_table(self, batch_size: int = 1_000_000) -> pa.Table:  # noqa: ARG002 - DuckDB's signature
        """Return the result as an Arrow table."""
        return self._result.table()

    fetch_arrow_table = to_arrow_table

    def to_arrow_reader(self, batch_size: int = 1_000_000) -> pa.RecordBatchReader:  # noqa: ARG002
        """Return the result as Arrow batches, read as they arrive."""
        return self._result.reader()

    fetch_record_batch = to_arrow_reader
    arrow = to_arrow_reader

    def extract_statements(self, query: str) -> list[Any]:
        """Parse the text here, and return its statements."""
        return list(self._shared.engine.extract_statements(query))

    def as_duckdb(self) -> DuckDBPyConnection:
        """Return this object, typed as a connection of DuckDB."""
        return cast("DuckDBPyConnection", self)

    def interrupt(self) -> None:
        """Cancel the statement that runs or is being read, from another thread."""
        self._flight.cancel()

    def close(self) -> None:
        """Cancel what was not read, and close the idle connections."""
        self._end()
        self._shared.link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        raise _no_method("a connection", name)

    def __repr__(self) -> str:
        return f"<Connection to the mirror at {self.peer}>"

    @property
    def _result(self) -> Result:
        if self._open is None:
            raise QueryError("no statement was executed")
        return self._open

    def _end(self) -> None:
        if self._open is not None:
            self._open.end()
        self._open = None


class Relation:
    """The result of a statement. It runs each time it is read, over the same snapshot."""

    def __init__(self, shared: Shared, sql: str, params: Any, flight: Flight) -> None:
        self._shared = shared
        self._flight = flight
        self._sql = sql
        self._params = params

    @cached_property
    def _header(self) -> list[tuple[str, Any]]:
        result = Result(self._shared, f"SELECT * FROM ({self._sql}\n) LIMIT 0", self._params, self._flight)
        try:
            return result.header
        finally:
            result.end()

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return [name for name, _ in self._header]

    @property
    def types(self) -> list[Any]:
        """The DuckDB types of the columns."""
        return [kind for _, kind in self._header]

    def fetchall(self) -> list[Any]:
        """Return all rows."""
        return list(self._run().rows())

    def fetchone(self) -> Any:
        """Return the first row; None if there is none."""
        result = self._run()
        try:
            return next(result.rows(), None)
        finally:
            result.end()

    def fetchmany(self, size: int = 1) -> list[Any]:
        """Return the first `size` rows."""
        result = self._run()
        try:
            return list(itertools.islice(result.rows(), size))
        finally:
            result.end()

    def df(self) -> Any:
        """Return a pandas DataFrame."""
        return self._run().relation().df()

    to_df = df

    def pl(self) -> Any:
        """Return a polars DataFrame."""
        return self._run().relation().pl()

    def to_arrow_table(self, batch_size: int = 1_000_000) -> pa.Table:  # noqa: ARG002 - DuckDB's signature
        """Return an Arrow table."""
        return self._run().table()

    def to_arrow_reader(self, batch_size: int = 1_000_000) -> pa.RecordBatchReader:  # noqa: ARG002
        """Return Arrow batches, read as they arrive."""
        return self._run().reader()

    arrow = to_arrow_reader
    fetch_arrow_table = to_arrow_table

    def show(self) -> None:
        """Print the result as DuckDB does."""
        self._run().relation().show()

    def __getattr__(self, name: str) -> Any:
        raise _no_method("a result", name)

    def __repr__(self) -> str:
        return repr(self._run().relation())

    def _run(self) -> Result:
        return Result(self._shared, self._sql, self._params, self._flight)


def _no_method(what: str, name: str) -> AttributeError:
    return AttributeError(
        f"{what} of a mirror on another machine has no {name}: it only reads; .df(), .pl() and .arrow() return its rows"
    )
