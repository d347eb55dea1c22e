"""Formats a result as csv, tsv, json, jsonl, markdown or latex. Each function yields text, piece by piece."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from mirror.snapshot.result import Texts

FORMATS = ("table", "json", "jsonl", "csv", "tsv", "markdown", "latex", "parquet", "arrow")
EXTENSIONS = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".md": "markdown",
    ".tex": "latex",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "table",
}

_CSV_QUOTE = re.compile(r'[",\n\r]|^$|^\s|\s$')
_TSV_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_MARKDOWN_ESCAPES = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": "<br>", "\r": "", "\t": " "})
_LATEX_ESCAPES = str.maketrans(
    {
        **{char: f"\\{char}" for char in "{}$&#%_"},
        "\\": "\\textbackslash{}",
        "^": "\\textasciicircum{}",
        "~": "\\textasciitilde{}",
        "<": "\\textless{}",
        ">": "\\textgreater{}",
        "|": "\\textbar{}",
        '"': "\\textquotedblright{}",
        "±": "$\\pm$",
        "\n": " ",
        "\t": " ",
        "\r": "",
    }
)
_PLAIN_NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_NUMBERS = re.compile(rf"({_PLAIN_NUMBER})(?: ± ({_PLAIN_NUMBER}))?( \(n=\d+\))?")
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


def latex(header: Sequence[str], rows: Iterable[Texts], numeric: Sequence[bool]) -> Iterator[str]:
    r"""A tabular environment with the rules of the package booktabs. NULL is a dash.

    Special characters are escaped. Numbers in numeric columns are in math mode, so that their minus is one.
    """
    yield f"\\begin{{tabular}}{{{''.join('r' if number else 'l' for number in numeric)}}}\n\\toprule\n"
    yield " & ".join(_latex_text(name) for name in header) + " \\\\\n\\midrule\n"
    for row in rows:
        cells = (
            "--" if cell is None else _latex_number(cell) if number else _latex_text(cell)
            for cell, number in zip(row, numeric, strict=True)
        )
        yield " & ".join(cells) + " \\\\\n"
    yield "\\bottomrule\n\\end{tabular}\n"


def _latex_text(text: str) -> str:
    escaped = "".join(char if char in "\n\t\r" else visible(char) for char in text).translate(_LATEX_ESCAPES)
    # A bracket after the end of a row would be taken for an option of it.
    return f"{{{escaped}}}" if escaped.startswith(("[", "*")) else escaped


def _latex_number(text: str) -> str:
    found = _NUMBERS.fullmatch(text)
    if found is None:
        infinite = {"inf": "$\\infty$", "-inf": "$-\\infty$", "nan": "NaN"}
        return infinite.get(text) or _latex_text(text)
    shown = " \\pm ".join(_latex_power(number) for number in found.groups()[:2] if number is not None)
    return f"${shown}${found[3] or ''}"


def _latex_power(number: str) -> str:
    mantissa, _, exponent = number.partition("e")
    return f"{mantissa} \\times 10^{{{int(exponent)}}}" if exponent else mantissa


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
