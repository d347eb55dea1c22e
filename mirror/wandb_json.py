"""Reading the JSON that W&B writes: bare NaN and Infinity, raw control characters, integers of any size."""

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


UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What reading of anything that a server sends may raise: Arrow's errors for data that do not fit are among them."""


def unreadable(what: str, error: Exception) -> CommError:
    """The error of something that the server sent and no parser takes."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return CommError(f"the server sent {what} that cannot be read ({type(error).__name__}: {reason})", error)


def loads(text: str | bytes) -> Any:
    """Parse one JSON text. Fast for clean JSON; falls back to a reader that takes everything W&B is known to send.

    Raises ValueError when it is no JSON even so, or nested deeper than the mirror keeps.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    # To look for many digits as many zeros takes a fifth of the time of the pattern, which a long fraction needs, too.
    if _LONG_DIGITS not in raw.translate(_AS_ZERO) or _LONG_INTEGER.search(raw) is None:
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            value = _slowly(raw)
    else:
        value = _slowly(raw)
    nested.check_levels(raw, value)
    return value


def _slowly(raw: bytes) -> Any:
    value = nested.parse(raw.decode("utf-8", "replace"))
    # No database takes half of a surrogate pair.
    return nested.mapped(value, _whole, keys=True) if b"\\ud" in raw.lower() else value


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def lines(texts: list[str], *, exact: bool = False) -> list[Any]:
    """Parse many JSON texts, as one document where all of them are clean.

    Integers that do not fit 64 bits come as floats unless `exact` is asked for, which takes three times as long.
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
"""How some writers spell numbers that JSON lacks."""


def numbers(value: Any) -> Any:
    """The value with the strings NaN, Infinity and -Infinity turned into the numbers they stand for, at any depth."""
    return nested.mapped(value, lambda text: NUMBER_WORDS.get(text, text))


def spells_numbers(text: str) -> bool:
    """Whether `numbers` may find anything to change in what this JSON text says."""
    return any(f'{word}"' in text for word in ("NaN", "Infinity"))


def dumps(value: Any) -> str:
    """JSON text of a value: bare NaN and Infinity, any integer, characters as they are."""
    try:
        text = orjson.dumps(value).decode()
    except (TypeError, orjson.JSONEncodeError):
        return nested.text_of(value)
    # orjson writes NaN and infinities as null; where a null stands, the slower writer decides what it is.
    return nested.text_of(value) if "null" in text else text
