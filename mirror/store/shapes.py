"""The leaves of many documents at once: documents with the same keys and types are taken column by column.

The runs of a sweep have the same keys in the same order. For each key, all their values become one Arrow array, and key
and kind are written once for all of them. This takes a fifth of the time of `LeafColumns`, which takes the rest. The
text of a number with a fraction is missing here: `store.leaves` makes it of the number, as Python would write it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, compress
from math import isfinite
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mirror.store import kernels
from mirror.store.leaves import ELEMENT_TEXT_LIMIT, WHOLE_LIMIT, LeafColumns, double, strings, text_of
from mirror.wandb_json import dumps, number_word

if TYPE_CHECKING:
    import pyarrow as pa

FEWEST = 16
"""Fewer documents of one shape are taken one by one, which is faster then: arrays of few values take long to make."""

_NONE = type(None)
_KINDS = {float: "number", int: "number", str: "string", bool: "bool", _NONE: "null", dict: "object", list: "list"}

_COUNTS = ("runs", "numbers", "bools", "nulls", "integers")


def rows_of(table: str) -> str:
    """SQL for the rows of the view `store.leaves` in a table that `ShapedLeaves.table` returned."""
    return f"(SELECT * REPLACE ({text_of()} AS text) FROM {table})"


class _Stretch(Struct, frozen=True):
    """Rows of one document, key and kind. People do not see those of objects with members."""

    doc: str
    key: str
    kind: str
    rids: pa.Array[Any]
    numbers: pa.Array[Any]
    texts: pa.Array[Any]
    whole: int = 0
    element: int | None = None
    hidden: bool = False


class ShapedLeaves:
    """Collects the leaves of many documents; `table()` has the same rows as that of `LeafColumns`, in another order.

    Imports pyarrow.
    """

    def __init__(self) -> None:
        self._odd = LeafColumns()
        self._stretches: list[_Stretch] = []

    def add(self, doc: str, rids: Sequence[int], documents: Sequence[dict[str, Any]]) -> None:
        """Append every node of the runs' documents; `doc` is `config` or `summary`."""
        import pyarrow as pa

        # Objects in the documents are still to be taken, as documents with a prefix. Depth is not limited.
        pending: list[tuple[str, Sequence[int], Sequence[dict[str, Any]]]] = [("", rids, documents)]
        for prefix, owners, members in pending:
            for names, some, of_shape in _alike(owners, members):
                if len(some) < FEWEST:
                    for rid, document in zip(some, of_shape, strict=True):
                        self._odd.add(rid, doc, document, prefix=prefix)
                    continue
                numbers = pa.array(some, pa.int64())
                for name, column in zip(
                    names, zip(*[document.values() for document in of_shape], strict=True), strict=True
                ):
                    kinds = set(map(type, column))
                    if len(kinds) == 1:
                        pending += self._column(doc, prefix, name, kinds.pop(), some, numbers, column)
                        continue
                    for kind in kinds:
                        chosen = [type(value) is kind for value in column]
                        part, values = list(compress(some, chosen)), list(compress(column, chosen))
                        array = pa.array(part, pa.int64())
                        pending += self._column(doc, prefix, name, kind, part, array, values)

    def _column(
        self,
        doc: str,
        prefix: str,
        name: str,
        kind: type,
        rids: Sequence[int],
        numbers: pa.Array[Any],
        column: Sequence[Any],
    ) -> list[tuple[str, Sequence[int], Sequence[dict[str, Any]]]]:
        """Append the values of one key, which have one type. Returns objects whose nodes are still to be appended."""
        if kind is dict:
            return self._objects(doc, prefix + name, rids, column)
        if kind is list:
            self._lists(doc, prefix + name, rids, column)
        elif kind in _KINDS:
            self._stretches.append(_values(doc, prefix + name, kind, numbers, column))
        else:
            for rid, value in zip(rids, column, strict=True):
                self._odd.add(rid, doc, {name: value}, prefix=prefix)
        return []

    def _lists(self, doc: str, key: str, rids: Sequence[int], column: Sequence[list[Any]]) -> None:
        """Append the lists at one key, and the elements of the short ones: those at one position together."""
        import pyarrow as pa

        texts = [dumps(value) for value in column]
        places: defaultdict[int, list[int]] = defaultdict(list)
        for place, (value, text) in enumerate(zip(column, texts, strict=True)):
            places[len(value) if len(text) <= ELEMENT_TEXT_LIMIT else 0].append(place)
        for members, alike in places.items():
            some, lists = [rids[place] for place in alike], [column[place] for place in alike]
            if members and len(some) < FEWEST:
                for rid, value in zip(some, lists, strict=True):
                    self._odd.add_list(rid, doc, key, value)
                continue
            numbers = pa.array(some, pa.int64())
            nulls = pa.nulls(len(some), pa.float64())
            self._stretches.append(
                _Stretch(doc, key, "list", numbers, nulls, strings([texts[place] for place in alike]))
            )
            for index in range(members):
                elements = [value[index] for value in lists]
                for kind in set(map(type, elements)):
                    chosen = [type(value) is kind for value in elements]
                    array, values = pa.array(compress(some, chosen), pa.int64()), list(compress(elements, chosen))
                    self._stretches.append(_values(doc, key, kind, array, values, element=index))

    def _objects(
        self, doc: str, key: str, rids: Sequence[int], column: Sequence[dict[str, Any]]
    ) -> list[tuple[str, Sequence[int], Sequence[dict[str, Any]]]]:
        """Append the objects at one key. Returns those with members, whose nodes are still to be appended."""
        full = [bool(document) for document in column]
        if not all(full):
            self._append_objects(doc, key, list(compress(rids, (not one for one in full))), "{}")
            rids, column = list(compress(rids, full)), list(compress(column, full))
        if not rids:
            return []
        self._append_objects(doc, key, rids, None)
        return [(f"{key}.", rids, column)]

    def _append_objects(self, doc: str, key: str, rids: Sequence[int], text: str | None) -> None:
        import pyarrow as pa

        texts = pa.array([text] * len(rids), pa.string())
        numbers = pa.nulls(len(rids), pa.float64())
        array = pa.array(rids, pa.int64())
        self._stretches.append(_Stretch(doc, key, "object", array, numbers, texts, hidden=text is None))

    def table(self) -> pa.Table:
        """All rows collected until now, for `rows_of`."""
        import pyarrow as pa

        odd, stretches = self._odd, self._stretches
        lengths = [len(stretch.rids) for stretch in stretches]
        ends = pa.array(accumulate(lengths + [1] * len(odd)), pa.int32())

        def stretched(values: list[str]) -> pa.Array[Any]:
            array: pa.Array[Any] = pa.RunEndEncodedArray.from_arrays(ends, strings(values))
            return array

        def joined(arrays: list[pa.Array[Any]], last: pa.Array[Any]) -> pa.Array[Any]:
            array: pa.Array[Any] = pa.concat_arrays([*arrays, last])
            return array

        return pa.table(
            {
                "rid": joined([stretch.rids for stretch in stretches], pa.array(odd.rids, pa.int64())),
                "doc": stretched([stretch.doc for stretch in stretches] + odd.docs),
                "key": stretched([stretch.key for stretch in stretches] + odd.keys),
                "kind": stretched([stretch.kind for stretch in stretches] + odd.kinds),
                "number": joined([stretch.numbers for stretch in stretches], pa.array(odd.numbers, pa.float64())),
                "text": joined([stretch.texts for stretch in stretches], strings(odd.texts)),
                "element": pa.RunEndEncodedArray.from_arrays(
                    ends, pa.array([stretch.element for stretch in stretches] + odd.elements, pa.int64())
                ),
            }
        )

    def counts(self) -> pa.Table:
        """How many leaves that people see each key has, of which kinds: the counts of `store.leaf_keys`."""
        import pyarrow as pa

        found: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
        position = {"number": 1, "bool": 2, "null": 3}
        for stretch in self._stretches:
            if stretch.hidden or stretch.element is not None:
                continue
            of_key = found[stretch.doc, stretch.key]
            of_key[0] += len(stretch.rids)
            if stretch.kind in position:
                of_key[position[stretch.kind]] += len(stretch.rids)
            of_key[4] += stretch.whole
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


def _alike(
    rids: Sequence[int], documents: Sequence[dict[str, Any]]
) -> list[tuple[tuple[str, ...], Sequence[int], Sequence[dict[str, Any]]]]:
    """The documents with the same keys in the same order, together: the keys, the runs and the documents."""
    names = list(map(tuple, documents))
    if len(set(names)) == 1:
        return [(names[0], rids, documents)]
    alike: dict[tuple[str, ...], tuple[list[int], list[dict[str, Any]]]] = {}
    for keys, rid, document in zip(names, rids, documents, strict=True):
        some, of_shape = alike.setdefault(keys, ([], []))
        some.append(rid)
        of_shape.append(document)
    return [(keys, *group) for keys, group in alike.items()]


def _values(
    doc: str, key: str, kind: type, rids: pa.Array[Any], column: Sequence[Any], *, element: int | None = None
) -> _Stretch:
    """The values of one key, which have one type. Objects and lists only as elements of a list: they are JSON text."""
    import pyarrow as pa

    count = len(column)
    whole = 0
    numbers: pa.Array[Any] = pa.nulls(count, pa.float64())
    texts: pa.Array[Any] = pa.nulls(count, pa.string())
    if kind is float:
        numbers = pa.array(column, pa.float64())
        # The sum is finite if every number is, unless it is too large itself.
        if not isfinite(sum(column)):
            texts = pa.array([None if isfinite(value) else number_word(value) for value in column], pa.string())
    elif kind is int:
        try:
            integers = pa.array(column, pa.int64())
        except OverflowError:
            doubles = list(map(double, column))
            whole = sum(-WHOLE_LIMIT < number < WHOLE_LIMIT for number in doubles)
            numbers, texts = pa.array(doubles, pa.float64()), pa.array(list(map(str, column)), pa.string())
        else:
            numbers, texts = kernels.cast(integers, pa.float64()), kernels.cast(integers, pa.string())
            small = float(min(column)) > -WHOLE_LIMIT and float(max(column)) < WHOLE_LIMIT
            whole = count if small else sum(-WHOLE_LIMIT < float(value) < WHOLE_LIMIT for value in column)
    elif kind is bool:
        texts = pa.array(["true" if value else "false" for value in column], pa.string())
    elif kind is str:
        texts = strings(list(column))
    elif kind is not _NONE:
        texts = strings([dumps(value) for value in column])
    return _Stretch(doc, key, _KINDS.get(kind, "list"), rids, numbers, texts, whole, element)
