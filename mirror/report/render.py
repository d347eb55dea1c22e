"""Renders one report: reads its spec, resolves its run sets, and gives the parts to a writer in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from mirror.errors import QueryError
from mirror.report import document, panels, run_sets
from mirror.report.document import Block, Document, Grid
from mirror.report.panels import Panel
from mirror.report.run_sets import RunSet
from mirror.snapshot import reports
from mirror.snapshot.reports import Report
from mirror.snapshot.snapshot import Snapshot
from mirror.wandb_json import UNREADABLE, loads


class GridContent(Struct, frozen=True):
    """A grid with its run sets resolved and its panels read. `hides_run_sets` leaves out their tables."""

    run_sets: Sequence[RunSet]
    panels: Sequence[Panel]
    hides_run_sets: bool = False


class Writer(Protocol):
    """Writes a report in one format."""

    def begin(self, report: Report, headings: Document) -> None:
        """Write the title, and who wrote the report when."""

    def block(self, block: Block) -> None:
        """Write a block other than a grid."""

    def grid(self, grid: GridContent) -> None:
        """Write the tables of a grid's run sets and its panels."""


def render(snapshot: Snapshot, report: Report, writer: Writer) -> list[str]:
    """Write a report, and return a sentence for each part that could not be rendered. Raises QueryError."""
    text = reports.spec(snapshot.cursor, report)
    try:
        spec = loads(text or "{}")
    except UNREADABLE:
        raise QueryError(f"the content of {report.title!r} cannot be read: it is not JSON") from None
    read = document.read(spec)
    writer.begin(report, read)
    missing = []
    for block in read.blocks:
        if isinstance(block, Grid):
            grid = content(snapshot, report, block)
            writer.grid(grid)
            missing += [f"run set {each.name}: {each.problem}" for each in grid.run_sets if each.problem]
            missing += [panel.missing for panel in grid.panels if panel.missing]
        else:
            writer.block(block)
            missing += [block.what] if isinstance(block, document.Missing) else []
    return missing


def content(snapshot: Snapshot, report: Report, grid: Grid) -> GridContent:
    """Return a grid with what its run sets and panels show. Run sets that are turned off draw nothing."""
    nodes = [node for node in grid.run_sets if node.get("enabled", True)]
    sets = [run_sets.resolve(snapshot, report.key, node) for node in nodes]
    made = [panels.read(snapshot, sets, node) for node in sorted(grid.panels, key=_place)]
    return GridContent(sets, made, grid.hides_run_sets)


def _place(panel: Mapping[str, Any]) -> tuple[float, float]:
    """Return the row and the column of a panel."""
    layout = panel.get("layout")
    layout = layout if isinstance(layout, Mapping) else {}
    row, column = (layout.get(name) for name in ("y", "x"))
    return (
        float(row) if isinstance(row, int | float) else 0.0,
        float(column) if isinstance(column, int | float) else 0.0,
    )
