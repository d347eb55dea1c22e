"""Checks by the last mirrored line of a run whether the server still has the mirrored lines."""

from __future__ import annotations

from math import isnan
from typing import Any

from msgspec.structs import replace

from mirror.remote.json_history import KeyGlobs
from mirror.store.records import HistoryMark, HistoryPage


def matches(mark: HistoryMark, page: HistoryPage, keys: KeyGlobs) -> bool:
    """Return True if a page that begins with the marked step has the same line there.

    A run that was rewound and continued has a different line there, at least in its time, or none.
    """
    wanted = {key: number for key, number in mark.numbers.items() if key in keys}
    if not wanted:
        return True
    line = _line(page, mark.step)
    if len(line) > mark.keys:
        return False
    return all(key in line and _same(line[key], number) for key, number in wanted.items())


def without_marked(mark: HistoryMark, page: HistoryPage) -> HistoryPage:
    """Return the page without the marked line, if it has it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rest: Any = pc.greater(page.values["step"], pa.scalar(mark.step, pa.int64()))
    values = page.values.filter(rest)
    if values.num_rows == page.values.num_rows:
        return page
    return replace(page, values=values, rows=page.rows - 1, summary=None)


def reaches(page: HistoryPage, step: int | None) -> bool:
    """Return True if the page has a value at this step."""
    return step is not None and bool(_line(page, step))


def _line(page: HistoryPage, step: int) -> dict[str, float | None]:
    import pyarrow as pa
    import pyarrow.compute as pc

    here: Any = pc.equal(page.values["step"], pa.scalar(step, pa.int64()))
    line = page.values.filter(here)
    names: list[Any] = line["key"].to_pylist()
    return dict(zip(names, line["value"].to_pylist(), strict=True))


def _same(pulled: float | None, marked: float) -> bool:
    # For a key that now has text, the mark holds an earlier number.
    return pulled is None or pulled == marked or (isnan(pulled) and isnan(marked))
