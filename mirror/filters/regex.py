"""Regular expressions, in RE2 as on the hosted server and in DuckDB. Flags of $options become part of the pattern."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

from mirror.errors import FilterError

if TYPE_CHECKING:
    import duckdb

_BEYOND_RE2 = {
    "(?=": "look-ahead",
    "(?!": "look-ahead",
    "(?<=": "look-behind",
    "(?<!": "look-behind",
    "(?>": "atomic groups",
}


def pattern(text: str, options: str, clause: str) -> str:
    """The RE2 pattern for `$regex` and `$options`. Raises FilterError for unknown options and invalid patterns."""
    unknown = sorted(set(options) - set("imsx"))
    if unknown:
        raise FilterError(f"{clause}: unknown regex option {unknown[0]!r}; options are i, m, s and x")
    if "x" in options:
        text = _without_comments(text)
    flags = "".join(flag for flag in "ims" if flag in options)
    compiled = f"(?{flags}){text}" if flags else text
    problem = _problem(compiled)
    if problem:
        raise FilterError(f"{clause}: the regular expression does not compile: {_reason(text, problem)}")
    return compiled


@lru_cache(maxsize=1024)
def _problem(compiled: str) -> str | None:
    """The error of DuckDB's RE2 for a pattern; None if it compiles."""
    import duckdb

    try:
        _engine().cursor().execute("SELECT regexp_matches('', ?)", [compiled]).fetchall()
    except duckdb.Error as error:
        return " ".join(str(error).removeprefix("Invalid Input Error: ").split())
    return None


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    import duckdb

    return duckdb.connect(":memory:", config={"threads": 1})


def _reason(text: str, problem: str) -> str:
    for sign, name in _BEYOND_RE2.items():
        if sign in text:
            return f"RE2 does not support {name} such as {sign}...); use $not, or two conditions"
    if "invalid escape sequence" in problem and any(f"\\{digit}" in text for digit in range(1, 10)):
        return "RE2 does not support back-references such as \\1"
    return problem


def _without_comments(text: str) -> str:
    """The pattern without what the option x ignores: white space and comments outside of classes and escapes."""
    kept: list[str] = []
    in_class = in_comment = False
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if in_comment:
            in_comment = char != "\n"
        elif char == "\\":
            kept.append(text[position - 1 : position + 1])
            position += 1
        elif in_class or char == "[":
            in_class = char != "]"
            kept.append(char)
        elif char == "#":
            in_comment = True
        elif not char.isspace():
            kept.append(char)
    return "".join(kept)
