"""Charts as an interactive HTML page: one file that needs neither network nor other files."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from typing import Any

from mirror.plot.groups import Chart, Curve
from mirror.plot.look import Look, palette, shortened
from mirror.web.assets import chart_library

# The policy keeps the page from loading anything, whatever the labels of runs contain.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>{title}</title>
<style>
:root {{ color-scheme: light }}
body {{ margin: 1.5rem auto; padding: 0 1rem; max-width: {width}; background: #fff; color: #222;
 font: 15px/1.4 system-ui, sans-serif }}
h1 {{ font-size: 1.2rem; font-weight: 600 }}
p {{ color: #555; font-size: .85rem }}
.chart {{ height: {height}; margin-bottom: 1.5rem }}
</style></head>
<body><h1>{title}</h1>
<p>Drag to enlarge a part, double-click to go back; click a name to hide it, double-click to see it alone.</p>
{places}
<script>{library}</script>
<script type="application/json" id="charts">{charts}</script>
<script>
const charts = JSON.parse(document.getElementById("charts").textContent);
charts.forEach((chart, index) => Plotly.newPlot(`chart${{index}}`, chart.data, chart.layout,
  {{responsive: true, displaylogo: false, toImageButtonOptions: {{filename: chart.name, scale: 2}}}}));
</script></body></html>
"""


def render(charts: Sequence[Chart], title: str, look: Look) -> bytes:
    """The page. Points show their values, and means their interval and n, at the pointer."""
    height = f"{look.size[1]:g}in" if look.size else "460px"
    made = [_chart(chart, look) for chart in charts]
    text = json.dumps(made, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return _PAGE.format(
        title=html.escape(title),
        width=f"{look.size[0]:g}in" if look.size else "1100px",
        height=height,
        places="\n".join(
            f'<div class="chart" id="chart{index}" role="img" aria-label="{html.escape(chart.key)}"></div>'
            for index, chart in enumerate(charts)
        ),
        library=chart_library().read_text("utf-8"),
        charts=text,
    ).encode()


def _chart(chart: Chart, look: Look) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    for index, (curve, colour) in enumerate(zip(chart.curves, palette(len(chart.curves)), strict=True)):
        if curve.low is not None and curve.high is not None:
            data += _band(curve, colour, str(index))
        data.append(_line(curve, colour, str(index)))
    axis = {"gridcolor": "#e6e6e6", "linecolor": "#999", "zeroline": False, "automargin": True}
    many = len(chart.curves) > 12
    # A few names with what their means are of need the width; many scroll beside the chart.
    below = {"orientation": "h", "y": -0.14, "yanchor": "top"}
    layout = {
        "xaxis": {**axis, "title": {"text": chart.x_key}, **_axis(look.xlim, log="x" in look.log)},
        "yaxis": {**axis, "title": {"text": chart.key}, **_axis(look.ylim, log="y" in look.log)},
        "margin": {"l": 60, "r": 10, "t": 10, "b": 45},
        "hovermode": "closest" if many else "x unified",
        "showlegend": True,
        "legend": {"font": {"size": 11 if many else 12}, "tracegroupgap": 0, **({} if many else below)},
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "plot_bgcolor": "#fff",
    }
    return {"name": "".join(char if char.isalnum() else "-" for char in chart.key), "data": data, "layout": layout}


def _line(curve: Curve, colour: str, group: str) -> dict[str, Any]:
    line: dict[str, Any] = {
        "x": curve.x,
        "y": _plain(curve.y),
        "name": html.escape(shortened(f"{curve.label} ({curve.note})" if curve.note else curve.label, 70)),
        "mode": "lines" if len(curve.x) > 1 else "markers",
        "line": {"color": colour, "width": 1.8},
        "marker": {"color": colour},
        "legendgroup": group,
        "hovertemplate": f"{html.escape(shortened(curve.label))}: %{{y:.5g}}<extra></extra>",
    }
    if curve.n is not None and curve.low is not None and curve.high is not None:
        line["customdata"] = [
            [_finite(low), _finite(high), n] for low, high, n in zip(curve.low, curve.high, curve.n, strict=True)
        ]
        line["hovertemplate"] = (
            f"{html.escape(shortened(curve.label))}: %{{y:.5g}} "
            "(%{customdata[0]:.5g} to %{customdata[1]:.5g}, n = %{customdata[2]})<extra></extra>"
        )
    return line


def _band(curve: Curve, colour: str, group: str) -> list[dict[str, Any]]:
    assert curve.low is not None
    assert curve.high is not None
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    edge = {
        "x": curve.x,
        "mode": "lines",
        "line": {"width": 0},
        "legendgroup": group,
        "showlegend": False,
        "hoverinfo": "skip",
    }
    fill = {"fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},0.18)"}
    return [{**edge, "y": _plain(curve.low)}, {**edge, "y": _plain(curve.high), **fill}]


def _axis(limits: tuple[float | None, float | None], *, log: bool) -> dict[str, Any]:
    shown = [None if limit is None else math.log10(limit) if log else limit for limit in limits]
    axis: dict[str, Any] = {"type": "log" if log else "linear"}
    if limits != (None, None):
        axis |= {"range": shown} if None not in limits else {"range": shown, "autorange": _half(shown)}
    return axis


def _half(limits: Sequence[float | None]) -> str:
    """Plotly's word for a range of which the data decides one end."""
    return "min" if limits[0] is None else "max"


def _plain(values: Sequence[float]) -> list[float | None]:
    return [_finite(value) for value in values]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
