"""Streams the answer to SQL or a run filter in the formats of the query API.

The first piece is the head, a JSON object that is not part of the answer: `as_of` and `lag_s`, and `rows` and
`truncated`, which are null if the answer is longer than one piece, since they are known only at its end. The end of
a JSON answer repeats them; so do the metadata of the last, empty batch of an Arrow stream, and of a Parquet file.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, cast

import orjson
from msgspec import Struct

from mirror.query import formats
from mirror.query.sql import select
from mirror.snapshot.paths import find_projects
from mirror.snapshot.projects import last_successes
from mirror.snapshot.result import Result, Rows
from mirror.snapshot.run_query import RunQuery

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

PIECE = 1 << 20
"""About how many bytes of an answer are sent at once."""

_ROW_GROUP = 100_000


class _Cut(Struct):
    """Lets `limit` rows of a result through, and counts them. `truncated` is True once there was another one."""

    limit: int
    rows: int = 0
    truncated: bool = False

    def lines(self, found: Iterator[Any]) -> Iterator[Any]:
        """The rows one by one."""
        for row in found:
            if self.rows == self.limit:
                self.truncated = True
                return
            self.rows += 1
            yield row

    def batches(self, found: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """The rows as Arrow batches."""
        for batch in found:
            room = self.limit - self.rows
            self.truncated = len(batch) > room
            kept = batch.slice(0, room) if self.truncated else batch
            self.rows += len(kept)
            if len(kept):
                yield kept
            if self.truncated:
                return


class _Freshness(Struct, frozen=True):
    """The oldest of the last complete passes, and how many seconds ago it ended; None if a project had none."""

    as_of: str | None
    lag_s: float | None


def answer(connection: DuckDBPyConnection, asked: Mapping[str, Any]) -> Iterator[bytes]:
    """The head and the pieces of the answer to one question, of which at most `limit` rows are sent, as `format`.

    The question is either `sql` with `parameters`, or a `project` with `filter`, `order` and `select`. Raises
    QueryError for invalid SQL, Forbidden for SQL that does more than read the mirror, and FilterError for an invalid
    filter or order.
    """
    cut = _Cut(asked["limit"])
    # One more, to find out whether there is more.
    most = cut.limit + 1
    result: Result | Rows
    if "sql" in asked:
        result = replace(select(connection, asked["sql"], asked["parameters"]), limit=most)
        fresh = _freshness(connection)
    else:
        project = asked["project"]
        found = RunQuery.build(connection, asked["filter"], order=asked["order"], projects=[project])
        result = found.rows(asked["select"], limit=most)
        fresh = _freshness(connection, project)
    return _with_head(_WRITERS[asked["format"]](result, cut, fresh), cut, fresh)


def _freshness(connection: DuckDBPyConnection, project: str | None = None) -> _Freshness:
    successes = last_successes(connection)
    chosen = find_projects(None, [project], known=list(successes)) if project else list(successes)
    times = [successes[key] for key in chosen]
    known = [at for at in times if at is not None]
    if not known or len(known) < len(times):
        return _Freshness(None, None)
    oldest = min(known).replace(tzinfo=UTC)
    lag = (datetime.now(UTC) - oldest).total_seconds()
    return _Freshness(oldest.isoformat(timespec="milliseconds").replace("+00:00", "Z"), round(max(lag, 0.0), 3))


def _with_head(texts: Iterator[bytes], cut: _Cut, fresh: _Freshness) -> Iterator[bytes]:
    """Put the head in front, and join small pieces to larger ones."""
    part = bytearray()
    sent = False
    for text in texts:
        whole = text if not part and len(text) >= PIECE else None
        if whole is None:
            part += text
        if whole is not None or len(part) >= PIECE:
            if not sent:
                yield _head(fresh, None, None)
                sent = True
            yield bytes(part) if whole is None else whole
            part.clear()
    if not sent:
        yield _head(fresh, cut.rows, cut.truncated)
    if part:
        yield bytes(part)


def _head(fresh: _Freshness, rows: int | None, truncated: bool | None) -> bytes:
    return orjson.dumps({"as_of": fresh.as_of, "lag_s": fresh.lag_s, "rows": rows, "truncated": truncated})


def _json(result: Result | Rows, cut: _Cut, fresh: _Freshness) -> Iterator[bytes]:
    types = [kind for _, kind in result.header()] if isinstance(result, Result) else ["VARCHAR"] * len(result.columns)
    columns = [{"name": name, "type": kind} for name, kind in zip(result.columns, types, strict=True)]
    head = {"as_of": fresh.as_of, "lag_s": fresh.lag_s, "columns": columns}
    lines = cut.lines(result.json_lists())
    yield orjson.dumps(head)[:-1] + b',"rows":['
    before = "\n"
    for line in lines:
        yield f"{before}{line}".encode()
        before = ",\n"
    yield f'\n],"row_count":{cut.rows},"truncated":{json.dumps(cut.truncated)}}}\n'.encode()


def _jsonl(result: Result | Rows, cut: _Cut, _: _Freshness) -> Iterator[bytes]:
    for text in formats.jsonl(cut.lines(result.json_texts())):
        yield text.encode()


def _csv(result: Result | Rows, cut: _Cut, _: _Freshness) -> Iterator[bytes]:
    columns = result.columns
    for text in formats.csv(columns, cut.lines(result.texts())):
        yield text.encode()


def _arrow(result: Result | Rows, cut: _Cut, fresh: _Freshness) -> Iterator[bytes]:
    import pyarrow as pa

    reader = result.arrow()
    sink = _Sink()
    with pa.ipc.new_stream(sink, reader.schema) as writer:
        for batch in cut.batches(reader):
            writer.write_batch(batch)
            yield sink.take()
        # pyarrow cannot make an empty column of a union type in another way.
        empty = [pa.nulls(0, field.type) for field in reader.schema]
        last = pa.RecordBatch.from_arrays(empty, schema=reader.schema)
        about = {name.encode(): value.encode() for name, value in _metadata(cut, fresh).items()}
        writer.write_batch(last, custom_metadata=about)
    yield sink.take()


def _parquet(result: Result | Rows, cut: _Cut, fresh: _Freshness) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    reader = result.arrow()
    sink = _Sink()
    writer = pq.ParquetWriter(cast("IO[bytes]", sink), reader.schema, compression="zstd")
    for batch in cut.batches(reader):
        writer.write_batch(batch, row_group_size=_ROW_GROUP)
        yield sink.take()
    writer.add_key_value_metadata(_metadata(cut, fresh))
    writer.close()
    yield sink.take()


def _metadata(cut: _Cut, fresh: _Freshness) -> dict[str, str]:
    return {
        "mirror.as_of": fresh.as_of or "",
        "mirror.rows": str(cut.rows),
        "mirror.truncated": json.dumps(cut.truncated),
    }


_WRITERS: Mapping[str, Callable[[Result | Rows, _Cut, _Freshness], Iterator[bytes]]] = {
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
    "arrow": _arrow,
    "parquet": _parquet,
}
FORMATS = tuple(_WRITERS)


class _Sink(io.RawIOBase):
    """A file that keeps what is written until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Keep the bytes."""
        part = bytes(data)
        self._parts.append(part)
        self._position += len(part)
        return len(part)

    def tell(self) -> int:
        """How many bytes were written."""
        return self._position

    def take(self) -> bytes:
        """What was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
