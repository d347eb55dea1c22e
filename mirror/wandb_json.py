"""Reads and writes JSON as W&B does, with bare NaN and Infinity, raw control characters, and integers of any size."""

from __future__ import annotations

import re
from typing import Any

import orjson

from mirror import nested
from mirror.errors import CommError

_AS_ZERO = bytes(ord("0") if ord("0") <= byte <= ord("9") else byte for byte in range(256))
_LONG_DIGITS = b"0" * 19

_LONG_INTEGER = re.compile(rb"[\[,:\s]-?\d{19,}[\s,\]}]")
"""An integer that may not fit 64 bits; orjson would round it to a float."""


def _may_have_long_integer(raw: bytes) -> bool:
    """Return True if there are 19 digits in a row that are not the fraction of a number."""
    # Searching for a row of zeros, after all digits became zeros, takes a fifth of the pattern's time.
    zeros = raw.translate(_AS_ZERO)
    at = zeros.find(_LONG_DIGITS)
    while at >= 0:
        if raw[at - 1 : at] != b".":
            return True
        # On to what follows the fraction.
        rest = zeros[at : at + 400]
        at = zeros.find(_LONG_DIGITS, at + len(rest) - len(rest.lstrip(b"0")))
    return False


UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What parsing of a server's data may raise. Arrow's errors for unsuitable data are subclasses of these."""


def unreadable(what: str, error: Exception) -> CommError:
    """The error for something that the server sent and that cannot be parsed."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return CommError(f"the server sent {what} that cannot be read ({type(error).__name__}: {reason})", error)


def loads(text: str | bytes) -> Any:
    """Parse one JSON text. Fast for clean JSON; falls back to a parser that accepts everything W&B is known to send.

    Raises ValueError if that parser refuses it, too, or if it is nested deeper than `nested.MOST_LEVELS`.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if not _may_have_long_integer(raw) or _LONG_INTEGER.search(raw) is None:
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            value = _tolerantly(raw)
    else:
        value = _tolerantly(raw)
    nested.check_levels(raw, value)
    return value


def _tolerantly(raw: bytes) -> Any:
    value = nested.parse(raw.decode("utf-8", "replace"))
    # No database accepts half of a surrogate pair.
    return nested.mapped(value, _without_surrogates, keys=True) if b"\\ud" in raw.lower() else value


def _without_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def lines(texts: list[str], *, exact: bool = False) -> list[Any]:
    """Parse many JSON texts, as one document if all of them are clean.

    Integers beyond 64 bits become floats unless `exact` is set, which takes three times as long.
    """
    if not exact:
        try:
            parsed: list[Any] = orjson.loads(("[" + ",".join(texts) + "]").encode("utf-8", "surrogatepass"))
        except orjson.JSONDecodeError:
            return [loads(text) for text in texts]
        if len(parsed) == len(texts):
            return parsed
    return [loads(text) for text in texts]


NUMBER_WORDS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""Strings that some writers use for numbers that JSON lacks."""


def numbers(value: Any) -> Any:
    """The value with the strings NaN, Infinity and -Infinity replaced by these numbers, at any depth."""
    return nested.mapped(value, lambda text: NUMBER_WORDS.get(text, text))


def number_word(value: float) -> str:
    """How W&B spells a number that is not finite."""
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124


def strict_number(value: float | None) -> float | str | None:
    """The number as strict JSON allows it: one that is not finite is a string."""
    return value if value is None or value - value == 0 else number_word(value)


def strict(value: Any) -> Any:
    """The value with NaN and infinities replaced by strings, at any depth: the opposite of `numbers`."""
    if isinstance(value, float):
        return strict_number(value)
    if isinstance(value, dict):
        return {key: strict(entry) for key, entry in value.items()}
    return [strict(entry) for entry in value] if isinstance(value, list) else value


def spells_numbers(text: str) -> bool:
    """Return True if `numbers` may find something to change in the value of this JSON text."""
    return 'NaN"' in text or 'Infinity"' in text


def dumps(value: Any) -> str:
    """Compact JSON text of a value, with bare NaN and Infinity, integers of any size, and unescaped characters."""
    if value is None:
        return "null"
    try:
        text = orjson.dumps(value)
    except TypeError:
        # orjson cannot write integers past 64 bits, lone surrogates, or nesting past 254 levels.
        return nested.text_of(value)
    # orjson writes NaN and infinities as null, so a text with null is written again by the slower writer.
    return nested.text_of(value) if b"null" in text else text.decode()
