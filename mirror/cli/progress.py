"""Progress bars on stderr, only if stderr is a terminal."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mirror.cli.messages import progress_wanted, warn
from mirror.store.records import ProjectKey
from mirror.sync.context import PassResult, Progress, Silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress as RichProgress


class Bars:
    """For each project a bar of runs and a bar of history rows, with the rate and the time left."""

    def __init__(self, display: RichProgress) -> None:
        self._display = display
        self._tasks: dict[tuple[ProjectKey, str], Any] = {}
        self._projects: Any = None

    def projects_expected(self, projects: int) -> None:
        """Show a bar of projects if there are several."""
        if projects > 1:
            self._projects = self._display.add_task("all", total=projects, unit="projects")

    def _grow(self, project: ProjectKey, unit: str, *, total: int = 0, done: int = 0) -> None:
        key = (project, unit)
        if key not in self._tasks:
            self._tasks[key] = self._display.add_task(f"{project}", total=0, unit=unit)
        task = self._tasks[key]
        if total:
            known = next(entry.total or 0 for entry in self._display.tasks if entry.id == task)
            self._display.update(task, total=known + total)
        if done:
            self._display.update(task, advance=done)

    def runs_expected(self, project: ProjectKey, runs: int) -> None:
        """Add to the total number of runs."""
        self._grow(project, "runs", total=runs)

    def runs_done(self, project: ProjectKey, runs: int) -> None:
        """Advance the bar of runs."""
        self._grow(project, "runs", done=runs)

    def rows_expected(self, project: ProjectKey, rows: int) -> None:
        """Add to the total number of history rows."""
        self._grow(project, "rows", total=rows)

    def rows_done(self, project: ProjectKey, rows: int) -> None:
        """Advance the bar of history rows."""
        self._grow(project, "rows", done=rows)

    def files_expected(self, project: ProjectKey, files: int) -> None:
        """Add to the total number of files to download."""
        self._grow(project, "files", total=files)

    def files_done(self, project: ProjectKey, files: int) -> None:
        """Advance the bar of files."""
        self._grow(project, "files", done=files)

    def finished(self, result: PassResult) -> None:
        """Complete the bars of the project."""
        for (project, _), task in self._tasks.items():
            if project == result.project:
                entry = next(entry for entry in self._display.tasks if entry.id == task)
                self._display.update(task, total=entry.completed)
        if self._projects is not None:
            self._display.update(self._projects, advance=1)

    def notice(self, text: str) -> None:
        """Print a warning above the bars."""
        warn(text)


class _NoticesOnly(Silent):
    """Shows no bars, only notices."""

    def notice(self, text: str) -> None:
        """Print a warning."""
        warn(text)

    def files_expected(self, project: ProjectKey, files: int) -> None:
        """Do nothing."""

    def files_done(self, project: ProjectKey, files: int) -> None:
        """Do nothing."""


Shown = Bars | _NoticesOnly


@contextmanager
def bars() -> Iterator[Shown]:
    """Show progress bars while the block runs, if stderr is a terminal."""
    if not progress_wanted():
        yield _NoticesOnly()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    display = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        _rate_column(),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
    with display:
        yield Bars(display)


def _rate_column() -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        """The rate per second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f}/s" if speed else "", style="progress.data.speed")

    return Rate()


def replay(progress: Progress, event: dict[str, Any]) -> None:
    """Pass an event of the control socket on to `progress`."""
    entity, _, name = str(event.get("project", "/")).partition("/")
    project = ProjectKey(entity, name)
    match event["event"]:
        case "projects_expected":
            progress.projects_expected(event["count"])
        case "runs_expected":
            progress.runs_expected(project, event["count"])
        case "runs_done":
            progress.runs_done(project, event["count"])
        case "rows_expected":
            progress.rows_expected(project, event["count"])
        case "rows_done":
            progress.rows_done(project, event["count"])
        case "finished":
            progress.finished(PassResult(project))
        case "notice":
            progress.notice(event["message"])
