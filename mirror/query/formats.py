"""Formats a result as csv, tsv, json, jsonl or markdown. Each function yields pieces of text, one or more per row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from mirror.snapshot.result import Texts

FORMATS = ("table", "json", "jsonl", "csv", "tsv", "markdown", "parquet", "arrow")
EXTENSIONS = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".md": "markdown",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "table",
}

_CSV_QUOTE = re.compile(r'[",\n\r]|^$|^\s|\s$')
_TSV_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_MARKDOWN_ESCAPES = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": "<br>", "\r": "", "\t": " "})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def csv(header: Sequence[str], rows: Iterable[Texts]) -> Iterator[str]:
    """RFC 4180 with line feeds. NULL is empty, the empty text is `""`."""
    yield _csv_line(header)
    for row in rows:
        yield _csv_line(row)


def tsv(header: Sequence[str], rows: Iterable[Texts]) -> Iterator[str]:
    r"""Exactly one line per row: tab, line break and backslash become `\t`, `\n`, `\r`, `\\`. NULL is empty."""
    yield "\t".join(cell.translate(_TSV_ESCAPES) for cell in header) + "\n"
    for row in rows:
        yield "\t".join("" if cell is None else cell.translate(_TSV_ESCAPES) for cell in row) + "\n"


def json(rows: Iterable[str]) -> Iterator[str]:
    """One JSON array, one line per row."""
    before = "[\n"
    for row in rows:
        yield f"{before}{row}"
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def jsonl(rows: Iterable[str]) -> Iterator[str]:
    """One JSON object per line."""
    for row in rows:
        yield f"{row}\n"


def markdown(header: Sequence[str], rows: Iterable[Texts], numeric: Sequence[bool]) -> Iterator[str]:
    """A GitHub table. NULL is empty, a line break in a value is `<br>`."""
    yield _markdown_line(header)
    yield "|" + "|".join(" ---: " if number else " --- " for number in numeric) + "|\n"
    for row in rows:
        yield _markdown_line(row)


def visible(text: str) -> str:
    r"""Show control characters as `\n`, `\x1b`: a value must not control the terminal on which it is printed."""
    return _CONTROL.sub(lambda match: _NAMED.get(match[0]) or _escape(match[0]), text)


def _escape(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def _csv_line(row: Sequence[str | None]) -> str:
    line = ",".join(
        "" if cell is None else '"' + cell.replace('"', '""') + '"' if _CSV_QUOTE.search(cell) else cell for cell in row
    )
    return f"{line}\n"


def _markdown_line(row: Sequence[str | None]) -> str:
    return "".join(f"| {'' if cell is None else visible(cell.translate(_MARKDOWN_ESCAPES))} " for cell in row) + "|\n"
