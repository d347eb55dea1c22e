"""`mirror plot`: charts of the history of runs, in the terminal or as an image file."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from mirror.cli import complete
from mirror.cli.filters import FilteredProjectOption, InsteadOfRunOption, RunsArgument, WhereOption, given_filter
from mirror.cli.invocation import invocation
from mirror.cli.messages import say, warn
from mirror.cli.output import replaced, write_text
from mirror.errors import UsageError

HEIGHT = 22


def plot(
    ctx: typer.Context,
    runs: RunsArgument = None,
    keys: Annotated[
        str,
        typer.Option("--keys", metavar="K,K", help="Keys to draw, one chart per key.", autocompletion=complete.keys),
    ] = "loss",
    x: Annotated[
        str | None,
        typer.Option(
            "--x",
            metavar="KEY",
            help="Key of the x axis. Default: as defined by define_metric, else _step.",
            autocompletion=complete.axis,
        ),
    ] = None,
    smooth: Annotated[
        float, typer.Option("--smooth", metavar="W", help="Weight of an exponential moving average, 0 to 0.99.")
    ] = 0.0,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="KEY,KEY",
            help="Draw mean and 95% band of each group: config.KEY, group, ...",
            autocompletion=complete.group_list,
        ),
    ] = None,
    filter_: InsteadOfRunOption = None,
    where: WhereOption = None,
    project: FilteredProjectOption = None,
    samples: Annotated[
        int, typer.Option("--samples", min=2, metavar="N", help="Rows of each run, evenly spaced.")
    ] = 500,
    file: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="A file: .png, .svg, .pdf or .html.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="Instead of the project or run.")] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="WxH", help="6x4 (inches), 16x10cm or 1200x800px; in the terminal columns and rows."
        ),
    ] = None,
    xlim: Annotated[
        str | None, typer.Option("--xlim", metavar="LOW,HIGH", help="Limits of the x axis; one may be left out.")
    ] = None,
    ylim: Annotated[
        str | None, typer.Option("--ylim", metavar="LOW,HIGH", help="Limits of the y axis; one may be left out.")
    ] = None,
    log: Annotated[str | None, typer.Option("--log", metavar="AXES", help="Logarithmic axes: x, y or xy.")] = None,
) -> None:
    """Draw the history of runs in the terminal, or to a file.

    One curve per run; with --group-by one curve per group: the mean of its runs, with its 95% confidence band, up to
    where fewer than half of them have values. An .html file is interactive and needs no network; pictures need
    matplotlib: pip install 'wandb-mirror[plot]'. The terminal shows up to 26 curves, files up to 200.
    """
    from mirror.plot import figure, look, terminal
    from mirror.plot.read import MOST_CURVES, MOST_IN_PICTURES, charts
    from mirror.query.unknown import drawable, grouping
    from mirror.snapshot.snapshot import Snapshot

    if file is not None:
        figure.kind_of(file)
    looks = look.given(title, size, xlim, ylim, log, file=file is not None)
    key_names = [key.strip() for key in keys.split(",") if key.strip()]
    if not key_names:
        raise UsageError("--keys is empty: name at least one key")
    fields = None if group_by is None else [name.strip() for name in group_by.split(",") if name.strip()]
    if fields == []:
        raise UsageError("--group-by is empty: name config.KEY, summary.KEY, group, ...")
    chosen = given_filter(filter_, where)
    if bool(runs) == (project is not None) or (chosen is not None and project is None):
        raise UsageError("which runs? name them, or give --project E/P, and --where TERM for some of its runs")
    given = invocation(ctx)
    snapshot = Snapshot(given.home)
    if project is not None:
        name = snapshot.project(project, given.entity)
        addresses, warnings = snapshot.matching(name, chosen, "+created_at", deleted=False)
        for warning in warnings:
            warn(warning)
        shown = str(name)
    else:
        found = [snapshot.address(run, given.entity, deleted=True) for run in runs or []]
        addresses = list(dict.fromkeys(found))
        shown = str(addresses[0]) if len(addresses) == 1 else f"{len(addresses)} runs"
    if not addresses:
        raise UsageError("no run matches")
    key_names, unknown = drawable(snapshot.cursor, [(one.key, one.run_id) for one in addresses], key_names, x)
    for warning in [*unknown, *grouping(snapshot.cursor, [one.rid for one in addresses], fields or ())]:
        warn(warning)
    most = MOST_CURVES if file is None else MOST_IN_PICTURES
    made = charts(snapshot, addresses, key_names, x=x, smooth=smooth, group_by=fields or (), samples=samples, most=most)
    made = [look.cut(chart, looks) for chart in made]
    if file is not None:
        content = figure.render(made, figure.kind_of(file), shown if title is None else title, looks)
        with replaced(file) as scratch:
            scratch.write_bytes(content)
        say(f"drawn to {file}")
        return
    terminal_size = shutil.get_terminal_size((100, HEIGHT + 2))
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    height = max(HEIGHT, terminal_size.lines - 2) if len(made) == 1 and sys.stdout.isatty() else HEIGHT
    width = min(terminal_size.columns, 140)
    if looks.size is not None:
        width, height = round(looks.size[0]), round(looks.size[1])
    drawn = [terminal.draw(chart, width, height, colours=colours, look=looks) for chart in made]
    write_text("\n".join([*([f"{title}\n"] if title else []), *drawn]))
