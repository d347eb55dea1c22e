"""`mirror sync`, `mirror flush` and `mirror status`: through the daemon when one runs, else in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import ExitCode, fail, leave, say, warn
from mirror.cli.output import CsvOption, FileOption, FormatOption, JsonOption, Output, choose, write_result
from mirror.errors import CommError, SyncError, TimedOut, UsageError, named

if TYPE_CHECKING:
    from datetime import datetime

    from mirror.settings.settings import Settings
    from mirror.sync.context import Progress
    from mirror.sync.preview import Preview
    from mirror.sync.targets import Pattern

Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATH]...", help="entity/project or entity/project/run_id; everything in the config without."
    ),
]

Limit = Annotated[
    str | None,
    typer.Option("--timeout", metavar="TIME", help="Wait no longer, such as 30s or 10m; exit 4 when it is not done."),
]

MOST_NAMED = 3
"""How many projects that failed alike are named."""

PREVIEW_COLUMNS = (
    "project",
    "new_runs",
    "changed_runs",
    "deleted_runs",
    "history_rows",
    "estimated_bytes",
    "estimated_requests",
)


def sync(
    context: typer.Context,
    paths: Paths = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Only runs that began or logged since: 12h, 30d, 4w, or a day such as 2026-10-01 (UTC).",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what a sync would fetch; fetch and write nothing.")
    ] = False,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    file: FileOption = None,
    timeout: Limit = None,
) -> None:
    """Pull what changed since the last pass, now.

    Through the daemon when one runs. A sync in which some runs failed ends with 1, names them, and keeps what the
    others brought. With --since, older runs are left for a later sync without it, which does not take the recent ones
    again. A dry run asks for the heads of runs alone, and works beside a daemon; its formats are those of `query`.
    """
    bound = _since(since, paths or [])
    limit = _seconds(timeout)
    if dry_run:
        if limit is not None:
            raise UsageError("--timeout is for a sync that pulls; leave it out with --dry-run")
        _dry_run(invocation(context), paths or [], bound, choose(format_name, json=json, csv=csv, file=file))
        return
    if format_name or json or csv or file:
        raise UsageError("a sync prints no data: --format, --json, --csv and -o go with --dry-run")
    _work(context, "sync", paths or [], since=bound, limit=limit)


def _since(text: str | None, paths: Sequence[str]) -> datetime | None:
    """The time that --since means, naive UTC."""
    if text is None:
        return None
    from mirror.settings.values import Impossible, moment_before
    from mirror.sync import targets
    from mirror.sync.context import utc_now

    try:
        bound = moment_before(text.strip(), utc_now())
    except Impossible as error:
        raise UsageError(f"--since {error}") from None
    for path in paths:
        if targets.parse(path, "entity").run_id:
            raise UsageError(f"--since chooses runs of a project, and {path} is a run: leave one of them out")
    return bound


def flush(
    context: typer.Context,
    paths: Paths = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return at once; a daemon or the next sync pulls.")
    ] = False,
    timeout: Limit = None,
) -> None:
    """Forget what is mirrored of PATH and pull it afresh from the server.

    Returns when the published file holds the fresh values; until then readers see the old ones.
    """
    if no_wait and timeout:
        raise UsageError("--timeout is how long to wait, and --no-wait is not at all; give one of them")
    _work(context, "flush", paths or [], wait=not no_wait, limit=_seconds(timeout))


def _seconds(timeout: str | None) -> float | None:
    from mirror.settings.values import Impossible, interval

    try:
        return None if timeout is None else interval(timeout)
    except Impossible as error:
        raise UsageError(f"--timeout {error}") from None


def _work(
    context: typer.Context,
    action: str,
    paths: Sequence[str],
    *,
    wait: bool = True,
    since: datetime | None = None,
    limit: float | None = None,
) -> None:
    from mirror.cli.progress import bars, replay
    from mirror.control import Control

    given = invocation(context)
    settings, patterns = _patterns(given, action, paths)
    control = Control.find(given.home.socket)
    # Checked and with their entity, as this command's environment has it.
    paths = settings.projects if paths else []
    if control is not None and not wait:
        control.flush_later(paths)
        say("the daemon pulls it afresh now")
        return
    results: list[dict[str, Any]] = []
    with bars() as progress:
        if control is not None:
            for event in control.work(action, paths, since=since, timeout=limit):
                replay(progress, event)
                if event["event"] == "done":
                    results = event["results"]
        else:
            results = asyncio.run(
                _here(given, settings, patterns, action, progress, wait=wait, since=since, limit=limit)
            )
    if not wait:
        say("forgotten; `mirror sync` or a daemon pulls it afresh, readers see the old values until then")
        return
    _report(results)


async def _here(
    given: Invocation,
    settings: Settings,
    patterns: Sequence[Pattern],
    action: str,
    progress: Progress,
    *,
    wait: bool,
    since: datetime | None,
    limit: float | None,
) -> list[dict[str, Any]]:
    """The same work in this process."""
    from mirror.sync import engine, targets
    from mirror.sync.project import forget
    from mirror.sync.session import open_context

    failed: dict[str, CommError] = {}
    async with open_context(given.home, settings, given.environ, progress) as opened:
        try:
            async with asyncio.timeout(limit):
                wanted = await targets.expand(opened.server, patterns, failed)
                if not wanted and not failed:
                    raise UsageError(f"no project on {opened.server.base_url} matches {', '.join(settings.projects)}")
                if not wait:
                    for target in wanted:
                        await forget(opened, target.project, target.run_ids)
                    if failed:
                        raise next(iter(failed.values()))
                    return []
                results = await engine.sync(opened, wanted, afresh=action == "flush", since=since)
        except TimeoutError:
            await opened.writer.publish()
            raise TimedOut(f"not done after {limit:g} s; what was committed stays, the next sync goes on") from None
    return [result.as_json() for result in [*results, *targets.not_listed(failed)]]


def _patterns(given: Invocation, action: str, paths: Sequence[str]) -> tuple[Settings, list[Pattern]]:
    """The settings, and what of the server is meant."""
    from mirror.sync import targets

    settings = given.settings(paths)
    if not settings.projects:
        raise UsageError(f"nothing to {action}: name a PATH, or add projects to {given.home.config} (`mirror init`)")
    return settings, [targets.parse(path, settings.entity) for path in settings.projects]


def _dry_run(given: Invocation, paths: Sequence[str], since: datetime | None, output: Output) -> None:
    """Print one row a project, then what failed; the exit code is the worst of them."""
    from mirror.snapshot.result import Rows

    found = asyncio.run(_previews(given, paths, since))
    good = [one for one in found if not one.error]
    rows = [
        (
            str(one.project),
            *(one.new_runs, one.changed_runs, one.deleted_runs),
            *(one.history_rows, one.bytes, one.requests),
        )
        for one in good
    ]
    write_result(Rows(list(PREVIEW_COLUMNS), rows), output)
    worst = ExitCode.DONE
    for one in found:
        if one.error:
            failure = SyncError(named(one.project, one.error) if len(found) > 1 else one.error)
            failure.exit_code = one.exit_code
            worst = max(worst, fail(failure))
    if good:
        size = sum(one.bytes for one in good) / 1e6
        requests = _some(sum(one.requests for one in good), "request", "requests")
        say(f"nothing was fetched; by estimate a sync takes {size:,.1f} MB before compression, in {requests}")
    if worst:
        leave(worst)


async def _previews(given: Invocation, paths: Sequence[str], since: datetime | None) -> list[Preview]:
    from mirror.sync import targets
    from mirror.sync.engine import PROJECTS_AT_ONCE
    from mirror.sync.preview import Preview, preview
    from mirror.sync.session import connect, scope_of

    settings, patterns = _patterns(given, "sync", paths)
    places = asyncio.Semaphore(PROJECTS_AT_ONCE)
    failed: dict[str, CommError] = {}
    async with connect(settings, given.environ) as server:

        async def one(target: targets.Target) -> Preview:
            async with places:
                return await preview(server, scope_of(settings), given.home, target, since)

        wanted = await targets.expand(server, patterns, failed)
        if not wanted and not failed:
            raise UsageError(f"no project on {server.base_url} matches {', '.join(settings.projects)}")
        found = await asyncio.gather(*(one(target) for target in wanted))
    lost = [Preview(one.project, error=one.error, exit_code=one.exit_code) for one in targets.not_listed(failed)]
    return [*found, *lost]


def _report(results: Sequence[dict[str, Any]]) -> None:
    """One line a project, then what failed; the exit code is the worst of them."""
    worst = ExitCode.DONE
    failed: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if result["error"]:
            failed.setdefault(result["error"], []).append(result)
            continue
        say(f"{result['project']}: {_summary(result)}")
        for run_id, error in result["failed_runs"].items():
            warn(f"{result['project']}/{run_id} is set aside: {error}")
            worst = max(worst, ExitCode.FAILED)
    for error, alike in failed.items():
        # Where one thing stops many projects, such as a server that is down, it is told once.
        about = ", ".join(result["project"] for result in alike[:MOST_NAMED])
        about += f" and {len(alike) - MOST_NAMED:,} more" if len(alike) > MOST_NAMED else ""
        failure = SyncError(named(about, error) if len(results) > 1 else error)
        failure.exit_code = alike[0]["exit_code"]
        worst = max(worst, fail(failure))
    if worst:
        leave(worst)


def _summary(result: dict[str, Any]) -> str:
    cost = f"{_some(result['requests'], 'request', 'requests')}, {result['seconds']:.1f} s"
    older = f"; {_some(result['older_runs'], 'older run', 'older runs')} left for a sync without --since"
    left = older if result.get("older_runs") else ""
    if not result["runs"] and not result["history_rows"] and not result["deleted"]:
        return f"nothing new ({cost}){left}"
    parts = [
        _some(result["runs"], "run", "runs") + (f" ({result['new_runs']:,} new)" if result["new_runs"] else ""),
        _some(result["history_rows"], "history row", "history rows"),
    ]
    if result["deleted"]:
        parts.append(_some(result["deleted"], "run deleted", "runs deleted") + " on the server")
    return f"{', '.join(parts)} ({cost}){left}"


def _some(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"
