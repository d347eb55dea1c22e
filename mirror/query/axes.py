"""The x axes that define_metric gave the keys of a run, and their values at given steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mirror.metrics import STEP
from mirror.snapshot import series
from mirror.snapshot.paths import Project
from mirror.snapshot.series import HistorySource, Scope, Series

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection


Run = tuple[Project, str]
"""A run's project and id."""


class Definitions(Struct, frozen=True):
    """What define_metric said of the keys of a run: (key, whether it is a pattern, key of its x axis) each."""

    rows: tuple[tuple[str, bool, str | None], ...] = ()

    def axes(self, keys: Sequence[str]) -> dict[str, str]:
        """Map each of these keys whose x axis is not the step to the key of that axis.

        The rule is the one of the relation `store.history_axes`, whose join takes seconds for thousands of definitions.
        """
        exact = {key: x_key or STEP for key, pattern, x_key in self.rows if not pattern}
        prefixes = {key.rstrip("*"): x_key or STEP for key, pattern, x_key in self.rows if pattern}
        lengths = sorted({len(prefix) for prefix in prefixes}, reverse=True)
        result = {}
        for key in keys if self.rows else ():
            axis = exact.get(key)
            if axis is None and not key.startswith("_"):
                axis = next((prefixes[key[:length]] for length in lengths if key[:length] in prefixes), None)
            if axis is not None and axis != STEP:
                result[key] = axis
        return result


def definitions(connection: DuckDBPyConnection, runs: Sequence[Run]) -> dict[Run, Definitions]:
    """The definitions of these runs; runs without any are left out."""
    import duckdb

    found: dict[Run, list[tuple[str, bool, str | None]]] = {}
    sql = (
        "SELECT run_id, key, pattern, x_key FROM metric_definitions "
        "WHERE entity = ? AND project = ? AND run_id IN (SELECT unnest(?::VARCHAR[]))"
    )
    try:
        for project in dict.fromkeys(project for project, _ in runs):
            names = [run_id for key, run_id in runs if key == project]
            for run_id, *row in connection.execute(sql, [*project, names]).fetchall():
                found.setdefault((project, run_id), []).append((row[0], row[1], row[2]))
    except duckdb.CatalogException:
        return {}  # Published by a version that did not mirror definitions.
    return {run: Definitions(tuple(rows)) for run, rows in found.items()}


class Carried:
    """The last finite value of each axis at or before given steps, for successive ranges of ascending steps."""

    def __init__(
        self, source: HistorySource, rid: int, axes: Sequence[str], known: Sequence[Series] | None = None
    ) -> None:
        """`known` are the whole series of the axes, if they were read already."""
        self.axes = tuple(axes)
        self._known = known
        self._source = source
        self._rid = rid
        self._after = -1
        self._last: dict[str, pa.Scalar[Any]] = {}

    def at(self, steps: pa.Array[Any]) -> dict[str, pa.Array[Any]]:
        """The values at these steps, which must come after those of the last call; null before the first value."""
        import pyarrow.compute as pc

        if not self.axes or not len(steps):
            return {}
        found: dict[str, Any] = {}
        for axis, logged in self._between(steps).items():
            here = _carried(logged, steps)
            # Kept as an Arrow scalar, since creating one from a Python number imports pandas.
            found[axis] = pc.coalesce(here, self._last[axis]) if axis in self._last else here
            self._last[axis] = found[axis][-1]
        return found

    def _between(self, steps: pa.Array[Any]) -> dict[str, Series | None]:
        """The values of each axis since the last call, None if there are none."""
        last = steps[-1].as_py()
        scope = Scope(keys=self.axes, first=self._after + 1, end=last + 1)
        if self._known is not None:
            found = [one.between(self._after + 1, last + 1) for one in self._known if one.key in self.axes]
        else:
            found = series.read(self._source, [self._rid], scope, 0).get(self._rid, [])
        self._after = last
        logged = {one.key: one for one in found}
        return {axis: logged.get(axis) for axis in self.axes}


def _carried(logged: Series | None, steps: pa.Array[Any]) -> pa.Array[Any]:
    """The last finite value of a series at or before each step; both are in ascending order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if logged is None:
        return pa.nulls(len(steps), pa.float64())
    finite = pc.is_finite(logged.values)
    at: list[Any] = logged.steps.filter(finite).to_pylist()
    values = logged.values.filter(finite)
    index, indexes = -1, []
    for step in steps.to_pylist():
        while index + 1 < len(at) and at[index + 1] <= step:
            index += 1
        indexes.append(None if index < 0 else index)
    return values.take(pa.array(indexes, pa.int64()))
