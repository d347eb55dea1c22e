"""Values as they stand in a file, each a JSON text; what no reader takes is refused by name, not by a crash."""

from __future__ import annotations

import re
from typing import Any

from mirror.wandb_json import loads

DEEPEST = 300
"""How deep a value may be nested. Python's own reader takes about three times as many, its writers less."""

LONG = 600
"""A shorter text can be neither too deep nor too long a number."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BRACKETS = re.compile(rb"[\[{\]}]")


class Unreadable(ValueError):
    """A value that no reader takes; the message says why."""


def value(text: bytes) -> Any:
    """The value of a JSON text, also of NaN and the like. Raises Unreadable."""
    if len(text) > LONG and _depth(text) > DEEPEST:
        raise Unreadable(f"it is nested deeper than {DEEPEST} levels")
    try:
        found = loads(text)
    except RecursionError as error:
        raise Unreadable(f"it is nested deeper than {DEEPEST} levels") from error
    except ValueError as error:
        if "integer string conversion" in str(error):
            raise Unreadable("it is an integer of more than 4,300 digits") from error
        raise Unreadable("it is no JSON") from error
    if b"\\u0000" in text:
        _check_keys(found)
    return found


def check_name(*names: str) -> None:
    """Refuse a key that cannot be the name of a column. Raises Unreadable."""
    if any("\0" in name for name in names):
        raise Unreadable("its name holds a NUL character")


def _check_keys(found: Any) -> None:
    if isinstance(found, dict):
        check_name(*found)
    for entry in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        _check_keys(entry)


def shown(text: str | bytes) -> str:
    """A name or value as it is told in a message: one line, not too long."""
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
