"""Console output as the official client sends it: the final content of a terminal of 32 lines for each stream.

Source: core/internal/runconsolelogs and core/internal/terminalemulator in github:wandb/wandb.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from msgspec import Struct, field
from msgspec.structs import asdict

Line = tuple[int, datetime | None, str | None, str]

_HEIGHT = 32
"""Lines of a terminal; also how many of the newest lines may still change."""

_WIDTH = 4096
"""The longest line in characters; the client drops the rest."""

_PART = re.compile(r"\r|\n|\x1b\[A|\x1b\[B|\x1b|[^\r\n\x1b]+")


class _Terminal(Struct):
    """One stream: the numbers of the lines that it shows, and the position of its cursor."""

    view: list[int] = field(default_factory=list)
    x: int = 0
    y: int = 0
    rest: str = ""


class Console(Struct):
    """Lines, numbered in the order in which they were started; `count` is their number.

    The lines of the run's newest start are those from `begun` on. `recent` holds the newest ones, which may change.
    """

    count: int = 0
    recent: dict[int, Line] = field(default_factory=dict)
    changed: dict[int, Line] = field(default_factory=dict)
    streams: dict[str, _Terminal] = field(default_factory=dict)
    begun: int = 0

    def write(self, text: str, at: datetime | None, level: str | None) -> None:
        """Apply output of one stream; `level` is "error" for stderr."""
        terminal = self.streams.setdefault(level or "", _Terminal())
        text, terminal.rest = terminal.rest + text, ""
        for match in _PART.finditer(text):
            part = match[0]
            if part == "\r":
                terminal.x = 0
            elif part == "\n":
                terminal.x = 0
                self._down(terminal)
            elif part == "\x1b[A":
                terminal.y = max(terminal.y - 1, 0)
            elif part == "\x1b[B":
                self._down(terminal)
            elif part == "\x1b" and text[match.start() : match.start() + 3] in ("\x1b", "\x1b["):
                # An escape sequence that the next record may complete.
                terminal.rest = text[match.start() :]
                return
            else:
                self._put(terminal, part, at, level)

    def add(self, text: str, at: datetime | None) -> None:
        """Add complete lines of a log, which no terminal changes."""
        for line in text.removesuffix("\n").split("\n"):
            self._set(self._new(at, None), line)

    def begin(self, others: int) -> None:
        """Begin a new start of the run after the lines of the earlier one; `others` more lines came from elsewhere."""
        self.streams.clear()
        self.count += others
        self.begun = self.count

    def take(self) -> list[list[Line]]:
        """Return the lines that are new or changed since the last call, in groups of consecutive numbers."""
        groups: list[list[Line]] = []
        for number in sorted(self.changed):
            if not groups or groups[-1][-1][0] != number - 1:
                groups.append([])
            groups[-1].append(self.changed[number])
        self.changed = {}
        return groups

    def as_json(self) -> dict[str, Any]:
        """Return the state, from which reading can continue, as plain values."""
        recent = [[number, at and at.isoformat(), level, text] for number, at, level, text in self.recent.values()]
        return {
            "count": self.count,
            "begun": self.begun,
            "recent": recent,
            "streams": {name: asdict(terminal) for name, terminal in self.streams.items()},
        }

    @classmethod
    def from_json(cls, values: dict[str, Any] | None) -> Console:
        """Restore the state from its plain values."""
        if not values:
            return cls()
        recent = {
            number: (number, at and datetime.fromisoformat(at), level, text)
            for number, at, level, text in values["recent"]
        }
        streams = {name: _Terminal(**terminal) for name, terminal in values["streams"].items()}
        return cls(values["count"], recent, streams=streams, begun=values["begun"])

    def _down(self, terminal: _Terminal) -> None:
        terminal.y += 1
        if terminal.y >= _HEIGHT:
            del terminal.view[:1]
            terminal.y -= 1

    def _put(self, terminal: _Terminal, text: str, at: datetime | None, level: str | None) -> None:
        while terminal.y >= len(terminal.view):
            terminal.view.append(self._new(at, level))
        number = terminal.view[terminal.y]
        start = terminal.x
        terminal.x += len(text)
        known = self.recent.get(number)
        if known is not None and start < _WIDTH:
            line = known[3]
            self._set(number, (line[:start].ljust(start) + text + line[start + len(text) :])[:_WIDTH])

    def _new(self, at: datetime | None, level: str | None) -> int:
        number = self.count
        self.count += 1
        self.recent[number] = self.changed[number] = (number, at, level, "")
        self.recent.pop(number - _HEIGHT, None)
        return number

    def _set(self, number: int, text: str) -> None:
        _, at, level, _ = self.recent[number]
        self.recent[number] = self.changed[number] = (number, at, level, text)
