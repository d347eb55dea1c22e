"""`mirror verify`: proves that the mirror equals the server, or lists the differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirror.cli import ending
from mirror.cli.findings import compared_of, cost_of, differences, show_complete, show_findings, some
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import ExitCode, fail, leave, say, warn
from mirror.cli.sync import Paths
from mirror.errors import StoreBusy, StoreDamaged, StoreError, SyncError, UsageError, named, one_line

if TYPE_CHECKING:
    from mirror.control import Control
    from mirror.settings.settings import Settings
    from mirror.verify.findings import Verdict


def verify(
    context: typer.Context,
    paths: Paths = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read all history again and compare every value.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Pull again what differs, then verify again.")] = False,
    complete: Annotated[
        bool,
        typer.Option("--complete", help="Say of each run whether all that the server has of it is here, proven."),
    ] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Compare .wandb files with the server: each PATH is a folder or a file.")
    ] = False,
    upload: Annotated[
        bool, typer.Option("--upload", help="With --local: send what the server lost of runs that have ended.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --upload: print what would be sent; send nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, for scripts (docs/verify.md).")
    ] = False,
) -> None:
    """Prove that the mirror equals the server; otherwise list the differences and exit with 1.

    Compares every field, config and summary value of every run, and the counts of history rows and keys; with --deep
    also every history value. A run that changed since the last pass is listed as behind and counts as equal.

    With --local DIR..., compares the official client's files below DIR with the server instead: history rows, every
    value, summaries. This does not need a mirror.

    With --complete, also the lists of files and of logged artifacts, and every content by its digest: a run is safe to
    delete on W&B, or what is missing is listed with the setting that brings it. It deletes nothing.
    """
    given = invocation(context)
    if local:
        from mirror.cli.rescue import verify_files

        if deep or repair or complete:
            others = "--deep, --repair, --complete"
            raise UsageError(f"--local always compares every value and never changes the mirror: leave out {others}")
        verify_files(given, paths or [], upload=upload, dry_run=dry_run, as_json=as_json)
        return
    if upload or dry_run:
        raise UsageError("--upload and --dry-run need --local: mirror verify --local DIR... --upload")
    if complete and repair:
        raise UsageError("--complete only looks: run `mirror verify --repair` first")
    command = _Command(given, paths or [], deep=deep or complete, complete=complete)
    answer = ending.run(command.run(repair=repair))
    if as_json:
        typer.echo(json.dumps(answer.as_json(), indent=2, ensure_ascii=False))
    else:
        _show(answer)
    if code := answer.exit_code():
        leave(code)


class _Answer:
    """The verdicts, and what a repair did. `first` holds the verdicts from before the repair."""

    def __init__(self, verdicts: Sequence[Verdict]) -> None:
        self.verdicts = verdicts
        self.first: Sequence[Verdict] | None = None
        self.done: Mapping[str, Sequence[str]] = {}
        self.pulled: Sequence[str] = ()
        self.lost: Sequence[str] = ()
        self.failures: Sequence[str] = ()
        self.files: str | None = None

    def exit_code(self) -> ExitCode:
        """Return the highest exit code of all verdicts."""
        worst = max([verdict.exit_code for verdict in self.verdicts], default=0)
        differs = self.files is not None or any(
            not verdict.equal or any(run.missing for run in verdict.complete or ()) for verdict in self.verdicts
        )
        return ExitCode(max(worst, ExitCode.FAILED if differs else ExitCode.DONE))

    def as_json(self) -> dict[str, Any]:
        """Return the documented JSON form."""
        repair = None
        if self.first is not None:
            differed = [one.as_json(verdict.project) for verdict in self.first for one in differences(verdict)]
            done = {project: list(lines) for project, lines in self.done.items() if lines}
            repair = {
                "differed": differed,
                "mended": done,
                "pulled": list(self.pulled),
                "failed": list(self.failures),
                "lost": list(self.lost),
            }
        return {
            "equal": self.files is None and all(verdict.equal for verdict in self.verdicts),
            "deep": any(verdict.deep for verdict in self.verdicts),
            "projects": [verdict.as_json() for verdict in self.verdicts],
            "files": self.files,
            "repair": repair,
        }


class _Command:
    """One run of the command."""

    def __init__(self, given: Invocation, paths: Sequence[str], *, deep: bool, complete: bool = False) -> None:
        from mirror.control import Control

        self.given = given
        self.settings: Settings = given.settings(paths)
        if not self.settings.projects:
            raise UsageError(f"nothing to verify: name a PATH, or add projects to {given.home.config} (`mirror init`)")
        self.deep = deep
        self.complete = complete
        self.all_segments = not paths
        self.control: Control | None = Control.find(given.home.socket)

    async def run(self, *, repair: bool) -> _Answer:
        """Verify; with `repair`, repair what differs and verify again."""
        state, published = self._check_files()
        problem = state or published
        if repair and published and not state:
            from mirror.store import aside

            kept = aside.put(self.given.home.data, [self.given.home.published])
            warn(f"{published}; it is rebuilt, the damaged file is kept in {kept}")
        if problem is None or repair:
            problem = self._publish(repair=repair)
        answer = await self._answer(repair=repair)
        answer.files = problem
        return answer

    async def _answer(self, *, repair: bool) -> _Answer:
        answer = _Answer(await self._verify())
        differing = [verdict for verdict in answer.verdicts if verdict.error is None and not verdict.equal]
        if not repair or not differing:
            return answer
        repaired = await (self._repair_here(differing) if self.control is None else self._repair_there(differing))
        again = _Answer(await self._verify())
        again.first = answer.verdicts
        again.done, again.failures = repaired
        again.pulled = [f"{v.project}/{run_id}" for v in differing for run_id in v.to_flush()]
        again.lost = [f"{v.project}/{run_id}" for v in differing for run_id in v.lost()]
        return again

    def _check_files(self) -> tuple[str | None, str | None]:
        """Return what is wrong with the state and with the published file. A state that is in use is not checked."""
        from mirror.store import integrity

        by_daemon = self.control.check() if self.control is not None else None
        found = integrity.problems(self.given.home, state=self.control is None)
        return by_daemon or found.state, found.published

    def _publish(self, *, repair: bool) -> str | None:
        """Publish everything that is committed; return an error if the state is damaged, or a repair cannot open it.

        If another process is syncing, or the home cannot be written, the last publication is verified.
        """
        home = self.given.home
        if self.control is not None:
            self.control.publish()
        elif home.state.exists() or home.published.exists():
            from mirror.store.store import Store
            from mirror.sync.session import sharing

            try:
                store = Store.open(
                    home,
                    tail_values=self.settings.store.tail_values,
                    storage_version=self.settings.publish.storage_version,
                    sharing=sharing(self.settings),
                )
            except StoreBusy:
                say("another process is syncing; the file that it published last is verified, its state is not checked")
                return None
            except StoreError as error:
                if repair or isinstance(error, StoreDamaged):
                    return str(error)
                say(f"{error}; the file that was published last is verified")
                return None
            try:
                store.publish()
            finally:
                store.close()
        return None

    async def _verify(self) -> list[Verdict]:
        from mirror.cli.progress import bars
        from mirror.sync import targets
        from mirror.sync.session import connect, scope_of
        from mirror.verify import engine

        patterns = [targets.parse(path, self.settings.entity) for path in self.settings.projects]
        async with connect(self.settings, self.given.environ) as server:
            expanded = await targets.expand(server, patterns)
            if not expanded:
                raise UsageError(f"no project on {server.base_url} matches {', '.join(self.settings.projects)}")
            with bars() as progress:
                scope = scope_of(self.settings)
                return await engine.verify(
                    server,
                    self.given.home,
                    scope,
                    expanded,
                    progress,
                    deep=self.deep,
                    patterns=patterns,
                    all_segments=self.all_segments,
                    complete=self.settings.sync if self.complete else None,
                )

    async def _repair_here(self, differing: Sequence[Verdict]) -> tuple[Mapping[str, Sequence[str]], list[str]]:
        from mirror.cli.progress import bars
        from mirror.sync.session import open_context
        from mirror.verify import engine

        flush = {verdict.project: verdict.to_flush() for verdict in differing}
        with bars() as progress:
            async with open_context(self.given.home, self.settings, self.given.environ, progress) as opened:
                repaired, results = await engine.repair(opened, list(flush), flush)
        return repaired, _failures([result.as_json() for result in results])

    async def _repair_there(self, differing: Sequence[Verdict]) -> tuple[Mapping[str, Sequence[str]], list[str]]:
        """Repair through the daemon."""
        from mirror.cli.progress import bars, replay

        assert self.control is not None
        repaired = self.control.mend([str(verdict.project) for verdict in differing])
        paths = [f"{verdict.project}/{run_id}" for verdict in differing for run_id in verdict.to_flush()]
        results: list[dict[str, Any]] = []
        if paths:
            with bars() as progress:
                for event in self.control.work("flush", paths):
                    replay(progress, event)
                    if event["event"] == "done":
                        results = event["results"]
        self.control.publish()
        return repaired, _failures(results)


def _failures(results: Sequence[Mapping[str, Any]]) -> list[str]:
    errors = [named(result["project"], result["error"]) for result in results if result["error"]]
    return errors + [
        f"{result['project']}/{run_id}: {error}"
        for result in results
        for run_id, error in result["failed_runs"].items()
    ]


def _show(answer: _Answer) -> None:
    """Print differences on stdout, one per line; what was compared on stderr, one line per project."""
    if answer.first is not None:
        _show_repair(answer)
    if answer.files is not None:
        typer.echo(one_line(f"differs: {answer.files}"))
    for verdict in answer.verdicts:
        show_findings(verdict)
        show_complete(verdict)
        if verdict.error:
            failure = SyncError(named(verdict.project, verdict.error))
            failure.exit_code = verdict.exit_code
            fail(failure)
            continue
        say(f"{verdict.project}: {_summary(verdict)}")


def _show_repair(answer: _Answer) -> None:
    for project, lines in answer.done.items():
        for line in lines:
            say(f"repaired {project}: {line}")
    for path in answer.pulled:
        say(f"repaired {path}: pulled again")
    for failure in answer.failures:
        warn(f"not repaired: {failure}")
    for path in answer.lost:
        warn(
            f"the history of {path} was in a damaged segment, and the server does not have it: "
            "what could be read is kept, but values may be missing"
        )
    before = sum(len(differences(verdict)) for verdict in answer.first or ())
    after = sum(len(differences(verdict)) for verdict in answer.verdicts)
    say(f"{some(before, 'difference', 'differences')} before the repair, {after:,} after it")


def _summary(verdict: Verdict) -> str:
    from mirror.verify.findings import Level

    compared, cost = compared_of(verdict), cost_of(verdict)
    behind = len(verdict.of(Level.BEHIND))
    late = f"; {some(behind, 'run', 'runs')} changed since the last pass" if behind else ""
    if not verdict.equal:
        differ = some(len(differences(verdict)), "difference", "differences")
        return f"{differ} in {compared}{late} ({cost})"
    how = "equal the server's, value by value" if verdict.deep else "equal the server's counts and records"
    return f"{compared} {how}{late} ({cost})"
