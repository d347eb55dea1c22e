"""`mirror ingest`: mirrors runs from local files, through the daemon if one runs, else in this process."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mirror.cli import ending
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import ExitCode, leave, say, warn
from mirror.errors import UsageError

Folders = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[DIR]...", help="Folders with wandb/ or its run folders. Default: `local.dirs`."),
]


def ingest(
    context: typer.Context,
    folders: Folders = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result of each file as JSON, for scripts.")
    ] = False,
) -> None:
    """Mirror offline and live runs from the `.wandb` files that the official client writes.

    Reads every `*.wandb` file below DIR, and only the new part of a file that was read before. Does not
    ask the W&B server; a run that the server turns out to have is later pulled from there. Damaged parts
    of a file are skipped and reported.
    """
    from mirror.control import Control

    given = invocation(context)
    started = time.monotonic()
    paths = [str(folder.expanduser().absolute()) for folder in folders or []]
    control = Control.find(given.home.socket)
    results: Sequence[dict[str, Any]]
    if control is not None:
        results = [result for event in control.work("ingest", paths) for result in event.get("results", ())]
    else:
        results = ending.run(_ingest_here(given, paths))
    _report(results, time.monotonic() - started, as_json=as_json)


async def _ingest_here(given: Invocation, paths: Sequence[str]) -> list[dict[str, Any]]:
    """Ingest in this process, without a daemon."""
    from mirror.local.watch import Watch
    from mirror.sync.session import open_writer

    settings = given.settings()
    if not paths and not settings.local.dirs:
        raise UsageError(f"nothing to ingest: name a DIR, or add folders to `local.dirs` in {given.home.config}")
    with open_writer(given.home, settings) as writer:
        return [result.as_json() for result in await Watch(writer, settings).read_now(paths)]


def _report(results: Sequence[dict[str, Any]], seconds: float, *, as_json: bool) -> None:
    """Print one line for each file with new data, a warning for each that could not be read, and the totals."""
    totals = {
        "files": len(results),
        "runs": len({result["run"] for result in results if result["run"]}),
        "history_rows": sum(result["rows"] for result in results),
        "damaged": sum(result["damaged"] for result in results),
        "failed": sum(result["outcome"] == "failed" for result in results),
        "unreadable": sum(len(result["unreadable"]) for result in results),
        "seconds": round(seconds, 3),
    }
    if as_json:
        typer.echo(json.dumps({**totals, "results": list(results)}, indent=2))
    for result in results:
        if result["outcome"] in ("new", "read"):
            say(f"{result['run']}: {_rows(result['rows'])}, {result['state']} ({result['path']})")
        if result["note"]:
            warn(f"{result['path']}: {result['note']}")
        if result["trouble"]:
            warn(f"{result['path']}: {result['trouble']}")
        for line in result["unreadable"]:
            warn(f"{result['run']}: {line} ({result['path']})")
        if result["error"]:
            warn(f"{result['path']} cannot be read: {result['error']}")
    counts = {outcome: sum(result["outcome"] == outcome for result in results) for outcome in _COUNTED}
    counted = [f"{count:,} {words}" for outcome, words in _COUNTED.items() if (count := counts[outcome])]
    files = f"{totals['files']:,} {'file' if totals['files'] == 1 else 'files'}"
    say(", ".join([f"{files}: {_rows(totals['history_rows'])}", *counted]) + f" ({seconds:.1f} s)")
    if totals["failed"] or totals["unreadable"]:
        leave(ExitCode.FAILED)


# Outcomes that get no line for each file, only a count in the last line.
_COUNTED = {
    "nothing new": "with nothing new",
    "on the server": "of runs that the server has",
    "copy": "that are copies of another one",
    "replaced": "of earlier starts that a later start of the run replaced",
    "empty": "without a run yet",
    "failed": "that cannot be read",
}


def _rows(count: int) -> str:
    return f"{count:,} history {'row' if count == 1 else 'rows'}"
