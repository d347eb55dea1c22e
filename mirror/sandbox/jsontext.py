"""JSON as W&B writes it: NaN and the infinities are bare tokens, integers have any length."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson


def write(value: Any) -> str:
    """Return compact JSON text of a value, with bare `NaN`, `Infinity` and `-Infinity`."""
    try:
        text = orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # orjson writes null for non-finite numbers; the slow writer is used only if that may have happened.
    if b"null" in text:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.decode()


def read(text: str | bytes) -> Any:
    """Parse JSON text, which may have bare tokens and control characters in strings. Raises ValueError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text, strict=False)


def strict(value: Any) -> Any:
    """Replace NaN and infinities by strings, for answers that must be valid JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [strict(item) for item in value]
    return value
