"""Answers as text within a budget: tables whose cuts are named, with the way to the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from mirror.query.formats import tsv
from mirror.query.run_page import brief

LONGEST_CELL = 160
"""Characters of a cell; longer ones are cut, with the number of characters left out."""

Row = Sequence[Any]

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Table(Struct, frozen=True):
    """The lines of a table that fit the budget, with its header, and how many rows they are."""

    text: str
    shown: int
    cut_cells: int


def table(header: Sequence[str], rows: Iterable[Row], chars: int, longest: int = LONGEST_CELL) -> Table:
    """Tab-separated lines of at most about `chars` characters, but at least one row. None is an empty cell.

    Numbers that are not whole have six digits.
    """
    lines = list(tsv(header, []))
    left = chars - len(lines[0])
    shown = cut_cells = 0
    for row in rows:
        cells = [_cell(value) for value in row]
        cut_cells += sum(cell is not None and len(cell) > longest for cell in cells)
        *_, line = tsv((), [tuple(_cut(cell, longest) for cell in cells)])
        if shown and len(line) > left:
            break
        lines.append(line)
        left -= len(line)
        shown += 1
    return Table("".join(lines), shown, cut_cells)


def page(made: Table, total: int | None, offset: int, what: str, more: str = "") -> str:
    """The table, then how much of the whole it is and how to get the rest. `total` is None if it is not known."""
    end = offset + made.shown
    notes = []
    if total is not None and (end < total or offset):
        notes.append(f"{what} {offset + 1:,} to {end:,} of {total:,}" if made.shown else f"{total:,} {what} in all")
    if total is None or end < total:
        notes.append(f"for the rest: offset={end}{f', or {more}' if more else ''}")
    if made.cut_cells:
        cells = "1 long value is" if made.cut_cells == 1 else f"{made.cut_cells:,} long values are"
        notes.append(f"{cells} cut at {LONGEST_CELL} characters: `query` returns them whole")
    remark = f"({'; '.join(notes)})" if notes else ""
    return f"{made.text}{remark}".rstrip("\n")


def number(value: float | None) -> str:
    """A number with six digits, or all that stand before its point; empty for None."""
    return "" if value is None else str(brief(value))


def text_number(text: str | None) -> str | None:
    """A number that DuckDB wrote as text, in the same form."""
    return None if text is None else number(float(text))


def plural(count: int, noun: str) -> str:
    """Such as `1 run` and `1,200 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _cell(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return number(value) if isinstance(value, float) else clean(str(value))


def clean(text: str) -> str:
    """The text without colours and other control characters, which cost tokens and could control a terminal.

    Line breaks and tabs stay. Of a progress bar that redraws its line, the last state stays.
    """
    if text.isprintable():
        return text
    lines = (_ANSI.sub("", line).rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return "\n".join(_CONTROL.sub("", line) for line in lines)


def _cut(cell: str | None, longest: int) -> str | None:
    if cell is None or len(cell) <= longest:
        return cell
    return f"{cell[:longest]}… (+{len(cell) - longest:,})"
