"""Converts a W&B Table to Parquet: one typed column for each of its columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mirror.content.table_json import BadTable, TableFile
from mirror.store import table_types
from mirror.store.names import unique_names
from mirror.store.table_types import EMPTY, WHOLE, common
from mirror.wandb_json import dumps

if TYPE_CHECKING:
    import pyarrow as pa

_BITS = 1 << 63
_DIGITS = 10**38
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)?")
"""A time as Python's `isoformat` and the official client write it; a date alone stays text."""

Media = Callable[[dict[str, Any]], str]
"""Returns the path for a cell that is a media file: an object with `path`, and mostly with `sha256`."""


class Converted(Struct, frozen=True):
    """What a table has: its columns as they were logged, their names and types in Parquet, and the number of rows."""

    columns: list[str]
    names: list[str]
    types: list[str]
    rows: int


class _Wider(Exception):
    """A column needs a wider type than the batches before had."""


def convert(source: Path, target: Path, media: Media = lambda cell: str(cell["path"])) -> Converted:
    """Write the table in the file `source` to the Parquet file `target`.

    A column gets the type that all of its values share: BIGINT, DECIMAL for whole numbers past 64 bits, DOUBLE,
    BOOLEAN, TIMESTAMP, else VARCHAR with nested values as JSON. Short rows end in nulls. Raises BadTable and OSError.
    """
    types: list[str] = []
    while True:
        # Types are those of the values until now; a value that needs a wider one, which is rare, starts again.
        try:
            return _write(source, target, media, types)
        except _Wider:
            continue


def _write(source: Path, target: Path, media: Media, types: list[str]) -> Converted:
    import pyarrow.parquet as pq

    columns = None
    rows = 0
    with TableFile(source) as file, ExitStack() as stack:
        writer = None
        for batch in file.rows():
            if columns is None:
                members = file.members if "columns" in file.members else _members(source)
                columns = _columns(members)
                names = unique_names([column_name(column) for column in columns])
                moments = _declared_moments(members, columns)
                types[:] = types or [EMPTY] * len(columns)
            cells = _by_column(batch, columns, rows)
            wider = [
                # Nothing is wider than text.
                known if known == "VARCHAR" else common((known, _type(values, moments=index in moments)))
                for index, (known, values) in enumerate(zip(types, cells, strict=True))
            ]
            if wider != types:
                types[:] = wider
                if writer is not None:
                    raise _Wider
            table = _table(names, types, cells, media)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(target, table.schema, compression="zstd"))
            writer.write_table(table)
            rows += len(batch)
    assert columns is not None
    return Converted(columns, names, list(types), rows)


def _members(source: Path) -> dict[str, Any]:
    """The members of a table whose rows stand before its columns."""
    with TableFile(source) as file:
        for _ in file.rows():
            pass
        return file.members


def _columns(members: dict[str, Any]) -> list[str]:
    columns = members.get("columns")
    if not isinstance(columns, list):
        raise BadTable("it has no list of columns")
    if not columns:
        raise BadTable("it has no columns")
    return [column if isinstance(column, str) else dumps(column) for column in columns]


def column_name(column: str) -> str:
    """A name that DuckDB accepts: it refuses empty ones, and ends a name at a NUL character."""
    return column.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode() or "_"


def _declared_moments(members: dict[str, Any], columns: Sequence[str]) -> set[int]:
    """The columns that hold times as milliseconds since 1970, as tables in artifacts do."""
    declared = members.get("column_types")
    params = declared.get("params") if isinstance(declared, dict) else None
    kinds = params.get("type_map") if isinstance(params, dict) else None
    if not isinstance(kinds, dict):
        return set()
    return {index for index, column in enumerate(columns) if '"timestamp"' in dumps(kinds.get(column))}


def _by_column(batch: Sequence[list[Any]], columns: Sequence[str], before: int) -> list[Sequence[Any]]:
    width = len(columns)
    lengths = set(map(len, batch))
    if lengths and max(lengths) > width:
        number = next(index for index, row in enumerate(batch) if len(row) > width)
        raise BadTable(f"row {before + number} has {len(batch[number])} values for {width} columns")
    if lengths - {width}:
        batch = [row + [None] * (width - len(row)) for row in batch]
    return list(zip(*batch, strict=True)) if batch else [()] * width


def _type(values: Sequence[Any], *, moments: bool) -> str:
    """The narrowest type that all values share; with `moments`, numbers are milliseconds since 1970."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return EMPTY
    if moments and kinds <= {int, float} and _are_moments(values):
        return "TIMESTAMP"
    if kinds == {bool}:
        return "BOOLEAN"
    if kinds == {int}:
        low, high = _bounds(values)
        if low >= -_BITS and high < _BITS:
            return "BIGINT"
        return WHOLE if low > -_DIGITS and high < _DIGITS else "VARCHAR"
    if kinds <= {int, float}:
        return "DOUBLE"
    if kinds == {str} and all(value is None or _MOMENT.fullmatch(value) for value in values) and _are_moments(values):
        return "TIMESTAMP"
    return "VARCHAR"


def _are_moments(values: Iterable[Any]) -> bool:
    try:
        for value in values:
            _moment(value)
    except ValueError:
        return False
    return True


def _bounds(values: Iterable[Any]) -> tuple[int, int]:
    numbers = [value for value in values if value is not None]
    return min(numbers), max(numbers)


def _table(names: Sequence[str], types: Sequence[str], cells: Sequence[Sequence[Any]], media: Media) -> pa.Table:
    import pyarrow as pa

    return pa.table([_array(kind, values, media) for kind, values in zip(types, cells, strict=True)], names=list(names))


def _array(kind: str, values: Sequence[Any], media: Media) -> pa.Array[Any]:
    import pyarrow as pa

    match kind:
        case "BIGINT":
            return pa.array(values, pa.int64())
        case "DOUBLE":
            try:
                return pa.array(values, pa.float64())
            except (pa.ArrowInvalid, OverflowError):
                # Arrow refuses whole numbers that are rounded.
                return pa.array([value if value is None else _double(value) for value in values], pa.float64())
        case "BOOLEAN":
            return pa.array(values, pa.bool_())
        case table_types.WHOLE:
            return pa.array([value if value is None else Decimal(value) for value in values], pa.decimal128(38, 0))
        case "TIMESTAMP":
            return pa.array([_moment(value) for value in values], pa.timestamp("us"))
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowTypeError, pa.ArrowInvalid, UnicodeEncodeError):
        return pa.array([value if value is None else _text(value, media) for value in values], pa.string())


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _moment(value: Any) -> datetime | None:
    """The time in UTC, without a zone. Raises ValueError."""
    if value is None or value != value:  # noqa: PLR0124
        return None
    if isinstance(value, str):
        found = datetime.fromisoformat(value)
    else:
        try:
            found = datetime.fromtimestamp(value / 1000, UTC)
        except (OverflowError, OSError) as error:
            raise ValueError(value) from error
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found


def _text(value: Any, media: Media) -> str:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict) and isinstance(value.get("_type"), str) and isinstance(value.get("path"), str):
        return media(value)
    return dumps(value)
