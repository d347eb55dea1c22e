"""A result with any number of columns, in Arrow batches. DuckDB formats the values as text or JSON, type by type.

A SELECT of a thousand columns takes DuckDB seconds and gigabytes to plan. So all columns of one type are concatenated
to one column, formatted in one statement, and split again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mirror.snapshot.result import Texts, guarded

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

_TEXT = "CAST(v AS VARCHAR)"
_JSON = "CAST(to_json(v) AS VARCHAR)"
_NUMBER_JSON = f"""CASE WHEN isnan(v) THEN '"NaN"' WHEN v = 'inf' THEN '"Infinity"' WHEN v = '-inf' THEN '"-Infinity"'
    ELSE {_JSON} END"""


@dataclass(frozen=True)
class Batches:
    """Rows of numbers and texts, with the interface of `Result`.

    Each call of `read` reads them again, as batches of `schema`; its argument is how many rows are needed at most, and
    it may return more. `total` counts them.
    """

    connection: DuckDBPyConnection
    schema: pa.Schema
    read: Callable[[int | None], Iterator[pa.RecordBatch]]
    total: Callable[[], int]
    limit: int | None = None

    @property
    def columns(self) -> list[str]:
        """The names, in order."""
        return list(self.schema.names)

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        import pyarrow as pa

        return [pa.types.is_integer(field.type) or pa.types.is_floating(field.type) for field in self.schema]

    def texts(self) -> Iterator[Texts]:
        """Every row, with its values in DuckDB's text format, None for NULL."""
        for batch in self._batches():
            yield from zip(*self._written(batch, _TEXT, _TEXT), strict=True)

    def json_texts(self) -> Iterator[str]:
        """Every row as a JSON object. JSON lacks NaN, so those are the strings "NaN", "Infinity", "-Infinity"."""
        names = [f"{json.dumps(name, ensure_ascii=False)}:" for name in self.columns]
        for batch in self._batches():
            for row in zip(*self._written(batch, _NUMBER_JSON, _JSON), strict=True):
                cells = (name + (value or "null") for name, value in zip(names, row, strict=True))
                yield f"{{{','.join(cells)}}}"

    def count(self) -> int:
        """How many rows there are without the limit."""
        return self.total()

    def arrow(self) -> pa.RecordBatchReader:
        """The rows as typed Arrow batches."""
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(self.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        left = self.limit
        if left == 0:
            return
        for batch in self.read(self.limit):
            yield batch if left is None else batch.slice(0, left)
            if left is not None:
                left -= batch.num_rows
                if left <= 0:
                    return

    def _written(self, batch: pa.RecordBatch, number: str, other: str) -> list[list[str | None]]:
        """The values of each column as texts, by an expression over `v`: `number` for floating point, else `other`."""
        import pyarrow as pa

        by_type: dict[Any, list[int]] = {}
        for index, field in enumerate(self.schema):
            by_type.setdefault(field.type, []).append(index)
        columns: list[list[str | None]] = [[] for _ in self.schema]
        rows = batch.num_rows
        for kind, indexes in by_type.items():
            joined = pa.concat_arrays([batch.column(index) for index in indexes])
            expression = number if pa.types.is_floating(kind) else other
            texts = written(self.connection, expression, pa.table({"v": joined}))
            for part, index in enumerate(indexes):
                columns[index] = texts.slice(part * rows, rows).to_pylist()
        return columns


def written(connection: DuckDBPyConnection, expression: str, values: pa.Table) -> pa.Array[Any]:
    """Evaluate an expression over the columns of a table, as texts. The expression must not contain user text."""
    cursor = connection.cursor()
    cursor.register("cells", values)
    table: pa.Table
    try:
        table = guarded(cursor, lambda: cursor.sql(f"SELECT {expression} AS text FROM cells").to_arrow_table())
    finally:
        cursor.unregister("cells")
        cursor.close()
    texts: pa.Array[Any] = table["text"].combine_chunks()
    return texts
