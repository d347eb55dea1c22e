"""Reading the JSON that W&B writes: bare NaN and Infinity, raw control characters, integers of any size."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

_AS_ZERO = bytes(ord("0") if ord("0") <= byte <= ord("9") else byte for byte in range(256))
_LONG_DIGITS = b"0" * 19

_LONG_INTEGER = re.compile(rb"[\[,:\s]-?\d{19,}[\s,\]}]")
"""An integer that may not fit 64 bits; orjson would round it to a float."""


def loads(text: str | bytes) -> Any:
    """Parse one JSON text. Fast for clean JSON; falls back to a reader that takes everything W&B is known to send.

    Raises ValueError when it is no JSON even so.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    # To look for many digits as many zeros takes a fifth of the time of the pattern, which a long fraction needs, too.
    if _LONG_DIGITS not in raw.translate(_AS_ZERO) or _LONG_INTEGER.search(raw) is None:
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            return _slowly(raw)
    return _slowly(raw)


def _slowly(raw: bytes) -> Any:
    value = json.loads(raw.decode("utf-8", "replace"), strict=False)
    return _whole(value) if b"\\ud" in raw.lower() else value


def _whole(value: Any) -> Any:
    """The value with lone surrogates, which no database takes, replaced by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole(key): _whole(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_whole(entry) for entry in value]
    return value


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
    if isinstance(value, str):
        return NUMBER_WORDS.get(value, value)
    if isinstance(value, dict):
        return {key: numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [numbers(entry) for entry in value]
    return value


def spells_numbers(text: str) -> bool:
    """Whether `numbers` may find anything to change in what this JSON text says."""
    return any(f'{word}"' in text for word in ("NaN", "Infinity"))


def dumps(value: Any) -> str:
    """JSON text of a value: bare NaN and Infinity, any integer, characters as they are."""
    try:
        text = orjson.dumps(value).decode()
    except (TypeError, orjson.JSONEncodeError):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # orjson writes NaN and infinities as null; where a null stands, the slower writer decides what it is.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if "null" in text else text
