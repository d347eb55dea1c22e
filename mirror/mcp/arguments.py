"""What the arguments of a tool may be: JSON Schema for hosts, and errors of one line for agents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from mirror.errors import UsageError
from mirror.filters import nearest

MOST_CHARS = 40_000
"""The longest answer that may be asked for; about 12,000 tokens."""

Schema = Mapping[str, Any]


class Argument(Struct, frozen=True):
    """One argument: its JSON Schema without the description, what it means, and its value if it is left out."""

    schema: Schema
    meaning: str
    default: Any = None
    required: bool = False

    def described(self) -> dict[str, Any]:
        """The schema as hosts get it. Defaults stand in the description where they are not plain."""
        default = {} if self.default in (None, "", ()) else {"default": self.default}
        return {**self.schema, "description": self.meaning, **default}


def text(
    meaning: str, default: str | None = None, *, required: bool = False, choices: tuple[str, ...] = ()
) -> Argument:
    """A text, or one of these."""
    return Argument({"type": "string", **({"enum": list(choices)} if choices else {})}, meaning, default, required)


def texts(meaning: str, *, required: bool = False) -> Argument:
    """A list of texts."""
    return Argument({"type": "array", "items": {"type": "string"}}, meaning, (), required)


def whole(meaning: str, default: int, least: int, most: int) -> Argument:
    """A whole number."""
    return Argument({"type": "integer", "minimum": least, "maximum": most}, meaning, default)


def conditions(meaning: str) -> Argument:
    """A run filter: an object, or a text of terms."""
    return Argument({"type": ["object", "string"]}, meaning)


CHARS = whole("Longest answer, in characters", 8000, 500, MOST_CHARS)
OFFSET = whole("Skip so many rows", 0, 0, 10**9)
FILTER = conditions('Run filter: terms "state=finished config.lr<0.01" or W&B/Mongo JSON {"config.lr": {"$lt": 0.01}}')
RUNS = '"entity/project/run_id", or a run\'s id or name alone'


def checked(tool: str, arguments: Mapping[str, Argument], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with defaults for those left out. Raises UsageError for a wrong one, naming the nearest right one.

    A single text is taken for a list of one, and a whole number written as text for the number.
    """
    for name in given:
        if name not in arguments:
            near = nearest(name, list(arguments))
            hint = f"did you mean {near}?" if near else f"it has {', '.join(arguments) or 'none'}"
            raise UsageError(f"{tool} has no argument {name}; {hint}")
    found = {}
    for name, argument in arguments.items():
        value = given.get(name)
        if value is None:
            if argument.required:
                raise UsageError(f"{tool} needs {name}: {argument.meaning}")
            value = argument.default
        else:
            value = _value(name, argument, value)
            if argument.required and not value:
                raise UsageError(f"{name} is empty: {argument.meaning}")
        found[name] = value
    return found


def _value(name: str, argument: Argument, value: Any) -> Any:
    kinds = argument.schema["type"]
    if kinds == "integer":
        return _whole(name, argument.schema, value)
    if kinds == "array":
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise UsageError(f"{name} must be a list of texts, not {_shown(value)}")
        return items
    if isinstance(value, dict) and "object" in kinds:
        return value
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a text{' or an object' if 'object' in kinds else ''}, not {_shown(value)}")
    choices = argument.schema.get("enum")
    if choices and value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, not {value}")
    return value


def _whole(name: str, schema: Schema, value: Any) -> int:
    if isinstance(value, str) and value.lstrip("-").isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    low, high = schema["minimum"], schema["maximum"]
    if type(value) is not int or not low <= value <= high:
        raise UsageError(f"{name} must be a whole number from {low:,} to {high:,}, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    from mirror.wandb_json import dumps

    shown = dumps(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"
