"""JSON as W&B writes it: NaN and the infinities are bare tokens, integers have any length."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson


def write(value: Any) -> str:
    """Compact JSON text of a value, with bare `NaN`, `Infinity` and `-Infinity`."""
    try:
        text = orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # orjson writes null for what JSON has no number for; the slow writer is asked only where that may have happened.
    if b"null" in text:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.decode()


def read(text: str | bytes) -> Any:
    """The value of JSON text, bare tokens and control characters in strings included. Refuses with ValueError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text, strict=False)


def strict(value: Any) -> Any:
    """The value with NaN and infinities as the strings that stand for them, for answers that must be valid JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [strict(item) for item in value]
    return value
