"""What `mirror sync` and `mirror flush` say at their end, and the exit code for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mirror.cli.findings import some
from mirror.cli.invocation import Invocation
from mirror.cli.messages import ExitCode, fail, leave, say, warn
from mirror.cli.names import nearest_project
from mirror.errors import SyncError, named

if TYPE_CHECKING:
    from mirror.content.outcome import Outcome
    from mirror.sync.targets import Target

MOST_FAILED = 10
"""How many files that could not be downloaded are named, and how many artifacts."""

MOST_NAMED = 3
"""How many projects with the same error are named."""


def report(results: Sequence[dict[str, Any]], worst: ExitCode) -> None:
    """Print one line per project, then the errors; the exit code is the highest of theirs and `worst`."""
    failed: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if result["error"]:
            failed.setdefault(result["error"], []).append(result)
            continue
        say(f"{result['project']}: {_summary(result)}")
        for run_id, error in result["failed_runs"].items():
            warn(f"{result['project']}/{run_id} failed, will be retried: {error}")
            worst = max(worst, ExitCode.FAILED)
        worst = max(worst, _report_artifacts(result.get("failed_artifacts", {})))
    for error, same_error in failed.items():
        # One cause that stops many projects, such as a server that is down, is reported once.
        projects = several([result["project"] for result in same_error])
        failure = SyncError(named(projects, error) if len(results) > 1 else error)
        failure.exit_code = same_error[0]["exit_code"]
        worst = max(worst, fail(failure))
    if worst:
        leave(worst)


def _report_artifacts(failed: Mapping[str, str]) -> ExitCode:
    """Print which artifacts could not be mirrored completely; return the exit code for it."""
    for path, error in list(failed.items())[:MOST_FAILED]:
        warn(f"{path} failed, will be retried: {error}")
    if len(failed) > MOST_FAILED:
        warn(f"{len(failed) - MOST_FAILED:,} more artifacts failed; `mirror status` has them")
    return ExitCode.FAILED if failed else ExitCode.DONE


def report_downloads(downloads: Sequence[Outcome]) -> ExitCode:
    """Print what was downloaded, and what failed; return the exit code for it."""
    worst = ExitCode.DONE
    for outcome in downloads:
        if outcome.stored:
            say(f"files: {some(outcome.stored, 'file', 'files')} ({outcome.downloaded_bytes / 1e6:,.1f} MB downloaded)")
        for left, setting in ((outcome.beyond_run, "files_max"), (outcome.beyond_budget, "files_budget")):
            if left:
                say(f"files: {some(left, 'file', 'files')} left out by sync.{setting}")
        for path, error in list(outcome.failed.items())[:MOST_FAILED]:
            warn(f"{path} failed, will be retried: {error}")
        if len(outcome.failed) > MOST_FAILED:
            warn(f"{len(outcome.failed) - MOST_FAILED:,} more files failed; `mirror status` has them")
        if outcome.error:
            warn(f"files are not downloaded: {outcome.error}")
        if outcome.failed or outcome.error:
            worst = ExitCode.FAILED
    return worst


def report_marked(given: Invocation, marked: Sequence[Target], paths: Sequence[str]) -> None:
    """Print what will be pulled again, and by what: a pass only pulls what the config selects or what is named."""
    from mirror.sync import targets

    if not marked:
        near = [project for path in paths if (project := nearest_project(given, path))]
        if near:
            say(f"nothing is mirrored of it, so there is nothing to pull again; did you mean {near[0]}?")
            return
        say("nothing is mirrored of it, so there is nothing to pull again; `mirror sync PATH` pulls it")
        return
    settings = given.settings()
    patterns = [targets.parse(path, settings.entity) for path in settings.projects]
    by_config = [target for target in marked if any(targets.selects(pattern, target) for pattern in patterns)]
    if by_config:
        say("marked; `mirror sync` or a daemon pulls it again, until then readers see the old values")
    others = [path for target in marked if target not in by_config for path in target.paths()]
    if others:
        say(f"{several(others)}: marked, but not in the config; `mirror sync {' '.join(others)}` pulls it again")


def _summary(result: dict[str, Any]) -> str:
    cost = f"{some(result['requests'], 'request', 'requests')}, {result['seconds']:.1f} s"
    older = f"; {some(result['older_runs'], 'older run', 'older runs')} left to a sync without --since"
    left = older if result.get("older_runs") else ""
    if not result["runs"] and not result["history_rows"] and not result["deleted"]:
        return f"nothing new ({cost}){left}"
    parts = [
        some(result["runs"], "run", "runs") + (f" ({result['new_runs']:,} new)" if result["new_runs"] else ""),
        some(result["history_rows"], "history row", "history rows"),
    ]
    if result["deleted"]:
        parts.append(some(result["deleted"], "run deleted", "runs deleted") + " on the server")
    return f"{', '.join(parts)} ({cost}){left}"


def several(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"
