"""Results of statements as Arrow streams that lose nothing: how they are sent, and how they become rows again.

DuckDB writes integers of 128 bits, UUIDs, bits and times with a zone to Arrow as other types. Such columns are sent as
text, and the reader casts them back. The schema names DuckDB's own types, and the last batch, an empty one, says how
many rows there were: a stream without it was cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from mirror.errors import CommError

if TYPE_CHECKING:
    import pyarrow as pa

TYPES = b"mirror.types"
"""In the metadata of the schema: the columns' DuckDB types, as a JSON list of texts."""

AS_TEXT = b"mirror.as_text"
"""Beside it: the indexes of the columns that are, or contain, texts in place of another type."""

ROWS = b"mirror.rows"
"""In the metadata of the last batch: the number of rows."""

_FEW_ROWS = 1000
_FEW_BYTES = 64_000
"""Answers that are not worth packing."""

_REPEATS = 8
"""A text column is sent as repetitions if a text stands in this many rows or more, on average."""

_LOST = frozenset({"hugeint", "uhugeint", "uuid", "bit", "bignum", "time with time zone"})


def carrier(kind: Any) -> str | None:
    """Return the type to cast a column of this DuckDB type to before it is sent; None if Arrow keeps the type."""
    text = _carrier(kind)
    return None if text == str(kind) else text


def _carrier(kind: Any) -> str:
    name = str(kind.id)
    if name in _LOST:
        return "VARCHAR"
    if name not in ("list", "array", "struct", "map"):
        return str(kind)
    inner = dict(kind.children)
    if not any(_loses(one) for one in inner.values()):
        return str(kind)
    if name == "list":
        return f"{_carrier(inner['child'])}[]"
    if name == "array":
        return f"{_carrier(inner['child'])}[{inner['size']}]"
    if name == "map":
        return f"MAP({_carrier(inner['key'])}, {_carrier(inner['value'])})"
    fields = ", ".join(f"{_quoted(field)} {_carrier(one)}" for field, one in kind.children)
    return f"STRUCT({fields})"


def _loses(kind: Any) -> bool:
    return hasattr(kind, "id") and _carrier(kind) != str(kind)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def casts(names: Sequence[str], types: Sequence[str | None]) -> str | None:
    """Return a select list by position that casts columns to these types; None if no column needs it."""
    if not any(types):
        return None
    # By position, since two columns may have the same name.
    columns = ", ".join(f"c{index}" for index in range(len(names)))
    casted = ", ".join(
        f"{f'CAST(c{index} AS {kind})' if kind else f'c{index}'} AS {_quoted(name)}"
        for index, (name, kind) in enumerate(zip(names, types, strict=True))
    )
    return f"SELECT {casted} FROM {{}} AS sent({columns})"


def schema_of(schema: pa.Schema, types: Sequence[str], as_text: Sequence[int]) -> pa.Schema:
    """Return the schema with the columns' DuckDB types in its metadata."""
    metadata = {TYPES: json.dumps(list(types)).encode(), AS_TEXT: json.dumps(list(as_text)).encode()}
    return schema.with_metadata({**(schema.metadata or {}), **metadata})


class Packing(Struct, frozen=True):
    """How the columns of a stream are sent, as its first batch suggests.

    Texts that mostly repeat the one above, as the runs and keys of history do, are sent once each, which costs a tenth
    of the time of a general compression. What is mostly other texts is compressed.
    """

    schema: pa.Schema
    repeating: frozenset[int] = frozenset()
    compression: Literal["lz4"] | None = None

    @classmethod
    def of(cls, first: pa.RecordBatch | None, schema: pa.Schema) -> Packing:
        """Choose it."""
        import pyarrow as pa

        if first is None or first.num_rows < _FEW_ROWS:
            return cls(schema, compression="lz4" if first is not None and first.nbytes > _FEW_BYTES else None)
        repeating, texts, rest = set(), 0, 0
        for index, column in enumerate(first.columns):
            if pa.types.is_string(column.type) and len(_encoded(column).values) < first.num_rows / _REPEATS:
                repeating.add(index)
            elif pa.types.is_primitive(column.type):
                rest += column.nbytes
            else:
                texts += column.nbytes
        fields = [
            field.with_type(pa.run_end_encoded(pa.int32(), field.type)) if index in repeating else field
            for index, field in enumerate(schema)
        ]
        return cls(pa.schema(fields), frozenset(repeating), "lz4" if texts > rest else None)

    def packed(self, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        """Return a batch as it is sent; `schema` is the stream's."""
        import pyarrow as pa

        columns = [
            _encoded(column) if index in self.repeating else column for index, column in enumerate(batch.columns)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)


def unpacked(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch as it was before it was packed; `schema` is that of all batches."""
    import pyarrow as pa

    columns = [_decoded(column) if pa.types.is_run_end_encoded(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _encoded(column: Any) -> Any:
    import pyarrow.compute as pc

    return getattr(pc, "run_end_encode")(column)  # noqa: B009 - the published types lack it


def _decoded(column: Any) -> Any:
    import pyarrow.compute as pc

    return getattr(pc, "run_end_decode")(column)  # noqa: B009 - the published types lack it


def _plain(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            field.with_type(field.type.value_type) if pa.types.is_run_end_encoded(field.type) else field
            for field in schema
        ]
    )


def closing(schema: pa.Schema, rows: int) -> tuple[pa.RecordBatch, dict[bytes, bytes]]:
    """Return the last batch, and its metadata."""
    import pyarrow as pa

    empty = pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)
    return empty, {ROWS: str(rows).encode()}


class Incoming:
    """A stream of batches as they arrive; its end is checked. Raises CommError if the stream was cut."""

    def __init__(self, source: Any, where: str) -> None:
        """Read the schema from a file-like object; `where` is the mirror's address, for errors."""
        import pyarrow as pa

        self._where = where
        try:
            self._reader = pa.ipc.open_stream(source)
        except (pa.ArrowInvalid, OSError) as error:
            raise self._cut(error) from error
        metadata = self._reader.schema.metadata or {}
        self.names: list[str] = list(self._reader.schema.names)
        try:
            self.types: list[str] = json.loads(metadata[TYPES])
            self.as_text: list[int] = json.loads(metadata[AS_TEXT])
        except (KeyError, ValueError) as error:
            raise CommError(f"{where} answered with another format than statements have; is it a mirror?") from error
        self.schema: pa.Schema = _plain(self._reader.schema)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield every batch; after the last one the number of rows is known to be right."""
        import pyarrow as pa

        rows, expected = 0, None
        while expected is None:
            try:
                batch, metadata = self._reader.read_next_batch_with_custom_metadata()
            except StopIteration:
                break
            except (pa.ArrowInvalid, OSError) as error:
                raise self._cut(error) from error
            if metadata is not None and ROWS in metadata:
                expected = int(metadata[ROWS])
                break
            rows += batch.num_rows
            yield unpacked(batch, self.schema)
        if expected != rows:
            raise self._cut(None)

    def _cut(self, error: BaseException | None) -> CommError:
        return CommError(f"the answer of {self._where} ended half-way, and nothing of it was used; try again", error)
