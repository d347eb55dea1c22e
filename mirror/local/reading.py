"""What the records of a run add up to, so that reading can be left off and gone on with."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from mirror.local import protobuf
from mirror.local.console import Console
from mirror.local.tree import Tree
from mirror.wandb_json import dumps, loads

LATEST = 32_503_680_000
"""Seconds up to the year 3000; what lies behind is no time."""


STEPS = 2**63
"""Steps are less than this, as the store and the server count them."""


class BeginsAgain(Exception):
    """A later start of the run takes the place of all earlier ones."""


class OutOfOrder(Exception):
    """History of an earlier start came after a later start was read."""


@dataclass
class Lines:
    """History and system metric lines as the server would hand them out, gathered until they are taken.

    `notes` tells how the file's start was placed among the others, `errors` which values no reader takes. `sent`, where
    it is a list, gathers history lines behind the step `behind`, each with its step, as the client would send them:
    nested where they were logged so.
    """

    history: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    sent: list[tuple[int, str]] | None = None
    behind: int = -1


@dataclass
class Reading:
    """What a run's records add up to so far. `exit_code` is None while there is no exit record.

    `cut` is the step behind which the history read before is to go, where the run was rewound to it. `start` tells
    what the newest start of the run is: "first", "resume" for one that says that it goes on, else "unknown".
    `moved` tells that steps of some start were shifted, `last_time` the newest time that any record names. `latest` has
    the last value of each history key, for a summary that is not there; `unsummarised` the keys and globs that are
    defined to have none. `console` is None where it is not mirrored. `info` is what the environment record tells,
    `beside` what lies beside the file, `log` how far its `output.log` is read.
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
        """All of it as JSON text."""
        plain = {name: value for name, value in vars(self).items() if not isinstance(value, Tree | Console)}
        for name in _TREES:
            leaves = getattr(self, name).leaves
            if name == "latest":
                # What the summary holds is never asked for here.
                leaves = {place: text for place, text in leaves.items() if not self.summary.holds(place)}
            plain[name] = [[list(place), text.decode("utf-8", "replace")] for place, text in leaves.items()]
        if self.console is not None:
            plain["console"] = self.console.as_json()
        return dumps(plain)

    @classmethod
    def from_json(cls, text: str) -> Reading:
        """The same from its JSON text."""
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
    """Sorts the starts of a run by their time."""
    seconds, _, nanos = (started_at or "").partition(".")
    return int(seconds or -1), int(nanos or 0)


def seen(reading: Reading, seconds: float | None) -> None:
    """Note a time that a record names."""
    if seconds is not None and 0 < seconds < LATEST:
        reading.last_time = max(seconds, reading.last_time or 0.0)


def texts_of(message: bytes) -> dict[int, str]:
    """The texts of a message that are not empty, by their field."""
    return {number: text_of(value) for number, value in protobuf.fields(message) if isinstance(value, bytes) and value}


def text_of(value: bytes) -> str:
    """A text of any bytes."""
    return value.decode("utf-8", "replace")


def seconds_of(message: bytes) -> tuple[int, int]:
    """A google.protobuf.Timestamp as seconds and nanoseconds."""
    values = {number: protobuf.signed(value) for number, value in protobuf.fields(message) if isinstance(value, int)}
    return values.get(1, 0), values.get(2, 0)


def timestamp(message: bytes) -> str:
    """The same as text that keeps all digits."""
    seconds, nanos = seconds_of(message)
    return f"{seconds}.{nanos:09d}"


def moment(text: str | None) -> datetime | None:
    """The time that `timestamp` gave; None for one that no calendar has."""
    if text is None:
        return None
    seconds, _, nanos = text.partition(".")
    if abs(int(seconds)) > LATEST:
        return None
    return datetime(1970, 1, 1) + timedelta(seconds=int(seconds), microseconds=int(nanos) // 1000)


def leaf(tree: Tree, *place: str) -> float | None:
    """The number at a path of a tree."""
    text = tree.leaves.get(place)
    return None if text is None else floating(text)


def floating(text: bytes) -> float | None:
    """The finite number of a JSON text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value - value == 0 else None
