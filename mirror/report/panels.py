"""Panels of a report: which chart each of them is, drawn from the mirror, or a sentence that says what is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from mirror.errors import MirrorError, QueryError, UsageError
from mirror.metrics import STEP
from mirror.plot import look
from mirror.plot.groups import Chart, Curve
from mirror.plot.look import Look
from mirror.plot.read import MOST_IN_PICTURES, charts
from mirror.report.pictures import Bars, Picture, Points
from mirror.report.run_sets import RunSet, group_field, shown, title_of, value_of
from mirror.snapshot.downsample import logged_keys
from mirror.snapshot.runs import Page
from mirror.snapshot.snapshot import Address, Snapshot

RUNS = 10
"""How many runs a line plot draws unless it says otherwise, as in the app."""

_BARS = 20
_LARGEST = 1e300
"""Beyond, pictures have no room for ticks."""
_KEYS = 12
_GRID = 24
"""The columns of the app's grid."""

_NAMES = {
    "Parallel Coordinates Plot": "a parallel coordinates plot",
    "Parameter Importance": "a parameter importance plot",
    "Run Comparer": "a run comparer",
    "Media Browser": "a media panel",
    "Code Comparer": "a code comparer",
    "Vega2": "a custom chart",
    "Vega3": "a custom chart",
    "Weave": "a Weave panel",
    "Weave Trace": "a Weave panel",
}
_AXES = {"_absolute_runtime": "_runtime"}
"""Axes that the app computes, and the logged key that is nearest."""


class Panel(Struct, frozen=True):
    """A panel as it is written: one of a picture, Markdown, lines of a small table, or what is missing."""

    title: str
    wide: bool = False
    picture: Picture | None = None
    markdown: str = ""
    values: Sequence[tuple[str, str]] = ()
    missing: str = ""
    notes: Sequence[str] = ()


def read(snapshot: Snapshot, sets: Sequence[RunSet], node: Mapping[str, Any]) -> Panel:
    """Return a panel over the runs of these run sets."""
    kind, config, layout = node.get("viewType"), node.get("config"), node.get("layout")
    config = config if isinstance(config, Mapping) else {}
    title = config.get("chartTitle")
    width = layout.get("w") if isinstance(layout, Mapping) else None
    bare = Panel(title if isinstance(title, str) else "", isinstance(width, int) and width * 2 > _GRID)
    if kind == "Markdown Panel":
        return replace(bare, markdown=str(config.get("value") or ""))
    if kind not in _KINDS:
        what = _NAMES.get(str(kind), f"a panel of the type {str(kind)[:60]!r}")
        return replace(bare, missing=what)
    runs = list(dict.fromkeys(run for each in sets for run in each.shown))
    if not runs:
        return replace(bare, missing=f"{_KINDS[kind][0]}: its run sets have no runs")
    try:
        return _KINDS[kind][1](_Source(snapshot, sets, runs, config), bare)
    except MirrorError as error:
        return replace(bare, missing=f"{_KINDS[kind][0]}: {error}")


class _Source(Struct, frozen=True):
    """What a panel is drawn from."""

    snapshot: Snapshot
    sets: Sequence[RunSet]
    runs: Sequence[Address]
    config: Mapping[str, Any]

    def text(self, name: str) -> str | None:
        """Return a text of the settings."""
        value = self.config.get(name)
        return value if isinstance(value, str) and value else None

    def number(self, name: str) -> float | None:
        """Return a finite number of the settings."""
        value = self.config.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
            return None
        return float(value)

    def count(self, *names: str, usual: int, most: int) -> int:
        """Return the first of these settings that is there, at least 1 and at most `most`."""
        found = next((number for name in names if (number := self.number(name))), usual)
        return min(max(int(found), 1), most)

    def texts(self, name: str) -> list[str]:
        """Return a list of texts of the settings."""
        value = self.config.get(name)
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

    @property
    def groups(self) -> list[str]:
        """What its runs are grouped by: its own setting, else the grouping of a run set."""
        own = self.text("groupBy")
        if own and own not in ("None", "none"):
            section, colon, name = own.partition(":")
            path = own if not colon else {"config": "config.", "summary": "summary_metrics."}.get(section, "") + name
            known = path.startswith(("config.", "summary_metrics.")) or path in ("group", "state", "jobType", "sweep")
            return [group_field(path if known else f"config.{path}")]
        if self.config.get("useRunsTableGroupingInPanels") is False:
            return []
        return next((list(each.groups) for each in self.sets if each.groups), [])

    @property
    def metrics(self) -> list[str]:
        """The keys to draw: as listed, or those that match a pattern."""
        pattern = self.text("metricRegex")
        if not (self.config.get("useMetricRegex") and pattern):
            return self.texts("metrics")
        import pyarrow as pa
        import pyarrow.compute as pc

        keys = [key for key, _ in logged_keys(self.snapshot.cursor, [(run.key, run.run_id) for run in self.runs])]
        try:
            # Arrow's expressions take linear time, whatever the report's author wrote.
            matches = pc.match_substring_regex(pa.array(keys, pa.string()), pattern).to_pylist()
        except pa.ArrowInvalid as error:
            raise UsageError(f"its pattern of keys {pattern!r} cannot be read ({error})") from None
        return [key for key, matched in zip(keys, matches, strict=True) if matched]

    def look(self, x: str, y: str) -> Look:
        """Return the limits and scales of its axes; `x` and `y` are the names of the settings of logarithmic axes."""
        log = "".join(axis for axis, name in (("x", x), ("y", y)) if self.config.get(name))
        limits = {axis: self._limits(axis, positive=axis in log) for axis in ("x", "y")}
        return Look(xlim=limits["x"], ylim=limits["y"], log=log)

    def _limits(self, axis: str, *, positive: bool) -> tuple[float | None, float | None]:
        """Return the limits of an axis that can be drawn."""
        low, high = (self.number(f"{axis}Axis{end}") for end in ("Min", "Max"))
        if positive:
            low, high = (None if limit is None or limit <= 0 else limit for limit in (low, high))
        return (None, None) if low is not None and high is not None and low >= high else (low, high)


def _lines(source: _Source, panel: Panel) -> Panel:
    """Draw the history of keys, one curve per run or one mean per group."""
    keys = source.metrics
    if not keys:
        wanted = "its expressions are not computed" if source.texts("expressions") else "it names no keys"
        return replace(panel, missing=f"a line plot: {wanted}")
    axis = source.text("xAxis") or STEP
    groups, notes = source.groups, []
    runs = list(source.runs)
    if not groups:
        most = source.count("limit", usual=RUNS, most=MOST_IN_PICTURES)
        if len(runs) > most:
            notes.append(f"{most} of {len(runs):,} runs")
            runs = runs[:most]
    smooth = source.number("smoothingWeight") or 0.0
    if smooth and (source.text("smoothingType") or "exponential").startswith("exponential"):
        smooth = min(max(smooth, 0.0), 0.999)
        notes.append(f"smoothed by {smooth:g}")
    elif smooth:
        notes.append(f"not smoothed: {source.text('smoothingType')} is not known here")
        smooth = 0.0
    if axis in _AXES:
        notes.append(f"over {_AXES[axis]} instead of {axis}")
        axis = _AXES[axis]
    if (style := source.text("plotType")) not in (None, "line"):
        notes.append(f"drawn as lines instead of {style}")
    if source.texts("expressions"):
        notes.append("without its expressions")
    drawn, failed = _drawn(source, runs, keys[:_KEYS], axis, smooth, groups)
    notes += failed
    if len(keys) > _KEYS:
        notes.append(f"{_KEYS} of {len(keys)} keys")
    if not drawn:
        return replace(panel, missing=f"a line plot: {'; '.join(failed)}")
    chart = look.cut(_joined(drawn), looks := source.look("xLogScale", "yLogScale"))
    return replace(panel, picture=Picture(chart, looks), notes=notes)


def _drawn(
    source: _Source, runs: Sequence[Address], keys: Sequence[str], axis: str, smooth: float, groups: Sequence[str]
) -> tuple[list[Chart], list[str]]:
    """Return the charts of the keys that were logged, and a sentence for each of the others."""
    drawn: list[Chart] = []
    failed = []
    for key in keys:
        try:
            drawn += charts(source.snapshot, runs, [key], x=axis, smooth=smooth, group_by=groups, most=MOST_IN_PICTURES)
        except (QueryError, UsageError) as error:
            failed.append(str(error))
    return drawn, failed


def _joined(drawn: Sequence[Chart]) -> Chart:
    """Return the charts of several keys as one, whose curves name their keys."""
    if len(drawn) == 1:
        return drawn[0]
    curves: list[Curve] = [
        replace(curve, label=f"{curve.label} {chart.key}") for chart in drawn for curve in chart.curves
    ]
    return Chart(", ".join(chart.key for chart in drawn), drawn[0].x_key, curves)


def _scatter(source: _Source, panel: Panel) -> Panel:
    """Draw a point per run, by two of its values."""
    x, y = source.text("xAxis"), source.text("yAxis")
    if x is None or y is None:
        return replace(panel, missing="a scatter plot: it names no axes")
    page = Page(source.snapshot, [run.rid for run in source.runs])
    pairs = [(_number(page, run, x), _number(page, run, y)) for run in source.runs]
    points = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not points:
        return replace(panel, missing=f"a scatter plot: no run has numbers under {title_of(x)} and {title_of(y)}")
    notes = [f"{len(points):,} runs"]
    if source.text("zAxis"):
        notes.append(f"without the colours of {title_of(str(source.text('zAxis')))}")
    looks = source.look("xAxisLogScale", "yAxisLogScale")
    return replace(panel, picture=Picture(Points(title_of(x), title_of(y), points), looks), notes=notes)


def _bars(source: _Source, panel: Panel) -> Panel:
    """Draw a bar per run, or per group the mean, of a summary value."""
    keys = source.texts("metrics")
    if not keys:
        return replace(panel, missing="a bar chart: it names no keys")
    found = _summaries(source, keys[0])
    if not found:
        return replace(panel, missing=f"a bar chart: no run has a number under {keys[0]}")
    most = source.count("limit", "barLimit", usual=_BARS, most=2 * _BARS)
    notes = [f"{most} of {len(found):,} bars"] if len(found) > most else []
    if len(keys) > 1:
        notes.append(f"without {', '.join(keys[1:])}")
    if source.groups:
        notes.append("means of groups")
    return replace(panel, picture=Picture(Bars(keys[0], found[:most]), Look()), notes=notes)


def _scalars(source: _Source, panel: Panel) -> Panel:
    """Show the mean of a summary value over all runs, or over each group."""
    values = []
    for key in source.texts("metrics"):
        found = _summaries(source, key, every=True)
        values += [(name if source.groups else key, f"{number:.6g}") for name, number in found]
    if not values:
        return replace(panel, missing="a scalar chart: no run has a number under its keys")
    return replace(panel, values=values, notes=["means"])


def _summaries(source: _Source, key: str, *, every: bool = False) -> list[tuple[str, float]]:
    """Return the summary values of a key by run, or their means by group, or with `every` one mean of all."""
    column = key if ":" in key else f"summary:{key}"
    page = Page(source.snapshot, [run.rid for run in source.runs])
    members: dict[str, list[float]] = {}
    for run in source.runs:
        number = _number(page, run, column)
        if number is None:
            continue
        if source.groups:
            name = ", ".join(_grouped(page, run, field) for field in source.groups)
        else:
            name = "" if every else str(page.fact(run.rid, "name") or run.run_id)
            name = name if every or name not in members else f"{name} ({run.run_id})"
        members.setdefault(name, []).append(number)
    means = [(name, sum(numbers) / len(numbers)) for name, numbers in members.items()]
    return sorted(means, key=lambda mean: natural(mean[0])) if source.groups else means


def natural(text: str) -> list[tuple[bool, float, str]]:
    """Return a key by which texts are sorted with the numbers in them by size."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", text)
    return [(place % 2 == 0, float(part) if place % 2 else 0.0, part) for place, part in enumerate(parts)]


def _grouped(page: Page, run: Address, field: str) -> str:
    """Return the name of a run's group, such as `lr=0.1`."""
    section, _, name = field.partition(".")
    own = {"user": "username", "job_type": "jobType"}
    value = value_of(page, run, f"{section}:{name}" if name else f"run:{own.get(field, field)}")
    return f"{name or field} not set" if value is None else f"{name or field}={shown(value)}"


def _number(page: Page, run: Address, column: str) -> float | None:
    value = value_of(page, run, column)
    finite = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST
    return float(value) if finite else None


_KINDS = {
    "Run History Line Plot": ("a line plot", _lines),
    "Scatter Plot": ("a scatter plot", _scatter),
    "Bar Chart": ("a bar chart", _bars),
    "Scalar Chart": ("a scalar chart", _scalars),
}
