"""The x axes that define_metric gave the keys of a run, and the place of its steps on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mirror.snapshot import series
from mirror.snapshot.paths import Project
from mirror.snapshot.series import HistorySource, Scope, Series

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

STEP = "_step"


def defined(connection: DuckDBPyConnection, project: Project, run_id: str, keys: Sequence[str]) -> dict[str, str]:
    """The key of the x axis of those of these keys that have one which is not the step.

    The rule is that of the relation `store.history_axes`, whose join takes seconds for thousands of definitions.
    """
    import duckdb

    sql = "SELECT key, pattern, x_key FROM metric_definitions WHERE entity = ? AND project = ? AND run_id = ?"
    try:
        rows = connection.execute(sql, [*project, run_id]).fetchall()
    except duckdb.CatalogException:
        return {}  # Published by a program that knew of no definitions.
    exact = {key: x_key or STEP for key, pattern, x_key in rows if not pattern}
    begun = {key.rstrip("*"): x_key or STEP for key, pattern, x_key in rows if pattern}
    lengths = sorted({len(start) for start in begun}, reverse=True)
    found = {}
    for key in keys:
        axis = exact.get(key)
        if axis is None and not key.startswith("_"):
            axis = next((begun[key[:length]] for length in lengths if key[:length] in begun), None)
        if axis not in (None, STEP):
            found[key] = axis
    return found


def numeric(connection: DuckDBPyConnection, rid: int, keys: Sequence[str]) -> list[str]:
    """Those of these keys under which the run logged a finite number, in their order."""
    sql = (
        "SELECT key FROM store.history_keys WHERE rid = ? AND min IS NOT NULL AND key IN (SELECT unnest(?::VARCHAR[]))"
    )
    there = {key for (key,) in connection.execute(sql, [rid, list(keys)]).fetchall()}
    return [key for key in keys if key in there]


class Carried:
    """The last finite value of each axis at or before given steps; asked stretch by stretch, as the steps rise."""

    def __init__(self, source: HistorySource, rid: int, axes: Sequence[str]) -> None:
        self.axes = tuple(axes)
        self._source = source
        self._rid = rid
        self._after = -1
        self._last: dict[str, pa.Scalar[Any]] = {}

    def at(self, steps: pa.Array[Any]) -> dict[str, pa.Array[Any]]:
        """The values at these steps, which follow those of the last call; null before the first value."""
        import pyarrow.compute as pc

        if not self.axes or not len(steps):
            return {}
        found: dict[str, Any] = {}
        for axis, logged in self._between(steps).items():
            here = _carried(logged, steps)
            # A scalar of Arrow's own: to make one of a Python number imports pandas.
            found[axis] = pc.coalesce(here, self._last[axis]) if axis in self._last else here
            self._last[axis] = found[axis][-1]
        return found

    def _between(self, steps: pa.Array[Any]) -> dict[str, Series | None]:
        """What each axis logged since the last call, None for nothing."""
        last = steps[-1].as_py()
        scope = Scope(keys=self.axes, first=self._after + 1, end=last + 1)
        self._after = last
        found = series.read(self._source, [self._rid], scope, 0).get(self._rid, [])
        logged = {one.key: one for one in found}
        return {axis: logged.get(axis) for axis in self.axes}


def _carried(logged: Series | None, steps: pa.Array[Any]) -> pa.Array[Any]:
    """The last finite value of a series at or before each step; both are in rising order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if logged is None:
        return pa.nulls(len(steps), pa.float64())
    finite = pc.is_finite(logged.values)
    at: list[Any] = logged.steps.filter(finite).to_pylist()
    values = logged.values.filter(finite)
    place, places = -1, []
    for step in steps.to_pylist():
        while place + 1 < len(at) and at[place + 1] <= step:
            place += 1
        places.append(None if place < 0 else place)
    return values.take(pa.array(places, pa.int64()))
