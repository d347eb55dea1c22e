"""The result of a query. DuckDB formats every value as text or JSON; Python only lays the texts out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from mirror.snapshot.connection import refusal
from mirror.store.names import identifier

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

Texts = tuple[str | None, ...]

_BATCH = 4096
_NUMERIC = re.compile(
    r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|BIGNUM|DOUBLE|FLOAT|DECIMAL\b.*|NUMBER", re.IGNORECASE | re.DOTALL
)
_BARE = re.compile(r'"(?:[^"\\]|\\.)*"|-?(?:NaN|Infinity|nan|inf)\b')
_T = TypeVar("_T")


@dataclass(frozen=True)
class Result:
    """A query over one connection, run each time the result is read.

    `sql` must work as a subquery; it is put on the second line of the statement, which the line numbers in errors
    allow for. Columns with the same name are numbered, alike in every format, unless `labels` replace the names.
    `documents` are the indexes of text columns that contain JSON. `every` is a statement that counts all rows, if
    `sql` itself has a limit.
    """

    connection: DuckDBPyConnection
    sql: str
    params: Sequence[Any] | Mapping[str, Any] = ()
    labels: Sequence[str] = ()
    documents: frozenset[int] = frozenset()
    limit: int | None = None
    every: tuple[str, Sequence[Any]] | None = None
    _header: list[tuple[str, str]] = field(default_factory=list, repr=False)

    @property
    def columns(self) -> list[str]:
        """The names, in order."""
        return list(self.labels) or [name for name, _ in self.header()]

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        return [_NUMERIC.fullmatch(kind) is not None for _, kind in self.header()]

    def header(self) -> list[tuple[str, str]]:
        """Names and DuckDB types, without running the query. Raises QueryError for an invalid query."""
        if not self._header:
            cursor = self._run(f"SELECT * FROM (\n{self.sql}\n) LIMIT 0")
            self._header.extend((str(name), str(kind)) for name, kind, *_ in cursor.description or ())
            cursor.fetchall()
        return self._header

    def texts(self) -> Iterator[Texts]:
        """Every row, with its values in DuckDB's text format, None for NULL."""
        return self._rows("CAST(COLUMNS(*) AS VARCHAR)")

    def json_texts(self) -> Iterator[str]:
        """Every row as a JSON object. JSON lacks NaN, so those are the strings "NaN", "Infinity", "-Infinity"."""
        if not self.labels and not self.documents:
            alias = identifier(_unused("row", self.columns))
            rows = self._rows(f"CAST(to_json({alias}) AS VARCHAR)", f" AS {alias}")
        else:
            pairs = []
            for index, (name, _) in enumerate(self.header()):
                value = f"CAST({identifier(name)} AS JSON)" if index in self.documents else identifier(name)
                pairs.append(f"?, {value}")
            rows = self._rows(f"CAST(json_object({', '.join(pairs)}) AS VARCHAR)", "", self.columns)
        return (_BARE.sub(_quote_bare, text) if _has_bare(text) else text for (text,) in rows)

    def json_lists(self) -> Iterator[str]:
        """Every row as a JSON array, in the order of the columns; otherwise as `json_texts`."""
        values = [
            f"CAST({identifier(name)} AS JSON)" if index in self.documents else identifier(name)
            for index, (name, _) in enumerate(self.header())
        ]
        rows = self._rows(f"CAST(json_array({', '.join(values)}) AS VARCHAR)")
        return (_BARE.sub(_quote_bare, text) if _has_bare(text) else text for (text,) in rows)

    def count(self) -> int:
        """How many rows there are without the limit."""
        if self.every is not None:
            return int(self.connection.execute(*self.every).fetchall()[0][0])
        cursor = self._run(f"SELECT count(*) FROM (\n{self.sql}\n)")
        return int(guarded(cursor, cursor.fetchall)[0][0])

    def arrow(self) -> pa.RecordBatchReader:
        """The rows as typed Arrow batches."""
        import pyarrow as pa

        limit = "" if self.limit is None else f" LIMIT {self.limit}"
        statement = f"SELECT * FROM (\n{self.sql}\n){limit}"
        cursor = self.connection.cursor()
        relation = guarded(cursor, lambda: cursor.sql(statement, params=self._values() or None))
        reader: pa.RecordBatchReader = guarded(cursor, lambda: relation.to_arrow_reader(100_000))
        labels = self.labels or reader.schema.names
        schema = pa.schema([field.with_name(label) for field, label in zip(reader.schema, labels, strict=True)])

        def batches() -> Iterator[pa.RecordBatch]:
            while (batch := guarded(cursor, lambda: next(reader, None))) is not None:
                yield batch.rename_columns(schema.names)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _rows(self, expression: str, alias: str = "", params: Sequence[Any] = ()) -> Iterator[Any]:
        limit = "" if self.limit is None else f" LIMIT {self.limit}"
        cursor = self._run(f"SELECT {expression} FROM (\n{self.sql}\n){alias}{limit}", params)
        # The first rows are fetched now, so that a query that fails does so before its header is written.
        first = guarded(cursor, lambda: cursor.fetchmany(_BATCH))
        return self._batches(cursor, first)

    def _batches(self, cursor: DuckDBPyConnection, rows: list[Any]) -> Iterator[Any]:
        while rows:
            yield from rows
            rows = guarded(cursor, lambda: cursor.fetchmany(_BATCH))

    def _run(self, statement: str, first: Sequence[Any] = ()) -> DuckDBPyConnection:
        # A new cursor each time: in DuckDB 2.0 a cursor with unread rows blocks the connection.
        cursor = self.connection.cursor()
        return guarded(cursor, lambda: cursor.execute(statement, self._values(first)))

    def _values(self, first: Sequence[Any] = ()) -> Sequence[Any] | Mapping[str, Any]:
        """The parameters of a statement with `first` before the query itself."""
        return self.params if isinstance(self.params, Mapping) else [*first, *self.params]


@dataclass(frozen=True)
class Rows:
    """A result that is already in memory as Python values, with the interface of `Result`."""

    columns: list[str]
    rows: Sequence[Sequence[Any]]
    limit: int | None = None

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        columns = list(zip(*self.rows, strict=True)) or [() for _ in self.columns]
        return [
            any(type(value) in (int, float) for value in column)
            and all(value is None or type(value) in (int, float) for value in column)
            for column in columns
        ]

    def texts(self) -> Iterator[Texts]:
        """Every row as text, None for None."""
        for row in self.rows[: self.limit]:
            yield tuple(_text(value) for value in row)

    def json_texts(self) -> Iterator[str]:
        """Every row as one JSON object."""
        import json

        for row in self.rows[: self.limit]:
            text = json.dumps(
                dict(zip(self.columns, row, strict=True)), ensure_ascii=False, separators=(",", ":"), default=str
            )
            yield _BARE.sub(_quote_bare, text)

    def json_lists(self) -> Iterator[str]:
        """Every row as a JSON array."""
        import json

        for row in self.rows[: self.limit]:
            text = json.dumps(list(row), ensure_ascii=False, separators=(",", ":"), default=str)
            yield _BARE.sub(_quote_bare, text)

    def count(self) -> int:
        """How many rows there are without the limit."""
        return len(self.rows)

    def arrow(self) -> pa.RecordBatchReader:
        """The rows as Arrow batches, with the types that Arrow infers."""
        import pyarrow as pa

        table = pa.table(
            {name: [row[index] for row in self.rows[: self.limit]] for index, name in enumerate(self.columns)}
        )
        return table.to_reader()


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def guarded(cursor: DuckDBPyConnection, action: Callable[[], _T]) -> _T:
    """Run a call to DuckDB so that Ctrl-C stops it, and raise its errors as a one-line QueryError.

    DuckDB 2.0 does not handle signals while it works, so the call runs in a thread and the caller waits.
    """
    import threading

    import duckdb

    done: list[_T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(action())
        except BaseException as error:  # noqa: BLE001
            failed.append(error)
        finally:
            ended.set()

    # An event, since a thread cannot be joined again after Ctrl-C interrupted the first join.
    ended = threading.Event()
    threading.Thread(target=work, daemon=True).start()
    try:
        ended.wait()
    except KeyboardInterrupt:
        # Again and again: an interruption between two statements has no effect.
        while not ended.wait(0.05):
            cursor.interrupt()
        raise
    if done:
        return done[0]
    (error,) = failed
    if isinstance(error, duckdb.Error):
        raise refusal(error, first_line=2) from error
    raise error


def _has_bare(text: str) -> bool:
    """Return True if the text may hold NaN or an infinity, which JSON lacks."""
    return "NaN" in text or "nf" in text or "nan" in text


def _quote_bare(match: re.Match[str]) -> str:
    token = match[0]
    if token.startswith('"'):
        return token
    sign = "-" if token.startswith("-") else ""
    return f'"{sign}{"NaN" if token.lstrip("-").lower()[0] == "n" else "Infinity"}"'


def _unused(name: str, columns: Sequence[str]) -> str:
    taken = {column.lower() for column in columns}
    while name in taken:
        name += "_"
    return name
