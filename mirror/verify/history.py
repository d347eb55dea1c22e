"""Reads history from the server again and compares every value with the mirror's, in DuckDB, some windows at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from contextlib import aclosing
from typing import Any

from msgspec import Struct, field

from mirror.errors import CommError
from mirror.remote.client import Server
from mirror.remote.history import Window
from mirror.remote.json_history import KeyGlobs
from mirror.store import columns
from mirror.store.checks import HISTORY
from mirror.store.reader import Reader
from mirror.store.records import HistoryPage, ProjectKey
from mirror.sync import request_windows
from mirror.sync.history_batch import Batch
from mirror.sync.lines import LineFetcher
from mirror.wandb_json import loads

AHEAD = 3
"""How many responses may wait for comparison; with request_windows.REQUEST_BYTES and VALUES this bounds the memory."""

VALUES = 1_000_000
"""How many values are compared at a time."""

_SHOWN = "CASE WHEN {0}.run_id IS NULL THEN 'no value' ELSE coalesce({0}.text, CAST({0}.value AS VARCHAR)) END"


class Rows(Struct, frozen=True):
    """Complete rows that only one side has: how many, and their first and last step."""

    rows: int
    first: int
    last: int

    def __str__(self) -> str:
        if self.rows == 1:
            return f"1 row at step {self.first}"
        return f"{self.rows:,} rows between steps {self.first} and {self.last}"

    def and_(self, other: Rows | None) -> Rows:
        """Merged with another."""
        if other is None:
            return self
        return Rows(self.rows + other.rows, min(self.first, other.first), max(self.last, other.last))


class Values(Struct, frozen=True):
    """Values of one key that differ: how many, and the step and both sides' value of the first."""

    values: int
    first: int
    mirror: str
    server: str

    def and_(self, other: Values | None) -> Values:
        """Merged with another."""
        if other is None:
            return self
        head = min(self, other, key=lambda one: one.first)
        return Values(self.values + other.values, head.first, head.mirror, head.server)


class Compared(Struct):
    """The comparison of a run's history: `missing` and `extra` rows by position, differing values by key and kind.

    A position is start, middle or end: relative to the mirrored rows for `missing`, to the server's rows for `extra`.
    `last` is the highest step for which the server returned a row.
    """

    lines: int = 0
    values: int = 0
    last: int | None = None
    missing: dict[str, Rows] = field(default_factory=dict)
    extra: dict[str, Rows] = field(default_factory=dict)
    differ: dict[tuple[str, str], Values] = field(default_factory=dict)
    error: CommError | None = None
    gone: bool = False

    @property
    def same(self) -> bool:
        """True if every value was read and is equal."""
        return not (self.missing or self.extra or self.differ or self.error or self.gone)


async def compare(
    server: Server,
    reader: Reader,
    project: ProjectKey,
    spans: Sequence[request_windows.Span],
    globs: Sequence[str],
    rows_done: Callable[[int], None],
    *,
    ordered: bool = True,
) -> dict[str, Compared]:
    """Compare the steps of each span; the results by run. Unless `ordered`, the order of members in objects is ignored.

    A run that cannot be read has its error in the result. Raises Unreachable or AuthError if no run can be read.
    """
    keys = KeyGlobs(globs)
    found = {span.run_id: Compared() for span in spans}
    gathered = Batch([])
    lines = LineFetcher(server, project, list(found), keys, ahead=AHEAD)
    async with aclosing(lines.fetch(spans)) as answers:
        async for answer in answers:
            gathered.add(answer)
            rows_done(sum(page.rows for _, page in answer.pages))
            if gathered.values >= VALUES:
                await asyncio.to_thread(_compare, reader, project, gathered, keys, found, ordered=ordered)
                gathered = Batch([])
    if gathered.windows:
        await asyncio.to_thread(_compare, reader, project, gathered, keys, found, ordered=ordered)
    return found


def _compare(
    reader: Reader,
    project: ProjectKey,
    answer: Batch,
    keys: KeyGlobs,
    found: dict[str, Compared],
    *,
    ordered: bool,
) -> None:
    """Compare the pages with the mirror's values in the same windows."""
    for run_id, error in answer.failed.items():
        found[run_id].error = error
    for run_id in answer.gone:
        found[run_id].gone = True
    pages = [(window, page) for window, page in answer.pages if window.run_id not in answer.failed]
    if not pages:
        return
    earlier = {run_id for run_id, compared in found.items() if compared.lines}
    for window, page in pages:
        compared = found[window.run_id]
        compared.lines += page.rows
        compared.values += page.values.num_rows
        if page.rows and page.last_step is not None:
            compared.last = page.last_step if compared.last is None else max(compared.last, page.last_step)
    with (
        reader.table(
            "windows", columns.table({"run_id": "VARCHAR", "first": "BIGINT", "stop": "BIGINT"}, _joined(pages))
        ),
        reader.table("served", _served(pages)),
    ):
        _select_mirrored(reader, project, sorted({window.run_id for window, _ in pages}), keys)
        for run_id in {window.run_id for window, page in pages if page.rows}:
            # Extra rows that were at the end until now are followed by these rows.
            if (waiting := found[run_id].extra.pop("end", None)) is not None:
                _add_extra(found[run_id], "middle" if run_id in earlier else "start", waiting)
        _find_differences(reader, ordered=ordered)
        _count_differences(reader, project, found, earlier)


def _add_extra(compared: Compared, position: str, rows: Rows) -> None:
    compared.extra[position] = rows.and_(compared.extra.get(position))


def _joined(pages: Sequence[tuple[Window, HistoryPage]]) -> list[tuple[str, int, int]]:
    """The windows, with adjacent ones merged."""
    joined: list[tuple[str, int, int]] = []
    for window, _ in pages:
        if joined and joined[-1][0] == window.run_id and joined[-1][2] == window.first:
            joined[-1] = (window.run_id, joined[-1][1], window.end)
        else:
            joined.append((window.run_id, window.first, window.end))
    return joined


def _served(pages: Sequence[tuple[Window, HistoryPage]]) -> Any:
    import pyarrow as pa

    pieces = []
    for window, page in pages:
        values = page.values
        key: Any = values["key"]
        key = key if pa.types.is_dictionary(key.type) else key.dictionary_encode()
        run = pa.repeat(pa.scalar(window.run_id), values.num_rows)
        rest = [values["step"], key, values["value"], values["text"]]
        pieces.append(pa.table([run, *rest], names=["run_id", "step", "key", "value", "text"]))
    return pa.concat_tables(pieces).unify_dictionaries()


def _select_mirrored(reader: Reader, project: ProjectKey, run_ids: Sequence[str], keys: KeyGlobs) -> None:
    """Create the table `mirrored` of the mirror's values in the windows."""
    reader.run(
        f"""
        CREATE OR REPLACE TEMP TABLE mirrored AS
        SELECT h.run_id, h.step, h.key, h.value, h.text FROM {HISTORY} AS h
        JOIN windows AS w ON w.run_id = h.run_id AND h.step >= w.first AND h.step < w.stop
        WHERE h.entity = ? AND h.project = ? AND h.run_id IN (SELECT unnest(?::VARCHAR[]))
        """,
        [project.entity, project.project, list(run_ids)],
    )
    if not keys.everything:
        other = [key for (key,) in reader.run("SELECT DISTINCT key FROM mirrored") if key not in keys]
        reader.run("DELETE FROM mirrored WHERE key IN (SELECT unnest(?::VARCHAR[]))", [other])


def _find_differences(reader: Reader, *, ordered: bool) -> None:
    """Create the table `differ` of the values that are not equal."""
    here, there = _SHOWN.format("h"), _SHOWN.format("t")
    reader.run(
        f"""
        CREATE OR REPLACE TEMP TABLE differ AS
        SELECT coalesce(h.run_id, t.run_id) AS run_id, coalesce(h.step, t.step) AS step, coalesce(h.key, t.key) AS key,
               CASE WHEN h.run_id IS NULL THEN 'missing' WHEN t.run_id IS NULL THEN 'extra' ELSE 'changed' END AS kind,
               {here} AS here, {there} AS there
        FROM mirrored AS h FULL JOIN served AS t ON t.run_id = h.run_id AND t.key = h.key AND t.step = h.step
        WHERE h.run_id IS NULL OR t.run_id IS NULL
              OR h.value IS DISTINCT FROM t.value OR h.text IS DISTINCT FROM t.text
        """
    )
    if ordered:
        return
    objects = reader.run(
        "SELECT rowid, here, there FROM differ WHERE kind = 'changed' AND left(here, 1) IN ('{', '[') "
        "AND left(there, 1) = left(here, 1)"
    )
    same = [number for number, here, there in objects if _sorted(here) == _sorted(there)]
    reader.run("DELETE FROM differ WHERE rowid IN (SELECT unnest(?::BIGINT[]))", [same])


def _sorted(text: str) -> str:
    """A JSON text with its members sorted; the text unchanged if it is not JSON."""
    try:
        return json.dumps(loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        return text


def _count_differences(
    reader: Reader, project: ProjectKey, found: dict[str, Compared], earlier: Collection[str]
) -> None:
    """Add the differences to `found`. For runs in `earlier`, the server returned rows before these."""
    if not reader.value("SELECT count(*) FROM differ"):
        return
    reader.run(
        f"""
        CREATE OR REPLACE TEMP TABLE odd_rows AS
        SELECT s.run_id, s.step, s.kind,
               CASE WHEN s.step < e.first OR (e.first IS NULL AND s.kind = 'missing') THEN 'start'
                    WHEN s.step > e.last OR e.first IS NULL THEN 'end' ELSE 'middle' END AS place
        FROM (
            SELECT run_id, step, 'missing' AS kind FROM (SELECT DISTINCT run_id, step FROM served) ANTI JOIN mirrored
                USING (run_id, step)
            UNION ALL
            SELECT run_id, step, 'extra' AS kind FROM (SELECT DISTINCT run_id, step FROM mirrored) ANTI JOIN served
                USING (run_id, step)
        ) AS s LEFT JOIN (
            SELECT run_id, 'missing' AS kind, min(step) AS first, max(step) AS last FROM {HISTORY}
            WHERE entity = ? AND project = ? AND run_id IN (SELECT DISTINCT run_id FROM differ) GROUP BY run_id
            UNION ALL
            SELECT run_id, 'extra' AS kind, min(step) AS first, max(step) AS last FROM served GROUP BY run_id
        ) AS e ON e.run_id = s.run_id AND e.kind = s.kind
        """,
        [project.entity, project.project],
    )
    rows = reader.run("SELECT run_id, kind, place, count(*), min(step), max(step) FROM odd_rows GROUP BY ALL")
    for run_id, kind, place, *what in rows:
        if kind == "extra":
            _add_extra(found[run_id], "middle" if place == "start" and run_id in earlier else place, Rows(*what))
        else:
            found[run_id].missing[place] = Rows(*what).and_(found[run_id].missing.get(place))
    values = reader.run(
        "SELECT run_id, key, kind, count(*), min(step), arg_min(here, step), arg_min(there, step) "
        "FROM differ ANTI JOIN odd_rows USING (run_id, step) GROUP BY run_id, key, kind ORDER BY run_id, key, kind"
    )
    for run_id, key, kind, *what in values:
        found[run_id].differ[key, kind] = Values(*what).and_(found[run_id].differ.get((key, kind)))
