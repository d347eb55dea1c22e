"""Charts as text, drawn with Braille dots."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

from msgspec.structs import replace

from mirror.errors import UsageError
from mirror.plot.groups import Chart, Curve
from mirror.plot.look import PLAIN, Limits, Look

COLOURS = (75, 208, 114, 204, 141, 180, 80, 221, 247, 169)
"""Terminal colours (of 256) that are readable on dark and on light backgrounds."""

MARKS = "abcdefghijklmnopqrstuvwxyz"
MOST_BANDS = 3
_LABEL = 10
_TICK = 10
"""Columns between two labels of the x axis, as plotille sets them."""


def draw(chart: Chart, width: int, height: int, *, colours: bool, look: Look = PLAIN) -> str:
    """Draw the chart within this width and height. Each curve ends in a letter, which the legend explains.

    The edges of confidence bands are dotted, if there are few enough to distinguish them.
    """
    import plotille

    chart = _scaled(chart, look)
    banded = sum(curve.low is not None for curve in chart.curves) <= MOST_BANDS
    xs = [x for curve in chart.curves for x in curve.x]
    ys = [y for curve in chart.curves for line in _lines(curve, banded=banded) for y in line if not math.isnan(y)]
    x_low, x_high = _limits(xs, look.xlim, log="x" in look.log)
    y_low, y_high = _limits(ys, look.ylim, log="y" in look.log)
    left, right, columns = _ticks(x_low, x_high, max(width - _LABEL - 8, 20) / _TICK)
    low, high, rows = _ticks(y_low, y_high, max(height - len(chart.curves) - 4, 5))
    figure = plotille.Figure()
    figure.width, figure.height = round(columns * _TICK), round(rows)
    figure.with_colors, figure.color_mode, figure.origin = colours, "byte", False
    label = partial(_label, log=look.log)
    figure.register_label_formatter(float, label)
    figure.register_label_formatter(int, label)
    figure.x_label, figure.y_label = chart.x_key, ""
    figure.set_x_limits(left, right)
    figure.set_y_limits(low, high)
    for index, curve in enumerate(chart.curves):
        colour = COLOURS[index % len(COLOURS)] if colours else None
        if not curve.x:
            continue
        line, *edges = _lines(curve, banded=banded)
        for edge in edges:
            for piece in _pieces(curve.x, edge):
                figure.scatter(*_thinned(*piece), lc=colour)
        for piece in _pieces(curve.x, line):
            figure.plot(*piece, lc=colour)
        # Moved left by a column and down a little if necessary: plotille does not draw a letter at the very edge.
        last = next((index for index in reversed(range(len(curve.y))) if not math.isnan(curve.y[index])), None)
        if last is None:
            continue
        end_x = max(left, min(curve.x[last], right - (right - left) / figure.width))
        end_y = max(low, min(curve.y[last], high - (high - low) / figure.height / 2))
        figure.text([end_x], [end_y], [MARKS[index % len(MARKS)]], lc=colour)
    lines = [f"{'':{_LABEL}}   {chart.key}", *figure.show().splitlines()[2:], ""]
    lines += [_legend(index, curve, colours=colours) for index, curve in enumerate(chart.curves)]
    return "\n".join(line.rstrip(" \u2800") for line in lines) + "\n"


def _scaled(chart: Chart, look: Look) -> Chart:
    """The chart as it is drawn on linear axes: logarithms on logarithmic axes, nothing beyond the limits of y."""
    low, high = look.ylim

    def y(value: float) -> float:
        if (low is not None and value < low) or (high is not None and value > high):
            return math.nan
        return math.log10(value) if "y" in look.log and value > 0 else value

    def scaled(curve: Curve) -> Curve:
        lines: dict[str, Any] = {
            name: [y(value) for value in line] for name in ("y", "low", "high") if (line := getattr(curve, name))
        }
        return replace(curve, x=[math.log10(x) for x in curve.x] if "x" in look.log else curve.x, **lines)

    made = [scaled(curve) for curve in chart.curves]
    if not any(not math.isnan(value) for curve in made for value in curve.y):
        raise UsageError(f"nothing of {chart.key} is left to draw within the limits")
    return replace(chart, curves=made)


def _limits(values: list[float], given: Limits, *, log: bool) -> tuple[float, float]:
    """The limits of an axis: as given, else those of the values."""
    low, high = (None if limit is None else math.log10(limit) if log else limit for limit in given)
    return min(values) if low is None else low, max(values) if high is None else high


def _lines(curve: Curve, *, banded: bool) -> list[list[float]]:
    """Return the line, and the edges of its band if they are drawn."""
    if not banded or curve.low is None or curve.high is None:
        return [curve.y]
    return [curve.y, curve.low, curve.high]


def _ticks(low: float, high: float, most: float) -> tuple[float, float, float]:
    """Return rounded limits around a span, and the number of steps between (1, 2, 2.5 or 5 times a power of ten)."""
    low, high = _span(low, high)
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10, 20) if factor * power >= rough)
    first = math.floor(low / step + 1e-9)
    steps = max(1, math.ceil(high / step - 1e-9) - first)
    return first * step, (first + steps) * step, steps


def _legend(index: int, curve: Curve, *, colours: bool) -> str:
    mark = MARKS[index % len(MARKS)]
    if colours:
        mark = f"\x1b[38;5;{COLOURS[index % len(COLOURS)]}m{mark}\x1b[0m"
    note = f"  ({curve.note})" if curve.note else ""
    return f"{'':{_LABEL}}   {mark}  {curve.label}{note}"


def _label(value: float, chars: int, delta: float, left: bool = False, *, log: str = "") -> str:
    """The label of a tick: on the left of its place if it is one of the x axis."""
    del delta
    logarithmic = ("x" if left else "y") in log
    text = f"{10.0**value:.3g}" if logarithmic else f"{0.0 if abs(value) < 1e-12 else value:.4g}"
    return text.ljust(chars) if left else text.rjust(_LABEL)


def _span(low: float, high: float) -> tuple[float, float]:
    """Return limits that differ, as a chart needs them."""
    if low < high:
        return low, high
    room = abs(low) * 0.1 or 1.0
    return low - room, high + room


def _pieces(x: list[float], y: list[float]) -> Iterator[tuple[list[float], list[float]]]:
    """Cut a line where it is interrupted."""
    start = 0
    for index, value in enumerate([*y, math.nan]):
        if math.isnan(value):
            if index > start:
                yield x[start:index], y[start:index]
            start = index + 1


def _thinned(x: list[float], y: list[float], points: int = 60) -> tuple[list[float], list[float]]:
    every = max(1, len(x) // points)
    return x[::every], y[::every]
