"""`mirror ingest`: runs that lie in files, through the daemon when one runs, else in this process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import ExitCode, leave, say, warn
from mirror.errors import UsageError

Folders = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[DIR]...", help="Folders that hold wandb/ or its run folders; `local.dirs` without."),
]


def ingest(
    context: typer.Context,
    folders: Folders = None,
    as_json: Annotated[bool, typer.Option("--json", help="What each file brought as JSON, for scripts.")] = False,
) -> None:
    """Mirror offline and live runs from the `.wandb` files that the official client writes.

    Every `*.wandb` file below DIR is read, of a known file only what is new. Nothing is asked of the W&B
    server; a run that the server turns out to have as well is taken over from there. Damaged places
    are skipped and told.
    """
    from mirror.control import Control

    given = invocation(context)
    started = time.monotonic()
    wanted = [str(folder.expanduser().absolute()) for folder in folders or []]
    control = Control.find(given.home.socket)
    results: Sequence[dict[str, Any]]
    if control is not None:
        results = [result for event in control.work("ingest", wanted) for result in event.get("results", ())]
    else:
        results = asyncio.run(_here(given, wanted))
    _report(results, time.monotonic() - started, as_json=as_json)


async def _here(given: Invocation, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """The same work in this process."""
    from mirror.local.watch import Watch
    from mirror.sync.session import open_writer

    settings = given.settings()
    if not wanted and not settings.local.dirs:
        raise UsageError(f"nothing to ingest: name a DIR, or add folders to `local.dirs` in {given.home.config}")
    with open_writer(given.home, settings) as writer:
        return [result.as_json() for result in await Watch(writer, settings).read_now(wanted)]


def _report(results: Sequence[dict[str, Any]], seconds: float, *, as_json: bool) -> None:
    """One line a file that brought something, what could not be read, and all in all."""
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
    seen = {outcome: sum(result["outcome"] == outcome for result in results) for outcome in _QUIET}
    quiet = [f"{count:,} {words}" for outcome, words in _QUIET.items() if (count := seen[outcome])]
    files = f"{totals['files']:,} {'file' if totals['files'] == 1 else 'files'}"
    say(", ".join([f"{files}: {_rows(totals['history_rows'])}", *quiet]) + f" ({seconds:.1f} s)")
    if totals["failed"] or totals["unreadable"]:
        leave(ExitCode.FAILED)


_QUIET = {
    "nothing new": "with nothing new",
    "on the server": "of runs that the server has",
    "copy": "copied from another one",
    "replaced": "of starts that a later start of their run replaced",
    "empty": "without a run so far",
    "failed": "not readable",
}


def _rows(count: int) -> str:
    return f"{count:,} history {'row' if count == 1 else 'rows'}"
