"""How charts look: title, size, limits of the axes and logarithmic axes, as given on the command line."""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from mirror.errors import UsageError
from mirror.plot.groups import Chart, Curve

Limits = tuple[float | None, float | None]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)(in|cm|px)?")
_UNITS = {"": 1.0, "in": 1.0, "cm": 1 / 2.54, "px": 1 / 150}
DPI = 150
"""Dots per inch of a PNG, and so pixels per inch of `--size`."""

MOST_INCHES = 60

# Tableau's ten, which differ in lightness as well.
_FEW = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1"),
    *("#9c755f", "#d37295", "#499894", "#b6992d", "#79706e"),
)


class Look(Struct, frozen=True):
    """`size` is inches in a file, columns and rows in the terminal. Limits are None where the data decides."""

    title: str | None = None
    size: tuple[float, float] | None = None
    xlim: Limits = (None, None)
    ylim: Limits = (None, None)
    log: str = ""


PLAIN = Look()
"""Nothing given."""


def given(
    title: str | None, size: str | None, xlim: str | None, ylim: str | None, log: str | None, *, file: bool
) -> Look:
    """Read the options. Raises UsageError, which shows how to write them."""
    chosen = "".join(sorted((log or "").lower()))
    if chosen not in ("", "x", "y", "xy"):
        raise UsageError(f"--log {log}: must be x, y or xy")
    look = Look(
        title, _size(size, file=file) if size else None, _limits("--xlim", xlim), _limits("--ylim", ylim), chosen
    )
    for name, limits in (("x", look.xlim), ("y", look.ylim)):
        if name in chosen and any(limit is not None and limit <= 0 for limit in limits):
            raise UsageError(f"--{name}lim: the limits of a logarithmic axis must be above zero")
    return look


def cut(chart: Chart, look: Look) -> Chart:
    """Return the chart within the limits of x, without points that logarithmic axes cannot show.

    Lines are interpolated at the limits. Raises UsageError if nothing is left.
    """
    curves = [_cut(curve, look) for curve in chart.curves]
    lowest = min((y for curve in curves for y in curve.y if y > 0), default=1.0)
    if "y" in look.log:
        # A band may reach below zero where its mean does not; it is drawn down to below the lowest mean.
        curves = [
            curve if curve.low is None else replace(curve, low=[max(low, lowest / 10) for low in curve.low])
            for curve in curves
        ]
    if not any(not math.isnan(y) for curve in curves for y in curve.y):
        where = " above zero" if look.log else ""
        raise UsageError(f"nothing of {chart.key} is left to draw{where} within the limits")
    return replace(chart, curves=curves)


def palette(count: int) -> list[str]:
    """As many colours as there are curves: ten well-known ones, or more along the rainbow, in their order."""
    if count <= len(_FEW):
        return list(_FEW[:count])
    colours = []
    for index in range(count):
        # From red to violet; neighbours also differ in lightness.
        red, green, blue = colorsys.hls_to_rgb(0.83 * index / (count - 1), (0.36, 0.5)[index % 2], 0.72)
        colours.append(f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}")
    return colours


def shortened(label: str, most: int = 48) -> str:
    """Return a label that fits a legend: a long one is cut in its middle."""
    return label if len(label) <= most else f"{label[: most // 2]}…{label[-(most - most // 2 - 1) :]}"


def _size(text: str, *, file: bool) -> tuple[float, float]:
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError(f"--size {text}: must be WIDTHxHEIGHT, such as 6x4 (inches), 16x10cm or 1200x800px")
    unit = found[3] or ""
    width, height = float(found[1]) * _UNITS[unit], float(found[2]) * _UNITS[unit]
    if not file:
        if unit or width < 40 or height < 10:
            raise UsageError(f"--size {text}: in the terminal it is columns and rows, at least 40x10")
        return width, height
    if not (0.5 <= width <= MOST_INCHES and 0.5 <= height <= MOST_INCHES):
        hint = f"; {text}px is pixels" if width > MOST_INCHES and not unit else ""
        raise UsageError(f"--size {text}: must be from 0.5 to {MOST_INCHES} inches{hint}")
    return width, height


def _limits(option: str, text: str | None) -> Limits:
    if text is None:
        return None, None
    low, comma, high = text.partition(",")
    try:
        limits = (float(low) if low.strip() else None, float(high) if high.strip() else None)
    except ValueError:
        comma = ""
        limits = (None, None)
    if not comma or any(limit is not None and not math.isfinite(limit) for limit in limits):
        raise UsageError(f"{option} {text}: must be LOW,HIGH, such as 0,100; one of them may be left out")
    if limits[0] is not None and limits[1] is not None and limits[0] >= limits[1]:
        raise UsageError(f"{option} {text}: the first limit must be lower")
    return limits


def _cut(curve: Curve, look: Look) -> Curve:
    names = [name for name in ("y", "low", "high") if getattr(curve, name) is not None]
    lines: list[list[float]] = [curve.x, *(getattr(curve, name) for name in names)]
    rows = [list(row) for row in zip(*lines, strict=True)]
    counts = list(curve.n) if curve.n is not None else [0] * len(rows)
    kept = list(zip(rows, counts, strict=True))
    if "x" in look.log:
        kept = [(row, n) for row, n in kept if row[0] > 0]
    if "y" in look.log:
        kept = [(row, n) for row, n in kept if math.isnan(row[1]) or row[1] > 0]
    for limit, sign in ((look.xlim[0], 1), (look.xlim[1], -1)):
        if limit is not None:
            kept = _within(kept if sign > 0 else kept[::-1], limit, sign)[::sign]
    x = [row[0] for row, _ in kept]
    parts: dict[str, Any] = {name: [row[index + 1] for row, _ in kept] for index, name in enumerate(names)}
    return replace(curve, x=x, n=None if curve.n is None else [n for _, n in kept], **parts)


def _within(rows: Sequence[tuple[list[float], int]], limit: float, sign: int) -> list[tuple[list[float], int]]:
    """The rows from `limit` on, in the direction of `sign`, with one at the limit itself if the line crosses it."""
    first = next((index for index, (row, _) in enumerate(rows) if sign * row[0] >= sign * limit), len(rows))
    kept = list(rows[first:])
    if first and kept and kept[0][0][0] != limit:
        (before, _), (after, n) = rows[first - 1], kept[0]
        share = (limit - before[0]) / (after[0] - before[0])
        kept.insert(0, ([limit, *(a + (b - a) * share for a, b in zip(before[1:], after[1:], strict=True))], n))
    return kept
