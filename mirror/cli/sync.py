"""`mirror sync` and `mirror flush`: through the daemon if one runs, else in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirror.cli import complete, ending
from mirror.cli.asking import confirm, on_terminal
from mirror.cli.findings import some
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import ExitCode, fail, leave, say
from mirror.cli.names import with_ids
from mirror.cli.output import CsvOption, FileOption, FormatOption, JsonOption, Output, choose, write_result
from mirror.cli.sizes import size_text
from mirror.cli.sync_report import report, report_downloads, report_marked, several
from mirror.errors import CommError, SyncError, TimedOut, UsageError, named

if TYPE_CHECKING:
    from datetime import datetime

    from mirror.cli.progress import Shown
    from mirror.content.outcome import Outcome
    from mirror.settings.settings import Settings
    from mirror.sync.context import Context
    from mirror.sync.preview import Preview
    from mirror.sync.targets import Pattern, Target

Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATH]...",
        help="entity/project or entity/project/run_id. Default: every project in the config.",
        autocompletion=complete.projects,
        callback=with_ids,
    ),
]

Limit = Annotated[
    str | None,
    typer.Option("--timeout", metavar="TIME", help="Wait at most this long, such as 30s or 10m, then exit with 4."),
]


PREVIEW_COLUMNS = (
    "project",
    "new_runs",
    "changed_runs",
    "deleted_runs",
    "history_rows",
    "estimated_bytes",
    "estimated_requests",
    "files",
    "file_bytes",
)


def sync(
    context: typer.Context,
    paths: Paths = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Only runs that started or logged since: 12h, 30d, 4w, or a day such as 2026-10-01 (UTC).",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what a sync would pull; pull and write nothing.")
    ] = False,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    file: FileOption = None,
    timeout: Limit = None,
) -> None:
    """Pull now what changed since the last pass.

    Goes through the daemon if one runs. If some runs fail, they are named, the others are stored, and the exit code
    is 1. With --since, older runs are left to a later sync without it, which does not pull the recent ones again.
    --dry-run only asks what changed, and works beside a daemon; it has the output formats of `query`.
    """
    bound = _since(since, paths or [])
    limit = _seconds(timeout)
    if dry_run:
        if limit is not None:
            raise UsageError("--timeout does not apply to --dry-run; leave it out")
        _dry_run(invocation(context), paths or [], bound, choose(format_name, json=json, csv=csv, file=file))
        return
    if format_name or json or csv or file:
        raise UsageError("a sync prints no data: --format, --json, --csv and -o go with --dry-run")
    _work(context, "sync", paths or [], since=bound, limit=limit)


def _since(text: str | None, paths: Sequence[str]) -> datetime | None:
    """Return the time that --since means, naive UTC. Raises UsageError."""
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
            raise UsageError(f"--since selects runs of a project, but {path} is a run: leave one of them out")
    return bound


def flush(
    context: typer.Context,
    paths: Paths = None,
    everything: Annotated[bool, typer.Option("--all", help="Every project in the config, without a question.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask on a terminal.")] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return at once; the daemon or the next sync pulls.")
    ] = False,
    timeout: Limit = None,
) -> None:
    """Pull everything again that is mirrored of PATH, whether it changed or not.

    Returns when the published file holds the new values; until then readers see the old ones. Without PATH it asks
    on a terminal, and needs --all elsewhere. `mirror forget` removes something from the mirror.
    """
    if no_wait and timeout:
        raise UsageError("give --timeout or --no-wait, not both")
    if everything and paths:
        raise UsageError("give PATH or --all, not both")
    limit = _seconds(timeout)
    if not everything and not paths and not (yes and on_terminal()):
        _confirm_flush(invocation(context))
    _work(context, "flush", paths or [], wait=not no_wait, limit=limit)


def _confirm_flush(given: Invocation) -> None:
    """Ask whether everything is to be pulled again; end the command if not."""
    settings, _ = _patterns(given, "flush", ())
    confirm(
        f"Pull everything of {several(settings.projects)} again? It takes as long as the first sync did.",
        otherwise="nothing was flushed: name a PATH, or give --all for every project in the config",
    )


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
    # Checked, and with the default entity of this command's environment.
    paths = settings.projects if paths else []
    if control is not None and not wait:
        control.flush_later(paths)
        say("the daemon is pulling it again now")
        return
    results: list[dict[str, Any]] = []
    marked: list[Target] = []
    downloads: list[Outcome] = []
    with bars() as progress:
        if control is not None:
            for event in control.work(action, paths, since=since, timeout=limit):
                replay(progress, event)
                if event["event"] == "done":
                    results = event["results"]
        else:
            results = ending.run(
                _work_here(
                    *(given, settings, patterns, action, progress, marked, downloads),
                    everything=not paths,
                    wait=wait,
                    since=since,
                    limit=limit,
                )
            )
    if not wait:
        report_marked(given, marked, paths)
        return
    worst = report_downloads(downloads)
    report(results, worst)


async def _work_here(
    given: Invocation,
    settings: Settings,
    patterns: Sequence[Pattern],
    action: str,
    progress: Shown,
    marked: list[Target],
    downloads: list[Outcome],
    *,
    everything: bool,
    wait: bool,
    since: datetime | None,
    limit: float | None,
) -> list[dict[str, Any]]:
    """Sync or flush in this process, without a daemon. Without `wait`, add what is mirrored of them to `marked`.

    The outcome of downloading files is added to `downloads`.
    """
    from mirror.sync import targets
    from mirror.sync.session import open_context

    failed: dict[str, CommError] = {}
    first = targets.expected(patterns) if action == "sync" and since is None else ()
    async with open_context(given.home, settings, given.environ, progress, expected=first) as opened:
        from mirror.sync import engine
        from mirror.sync.project import forget

        try:
            async with asyncio.timeout(limit):
                expanded = await targets.expand(opened.server, patterns, failed)
                if not expanded and not failed:
                    raise UsageError(f"no project on {opened.server.base_url} matches {', '.join(settings.projects)}")
                if not wait:
                    marked.extend([one for one in expanded if await forget(opened, one.project, one.run_ids)])
                    if failed:
                        raise next(iter(failed.values()))
                    return []
                results = await engine.sync(opened, expanded, afresh=action == "flush", since=since)
                downloads.append(await _download(opened, settings, expanded, progress, everything=everything))
        except TimeoutError:
            await opened.writer.publish()
            raise TimedOut(
                f"not done after {limit:g} s; what was committed stays, the next sync continues the work"
            ) from None
    return [result.as_json() for result in [*results, *targets.not_listed(failed)]]


async def _download(
    opened: Context, settings: Settings, done: Sequence[Target], progress: Shown, *, everything: bool
) -> Outcome:
    """Download the content of files that the config selects, of everything or of these projects."""
    from mirror.content.pull import pull, selection_of

    projects = None if everything else {target.project for target in done}
    wanted = selection_of(settings.sync)
    outcome = await pull(opened.server, opened.writer, wanted, projects=projects, progress=progress)
    await opened.writer.publish()
    return outcome


def _patterns(given: Invocation, action: str, paths: Sequence[str]) -> tuple[Settings, list[Pattern]]:
    """Return the settings and the patterns of the projects and runs to work on."""
    from mirror.sync import targets

    settings = given.settings(paths)
    if not settings.projects:
        raise UsageError(f"nothing to {action}: name a PATH, or add projects to {given.home.config} (`mirror init`)")
    return settings, [targets.parse(path, settings.entity) for path in settings.projects]


def _dry_run(given: Invocation, paths: Sequence[str], since: datetime | None, output: Output) -> None:
    """Print one row per project, then the errors; the exit code is the highest of theirs."""
    from mirror.snapshot.result import Rows

    previews = ending.run(_previews(given, paths, since))
    good = [one for one in previews if not one.error]
    rows = [
        (
            str(one.project),
            *(one.new_runs, one.changed_runs, one.deleted_runs),
            *(one.history_rows, one.bytes, one.requests, one.files, one.file_bytes),
        )
        for one in good
    ]
    write_result(Rows(list(PREVIEW_COLUMNS), rows), output)
    worst = ExitCode.DONE
    for one in previews:
        if one.error:
            failure = SyncError(named(one.project, one.error) if len(previews) > 1 else one.error)
            failure.exit_code = one.exit_code
            worst = max(worst, fail(failure))
    if good:
        size = sum(one.bytes for one in good) / 1e6
        requests = some(sum(one.requests for one in good), "request", "requests")
        downloads = sum(one.files for one in good)
        content = size_text(sum(one.file_bytes for one in good))
        files = f", and download {some(downloads, 'file', 'files')} ({content}) of those listed" if downloads else ""
        say(f"dry run: nothing was pulled; a sync would pull about {size:,.1f} MB uncompressed in {requests}{files}")
    if worst:
        leave(worst)


async def _previews(given: Invocation, paths: Sequence[str], since: datetime | None) -> list[Preview]:
    from mirror.content.pull import selection_of
    from mirror.sync import targets
    from mirror.sync.engine import PROJECTS_AT_ONCE
    from mirror.sync.preview import Preview, preview
    from mirror.sync.session import connect, scope_of

    settings, patterns = _patterns(given, "sync", paths)
    slots = asyncio.Semaphore(PROJECTS_AT_ONCE)
    failed: dict[str, CommError] = {}
    async with connect(settings, given.environ) as server:

        async def one(target: targets.Target) -> Preview:
            async with slots:
                return await preview(server, scope_of(settings), given.home, target, since, selection_of(settings.sync))

        expanded = await targets.expand(server, patterns, failed)
        if not expanded and not failed:
            raise UsageError(f"no project on {server.base_url} matches {', '.join(settings.projects)}")
        previews = await asyncio.gather(*(one(target) for target in expanded))
    not_listed = [Preview(one.project, error=one.error, exit_code=one.exit_code) for one in targets.not_listed(failed)]
    return [*previews, *not_listed]
