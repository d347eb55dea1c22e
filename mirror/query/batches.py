"""An answer of any width, given in Arrow batches. DuckDB writes every value as text or JSON, one column a type.

A SELECT of a thousand columns takes DuckDB seconds and gigabytes to plan. So the values of all columns of a type are
put below each other, written in one statement, and cut apart again.
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
    """Rows of numbers and texts: each call of `read` gives them anew, as batches of `schema`; `total` counts them.

    `read` takes how many rows are wanted at most, and may give more.
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
        """Every row as DuckDB writes its values, None for NULL."""
        for batch in self._batches():
            yield from zip(*self._written(batch, _TEXT, _TEXT), strict=True)

    def json_texts(self) -> Iterator[str]:
        """Every row as one JSON object. JSON knows no NaN: those are the strings "NaN", "Infinity", "-Infinity"."""
        names = [f"{json.dumps(name, ensure_ascii=False)}:" for name in self.columns]
        for batch in self._batches():
            for row in zip(*self._written(batch, _NUMBER_JSON, _JSON), strict=True):
                cells = (name + (value or "null") for name, value in zip(names, row, strict=True))
                yield f"{{{','.join(cells)}}}"

    def count(self) -> int:
        """How many rows there are, whatever the limit."""
        return self.total()

    def arrow(self) -> pa.RecordBatchReader:
        """The values with their types."""
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
        """The values of each column as texts; an expression over `v` writes those of a type that has NaN, or not."""
        import pyarrow as pa

        places: dict[Any, list[int]] = {}
        for place, field in enumerate(self.schema):
            places.setdefault(field.type, []).append(place)
        columns: list[list[str | None]] = [[] for _ in self.schema]
        rows = batch.num_rows
        for kind, here in places.items():
            joined = pa.concat_arrays([batch.column(place) for place in here])
            expression = number if pa.types.is_floating(kind) else other
            texts = written(self.connection, expression, pa.table({"v": joined}))
            for index, place in enumerate(here):
                columns[place] = texts.slice(index * rows, rows).to_pylist()
        return columns


def written(connection: DuckDBPyConnection, expression: str, values: pa.Table) -> pa.Array[Any]:
    """An expression over the columns of a table as texts, row by row. It holds no text of anybody's."""
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
