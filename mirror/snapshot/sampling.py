"""Which rows of a run count: those that hold all of some keys, and a sample of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mirror.snapshot import series as reading
from mirror.snapshot.series import HistorySource, Scope, Series

if TYPE_CHECKING:
    import pyarrow as pa

MOST_VALUES = 2_000_000
"""Of more than these DuckDB picks the rows, which takes longer and no memory."""

DENSE_VALUES = 50_000
"""From so many values on the rows of a sample are found by a key that every row has."""


def read(source: HistorySource, rids: Sequence[int], scope: Scope, values: int) -> dict[int, list[Series]]:
    """As `mirror.snapshot.series.read`, and sooner where rows are picked of no more than MOST_VALUES."""
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


def spread(count: int, samples: int) -> list[int]:
    """Which of so many rows a sample takes: evenly spaced ones, the first and, of two or more, the last among them."""
    if count <= samples:
        return list(range(count))
    gaps = samples - 1
    return [-(-place * (count - 1) // gaps) for place in range(samples)] if gaps > 0 else [0][:samples]


def steps_of(series: Sequence[Series]) -> pa.Array[Any]:
    """The rising steps at which any of these has a value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not series:
        return pa.array([], pa.int64())
    longest = max((one.steps for one in series), key=len)
    others = [one.steps for one in series if not one.steps.equals(longest)]
    if not others:
        return longest
    every: Any = pc.unique(pa.concat_arrays([longest, *others]))
    found: pa.Array[Any] = every if len(every) == len(longest) else every.take(pc.sort_indices(every))
    return found


def steps_of_all(groups: Sequence[Sequence[Series]]) -> pa.Array[Any]:
    """The rising steps at which each group has a value of one of its series at least."""
    import pyarrow.compute as pc

    steps, *others = sorted((steps_of(group) for group in groups), key=len)
    for other in others:
        if not steps.equals(other):
            steps = steps.filter(pc.is_in(steps, value_set=other))
    return steps


def sampled(steps: pa.Array[Any], samples: int | None) -> pa.Array[Any]:
    """An evenly spaced sample of steps; all of them for None."""
    import pyarrow as pa

    if samples is None or samples >= len(steps):
        return steps
    return steps.take(pa.array(spread(len(steps), samples), pa.int64()))


def restricted(series: Sequence[Series], steps: pa.Array[Any]) -> list[Series]:
    """What the series hold at these steps; one that holds nothing there is left out."""
    import pyarrow.compute as pc

    found: list[Series] = []
    known: list[tuple[Any, Any]] = []
    for one in series:
        if one.steps.equals(steps):
            found.append(one)
            continue
        # Most series of a run have the same steps, which are looked up once.
        at = next((at for seen, at in known if seen.equals(one.steps)), None)
        if at is None:
            at = pc.index_in(steps, value_set=one.steps).drop_null()
            known.append((one.steps, at))
        if len(at):
            texts = None if one.texts is None else one.texts.take(at)
            if texts is not None and texts.null_count == len(texts):
                texts = None
            found.append(Series(one.key, one.steps.take(at), one.values.take(at), texts))
    return found
