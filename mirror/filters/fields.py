"""Resolves field paths: a path starts with a column of the run, its tags, its config or its summary."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Literal

from msgspec import Struct

from mirror.errors import FilterError
from mirror.filters.values import name_text

MAX_STEPS = 40
"""The most steps of a path."""

ColumnType = Literal["text", "number", "time"]


class Column(Struct, frozen=True):
    """A column of `store.run_records`."""

    name: str
    type: ColumnType


class Tags(Struct, frozen=True):
    """The list of tags, or the tag at `index` in it."""

    index: int | None = None


class Document(Struct, frozen=True):
    """A path into config or summary. A key that itself contains dots is the same path."""

    doc: Literal["config", "summary"]
    steps: tuple[str, ...]

    @property
    def key(self) -> str:
        """The dotted path, as in `store.leaves`."""
        return ".".join(self.steps)


class Relative(Struct, frozen=True):
    """A path relative to the list element that $elemMatch tests."""

    steps: tuple[str, ...]


Target = Column | Tags | Document | Relative

_TEXT = {
    "name": "run_id",
    "run_id": "run_id",
    "display_name": "name",
    "displayName": "name",
    "state": "state",
    "group": "group_name",
    "group_name": "group_name",
    "job_type": "job_type",
    "jobType": "job_type",
    "sweep": "sweep",
    "username": "username",
    "user": "username",
    "notes": "notes",
    "description": "description",
    "host": "host",
    "commit": "git_commit",
    "git_commit": "git_commit",
    "entity": "entity",
    "project": "project",
    "url": "url",
}
_NUMBERS = {"duration": "duration_s", "duration_s": "duration_s"}
_TIMES = {
    "created_at": "created_at",
    "createdAt": "created_at",
    "heartbeat_at": "heartbeat_at",
    "heartbeatAt": "heartbeat_at",
    "updated_at": "updated_at",
    "updatedAt": "updated_at",
}
_DOCUMENTS: dict[str, Literal["config", "summary"]] = {
    "config": "config",
    "summary_metrics": "summary",
    "summaryMetrics": "summary",
    "summary": "summary",
}

COLUMNS: dict[str, Column] = {
    **{name: Column(column, "text") for name, column in _TEXT.items()},
    **{name: Column(column, "number") for name, column in _NUMBERS.items()},
    **{name: Column(column, "time") for name, column in _TIMES.items()},
}
NAMES = (*COLUMNS, "tags", *_DOCUMENTS)

_MAIN = "name, display_name, state, tags, group, job_type, sweep, username, created_at, duration"

_CLOSE = 0.85
"""From this similarity on, an unknown field is a misspelt one, rather than a key such as `lr` or `stage`."""


def resolve(path: str) -> Column | Tags | Document:
    """The target of a path in the hosted server's notation; `config.lr` and `config.lr.value` are the same.

    Raises FilterError for an unknown field, naming the nearest one, and for a path that continues after a single value.
    """
    head, dot, rest = path.partition(".")
    if head in _DOCUMENTS:
        if not rest:
            raise FilterError(f"{path!r} has no key; write {head}.<key>")
        steps = list(steps_of(rest, path))
        # The server stores every config value as {"value": ..., "desc": ...}, so people write config.lr.value.
        if _DOCUMENTS[head] == "config" and len(steps) > 1 and steps[1] == "value":
            del steps[1]
        return Document(_DOCUMENTS[head], tuple(steps))
    if head == "tags":
        if dot and not is_index(rest):
            raise FilterError(f"{path!r}: tags is a list of strings; only a position can follow, as in tags.0")
        return Tags(int(rest) if dot else None)
    if head not in COLUMNS:
        raise FilterError(_unknown(path, head))
    if dot:
        raise FilterError(f"{path!r}: {head} is a single value; nothing can follow it")
    return COLUMNS[head]


def steps_of(dotted: str, path: str) -> tuple[str, ...]:
    """The steps of a dotted path. Raises FilterError for more than MAX_STEPS."""
    steps = dotted.split(".")
    if len(steps) > MAX_STEPS:
        raise FilterError(f"{path[:40]!r}... has {len(steps)} steps; a path has at most {MAX_STEPS}")
    return tuple(steps)


def is_index(step: str) -> bool:
    """Return True if a step of a path can be the index of a list element."""
    return step.isascii() and step.isdigit() and len(step) <= 9 and (step == "0" or step[0] != "0")


def _unknown(path: str, head: str) -> str:
    if head == "id":
        return "unknown field 'id'; the run id is called 'name', and the displayed name 'display_name'"
    path, head = name_text(path), name_text(head)
    lowered = {name.lower(): name for name in reversed(NAMES)}
    near = get_close_matches(head, NAMES, 1, _CLOSE) or get_close_matches(head.lower(), lowered, 1, _CLOSE)
    if near:
        field = lowered.get(near[0], near[0])
        return (
            f"unknown field {head!r}; did you mean {field!r}? "
            f"(keys of runs are written config.{path} or summary_metrics.{path})"
        )
    # Most often, the key of a config was written without its document.
    return (
        f"unknown field {head!r}; did you mean 'config.{path}' or 'summary_metrics.{path}'? (fields are {_MAIN}, ...)"
    )
