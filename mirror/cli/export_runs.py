"""`mirror export --wandb` and `--mlflow`: whole runs, for other servers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mirror.cli.filters import Filter
from mirror.cli.invocation import Invocation
from mirror.cli.messages import ExitCode, leave, say, warn

if TYPE_CHECKING:
    from mirror.move.plan import Plan
    from mirror.snapshot.paths import Project

_EVERY = 1000
"""A line is printed after so many runs."""

Selected = tuple[Sequence["Project"], Sequence[tuple["Project", str]], Filter]
"""Projects, else runs, and the filter."""


def to_folders(given: Invocation, selected: Selected, folder: Path, keep_sweeps: bool, dry_run: bool) -> None:
    """Print the plan, write the folders, and say how to upload them. Ends with 1 if a file could not be written."""
    from mirror.move import chosen, folders, plan

    with chosen.opened(given.home) as connection:
        found = chosen.choose(connection, *selected)
        for warning in found.warnings:
            warn(warning)
        if not dry_run:
            folders.prepare(folder)
        planned = plan.make(connection, found)
        _print(planned, planned.wandb_limits(keep_sweeps=keep_sweeps))
        if dry_run:
            say("dry run: nothing was written")
            return
        written = folders.write(
            connection, found, folder, keep_sweeps=keep_sweeps, done=lambda runs: _progress(runs, planned)
        )
    for sentence in written.left_out:
        warn(sentence)
    say(f"wrote {written.runs:,} run {'folder' if written.runs == 1 else 'folders'} to {folder}; upload them with:")
    say(f"  wandb sync{'' if planned.projects > 1 else ' --project PROJECT'} --entity ENTITY {folder}")
    if written.left_out:
        leave(ExitCode.FAILED)


def to_mlflow(given: Invocation, selected: Selected, uri: str, dry_run: bool) -> None:
    """Print the plan, export the runs, and say what was done. Ends with 1 if something was refused."""
    from mirror.move import chosen, mlflow_export, mlflow_plan, plan
    from mirror.move.mlflow_client import Tracking

    with chosen.opened(given.home) as connection:
        found = chosen.choose(connection, *selected)
        for warning in found.warnings:
            warn(warning)
        tracking = None if dry_run else Tracking(uri)
        planned = plan.make(connection, found)
        _print(planned, mlflow_plan.limits(connection, found, planned))
        if tracking is None:
            say("dry run: nothing was written")
            return
        sent = mlflow_export.export(connection, found, tracking, lambda runs: _progress(runs, planned))
    for sentence in sent.left_out:
        warn(sentence)
    say(
        f"{tracking.name}: {sent.new:,} runs new, {sent.continued:,} continued, {sent.unchanged:,} unchanged; "
        f"{sent.metrics:,} metric values, {sent.files:,} files"
    )
    if sent.left_out:
        leave(ExitCode.FAILED)


def _print(planned: Plan, limits: Iterable[str]) -> None:
    say(f"exporting {planned.exported()}")
    for sentence in limits:
        say(f"  {sentence}")
    for sentence in planned.missing():
        warn(sentence)


def _progress(runs: int, planned: Plan) -> None:
    if runs % _EVERY == 0:
        say(f"  {runs:,} of {planned.runs:,} runs")
