"""`mirror report`: reports of the W&B app, rendered from the mirror."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli import complete
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import say, warn
from mirror.cli.output import CsvOption, FormatOption, JsonOption, Output, choose, replaced, write_result, write_text
from mirror.errors import QueryError, StoreError, UsageError

if TYPE_CHECKING:
    from mirror.snapshot.reports import Report
    from mirror.snapshot.snapshot import Snapshot

_COLUMNS = ["project", "report_id", "title", "author", "updated_at"]
_KINDS = (".md", ".html")


def report(
    ctx: typer.Context,
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="[REPORT]",
            help="A report's id, title or page address. Default, or for entity/project: lists the reports.",
            autocompletion=complete.projects,
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="A file: .md or .html. Default: to stdout.")
    ] = None,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
) -> None:
    """Render a report of the W&B app: its text, and its run sets and charts with the mirror's runs.

    Reports are mirrored with `reports = true` under [sync]. An .html file is one file that loads nothing; beside an
    .md file, pictures are in a folder of its name. Pictures need matplotlib: pip install 'wandb-mirror[plot]'. What
    cannot be rendered is named in its place.
    """
    from mirror.snapshot import reports
    from mirror.snapshot.snapshot import Snapshot

    given = invocation(ctx)
    output = choose(format_name, json=json, csv=csv)
    if file is not None and file.suffix.lower() not in _KINDS:
        raise UsageError(f"{file} has no known extension: use {' or '.join(_KINDS)}")
    snapshot = Snapshot(given.home)
    chosen = None if which is None else _found(snapshot, given, which)
    if not isinstance(chosen, reports.Report):
        if file is not None:
            raise UsageError("which report? name one, as `mirror report` lists them")
        _list(snapshot, chosen, output)
        return
    if format_name or json or csv:
        raise UsageError("--format, --json and --csv go with the list of reports")
    missing = _write(snapshot, chosen, file)
    for what in dict.fromkeys(missing):
        warn(f"not rendered: {what}")
    if file is not None:
        say(f"written to {file}")


def _found(snapshot: Snapshot, given: Invocation, which: str) -> object:
    """Return the report, or the projects that a path means whose reports are to be listed. Raises QueryError."""
    from mirror.snapshot import reports
    from mirror.snapshot.paths import find_projects

    try:
        return reports.find(snapshot.cursor, which)
    except QueryError as error:
        if which.count("/") > 1 or "--" in which:
            raise
        try:
            return find_projects(snapshot.cursor, [which], given.entity)
        except QueryError:
            raise error from None


def _list(snapshot: Snapshot, projects: object, output: Output) -> None:
    from mirror.snapshot import reports
    from mirror.snapshot.result import Rows

    chosen = projects if isinstance(projects, list) else []
    found = reports.listed(snapshot.cursor, chosen)
    rows = [(str(one.key), one.report_id, one.title, one.author, one.updated_at) for one in found]
    write_result(Rows(_COLUMNS, rows), output)
    if not rows:
        say("no report is mirrored; with reports = true under [sync] in the config, `mirror sync` mirrors them")


def _write(snapshot: Snapshot, chosen: Report, file: Path | None) -> list[str]:
    """Write the report, and return what could not be rendered."""
    from mirror.report.markdown import Markdown
    from mirror.report.page import Page
    from mirror.report.render import render

    if file is not None and file.suffix.lower() == ".html":
        page = Page()
        missing = render(snapshot, chosen, page)
        with replaced(file) as scratch:
            scratch.write_text(page.html, encoding="utf-8", errors="replace")
        return missing
    text = Markdown(None if file is None else f"{file.stem}_files")
    missing = render(snapshot, chosen, text)
    if file is None:
        write_text(text.text)
        return missing
    folder = file.with_name(f"{file.stem}_files")
    try:
        if text.pictures:
            folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot create {folder}: {error.strerror or error}") from error
    for name, content in text.pictures.items():
        with replaced(folder / name) as scratch:
            scratch.write_bytes(content)
    with replaced(file) as scratch:
        scratch.write_text(text.text, encoding="utf-8", errors="replace")
    return missing
