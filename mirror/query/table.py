"""A result as a table of text: aligned columns, fitted to the width of a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mirror.query.formats import visible
from mirror.snapshot.result import Texts

NULL = "∅"
_GAP = "  "
_NARROW = 12
"""Columns are not cut below this width while leaving out whole columns on the right is enough."""


@dataclass(frozen=True)
class Table:
    """Laid-out lines, and the names of columns that did not fit."""

    lines: list[str]
    left_out: list[str]


def lay_out(header: Sequence[str], rows: Iterable[Texts], numeric: Sequence[bool], width: int | None = None) -> Table:
    """Align every row: numbers on the right, NULL as `∅`, control characters as escapes.

    With a `width`, long cells are cut and end in `…`, and columns that still do not fit are left out from the right.
    """
    # Each column needs at least one character and a gap; those past the width cannot fit and are skipped.
    most = len(header) if width is None else max(1, width // (1 + len(_GAP)) + 1)
    cells = [[visible(name) for name in header[:most]]]
    cells += [[NULL if cell is None else visible(cell) for cell in row[:most]] for row in rows]
    widths = [max(columns(row[index]) for row in cells) for index in range(len(cells[0]))]
    shown = len(widths)
    if width is not None:
        widths, shown = _fit(widths, width)
    lines = [_line(row[:shown], widths, numeric) for row in cells]
    lines.insert(1, _GAP.join("─" * size for size in widths[:shown]))
    return Table(lines, list(header[shown:]))


def columns(text: str) -> int:
    """How many terminal columns the text occupies."""
    return len(text) if text.isascii() else sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _fit(widths: list[int], width: int) -> tuple[list[int], int]:
    """Cut the widest columns first, evenly. If all are narrow and still do not fit, drop columns from the right."""
    shown = len(widths)
    while shown > 1 and sum(min(size, _NARROW) for size in widths[:shown]) + len(_GAP) * (shown - 1) > width:
        shown -= 1
    fitted = list(widths[:shown])
    room = max(width - len(_GAP) * (shown - 1), 1)
    low, high = 1, max([*fitted, 1])
    while low < high:  # the largest cap under which all fit
        middle = (low + high + 1) // 2
        if sum(min(size, middle) for size in fitted) <= room:
            low = middle
        else:
            high = middle - 1
    fitted = [min(size, low) for size in fitted]
    spare = room - sum(fitted)
    for index, size in enumerate(widths[:shown]):
        more = min(size - fitted[index], max(spare, 0), 1)
        fitted[index] += more
        spare -= more
    return fitted, shown


def _line(row: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    parts = []
    for cell, width, number in zip(row, widths, numeric, strict=False):
        text = _cut(cell, width)
        space = " " * (width - columns(text))
        parts.append(space + text if number else text + space)
    return _GAP.join(parts).rstrip()


def _cut(text: str, width: int) -> str:
    if columns(text) <= width:
        return text
    kept, used = [], 0
    for char in text:
        size = _columns(char)
        if used + size > width - 1:
            break
        kept.append(char)
        used += size
    return "".join(kept) + "…"


def text(header: Sequence[str], rows: Iterable[Texts], numeric: Sequence[bool]) -> Iterator[str]:
    """The table in its full width, line by line."""
    for line in lay_out(header, rows, numeric).lines:
        yield f"{line}\n"
