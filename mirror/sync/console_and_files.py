"""Pulls system metrics, console, metadata file and lists of files and artifacts of runs, if the config selects them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

from msgspec.structs import replace

from mirror.errors import AuthError, CommError
from mirror.protocol import LIVE_STATES
from mirror.remote import artifacts, console, files, json_history
from mirror.remote import history as remote_history
from mirror.remote.console import PAGE_LINES, Answer, Position
from mirror.remote.errors import FeatureMissing, Unreachable
from mirror.remote.history import PIECES
from mirror.remote.retry_policy import Effort
from mirror.store import artifacts as stored_artifacts
from mirror.store import console as stored_console
from mirror.store import history as stored_history
from mirror.store import metadata as stored_metadata
from mirror.store import retries
from mirror.store.records import ConsolePage, ProjectKey, RunExtras
from mirror.store.transaction import Transaction
from mirror.sync import plan, request_windows
from mirror.sync.context import Context, PassResult, utc_now
from mirror.sync.flaws import is_of_data

REQUEST_LINES = 10_000
"""The most lines that one answer should hold; this bounds the memory."""

FEW_FILES = 200
"""The assumed number of files of a run; it bounds how many runs share a request."""

FEW_ARTIFACTS = 100
"""The same for artifacts."""

USES = "artifacts of runs"
"""In `Server.missing_features`: the server does not list what runs used and logged."""

EVENT_SAMPLES = 10_000
"""System metric lines to request of one run; W&B itself keeps fewer."""

log = logging.getLogger("mirror.sync")

Pull = Callable[[list[RunExtras]], Awaitable[None]]


async def pull(
    context: Context,
    project: ProjectKey,
    *,
    changed: Collection[str],
    among: Collection[str] | None,
    result: PassResult,
) -> None:
    """Pull what is missing of these runs; of all runs of the project if `among` is None.

    `changed` are those whose record this pass pulled, for servers that do not count lines. A run that cannot be read is
    retried later and named in the result, except for a metadata file that cannot be downloaded. Raises Unreachable or
    AuthError when the server returns nothing more.
    """
    job = _Job(context, project, result)
    scope = context.scope
    if scope.metadata:
        due = [run for run in await job.runs(among, metadata_file=True) if plan.metadata_file_due(run, utc_now())]
        await job.pull(_batches(due, lambda _: 1), job.pull_metadata_files, "metadata file")
    if scope.system_metrics:
        due = [run for run in await job.runs(among, events=True) if plan.events_due(run, utc_now(), changed)]
        await job.pull(_batches(due, _event_lines), job.pull_events, "system metrics")
    if scope.files:
        due = [run for run in await job.runs(among, file_list=True) if plan.file_list_due(run, utc_now())]
        await job.pull(_batches(due, lambda _: FEW_FILES), job.pull_file_lists, "list of files")
    if scope.artifacts and USES not in context.server.missing_features:
        due = [run for run in await job.runs(among, artifacts=True) if plan.uses_due(run, utc_now())]
        await job.pull(_batches(due, lambda _: FEW_ARTIFACTS), job.pull_uses, "list of artifacts")
    if scope.console:
        due = [run for run in await job.runs(among, console=True) if plan.console_due(run, utc_now(), changed)]
        await job.pull(_batches(due, lambda _: PAGE_LINES), job.pull_console, "console")


def _event_lines(run: RunExtras) -> int:
    return EVENT_SAMPLES if run.server_events is None else min(run.server_events, EVENT_SAMPLES)


def _batches(runs: Sequence[RunExtras], lines: Callable[[RunExtras], int]) -> Iterator[list[RunExtras]]:
    """Yield groups of runs that share a request, with bounded numbers of runs and lines."""
    batch: list[RunExtras] = []
    room = REQUEST_LINES
    for run in runs:
        if batch and (len(batch) >= request_windows.REQUEST_RUNS or room < lines(run)):
            yield batch
            batch, room = [], REQUEST_LINES
        batch.append(run)
        room -= lines(run)
    if batch:
        yield batch


class _Job:
    """Shared batching and retry."""

    def __init__(self, context: Context, project: ProjectKey, result: PassResult) -> None:
        self.context = context
        self.project = project
        self.result = result

    async def runs(
        self,
        among: Collection[str] | None,
        *,
        events: bool = False,
        console: bool = False,
        metadata_file: bool = False,
        file_list: bool = False,
        artifacts: bool = False,
    ) -> list[RunExtras]:
        """Return the runs for which something of these kinds may be missing."""
        candidates = await self.context.writer.read(
            lambda db: stored_console.find(
                db,
                self.project,
                events=events,
                console=console,
                metadata_file=metadata_file,
                file_list=file_list,
                artifacts=artifacts,
            )
        )
        return [run for run in candidates if among is None or run.run_id in among]

    async def pull(self, batches: Iterator[list[RunExtras]], pull_batch: Pull, what: str) -> None:
        """Pull each batch, in smaller ones if one run spoils it for the others."""
        for batch in batches:
            with self.context.server.together() as effort:
                await self._pull(batch, pull_batch, what, effort)

    async def _pull(self, batch: list[RunExtras], pull_batch: Pull, what: str, effort: Effort) -> None:
        try:
            await pull_batch(batch)
        except (Unreachable, AuthError):
            raise
        except Exception as error:
            if not isinstance(error, CommError) and not is_of_data(error):
                raise
            if len(batch) == 1 or effort.over:
                for run in batch:
                    await self._record_failure(run, f"its {what} could not be read: {error}")
                return
            size = -(-len(batch) // PIECES)
            for first in range(0, len(batch), size):
                await self._pull(batch[first : first + size], pull_batch, what, effort)

    async def _record_failure(self, run: RunExtras, error: str) -> None:
        self.result.failed.setdefault(run.run_id, error)
        await self.context.writer.write(lambda tx: stored_console.save(tx, [_failed(run)]))

    async def pull_events(self, batch: list[RunExtras]) -> None:
        """Pull the system metrics of these runs, replacing the mirrored ones."""
        samples = max(map(_event_lines, batch))
        names = [run.run_id for run in batch]
        events = await remote_history.fetch_events(self.context.server, self.project, names, samples)
        pages = [json_history.parse_events(run_id, texts) for run_id, texts in events.items()]
        pulled = [
            replace(
                run,
                events=len(events[run.run_id]) if run.server_events is None else run.server_events,
                attempts=0,
                next_try_at=None,
            )
            for run in batch
            if run.run_id in events
        ]

        def write(tx: Transaction) -> None:
            for page in pages:
                stored_history.replace_system_metrics(tx, self.project, page)
            stored_console.save(tx, pulled)

        await self.context.writer.write(write)

    async def pull_metadata_files(self, batch: list[RunExtras]) -> None:
        """Pull the metadata file of these runs; one that cannot be downloaded does not fail the pass."""
        answers, nodes = await files.metadata(self.context.server, self.project, [run.run_id for run in batch])
        documents = {run_id: answer for run_id, answer in answers.items() if not isinstance(answer, CommError)}
        entries = []
        for run in batch:
            answer = answers.get(run.run_id)
            if isinstance(answer, CommError):
                log.warning("the metadata file of %s/%s: %s", self.project, run.run_id, answer)
                entries.append(_failed(run))
            elif run.run_id in answers:
                absent = "not yet" if run.state in LIVE_STATES else "none"
                file = absent if answer is None else "taken"
                entries.append(replace(run, file=file, attempts=0, next_try_at=None))

        def write(tx: Transaction) -> None:
            stored_metadata.put_files(tx, self.project, documents, nodes)
            stored_console.save(tx, entries)

        await self.context.writer.write(write)

    async def pull_file_lists(self, batch: list[RunExtras]) -> None:
        """Pull the lists of files of these runs, replacing the mirrored ones."""
        # The time before the request: what changes during it is pulled again.
        now = utc_now()
        lists = await files.lists(self.context.server, self.project, [run.run_id for run in batch])
        pulled = [replace(run, listed_at=now, attempts=0, next_try_at=None) for run in batch if run.run_id in lists]

        def write(tx: Transaction) -> None:
            stored_console.put_file_lists(tx, self.project, lists)
            stored_console.save(tx, pulled)

        await self.context.writer.write(write)

    async def pull_uses(self, batch: list[RunExtras]) -> None:
        """Pull what these runs used and logged, replacing what is mirrored; nothing if the server has no such lists."""
        now = utc_now()
        try:
            uses = await artifacts.uses(self.context.server, self.project, [run.run_id for run in batch])
        except FeatureMissing:
            self.context.server.missing_features.add(USES)
            return
        pulled = [replace(run, artifacts_at=now, attempts=0, next_try_at=None) for run in batch if run.run_id in uses]

        def write(tx: Transaction) -> None:
            stored_artifacts.put_uses(tx, self.project, uses)
            stored_console.save(tx, pulled)

        await self.context.writer.write(write)

    async def pull_console(self, batch: list[RunExtras]) -> None:
        """Pull the console lines of these runs, page by page, each committed with the position after it.

        The last page of an earlier pass is pulled again: a live run may have changed lines in it. If the first line
        differs from the mirrored one, a resumed run has overwritten its console, and all of it is pulled again.
        """
        runs = {run.run_id: run for run in batch}
        former: dict[str, Position] = {}
        groups = deque([[_console_position(run) for run in batch]])
        heads = True
        while groups:
            positions = groups.popleft()
            with_heads = heads and any(position.after for position in positions)
            fetched = await console.fetch(self.context.server, self.project, positions, heads=with_heads)
            with self.context.server.together() as effort:
                effort.succeeded()
            answers = {position: answer for position, answer in fetched.items() if answer is not None}
            again = await self._overwritten(answers) if with_heads else []
            heads = False
            pages: list[ConsolePage] = []
            entries: list[RunExtras] = []
            following = [Position(run_id) for run_id in again]
            for position, answer in answers.items():
                run_id = position.run_id
                if run_id in again:
                    continue
                if answer.stuck and len(positions) > 1:
                    groups.append([position])
                    continue
                pages.append(answer.page)
                if answer.more:
                    former[run_id] = position
                    following.append(answer.behind)
                    run = replace(runs[run_id], log_cursor=answer.behind.after, log_from=answer.behind.first)
                else:
                    # The next pass must not start with an empty page.
                    start = position if answer.page.lines else former.get(run_id, position)
                    run = _console_pulled(runs[run_id], start, answer.behind)
                runs[run_id] = run
                entries.append(run)
            if following:
                groups.append(following)

            def write(tx: Transaction, pages: list[ConsolePage] = pages, entries: list[RunExtras] = entries) -> None:
                stored_console.put_console(tx, self.project, pages)
                stored_console.save(tx, entries)

            await self.context.writer.write(write)

    async def _overwritten(self, answers: Mapping[Position, Answer]) -> list[str]:
        """Return the runs whose first line on the server differs from the mirrored one."""
        heads = {position.run_id: answer.head for position, answer in answers.items() if position.after and answer.head}
        numbers = {run_id: line[0] for run_id, line in heads.items()}
        mirrored = await self.context.writer.read(lambda db: stored_console.lines(db, self.project, numbers))
        return [run_id for run_id, line in heads.items() if mirrored.get(run_id) != line]


def _console_position(run: RunExtras) -> Position:
    """Return where to continue the console; the start for a run that has fewer lines than before."""
    shrunk = run.server_log_lines is not None and run.server_log_lines < (run.log_lines or 0)
    return Position(run.run_id) if shrunk else Position(run.run_id, run.log_cursor, run.log_from)


def _console_pulled(run: RunExtras, position: Position, behind: Position) -> RunExtras:
    """Return the state of a run whose whole console is pulled; the next pass starts with its last page again."""
    return replace(
        run,
        log_lines=behind.first if run.server_log_lines is None else run.server_log_lines,
        log_cursor=position.after,
        log_from=position.first,
        log_live=run.state in LIVE_STATES,
        attempts=0,
        next_try_at=None,
    )


def _failed(run: RunExtras) -> RunExtras:
    return replace(run, attempts=run.attempts + 1, next_try_at=retries.retry_at(run.attempts, utc_now()))
