"""Formats of history: dictionaries, a pandas or polars DataFrame, or an Arrow table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from mirror.errors import ArgumentError, MissingPackage
from mirror.snapshot.rows import Aligned, rows, table
from mirror.snapshot.series import Series
from mirror.wandb_json import loads

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["dicts", "pandas", "polars", "arrow"]
FORMATS = ("dicts", "pandas", "polars", "arrow")

_ELSE = {"pandas": ", or pandas=False for dictionaries", "polars": ", or use another format"}
"""What to do without a package: the end of an error message."""


def package(name: str, instead: str | None = None) -> Any:
    """Import an optional package. Raises MissingPackage, which says in one line what to install, or do `instead`."""
    try:
        return import_module(name)
    except ImportError:
        tail = _ELSE.get(name, "") if instead is None else instead
        # Without the inner error: Python would print both, one traceback after the other.
        raise MissingPackage(f"{name} is not installed: `pip install 'wandb-mirror[{name}]'`{tail}") from None


def checked(name: str, known: Sequence[str] = FORMATS) -> str:
    """Return the name of a format. Raises ArgumentError for an unknown one."""
    if name not in known:
        raise ArgumentError(f"unknown format {name!r}; known: {', '.join(known)}")
    return name


def shown(aligned: Aligned, form: str, step_key: str | None, order: Sequence[str] = ()) -> Any:
    """Return one run's history in a format. `order` selects and orders the columns; without it, all as read."""
    match form:
        case "pandas":
            return pandas_frame(aligned, step_key, order)
        case "polars":
            return package("polars").from_arrow(_ordered(table(aligned, step_key), order))
        case "arrow":
            return _ordered(table(aligned, step_key), order)
        case _:
            found = list(rows(aligned, step_key))
            if order and order[0] != step_key:
                return [{key: row[key] for key in order} for row in found]
            return found


def pandas_frame(aligned: Aligned, step_key: str | None, order: Sequence[str] = ()) -> Any:
    """Return the DataFrame that pandas makes of the dictionaries: values that were not logged are NaN."""
    pandas = package("pandas")
    if not len(aligned.steps):
        return pandas.DataFrame()
    columns: dict[str, Any] = {} if step_key is None else {step_key: aligned.steps.to_numpy()}
    for one, positions in aligned.series:
        columns[one.key] = _pandas_column(one, positions, len(aligned.steps))
    return pandas.DataFrame({key: columns[key] for key in order} if order else columns)


def _pandas_column(one: Series, positions: pa.Array[Any] | None, length: int) -> Any:
    numbers = one.numbers()
    if numbers is not None and positions is None:
        return numbers.to_numpy()
    if numbers is not None:
        import numpy as np

        column = np.full(length, np.nan)
        column[positions.to_numpy()] = numbers.to_numpy()  # type: ignore[union-attr]
        return column
    values = one.python()
    if positions is None:
        return values
    filled: list[Any] = [float("nan")] * length
    rows: list[Any] = positions.to_pylist()
    for row, value in zip(rows, values, strict=True):
        filled[row] = value
    return filled


def of_runs(found: pa.Table, documents: frozenset[int]) -> Any:
    """Return a DataFrame with a row per run: whole numbers as int64, or Int64 where a run has none.

    `documents` are the indexes of columns of JSON texts, which become lists and dictionaries.
    """
    pandas = package("pandas", "")
    return pandas.DataFrame(
        {
            name: _of_column(pandas, found.column(index), document=index in documents)
            for index, name in enumerate(found.column_names)
        }
    )


def _of_column(pandas: Any, column: Any, *, document: bool) -> Any:
    import pyarrow as pa

    if document:
        values = [None if text is None else loads(text) for text in column.to_pylist()]
        return pandas.Series(values, dtype=object)
    nullable = {pa.int64(): pandas.Int64Dtype(), pa.bool_(): pandas.BooleanDtype()} if column.null_count else {}
    return column.to_pandas(types_mapper=nullable.get)


def _ordered(one: pa.Table, order: Sequence[str]) -> pa.Table:
    return one.select(list(order)) if order and one.num_columns else one


def together(tables: Iterable[tuple[str, pa.Table]]) -> pa.Table:
    """Concatenate tables of many runs, with the run ids in a column `run_id`; columns are sorted by name.

    A key that has different types in different runs becomes text: strings as they are, other values as JSON.
    """
    import pyarrow as pa

    named = [
        (one.drop_columns("run_id") if "run_id" in one.column_names else one).append_column(
            "run_id", pa.repeat(pa.scalar(run_id), one.num_rows)
        )
        for run_id, one in tables
        if one.num_rows
    ]
    if not named:
        return pa.table({})
    types: dict[str, set[Any]] = {}
    for one in named:
        for field in one.schema:
            types.setdefault(field.name, set()).add(field.type)
    schema = pa.schema([(name, _common(types[name])) for name in sorted(types)])
    return pa.concat_tables([_fitted(one, schema) for one in named])


def _common(types: set[Any]) -> Any:
    import pyarrow as pa

    if len(types) == 1:
        return next(iter(types))
    return pa.float64() if types <= {pa.int64(), pa.float64()} else pa.string()


def _fitted(one: pa.Table, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = []
    for field in schema:
        if field.name not in one.column_names:
            columns.append(pa.nulls(one.num_rows, field.type))
        else:
            column = one[field.name]
            columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.table(columns, schema=schema)
