"""`mirror sync`, `mirror flush` and `mirror status`: through the daemon when one runs, else in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import ExitCode, fail, leave, say, warn
from mirror.errors import SyncError, TimedOut, UsageError

if TYPE_CHECKING:
    from mirror.config import Settings
    from mirror.sync.context import Progress

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


def sync(context: typer.Context, paths: Paths = None, timeout: Limit = None) -> None:
    """Pull what changed since the last pass, now.

    Through the daemon when one runs. A sync in which some runs failed ends with 1, names them, and keeps what the
    others brought.
    """
    _work(context, "sync", paths or [], limit=_seconds(timeout))


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
    from mirror.config_values import Impossible, interval

    try:
        return None if timeout is None else interval(timeout)
    except Impossible as error:
        raise UsageError(f"--timeout {error}") from None


def _work(
    context: typer.Context, action: str, paths: Sequence[str], *, wait: bool = True, limit: float | None = None
) -> None:
    from mirror.cli.progress import bars, replay
    from mirror.daemon.client import Control

    given = invocation(context)
    settings = given.settings(paths)
    if not settings.projects:
        raise UsageError(f"nothing to {action}: name a PATH, or add projects to {given.home.config} (`mirror init`)")
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
            for event in control.work(action, paths, limit):
                replay(progress, event)
                if event["event"] == "done":
                    results = event["results"]
        else:
            results = asyncio.run(_here(given, settings, action, progress, wait=wait, limit=limit))
    if not wait:
        say("forgotten; `mirror sync` or a daemon pulls it afresh, readers see the old values until then")
        return
    _report(results)


async def _here(
    given: Invocation, settings: Settings, action: str, progress: Progress, *, wait: bool, limit: float | None
) -> list[dict[str, Any]]:
    """The same work in this process."""
    from mirror.sync import engine, targets
    from mirror.sync.project import forget
    from mirror.sync.session import open_context

    patterns = [targets.parse(path, settings.entity) for path in settings.projects]
    async with open_context(given.home, settings, given.environ, progress) as opened:
        try:
            async with asyncio.timeout(limit):
                wanted = await targets.expand(opened.server, patterns)
                if not wanted:
                    raise UsageError(f"no project on {opened.server.base_url} fits {', '.join(settings.projects)}")
                if not wait:
                    for target in wanted:
                        await forget(opened, target.project, target.run_ids)
                    return []
                results = await engine.sync(opened, wanted, afresh=action == "flush")
        except TimeoutError:
            await opened.writer.publish()
            raise TimedOut(f"not done after {limit:g} s; what was committed stays, the next sync goes on") from None
    return [result.as_json() for result in results]


def _report(results: Sequence[dict[str, Any]]) -> None:
    """One line a project, then what failed; the exit code is the worst of them."""
    worst = ExitCode.DONE
    for result in results:
        if result["error"]:
            failure = SyncError(result["error"])
            failure.exit_code = result["exit_code"]
            worst = max(worst, fail(failure))
            continue
        say(f"{result['project']}: {_summary(result)}")
        for run_id, error in result["failed_runs"].items():
            warn(f"{result['project']}/{run_id} is set aside: {error}")
            worst = max(worst, ExitCode.FAILED)
    if worst:
        leave(worst)


def _summary(result: dict[str, Any]) -> str:
    def some(count: int, one: str, more: str) -> str:
        return f"{count:,} {one if count == 1 else more}"

    if not result["runs"] and not result["history_rows"] and not result["deleted"]:
        return f"nothing new ({some(result['requests'], 'request', 'requests')}, {result['seconds']:.1f} s)"
    parts = [
        some(result["runs"], "run", "runs") + (f" ({result['new_runs']:,} new)" if result["new_runs"] else ""),
        some(result["history_rows"], "history row", "history rows"),
    ]
    if result["deleted"]:
        parts.append(some(result["deleted"], "run deleted", "runs deleted") + " on the server")
    cost = f"{some(result['requests'], 'request', 'requests')}, {result['seconds']:.1f} s"
    return f"{', '.join(parts)} ({cost})"
