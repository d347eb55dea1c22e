"""Selects rows of a run's history: those that have all of some keys, and evenly spaced samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from mirror.snapshot import series as reading
from mirror.snapshot.series import HistorySource, Scope, Series
from mirror.snapshot.spread import spread

if TYPE_CHECKING:
    import pyarrow as pa

MOST_VALUES = 2_000_000
"""Above this many values DuckDB selects the rows, which is slower but needs no memory."""

DENSE_VALUES = 50_000
"""From this many values on, sampling finds the rows through a key that every row has."""


def read(source: HistorySource, rids: Sequence[int], scope: Scope, values: int) -> dict[int, list[Series]]:
    """Like `mirror.snapshot.series.read`, but faster for selecting rows from up to MOST_VALUES values.

    A dense key is used from DENSE_VALUES values on.
    """
    if scope.dense and values < DENSE_VALUES:
        scope = replace(scope, dense=None)
    if not scope.picks or values > MOST_VALUES or (scope.dense and not scope.keys):
        return reading.read(source, rids, scope, values)
    found = reading.read(source, rids, replace(scope, samples=None, whole=False), values)
    chosen = {rid: _picked(series, scope) for rid, series in found.items()}
    return {rid: series for rid, series in chosen.items() if series}


def _picked(series: Sequence[Series], scope: Scope) -> list[Series]:
    if scope.whole and scope.keys:
        if len(series) < len(set(scope.keys)):
            return []
        steps = steps_of_all([[one] for one in series])
    else:
        steps = steps_of(series)
    return restricted(series, sampled(steps, scope.samples))


def steps_of(series: Sequence[Series]) -> pa.Array[Any]:
    """The steps at which any of these series has a value, in ascending order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not series:
        return pa.array([], pa.int64())
    longest = max((one.steps for one in series), key=len)
    others = [one.steps for one in series if not one.steps.equals(longest)]
    if not others:
        return longest
    every: Any = pc.unique(pa.concat_arrays([longest, *others]))
    steps: pa.Array[Any] = every if len(every) == len(longest) else every.take(pc.sort_indices(every))
    return steps


def steps_of_all(groups: Sequence[Sequence[Series]]) -> pa.Array[Any]:
    """The steps at which each group has a value in at least one of its series, in ascending order."""
    import pyarrow.compute as pc

    steps, *others = sorted((steps_of(group) for group in groups), key=len)
    for other in others:
        if not steps.equals(other):
            steps = steps.filter(pc.is_in(steps, value_set=other))
    return steps


def sampled(steps: pa.Array[Any], samples: int | None) -> pa.Array[Any]:
    """An evenly spaced sample of the steps; all of them if `samples` is None."""
    import pyarrow as pa

    if samples is None or samples >= len(steps):
        return steps
    return steps.take(pa.array(spread(len(steps), samples), pa.int64()))


def restricted(series: Sequence[Series], steps: pa.Array[Any]) -> list[Series]:
    """The series with only their values at these steps; series without any are left out."""
    import pyarrow.compute as pc

    kept: list[Series] = []
    known: list[tuple[Any, Any]] = []
    for one in series:
        if one.steps.equals(steps):
            kept.append(one)
            continue
        # Most series of a run have the same steps, so each set of steps is looked up once.
        at = next((at for seen, at in known if seen.equals(one.steps)), None)
        if at is None:
            at = pc.index_in(steps, value_set=one.steps).drop_null()
            known.append((one.steps, at))
        if len(at):
            texts = None if one.texts is None else one.texts.take(at)
            if texts is not None and texts.null_count == len(texts):
                texts = None
            kept.append(Series(one.key, one.steps.take(at), one.values.take(at), texts))
    return kept
