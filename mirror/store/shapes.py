"""The leaves of many documents at once: documents with the same keys and types are taken column by column.

The runs of a sweep have the same keys in the same order. For each key, all their values become rows together, and key
and kind are written once for all of them. This takes a third of the time of `LeafColumns`, which takes the rest. The
text of a number with a fraction is missing here: `store.leaves` makes it of the number, as Python would write it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, compress
from math import isfinite
from typing import TYPE_CHECKING, Any

from mirror.store.leaves import WHOLE_LIMIT, LeafColumns, double, strings
from mirror.wandb_json import number_word

if TYPE_CHECKING:
    import pyarrow as pa

_FEWEST = 4
"""Fewer documents of one shape are taken one by one, which is faster then."""

_NONE = type(None)
_KINDS = {float: "number", int: "number", str: "string", bool: "bool", _NONE: "null", dict: "object", list: "list"}

_COUNTS = ("runs", "numbers", "bools", "nulls", "integers")


def rows_of(table: str) -> str:
    """SQL for the rows of the view `store.leaves` in a table that `ShapedLeaves.table` returned."""
    return (
        "(SELECT rid, doc, key, kind, number, CASE WHEN text IS NULL AND kind = 'number' THEN CAST(number AS VARCHAR) "
        f"ELSE text END AS text, element FROM {table})"
    )


class ShapedLeaves:
    """Collects the leaves of many documents; `table()` has the same rows as that of `LeafColumns`, in another order."""

    def __init__(self) -> None:
        self._odd = LeafColumns()
        self._rids: list[int] = []
        self._numbers: list[float | None] = []
        self._texts: list[str | None] = []
        # Rows of one document, key and kind, one stretch after the other, with the number of rows of each.
        self._docs: list[str] = []
        self._keys: list[str] = []
        self._kinds: list[str] = []
        self._lengths: list[int] = []
        self._whole: defaultdict[tuple[str, str], int] = defaultdict(int)

    def add(self, doc: str, rids: Sequence[int], documents: Sequence[dict[str, Any]]) -> None:
        """Append every node of the runs' documents; `doc` is `config` or `summary`."""
        # Objects in the documents are still to be taken, as documents with a prefix. Depth is not limited.
        pending: list[tuple[str, Sequence[int], Sequence[dict[str, Any]]]] = [("", rids, documents)]
        for prefix, owners, members in pending:
            shapes: dict[Any, tuple[list[int], list[dict[str, Any]]]] = {}
            for rid, document in zip(owners, members, strict=True):
                alike = shapes.setdefault((tuple(document), tuple(map(type, document.values()))), ([], []))
                alike[0].append(rid)
                alike[1].append(document)
            for (names, types), (some, alike_documents) in shapes.items():
                if len(some) < _FEWEST or not _KINDS.keys() >= set(types):
                    for rid, document in zip(some, alike_documents, strict=True):
                        self._odd.add(rid, doc, document, prefix=prefix)
                    continue
                values = zip(*[document.values() for document in alike_documents], strict=True)
                for name, kind, column in zip(names, types, values, strict=True):
                    if kind is dict:
                        pending += self._objects(doc, prefix + name, some, column)
                    else:
                        self._values(doc, prefix + name, kind, some, column)

    def _values(self, doc: str, key: str, kind: type, rids: list[int], column: Sequence[Any]) -> None:
        """Append the values of one key, which have one type."""
        count = len(column)
        texts: list[str | None]
        if kind is float:
            # The sum is finite if every number is, unless it is too large itself.
            finite = isfinite(sum(column))
            texts = [None] * count if finite else [None if isfinite(v) else number_word(v) for v in column]
            self._append(doc, key, "number", rids, column, texts)
        elif kind is int:
            try:
                numbers = list(map(float, column))
            except OverflowError:
                numbers = list(map(double, column))
            self._append(doc, key, "number", rids, numbers, list(map(str, column)))
            self._whole[doc, key] += sum(-WHOLE_LIMIT < number < WHOLE_LIMIT for number in numbers)
        elif kind is list:
            for rid, value in zip(rids, column, strict=True):
                self._odd.add_list(rid, doc, key, value)
        else:
            texts = ["true" if value else "false" for value in column] if kind is bool else list(column)
            self._append(doc, key, _KINDS[kind], rids, [None] * count, texts)

    def _objects(
        self, doc: str, key: str, rids: list[int], column: Sequence[dict[str, Any]]
    ) -> list[tuple[str, Sequence[int], Sequence[dict[str, Any]]]]:
        """Append the objects at one key. Returns those with members, whose nodes are still to be appended."""
        full = [bool(document) for document in column]
        if not all(full):
            empty = list(compress(rids, (not one for one in full)))
            self._append(doc, key, "object", empty, [None] * len(empty), ["{}"] * len(empty))
            rids, column = list(compress(rids, full)), list(compress(column, full))
        if not rids:
            return []
        self._append(doc, key, "object", rids, [None] * len(rids), [None] * len(rids))
        return [(f"{key}.", rids, column)]

    def _append(
        self,
        doc: str,
        key: str,
        kind: str,
        rids: Sequence[int],
        numbers: Sequence[float | None],
        texts: Sequence[str | None],
    ) -> None:
        self._docs.append(doc)
        self._keys.append(key)
        self._kinds.append(kind)
        self._lengths.append(len(rids))
        self._rids.extend(rids)
        self._numbers.extend(numbers)
        self._texts.extend(texts)

    def table(self) -> pa.Table:
        """All rows collected until now, for `rows_of`. Imports pyarrow."""
        import pyarrow as pa

        odd = self._odd
        ends = pa.array(accumulate(self._lengths + [1] * len(odd)), pa.int32())

        def stretched(values: list[str]) -> pa.Array[Any]:
            array: pa.Array[Any] = pa.RunEndEncodedArray.from_arrays(ends, strings(values))
            return array

        elements: pa.Array[Any] = pa.nulls(len(self._rids), pa.int64())
        return pa.table(
            {
                "rid": pa.array(self._rids + odd.rids, pa.int64()),
                "doc": stretched(self._docs + odd.docs),
                "key": stretched(self._keys + odd.keys),
                "kind": stretched(self._kinds + odd.kinds),
                "number": pa.array(self._numbers + odd.numbers, pa.float64()),
                "text": strings(self._texts + odd.texts),
                "element": pa.concat_arrays([elements, pa.array(odd.elements, pa.int64())]),
            }
        )

    def counts(self) -> pa.Table:
        """How many leaves that people see each key has, of which kinds: the counts of `store.leaf_keys`."""
        import pyarrow as pa

        found: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
        position = {"number": 1, "bool": 2, "null": 3}
        starts = accumulate(self._lengths, initial=0)
        for doc, key, kind, length, start in zip(self._docs, self._keys, self._kinds, self._lengths, starts):  # noqa: B905 - one start more
            if kind == "object" and self._texts[start] is None:
                continue
            of_key = found[doc, key]
            of_key[0] += length
            if kind in position:
                of_key[position[kind]] += length
        for of, whole in self._whole.items():
            found[of][4] += whole
        for doc, key, kind, number, text, element in self._odd.rows():
            if element is not None or (kind == "object" and text is None):
                continue
            of_key = found[doc, key]
            of_key[0] += 1
            if kind in position:
                of_key[position[kind]] += 1
            if number is not None and text is not None and abs(number) < WHOLE_LIMIT:
                of_key[4] += "." not in text and "e" not in text
        counts = list(found.values())
        return pa.table(
            {
                "doc": strings([doc for doc, _ in found]),
                "key": strings([key for _, key in found]),
                **{name: pa.array([of_key[at] for of_key in counts], pa.int64()) for at, name in enumerate(_COUNTS)},
            }
        )
