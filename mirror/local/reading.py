"""The state that the records of a run add up to; it is stored, so that reading can continue later."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct, field
from msgspec.structs import asdict

from mirror.local import protobuf
from mirror.local.console import Console
from mirror.local.tree import Tree
from mirror.wandb_json import dumps, loads

LATEST = 32_503_680_000
"""The year 3000 in seconds; larger values are not times."""


STEPS = 2**63
"""The limit of steps in the store and on the server."""


class BeginsAgain(Exception):
    """A later start of the run replaces all earlier ones."""


class OutOfOrder(Exception):
    """History of an earlier start came after a later start was read."""


class Lines(Struct):
    """Collects history and system metric lines as the server would return them.

    `notes` explain how the file's start was ordered among the others, `errors` list values that cannot be read. If
    `sent` is a list, it collects the history lines after the step `behind`, each with its step, as the client would
    send them: nested where they were logged nested.
    """

    history: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    sent: list[tuple[int, str]] | None = None
    behind: int = -1


class Reading(Struct):
    """The state of a run from its records until now. `exit_code` is None while there is no exit record.

    `cut` is the step to which the run was rewound: history after it is to be removed. `start` is the kind of the run's
    newest start: "first", "resume" if it says that it resumes, else "unknown". `moved` is True if steps of a start were
    shifted, `last_time` is the newest time in any record. `latest` has the last value of each history key, for a
    missing summary; `unsummarised` has the keys and globs that are defined to have no summary. `console` is None if it
    is not mirrored. `info` is from the environment record, `beside` from the documents beside the file, `log` is the
    position in its `output.log`.
    """

    texts: dict[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    git_commit: str | None = None
    started_at: str | None = None
    first_started_at: str | None = None
    config: Tree = field(default_factory=Tree)
    summary: Tree = field(default_factory=Tree)
    exit_code: int | None = None
    runtime: int = 0
    events: int = 0
    last_step: int | None = None
    last_time: float | None = None
    cut: int | None = None
    start: str = "first"
    moved: bool = False
    preempting: bool = False
    latest: Tree = field(default_factory=Tree)
    unsummarised: list[str] = field(default_factory=list)
    console: Console | None = None
    info: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, Any] = field(default_factory=dict)
    log: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        """Return the state as JSON text."""
        plain = {name: value for name, value in asdict(self).items() if not isinstance(value, Tree | Console)}
        for name in _TREES:
            leaves = getattr(self, name).leaves
            if name == "latest":
                # Values that the summary has are never read from `latest`.
                leaves = {place: text for place, text in leaves.items() if not self.summary.holds(place)}
            plain[name] = [[list(place), text.decode("utf-8", "replace")] for place, text in leaves.items()]
        if self.console is not None:
            plain["console"] = self.console.as_json()
        return dumps(plain)

    @classmethod
    def from_json(cls, text: str) -> Reading:
        """Restore the state from its JSON text."""
        values = loads(text)
        for name in _TREES:
            tree = Tree()
            for place, leaf in values.get(name, ()):
                tree.set(tuple(place), leaf.encode("utf-8", "replace"))
            values[name] = tree
        if values.get("console") is not None:
            values["console"] = Console.from_json(values["console"])
        return cls(**values)


_TREES = ("config", "summary", "latest")


def order(started_at: str | None) -> tuple[int, int]:
    """Return a sort key for the starts of a run: their time."""
    seconds, _, nanos = (started_at or "").partition(".")
    return int(seconds or -1), int(nanos or 0)


def note_time(reading: Reading, seconds: float | None) -> None:
    """Record a time that occurs in a record."""
    if seconds is not None and 0 < seconds < LATEST:
        reading.last_time = max(seconds, reading.last_time or 0.0)


def texts_of(message: bytes) -> dict[int, str]:
    """Return the non-empty texts of a message by field number."""
    return {number: text_of(value) for number, value in protobuf.fields(message) if isinstance(value, bytes) and value}


def text_of(value: bytes) -> str:
    """Decode bytes as UTF-8; invalid ones are replaced."""
    return value.decode("utf-8", "replace")


def seconds_of(message: bytes) -> tuple[int, int]:
    """Return a google.protobuf.Timestamp as seconds and nanoseconds."""
    values = {number: protobuf.signed(value) for number, value in protobuf.fields(message) if isinstance(value, int)}
    return values.get(1, 0), values.get(2, 0)


def timestamp(message: bytes) -> str:
    """Return a google.protobuf.Timestamp as text with all digits."""
    seconds, nanos = seconds_of(message)
    return f"{seconds}.{nanos:09d}"


def moment(text: str | None) -> datetime | None:
    """Parse a text from `timestamp`; None if it is past LATEST."""
    if text is None:
        return None
    seconds, _, nanos = text.partition(".")
    if abs(int(seconds)) > LATEST:
        return None
    return datetime(1970, 1, 1) + timedelta(seconds=int(seconds), microseconds=int(nanos) // 1000)


def leaf(tree: Tree, *place: str) -> float | None:
    """Return the number at a path of a tree."""
    text = tree.leaves.get(place)
    return None if text is None else floating(text)


def floating(text: bytes) -> float | None:
    """Return the number of a JSON text; None if it is not finite or not a number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value - value == 0 else None
