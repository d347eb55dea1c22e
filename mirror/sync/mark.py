"""Tells by the last mirrored line of a run whether the server still has the lines that are mirrored."""

from __future__ import annotations

from dataclasses import replace
from math import isnan
from typing import Any

from mirror.remote.json_history import KeyGlobs
from mirror.store.records import HistoryMark, HistoryPage


def fits(mark: HistoryMark, page: HistoryPage, keys: KeyGlobs) -> bool:
    """Whether a page that begins with the marked step has the same line there.

    A run that was rewound and went on has another one, if only since it was logged at another time, or none.
    """
    wanted = {key: number for key, number in mark.numbers.items() if key in keys}
    if not wanted:
        return True
    there = _line(page, mark.step)
    if len(there) > mark.keys:
        return False
    return all(key in there and _same(there[key], number) for key, number in wanted.items())


def behind(mark: HistoryMark, page: HistoryPage) -> HistoryPage:
    """The page without the marked line, where it has that."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rest: Any = pc.greater(page.values["step"], pa.scalar(mark.step, pa.int64()))
    values = page.values.filter(rest)
    if values.num_rows == page.values.num_rows:
        return page
    return replace(page, values=values, rows=page.rows - 1, summary=None)


def reaches(page: HistoryPage, step: int | None) -> bool:
    """Whether the page holds a value at this step."""
    return step is not None and bool(_line(page, step))


def _line(page: HistoryPage, step: int) -> dict[str, float | None]:
    import pyarrow as pa
    import pyarrow.compute as pc

    here: Any = pc.equal(page.values["step"], pa.scalar(step, pa.int64()))
    line = page.values.filter(here)
    names: list[Any] = line["key"].to_pylist()
    return dict(zip(names, line["value"].to_pylist(), strict=True))


def _same(there: float | None, here: float) -> bool:
    # Where text stands now, what is told of the mirrored line is an earlier number.
    return there is None or there == here or (isnan(there) and isnan(here))
