"""One run of millions of rows, which are computed on request: only its exports are stored."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mirror.sandbox import instants
from mirror.sandbox.history import STEP, KeyStats, Lines
from mirror.sandbox.sample.clock import START, past
from mirror.sandbox.world import World

_FILE_ROWS = 1_000_000


class _ComputedLines(Lines):
    """Rows of metrics whose values depend only on step and metric."""

    def __init__(self, rows: int, names: list[str], start: float) -> None:
        super().__init__()
        self._rows = rows
        self._names = names
        self._start = start
        self.keys = {name: KeyStats(Counter(number=rows), False, 0.0) for name in (*names, "_runtime", "_timestamp")}
        self.keys[STEP] = KeyStats(Counter(number=rows), True, rows - 1)

    def __len__(self) -> int:
        return self._rows

    @property
    def last_step(self) -> int:
        return self._rows - 1

    def ordered(self) -> tuple[list[int], list[str]]:
        return [], []

    def last_row(self) -> dict[str, Any]:
        return {STEP: self.last_step}

    def page(self, min_step: int | None, max_step: int | None, samples: int | None) -> list[str]:
        del samples
        first, end = min_step or 0, min(self._rows, self._rows if max_step is None else max_step)
        table = self.table(first, max(first, end))
        template = "{" + ",".join(f'"{name}":%r' for name in table.column_names) + "}"
        return list(map(template.__mod__, zip(*(column.to_pylist() for column in table.columns), strict=True)))

    def table(self, first: int, end: int) -> pa.Table:
        """Return the rows of some steps as columns."""
        steps: Any = pa.array(range(first, end), pa.int64())
        columns: Mapping[str, Any] = {
            name: pc.sin(pc.multiply(pc.cast(steps, pa.float64()), 0.001 * (number + 1)))
            for number, name in enumerate(self._names)
        }
        runtime = pc.cast(steps, pa.float64())
        return pa.table({**columns, STEP: steps, "_runtime": runtime, "_timestamp": pc.add(runtime, self._start)})


def long_run(rows: int, metrics: int = 10, *, exported: bool = True) -> World:
    """Return `acme/long`: a finished run with a row of `metrics` values at every step, in files of a million rows."""
    world = World(username="ada", entity="acme")
    with past(world, START):
        run = world.add_run("acme", "long", run_id="long", name="long-1", config={"lr": 0.1})
    rows_of_run = _ComputedLines(
        rows, [f"metric/{number:02}" for number in range(metrics)], instants.epoch(run.created_at)
    )
    run.history = rows_of_run
    with past(world, START + timedelta(days=1)):
        run.set_summary(rows_of_run.last_row())
        if exported:
            for first in range(0, rows, _FILE_ROWS):
                sink = io.BytesIO()
                pq.write_table(rows_of_run.table(first, min(rows, first + _FILE_ROWS)), sink, compression="snappy")
                run.exports.append(sink.getvalue())
            run.exported_to = rows - 1
        run.finish()
    return world
