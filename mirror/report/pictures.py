"""The pictures of a report: curves as `mirror plot` draws them, and points and bars."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from mirror.errors import MissingPackage
from mirror.plot import figure
from mirror.plot.groups import Chart
from mirror.plot.look import DPI, Look, palette, shortened

WIDE = (9.0, 3.8)
HALF = (6.0, 3.8)
"""Inches of a picture over the whole width of a page, and over half of it."""

_BAR = 0.32
"""Inches of a bar."""


class Points(Struct, frozen=True):
    """A point per run."""

    x: str
    y: str
    points: Sequence[tuple[float, float]]


class Bars(Struct, frozen=True):
    """A bar per run or group."""

    key: str
    bars: Sequence[tuple[str, float]]


class Picture(Struct, frozen=True):
    """What a panel draws, and the look of its axes."""

    content: Chart | Points | Bars
    look: Look

    def render(self, kind: str, *, wide: bool) -> bytes:
        """Return the content of a picture file of this kind (".svg" or ".png"). Raises MissingPackage."""
        size = WIDE if wide else HALF
        if isinstance(self.content, Chart):
            return figure.render([self.content], kind, "", replace(self.look, size=size))
        return _drawn(self.content, self.look, kind.removeprefix("."), size)


def _drawn(content: Points | Bars, look: Look, form: str, size: tuple[float, float]) -> bytes:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackage("drawing pictures needs matplotlib: `pip install 'wandb-mirror[plot]'`") from error
    width, height = size
    if isinstance(content, Bars):
        height = max(1.2, 0.8 + _BAR * len(content.bars))
    with rc_context({"svg.hashsalt": "mirror"}):
        drawing = Figure(figsize=(width, height), layout="constrained")
        axis: Any = drawing.subplots()
        if isinstance(content, Points):
            _points(content, axis, look)
        else:
            _bars(content, axis)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        stream = io.BytesIO()
        drawing.savefig(stream, format=form, dpi=DPI, metadata={"Date": None} if form == "svg" else None)
    return stream.getvalue()


def _points(content: Points, axis: Any, look: Look) -> None:
    axis.scatter(*zip(*content.points, strict=True), s=18, color=palette(1)[0], alpha=0.8, linewidths=0)
    for name, limits in (("x", look.xlim), ("y", look.ylim)):
        if name in look.log:
            getattr(axis, f"set_{name}scale")("log")
        getattr(axis, f"set_{name}lim")(*limits)
    axis.set_xlabel(figure.plain(content.x))
    axis.set_ylabel(figure.plain(content.y))
    axis.grid(alpha=0.3)


def _bars(content: Bars, axis: Any) -> None:
    # Names may be the same after they were shortened, and bars of one name would be drawn over each other.
    places = range(len(content.bars))
    axis.barh(places, [value for _, value in content.bars], color=palette(1)[0], height=0.7)
    axis.set_yticks(places, [figure.plain(shortened(name, 40)) for name, _ in content.bars])
    axis.invert_yaxis()
    axis.set_xlabel(figure.plain(content.key))
    axis.grid(axis="x", alpha=0.3)
