"""Reads the JSON texts of values in a file; one that cannot be read raises an error that says why."""

from __future__ import annotations

import json
import re
from typing import Any

from mirror.wandb_json import loads

DEEPEST = 300
"""How deep a value may be nested. Python's JSON parser accepts about three times as much, its writers less."""

LONG = 600
"""A shorter text can be neither nested too deeply nor an integer with too many digits."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BRACKETS = re.compile(rb"[\[{\]}]")


class Unreadable(ValueError):
    """A value cannot be read; the message says why."""


def value(text: bytes) -> Any:
    """Parse a JSON text, which may contain NaN and infinities. Raises Unreadable."""
    if len(text) > LONG and _depth(text) > DEEPEST:
        raise Unreadable(f"it is nested deeper than {DEEPEST} levels")
    try:
        found = loads(text)
    except RecursionError as error:
        raise Unreadable(f"it is nested deeper than {DEEPEST} levels") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Unreadable("it is not JSON") from error
    except ValueError as error:
        # All that is left is Python's limit for the digits of an integer.
        raise Unreadable("it is an integer of more than 4,300 digits") from error
    if b"\\u0000" in text:
        _check_keys(found)
    return found


def check_name(*names: str) -> None:
    """Raises Unreadable for a key that cannot be the name of a column."""
    if any("\0" in name for name in names):
        raise Unreadable("its name holds a NUL character")


def _check_keys(found: Any) -> None:
    if isinstance(found, dict):
        check_name(*found)
    for entry in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        _check_keys(entry)


def shown(text: str | bytes) -> str:
    """Format a name or value for a message: one line, not too long."""
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    plain = "".join(letter if letter.isprintable() else "?" for letter in plain[:61])
    return plain if len(plain) <= 60 else f"{plain[:60]}..."


def _depth(text: bytes) -> int:
    if text.count(b"[") + text.count(b"{") <= DEEPEST:
        return 0
    deepest = depth = 0
    for match in _BRACKETS.finditer(_STRING.sub(b"", text)):
        depth += 1 if match[0] in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
