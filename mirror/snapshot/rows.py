"""Aligns the series of one run to common steps, and returns them as dictionaries or as a table."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mirror.metrics import STEP
from mirror.snapshot.series import Numbers, Series, whole

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 500
"""Rows that are built at once. Python reuses the memory of dictionaries that are soon dropped."""

MAKERS = 256
"""How many generated functions are kept; each builds rows with one set of keys."""


class Aligned(Struct, frozen=True):
    """The series of one run over common steps, each with the indexes of its values among these; None: at all steps."""

    steps: pa.Array[Any]
    series: tuple[tuple[Series, pa.Array[Any] | None], ...]


def align(series: Sequence[Series]) -> Aligned:
    """Align the series of one run to common steps."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not series:
        return Aligned(pa.array([], pa.int64()), ())
    steps = max((one.steps for one in series), key=len)
    places: list[Any] = []
    for one in series:
        if one.steps.equals(steps):
            places.append(None)
            continue
        at: Any = pc.index_in(one.steps, value_set=steps)
        if at.null_count:
            every: Any = pc.unique(pa.concat_arrays([other.steps for other in series]))
            every = every.take(pc.sort_indices(every))
            return Aligned(every, tuple((other, _places(other, every)) for other in series))
        places.append(at)
    return Aligned(steps, tuple(zip(series, places, strict=True)))


def _places(one: Series, steps: Any) -> Any:
    import pyarrow.compute as pc

    return None if len(one.steps) == len(steps) else pc.index_in(one.steps, value_set=steps)


def rows(aligned: Aligned, step_key: str | None = STEP) -> Iterator[dict[str, Any]]:
    """One dictionary per step with what was logged there; first the keys logged at all steps, then the others."""
    return chain.from_iterable(chunks(aligned, step_key))


Cells = Callable[[Series], Numbers | list[Any]]
"""Returns the values of a series, one for each of its steps; slices of the result must be lists."""


def plain_cells(one: Series) -> Numbers | list[Any]:
    """The values as Python's JSON parser would return them."""
    numbers = one.numbers()
    return one.python() if numbers is None else Numbers.of(numbers)


def chunks(aligned: Aligned, step_key: str | None = STEP, cells: Cells = plain_cells) -> Iterator[list[dict[str, Any]]]:
    """The rows in lists of at most CHUNK_ROWS."""
    everywhere = [(one.key, cells(one)) for one, places in aligned.series if places is None]
    if step_key is not None:
        everywhere.insert(0, (step_key, Numbers.of(aligned.steps)))
    elsewhere: list[tuple[str, list[Any], list[Any]]] = [
        (one.key, places.to_pylist(), cells(one)[:]) for one, places in aligned.series if places is not None
    ]
    make = _maker(tuple(name for name, _ in everywhere)) if everywhere else None
    for start in range(0, len(aligned.steps), CHUNK_ROWS):
        end = min(start + CHUNK_ROWS, len(aligned.steps))
        columns = [values[start:end] for _, values in everywhere]
        chunk = make(zip(*columns, strict=True)) if make else [{} for _ in range(end - start)]
        for name, places, values in elsewhere:
            low, high = bisect_left(places, start), bisect_left(places, end)
            for place, value in zip(places[low:high], values[low:high], strict=True):
                chunk[place - start][name] = value
        yield chunk


@lru_cache(MAKERS)
def _maker(names: tuple[str, ...]) -> Callable[[Iterable[tuple[Any, ...]]], list[dict[str, Any]]]:
    """Generate a function that builds dictionaries with these keys from tuples of values.

    A dict literal with constant keys takes half the time of `dict(zip(names, values))`, since it is allocated in its
    final size. Only the names get into the code, as literals quoted by `repr`.
    """
    values = [f"v{place}" for place in range(len(names))]
    items = ", ".join(f"{name!r}: {value}" for name, value in zip(names, values, strict=True))
    make: Callable[[Iterable[tuple[Any, ...]]], list[dict[str, Any]]] = eval(  # noqa: S307
        f"lambda rows: [{{{items}}} for {', '.join(values)}, in rows]", {"__builtins__": {}}
    )
    return make


def table(aligned: Aligned, step_key: str | None = STEP) -> pa.Table:
    """One column per key: int64 or double for numbers, string or boolean for keys with only those, else JSON text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: dict[str, Any] = {} if step_key is None else {step_key: aligned.steps}
    for one, places in aligned.series:
        numbers = one.numbers()
        column = _typed(one) if numbers is None else numbers
        if places is not None:
            indexes: Any = pc.index_in(aligned.steps, value_set=one.steps)
            column = column.take(indexes)
        columns[one.key] = column
    return pa.table(columns)


def _typed(one: Series) -> Any:
    """A column of values that are not all numbers."""
    import pyarrow as pa

    values = one.python()
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {str}:
        return pa.array(values, pa.string())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    assert one.texts is not None
    numbers = [repr(whole(value)) if value is not None else None for value in one.values.to_pylist()]
    texts: list[str | None] = one.texts.to_pylist()
    return pa.array([text if text is not None else number for text, number in zip(texts, numbers, strict=True)])
