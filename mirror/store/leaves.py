"""Config and summary documents as rows of `store.leaves`, one row per node, collected as Arrow columns.

Every value below the root of a document has a row: `key` is its dotted path (`optimizer.lr`, whether `lr` is nested
in `optimizer` or the key itself holds the dot), `kind` one of number, string, bool, null, list, object. `number` is set
for numbers only, NaN and infinities included. `text` is the value as text: exact digits of an integer, `true`, JSON
text of a list; it is null for null and for an object with members, `{}` for an empty object. The view reads the table
`store.leaf_rows`, in which the text of a number may be missing where it follows from the number.
People see the rows that `shown` selects; the others are there for filters.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from mirror.wandb_json import dumps, number_word

if TYPE_CHECKING:
    import pyarrow as pa

ELEMENT_TEXT_LIMIT = 256
"""A list has rows for its elements if its JSON text has at most this many characters.

Longer lists (histograms have 65 numbers and more) have only the row of the list, whose text filters read.
"""

WHOLE_LIMIT = 9.223372036854775e18
"""A whole number below it fits into a BIGINT."""

INTEGER = (
    f"CASE WHEN number = trunc(number) AND abs(number) < {WHOLE_LIMIT} "
    "THEN NOT contains(text, '.') AND NOT contains(text, 'e') ELSE false END"
)
"""True for a leaf that is a whole number, is written as one (`1`, not `1.0`), and fits into a BIGINT.

The number is compared first, since that is twice as fast as looking at the text of each leaf.
"""


def text_of(alias: str = "") -> str:
    """The text of a row of `store.leaf_rows` of this alias, as the view `store.leaves` has it."""
    of = f"{alias}." if alias else ""
    return f"CASE WHEN {of}text IS NULL AND {of}kind = 'number' THEN CAST({of}number AS VARCHAR) ELSE {of}text END"


_MAX = sys.float_info.max


def shown(alias: str = "") -> str:
    """The condition for the leaves that people see, rows of this alias: no list elements, no objects with members."""
    of = f"{alias}." if alias else ""
    return f"{of}element IS NULL AND ({of}kind <> 'object' OR {of}text IS NOT NULL)"


class LeafColumns:
    """Collects the leaves of many documents, column by column; `table()` returns them as rows of `store.leaves`."""

    def __init__(self) -> None:
        self.rids: list[int] = []
        self.docs: list[str] = []
        self.keys: list[str] = []
        self.kinds: list[str] = []
        self.numbers: list[float | None] = []
        self.texts: list[str | None] = []
        self.elements: list[int | None] = []

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, rid: int, doc: str, document: dict[str, Any], *, prefix: str = "") -> None:
        """Append every node of one run's `document`; `doc` is `config` or `summary`. Depth is not limited.

        Keys begin with `prefix`.
        """
        keys, kinds, numbers, texts, elements = self.keys, self.kinds, self.numbers, self.texts, self.elements
        before = len(keys)
        # A list of objects still to be walked instead of recursion: documents may be nested deeper than Python's stack.
        pending = [(prefix, document)]
        for before_name, members in pending:
            for name, value in members.items():
                key = before_name + name
                kind = type(value)
                keys.append(key)
                if kind is float:
                    kinds.append("number")
                    numbers.append(value)
                    texts.append(repr(value) if isfinite(value) else number_word(value))
                elif kind is str:
                    kinds.append("string")
                    numbers.append(None)
                    texts.append(value)
                elif kind is int:
                    kinds.append("number")
                    numbers.append(double(value))
                    texts.append(str(value))
                elif kind is bool:
                    kinds.append("bool")
                    numbers.append(None)
                    texts.append("true" if value else "false")
                elif value is None:
                    kinds.append("null")
                    numbers.append(None)
                    texts.append(None)
                elif isinstance(value, dict):
                    kinds.append("object")
                    numbers.append(None)
                    texts.append(None if value else "{}")
                    if value:
                        pending.append((key + ".", value))
                elif isinstance(value, (list, tuple)):
                    self._append_list(value)
                else:
                    raise TypeError(f"{doc} key {key!r} holds a {kind.__name__}, which is not a JSON value")
        count = len(keys) - before
        elements.extend([None] * (len(keys) - len(elements)))
        self.rids.extend([rid] * count)
        self.docs.extend([doc] * count)

    def add_list(self, rid: int, doc: str, key: str, value: Sequence[Any]) -> None:
        """Append one list of a document, and its elements if it is short."""
        before = len(self.keys)
        self.keys.append(key)
        self._append_list(value)
        self.elements.extend([None] * (len(self.keys) - len(self.elements)))
        self.rids.extend([rid] * (len(self.keys) - before))
        self.docs.extend([doc] * (len(self.keys) - before))

    def _append_list(self, value: Sequence[Any]) -> None:
        """Append all but the key of a list, and the rows of its elements."""
        text = dumps(value)
        self.kinds.append("list")
        self.numbers.append(None)
        self.texts.append(text)
        if len(text) <= ELEMENT_TEXT_LIMIT:
            self.elements.extend([None] * (len(self.keys) - len(self.elements)))
            key = self.keys[-1]
            for index, element in enumerate(value):
                kind, number, element_text = _scalar(element)
                self.keys.append(key)
                self.kinds.append(kind)
                self.numbers.append(number)
                self.texts.append(element_text)
                self.elements.append(index)

    def rows(self) -> Iterable[tuple[str, str, str, float | None, str | None, int | None]]:
        """Document, key, kind, number, text and element of each row."""
        return zip(self.docs, self.keys, self.kinds, self.numbers, self.texts, self.elements, strict=True)

    def table(self) -> pa.Table:
        """All rows collected until now, with the columns of `store.leaves` in their order. Imports pyarrow."""
        import pyarrow as pa

        return pa.table(
            {
                "rid": pa.array(self.rids, pa.int64()),
                "doc": pa.array(self.docs, pa.string()),
                "key": strings(self.keys),
                "kind": pa.array(self.kinds, pa.string()),
                "number": pa.array(self.numbers, pa.float64()),
                "text": strings(self.texts),
                "element": pa.array(self.elements, pa.int64()),
            }
        )

    def clear(self) -> None:
        """Forget all rows, so that the object can be used for the next batch."""
        for column in (self.rids, self.docs, self.keys, self.kinds, self.numbers, self.texts, self.elements):
            column.clear()


def _scalar(value: Any) -> tuple[str, float | None, str | None]:
    """Kind, number and text of a list element; objects and lists are JSON text."""
    if isinstance(value, str):
        return "string", None, value
    if isinstance(value, bool):
        return "bool", None, "true" if value else "false"
    if isinstance(value, int):
        return "number", double(value), str(value)
    if isinstance(value, float):
        return "number", value, repr(value) if isfinite(value) else number_word(value)
    if value is None:
        return "null", None, None
    return "object" if isinstance(value, dict) else "list", None, dumps(value)


def double(value: int) -> float:
    """The nearest double. An integer beyond all doubles becomes the largest one, since it is not infinite."""
    try:
        return float(value)
    except OverflowError:
        return _MAX if value > 0 else -_MAX


def strings(values: list[Any]) -> pa.Array[Any]:
    """A string column. A lone surrogate, which UTF-8 cannot encode, becomes a question mark."""
    import pyarrow as pa

    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([v if v is None else v.encode("utf-8", "replace").decode() for v in values], pa.string())
