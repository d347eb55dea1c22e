"""Charts as PNG, SVG, PDF and HTML, drawn by matplotlib."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mirror.errors import MissingPackage, UsageError
from mirror.plot.groups import Chart

KINDS = (".png", ".svg", ".pdf", ".html")

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ margin: 2rem; background: #fff }} svg {{ max-width: 100%; height: auto }}</style></head>
<body>{svg}</body></html>
"""


def kind_of(path: Path) -> str:
    """Return the kind of file by its extension. Raises UsageError for an unknown one."""
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"{path} has no known extension: use {', '.join(KINDS)}")
    return path.suffix.lower()


def render(charts: Sequence[Chart], kind: str, title: str) -> bytes:
    """Draw the charts below each other and return the file's content. Raises MissingPackage without matplotlib."""
    if kind == ".html":
        svg = _draw_all(charts, "svg", title).decode()
        return PAGE.format(title=html.escape(title), svg=svg[svg.index("<svg") :]).encode()
    return _draw_all(charts, kind.removeprefix("."), title)


def _draw_all(charts: Sequence[Chart], form: str, title: str) -> bytes:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackage("drawing files needs matplotlib: `pip install 'wandb-mirror[plot]'`") from error
    # A fixed salt, so that the same charts give the same bytes.
    with rc_context({"svg.hashsalt": "mirror"}):
        figure = Figure(figsize=(9, 0.6 + 4 * len(charts)), layout="constrained")
        axes: Any = figure.subplots(len(charts), 1, squeeze=False)
        for chart, axis in zip(charts, axes[:, 0], strict=True):
            _draw(chart, axis)
        figure.suptitle(title)
        stream = io.BytesIO()
        figure.savefig(stream, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return stream.getvalue()


def _draw(chart: Chart, axis: Any) -> None:
    for curve in chart.curves:
        note = f" ({curve.note})" if curve.note else ""
        (line,) = axis.plot(curve.x, curve.y, linewidth=1.5, label=f"{curve.label}{note}")
        if curve.low is not None and curve.high is not None:
            axis.fill_between(curve.x, curve.low, curve.high, color=line.get_color(), alpha=0.2, linewidth=0)
    axis.set_xlabel(chart.x_key)
    axis.set_ylabel(chart.key)
    axis.grid(alpha=0.3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.legend(frameon=False, fontsize="small", ncols=2 if len(chart.curves) > 6 else 1)
