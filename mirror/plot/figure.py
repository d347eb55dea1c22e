"""Charts as PNG, SVG and PDF, drawn by matplotlib; for HTML see `mirror.plot.page`."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mirror.errors import MissingPackage, UsageError
from mirror.metrics import STEP
from mirror.plot.groups import Chart
from mirror.plot.look import DPI, PLAIN, Look, palette, shortened

KINDS = (".png", ".svg", ".pdf", ".html")

MOST_INSIDE = 8
"""Up to this many curves the legend is in the chart; above, it is beside it."""

_ROWS_PER_INCH = 4.6
"""Lines of a legend in small print."""

_STYLES = ("-", "--", ":", "-.")


def kind_of(path: Path) -> str:
    """Return the kind of file by its extension. Raises UsageError for an unknown one."""
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"{path} has no known extension: use {', '.join(KINDS)}")
    return path.suffix.lower()


def render(charts: Sequence[Chart], kind: str, title: str, look: Look = PLAIN) -> bytes:
    """Draw the charts below each other and return the file's content. Raises MissingPackage without matplotlib."""
    if kind == ".html":
        from mirror.plot import page

        return page.render(charts, title, look)
    return _draw_all(charts, kind.removeprefix("."), title, look)


def _draw_all(charts: Sequence[Chart], form: str, title: str, look: Look) -> bytes:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackage(
            "drawing pictures needs matplotlib: `pip install 'wandb-mirror[plot]'`; -o FILE.html does not"
        ) from error
    most = max(len(chart.curves) for chart in charts)
    height = look.size[1] if look.size else 0.6 + 4 * len(charts)
    rows = max(1, math.floor((height / len(charts) - 0.9) * _ROWS_PER_INCH))
    columns = math.ceil(most / rows) if most > MOST_INSIDE else 0
    # A legend of several columns beside a chart of the usual width.
    width = look.size[0] if look.size else 9 + 1.6 * max(0, columns - 1)
    # A fixed salt, so that the same charts give the same bytes.
    with rc_context({"svg.hashsalt": "mirror"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes: Any = figure.subplots(len(charts), 1, squeeze=False)
        for chart, axis in zip(charts, axes[:, 0], strict=True):
            _draw(chart, axis, look, columns)
        figure.suptitle(plain(title))
        stream = io.BytesIO()
        figure.savefig(stream, format=form, dpi=DPI, metadata={"Date": None} if form == "svg" else None)
    return stream.getvalue()


def _draw(chart: Chart, axis: Any, look: Look, columns: int) -> None:
    many = len(chart.curves) > MOST_INSIDE
    # A column of a paper has no room for more than n.
    narrow = look.size is not None and look.size[0] < 6
    for index, (curve, colour) in enumerate(zip(chart.curves, palette(len(chart.curves)), strict=True)):
        note = (
            f" ({curve.note})"
            if curve.note and not (many or narrow)
            else f" (n = {curve.counts})"
            if curve.counts
            else ""
        )
        # Dashes distinguish neighbouring colours of a long rainbow.
        style = _STYLES[index % len(_STYLES)] if len(chart.curves) > 20 else "-"
        label = f"{shortened(curve.label, 32 if many else 60)}{note}"
        marker = "o" if len(curve.x) == 1 else ""
        axis.plot(
            curve.x, curve.y, style, color=colour, marker=marker, linewidth=1.2 if many else 1.5, label=plain(label)
        )
        if curve.low is not None and curve.high is not None:
            alpha = 0.08 if many else 0.2
            axis.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=alpha, linewidth=0)
    for name, limits in (("x", look.xlim), ("y", look.ylim)):
        if name in look.log:
            getattr(axis, f"set_{name}scale")("log")
        getattr(axis, f"set_{name}lim")(*limits)
    axis.set_xlabel(plain(chart.x_key))
    axis.set_ylabel(plain(chart.key))
    axis.grid(alpha=0.3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    if many:
        size = "small" if columns < 2 else "x-small"
        axis.legend(
            frameon=False,
            fontsize=size,
            ncols=max(1, columns),
            loc="upper left",
            bbox_to_anchor=(1.01, 1),
            borderaxespad=0,
        )
    else:
        axis.legend(frameon=False, fontsize="x-small" if narrow else "small", ncols=1)


def plain(text: str) -> str:
    """Text in which matplotlib finds neither formulas nor a label to hide."""
    escaped = text.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") and escaped != STEP else escaped
