"""Charts of runs, read from one snapshot of the mirror."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

from msgspec import Struct

from mirror.errors import QueryError, UsageError
from mirror.metrics import STEP
from mirror.plot import groups
from mirror.plot.groups import Chart, Curve, Points
from mirror.query.unknown import FIELDS
from mirror.snapshot.downsample import axis_of, placed
from mirror.snapshot.paths import nearest_of
from mirror.snapshot.prefetch import Reader
from mirror.snapshot.rows import align, rows
from mirror.snapshot.runs import Page
from mirror.snapshot.series import Scope
from mirror.snapshot.snapshot import Address, Snapshot

MOST_CURVES = 26
"""Curves of a chart in the terminal, which has a letter for each."""

MOST_IN_PICTURES = 200


class Label(Struct, frozen=True, order=True):
    """The text of a curve in the legend, and its place among the others."""

    places: tuple[tuple[int, float, str], ...]
    text: str


def charts(
    snapshot: Snapshot,
    addresses: Sequence[Address],
    keys: Sequence[str],
    *,
    x: str | None = None,
    smooth: float = 0.0,
    group_by: Sequence[str] = (),
    samples: int = 500,
    most: int = MOST_CURVES,
) -> list[Chart]:
    """Return one chart per key: a curve per run, or with `group_by` (config.KEY, group, state, ...) a mean per value.

    With several fields there is a mean for each combination of their values.

    `x` is the key of the x axis; without it, the one that define_metric gave the key in most of the runs, else the
    step. Raises QueryError for a key that none of the runs logged, UsageError for arguments that cannot be drawn.
    """
    if not 0 <= smooth < 1:
        raise UsageError(f"--smooth {smooth:g}: must be at least 0 (as logged) and below 1")
    labels = _labels(snapshot, addresses, group_by)
    reader = Reader(snapshot, [address.rid for address in addresses])
    runs = [(address.key, address.run_id) for address in addresses]
    made = []
    for key in keys:
        axis = axis_of(snapshot.cursor, runs, key) if x is None else x
        made.append(_chart(reader, addresses, labels, key, axis, smooth, samples, grouped=bool(group_by), most=most))
    return made


def _chart(
    reader: Reader,
    addresses: Sequence[Address],
    labels: dict[Address, Label],
    key: str,
    x: str,
    smooth: float,
    samples: int,
    *,
    grouped: bool,
    most: int,
) -> Chart:
    lines: dict[Label, list[Points]] = {}
    over_key = None
    if x != STEP:
        runs = [(address.key, address.run_id) for address in addresses]
        over_key = placed(reader.snapshot.cursor, runs, key, x, samples)
    for address in addresses:
        if over_key is None:
            points = _points(reader, address, key, samples)
        else:
            points = groups.finite(over_key.get((address.key, address.run_id), ()))
        points = groups.smoothed(points, smooth)
        if points:
            lines.setdefault(labels[address], []).append(points)
    if not lines:
        logged = sorted({name for address in addresses for name, *_ in reader.snapshot.keys(address.rid)})
        hint = f"; {nearest_of(key, logged)}" if key not in logged else f" together with {x}"
        raise QueryError(f"none of the runs logged numbers under {key}{hint}")
    if len(lines) > most:
        hint = "" if grouped else "; --group-by config.KEY draws one curve per group"
        if most < len(lines) <= MOST_IN_PICTURES:
            hint = f"; -o FILE.html or FILE.png draws up to {MOST_IN_PICTURES}{hint.replace('; ', ', and ')}"
        raise UsageError(f"{len(lines)} curves are too many for one chart, at most {most} fit{hint}")
    drawn = [groups.mean(label.text, lines[label]) for label in sorted(lines)] if grouped else _each(lines)
    if not any(curve.x for curve in drawn):
        raise QueryError(f"no group has a mean of {key}: too few of its runs have values at the same {x}")
    return Chart(key, x, drawn)


def _each(lines: dict[Label, list[Points]]) -> list[Curve]:
    return [groups.single(label.text, points) for label, members in lines.items() for points in members]


def _points(reader: Reader, address: Address, key: str, samples: int) -> Points:
    if key == STEP:
        raise UsageError(f"--keys {STEP}: the step is an x axis and cannot be drawn as a curve")
    series = reader.series(address.rid, Scope(keys=(key,), samples=samples, whole=True))
    pairs = ((row.get(STEP), row.get(key)) for row in rows(align(series)))
    return groups.finite((float(a), float(b)) for a, b in pairs if _number(a) and _number(b))


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _labels(snapshot: Snapshot, addresses: Sequence[Address], group_by: Sequence[str]) -> dict[Address, Label]:
    """Return the label of each run's curve."""
    page = Page(snapshot, [address.rid for address in addresses])
    if not group_by:
        names = {address: page.fact(address.rid, "name") or address.run_id for address in addresses}
        twice = len(set(names.values())) < len(names)
        return {address: Label((), f"{name} ({address.run_id})" if twice else name) for address, name in names.items()}
    fields = [_values(page, addresses, field) for field in group_by]
    labels = {}
    for address in addresses:
        values = [(shown, found[address]) for shown, found in fields]
        text = ", ".join(f"{shown} not set" if value is None else f"{shown}={_short(value)}" for shown, value in values)
        labels[address] = Label(tuple(_place(value) for _, value in values), text)
    return labels


def _values(page: Page, addresses: Sequence[Address], field: str) -> tuple[str, dict[Address, Any]]:
    """Return the field's name in a legend, and its value in each run."""
    doc, _, path = field.partition(".")
    if doc in ("config", "summary", "summary_metrics") and path:
        name = "config" if doc == "config" else "summary"
        return path, {address: value_at(page.document(address.rid, name), path) for address in addresses}
    if field in FIELDS:
        return field, {address: page.fact(address.rid, FIELDS[field]) for address in addresses}
    raise UsageError(f"--group-by {field}: must be config.KEY, summary.KEY, {', '.join(FIELDS)}")


def value_at(values: Any, path: str) -> Any:
    """Return the value at a dotted path; a key that contains the dots itself is preferred."""
    if not isinstance(values, dict):
        return None
    if path in values:
        return values[path]
    first, dot, rest = path.partition(".")
    return value_at(values.get(first), rest) if dot else None


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _place(value: Any) -> tuple[int, float, str]:
    """The place of a value among others: numbers by size, then texts, then runs without a value."""
    if value is None:
        return 2, 0.0, ""
    text = _short(value)
    try:
        number = float(text)
    except ValueError:
        return 1, 0.0, text
    return (0, number, "") if math.isfinite(number) else (1, 0.0, text)
