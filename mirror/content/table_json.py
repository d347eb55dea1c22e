"""Reads the file of a W&B Table: its members, and its rows in batches, so that memory does not depend on its size."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from json.scanner import make_scanner
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mirror.errors import MirrorError

WINDOW = 4 << 20
"""Bytes that are read at a time, and more only for a row that is larger."""

BATCH_ROWS = 20_000
BATCH_CHARACTERS = 8 << 20
"""A batch of rows ends at one of these."""

_SPACE = re.compile(r"[ \t\r\n]*")
_TAIL = 16
"""An error this close to the end of what was read may be a value that goes on."""


class BadTable(MirrorError):
    """The file is not a W&B Table that can be read; the message says where and why."""


class TableFile:
    """One file, read from its start to its end. Use it as a context manager.

    Accepts what W&B writes: bare NaN and Infinity, and integers of any size.
    """

    def __init__(self, path: Path) -> None:
        self.members: dict[str, Any] = {}
        self._file = path.open("rb")
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._scan = make_scanner(json.JSONDecoder(strict=False))  # type: ignore[arg-type]
        self._text = ""
        self._at = 0
        self._before = 0
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def rows(self) -> Iterator[list[list[Any]]]:
        """Yield the rows in batches. Raises BadTable.

        `members` has the other members of the table: those before the rows from the first batch on, and all at the end.
        """
        if self._next() != "{":
            raise BadTable("it is not a JSON object")
        self._at += 1
        if self._next() == "}":
            raise BadTable("it has no columns")
        while True:
            key = self._value()
            if not isinstance(key, str):
                raise self._broken()
            self._expect(":")
            if key == "data":
                yield from self._rows()
                self.members["data"] = True
            else:
                self._next()
                self.members[key] = self._value()
            if self._next() == "}":
                break
            self._expect(",")
            self._next()
        if "data" not in self.members:
            raise BadTable("it has no rows: the member `data` is missing")

    def _rows(self) -> Iterator[list[list[Any]]]:
        if self._next() != "[":
            raise BadTable("its rows, the member `data`, are not a list")
        self._at += 1
        number, batch, start = 0, [], self._before + self._at
        while self._next() != "]":
            if number:
                self._expect(",")
                self._next()
            row = self._value()
            if not isinstance(row, list):
                raise BadTable(f"row {number} is not a list")
            number += 1
            batch.append(row)
            position = self._before + self._at
            if len(batch) >= BATCH_ROWS or position - start > BATCH_CHARACTERS:
                yield batch
                batch, start = [], position
        self._at += 1
        yield batch

    def _value(self) -> Any:
        """Return the value that begins here."""
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except StopIteration as error:
                self._read_on(int(error.value))
            except json.JSONDecodeError as error:
                self._read_on(len(self._text) if error.msg.startswith("Unterminated") else error.pos)
            except RecursionError:
                raise BadTable(f"a value at character {self._before + self._at:,} is nested too deep") from None
            except ValueError as error:
                raise BadTable(f"a value at character {self._before + self._at:,} is unusable ({error})") from None
            else:
                # A number may go on in the next window.
                if end < len(self._text) or not self._more():
                    self._at = end
                    return value

    def _read_on(self, position: int) -> None:
        """Read more, if an error at this position of the text may be due to its end. Raises BadTable."""
        if position < len(self._text) - _TAIL or not self._more():
            self._at = position
            raise self._broken()

    def _broken(self) -> BadTable:
        if self._ended and self._at >= len(self._text) - 1:
            return BadTable(f"its JSON ends in the middle, after {self._before + len(self._text):,} characters")
        return BadTable(f"its JSON is broken at character {self._before + self._at:,}")

    def _next(self) -> str:
        """Skip white space; return the character that follows, "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise self._broken()
        self._at += 1

    def _more(self) -> bool:
        """Read on, dropping what was read before the current value; return False at the end of the file."""
        if self._ended:
            return False
        rest = self._text[self._at :]
        piece = self._file.read(max(WINDOW, len(rest)))
        self._ended = not piece
        try:
            text = self._decoder.decode(piece, final=self._ended)
        except UnicodeDecodeError:
            raise BadTable(f"it is not UTF-8 text, after character {self._before + len(self._text):,}") from None
        self._before += self._at
        self._text, self._at = rest + text, 0
        return not self._ended
