"""Converts history lines to columns, without a Python object for each value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import translate
from typing import TYPE_CHECKING, Any

from mirror import nested
from mirror.metrics import STEP, arrange, summarise
from mirror.remote.json_history_fast import EXACT, parse_plain
from mirror.store.records import HistoryPage
from mirror.wandb_json import NUMBER_WORDS, UNREADABLE, dumps, lines, unreadable

if TYPE_CHECKING:
    import pyarrow as pa

_EXPONENT = re.compile(r"\de\+?[12]\d")


class KeyGlobs:
    """The history keys that are mirrored: a key matches if one of the globs matches it, or equals it."""

    def __init__(self, globs: Sequence[str]) -> None:
        self.everything = "*" in globs
        self.nothing = not globs
        self._names = frozenset(globs)
        self._pattern = re.compile("|".join(translate(glob) for glob in globs) or r"(?!)")
        self._seen: dict[str, bool] = {}

    def __contains__(self, key: object) -> bool:
        if self.everything:
            return True
        assert isinstance(key, str)
        known = self._seen.get(key)
        if known is None:
            known = self._seen[key] = key in self._names or self._pattern.match(key) is not None
        return known


def parse(run_id: str, texts: list[str], keys: KeyGlobs, *, complete_to: int | None = None) -> HistoryPage:
    """Convert history lines to columns.

    Objects become dotted keys, except W&B's own typed ones (`_type`), which stay one JSON text, as lists do.
    `complete_to` is the step up to which nothing is missing once these lines are stored; by default the last line's.
    Raises CommError for a line that is not JSON or has no step.
    """
    try:
        if (plain := parse_plain(run_id, texts, keys, complete_to=complete_to)) is not None:
            return plain
        rows = lines(texts)
        steps = [int(row[STEP]) for row in rows]
        table = _columns(rows, steps, keys)
        if _may_have_lost_digits(table):
            rows = lines(texts, exact=True)
            # The fast parser read a step past 64 bits as a float.
            table = _columns(rows, [int(row[STEP]) for row in rows], keys)
    except UNREADABLE as error:
        raise unreadable(f"a history line of {run_id}", error) from error
    last = max(steps, default=None)
    if complete_to is not None:
        last = complete_to if last is None else max(last, complete_to)
    # A server that joins exported and live steps in one answer may return lines twice.
    return _page(run_id, table, len(set(steps)), last)


def parse_events(run_id: str, texts: list[str]) -> HistoryPage:
    """Convert system metric lines to columns; a line has no step, so its index in the list is its step."""
    try:
        rows = [row for row in lines(texts) if isinstance(row, dict)]
        steps = list(range(len(rows)))
        table = _columns(rows, steps, KeyGlobs(["*"]))
    except UNREADABLE as error:
        raise unreadable(f"a system metric of {run_id}", error) from error
    return _page(run_id, table, len(rows), steps[-1] if steps else None)


def _page(run_id: str, values: pa.Table, rows: int, last_step: int | None) -> HistoryPage:
    values = arrange(values)
    return HistoryPage(run_id, values, rows, last_step, summarise(values))


def _columns(rows: list[dict[str, Any]], steps: list[int], keys: KeyGlobs) -> pa.Table:
    """Group the rows by their keys, so that each group is transposed by one `zip`."""
    import pyarrow as pa

    groups: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(tuple(row), []).append(index)
    pieces: list[pa.Table] = []
    schema = _schema(pa)
    if keys.nothing:
        return pa.table([[], [], [], []], schema=schema)
    others = _NotNumbers()
    for names, members in groups.items():
        group_steps = pa.array([steps[index] for index in members], pa.int64())
        columns = zip(*(rows[index].values() for index in members), strict=True)
        for name, column in zip(names, columns, strict=True):
            if name == STEP:
                continue
            plain = name in keys and set(map(type, column)) <= {float, int}
            if plain and (numbers := _numbers(pa, column)) is not None:
                count = len(members)
                names_column = pa.repeat(pa.scalar(name), count)
                no_text = pa.nulls(count, pa.string())
                pieces.append(pa.table([group_steps, names_column, numbers, no_text], schema=schema))
                continue
            for index, value in zip(members, column, strict=True):
                others.add(steps[index], name, value, keys)
    pieces.append(pa.table([others.steps, others.keys, others.values, others.texts], schema=schema))
    return pa.concat_tables(pieces)


def _numbers(pa: Any, column: Iterable[float]) -> Any:
    """Return the column as DOUBLE, or None if an integer would lose digits."""
    try:
        return pa.array(column, pa.float64())
    except (pa.ArrowInvalid, OverflowError):
        return None


def _may_have_lost_digits(table: pa.Table) -> bool:
    """Return True if the fast parser may have read an integer that does not fit 64 bits as a float."""
    import pyarrow.compute as pc

    ends: Any = pc.min_max(table["value"]).as_py()
    large = max(abs(ends["min"] or 0.0), abs(ends["max"] or 0.0))
    texts: list[Any] = table["text"].drop_null().to_pylist()
    return large >= 2.0**63 or any(map(_EXPONENT.search, texts))


def _schema(pa: Any) -> Any:
    return pa.schema([("step", pa.int64()), ("key", pa.string()), ("value", pa.float64()), ("text", pa.string())])


class _NotNumbers:
    """Values that are not plain numbers, added one at a time."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.keys: list[str] = []
        self.values: list[float | None] = []
        self.texts: list[str | None] = []

    def add(self, step: int, key: str, value: Any, globs: KeyGlobs) -> None:
        for name, leaf in _flat(key, value):
            if name in globs:
                number, text = _split(leaf)
                if text is not None:
                    nested.check_levels(text, leaf)
                self.steps.append(step)
                self.keys.append(name)
                self.values.append(number)
                self.texts.append(text)


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    pending = [(key, value)]
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict) and value and "_type" not in value:
            pending += [(f"{key}.{name}", entry) for name, entry in reversed(value.items())]
        else:
            yield key, value


def _split(value: Any) -> tuple[float | None, str | None]:
    """Return the number and the text of one value, as in the `history` relation."""
    if isinstance(value, bool):
        return None, dumps(value)
    if isinstance(value, int):
        return _float(value), (str(value) if abs(value) > EXACT else None)
    if isinstance(value, float):
        return value, None
    if isinstance(value, str) and value in NUMBER_WORDS:
        return NUMBER_WORDS[value], None
    return None, dumps(value)


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
