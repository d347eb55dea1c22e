"""History as people want it: dictionaries, a pandas or polars DataFrame, or an Arrow table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from mirror.errors import ArgumentError, MissingPackage
from mirror.snapshot.rows import Aligned, rows, table
from mirror.snapshot.series import Series

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["dicts", "pandas", "polars", "arrow"]
FORMATS = ("dicts", "pandas", "polars", "arrow")


def package(name: str) -> Any:
    """An optional package. Raises MissingPackage, which says what to install."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingPackage(
            f"{name} is not installed: `pip install 'wandb-mirror[{name}]'`, or ask for another format"
        ) from error


def checked(name: str, known: Sequence[str] = FORMATS) -> str:
    """The name of a format. Raises ArgumentError for an unknown one."""
    if name not in known:
        raise ArgumentError(f"unknown format {name!r}; known: {', '.join(known)}")
    return name


def shown(aligned: Aligned, form: str, step_key: str | None, order: Sequence[str] = ()) -> Any:
    """One run in a format. `order` names the columns in their order; without it they stand as they were read."""
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
    """A DataFrame as pandas makes it of the dictionaries: a value that was not logged is NaN."""
    pandas = package("pandas")
    if not len(aligned.steps):
        return pandas.DataFrame()
    columns: dict[str, Any] = {} if step_key is None else {step_key: aligned.steps.to_numpy()}
    for one, places in aligned.series:
        columns[one.key] = _pandas_column(one, places, len(aligned.steps))
    return pandas.DataFrame({key: columns[key] for key in order} if order else columns)


def _pandas_column(one: Series, places: pa.Array[Any] | None, length: int) -> Any:
    numbers = one.numbers()
    if numbers is not None and places is None:
        return numbers.to_numpy()
    if numbers is not None:
        import numpy as np

        column = np.full(length, np.nan)
        column[places.to_numpy()] = numbers.to_numpy()  # type: ignore[union-attr]
        return column
    values = one.python()
    if places is None:
        return values
    spread: list[Any] = [float("nan")] * length
    there: list[Any] = places.to_pylist()
    for place, value in zip(there, values, strict=True):
        spread[place] = value
    return spread


def _ordered(one: pa.Table, order: Sequence[str]) -> pa.Table:
    return one.select(list(order)) if order and one.num_columns else one


def together(tables: Iterable[tuple[str, pa.Table]]) -> pa.Table:
    """Tables of many runs below each other, with the run ids as a column `run_id`; columns by name.

    A key that is of one type in one run and of another elsewhere becomes text: JSON, but for strings.
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
