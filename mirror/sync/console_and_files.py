"""Pulls what a run has beside its record and history, where the config asks for it: system metrics, console, files."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from mirror.errors import AuthError, CommError
from mirror.remote import console, files, json_history
from mirror.remote import history as remote_history
from mirror.remote.console import PAGE_LINES, Answer, Place
from mirror.remote.errors import Unreachable
from mirror.remote.history import PIECES
from mirror.remote.retry_policy import Effort
from mirror.store.records import ConsolePage, ProjectKey, RunExtras
from mirror.store.writes import Writes
from mirror.sync import plan
from mirror.sync.context import Context, PassResult, utc_now
from mirror.sync.flaws import is_of_data

REQUEST_LINES = 10_000
"""Lines that one answer should hold at most; this bounds the memory."""

FEW_FILES = 200
"""Files that a run is taken to have, in so far as it bounds how many runs share a request."""

EVENT_SAMPLES = 10_000
"""System metric lines that are asked for of one run; W&B keeps fewer of its own accord."""

log = logging.getLogger("mirror.sync")

Take = Callable[[list[RunExtras]], Awaitable[None]]


async def pull(
    context: Context,
    project: ProjectKey,
    *,
    changed: Collection[str],
    among: Collection[str] | None,
    result: PassResult,
) -> None:
    """Take what is missing of these runs, all of the project's where `among` is None.

    `changed` are those whose record this pass took, for servers that do not count lines. A run of which something
    cannot be read is tried again later; its system metrics and console are named in the result, since they were asked
    for. Raises Unreachable or AuthError when nothing more can be had.
    """
    job = _Job(context, project, result)
    scope = context.scope
    if scope.metadata:
        due = [run for run in await job.runs(among, files=True) if plan.file_due(run, utc_now())]
        await job.take(_batches(due, lambda _: 1), job.take_files, "metadata file")
    if scope.system_metrics:
        due = [run for run in await job.runs(among, events=True) if plan.events_due(run, utc_now(), changed)]
        await job.take(_batches(due, _event_lines), job.take_events, "system metrics")
    if scope.files:
        due = [run for run in await job.runs(among, lists=True) if plan.list_due(run, utc_now())]
        await job.take(_batches(due, lambda _: FEW_FILES), job.take_lists, "list of files")
    if scope.console:
        due = [run for run in await job.runs(among, console=True) if plan.console_due(run, utc_now(), changed)]
        await job.take(_batches(due, lambda _: PAGE_LINES), job.take_console, "console")


def _event_lines(run: RunExtras) -> int:
    return EVENT_SAMPLES if run.server_events is None else min(run.server_events, EVENT_SAMPLES)


def _batches(runs: Sequence[RunExtras], lines: Callable[[RunExtras], int]) -> Iterator[list[RunExtras]]:
    """Runs that share a request: not too many of them, nor of their lines."""
    batch: list[RunExtras] = []
    room = REQUEST_LINES
    for run in runs:
        if batch and (len(batch) >= plan.REQUEST_RUNS or room < lines(run)):
            yield batch
            batch, room = [], REQUEST_LINES
        batch.append(run)
        room -= lines(run)
    if batch:
        yield batch


class _Job:
    """What the three have in common."""

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
        files: bool = False,
        lists: bool = False,
    ) -> list[RunExtras]:
        """The runs of which something of the kind may be missing."""
        found = await self.context.writer.read(
            lambda store: store.extras(self.project, events=events, console=console, files=files, lists=lists)
        )
        return [run for run in found if among is None or run.run_id in among]

    async def take(self, batches: Iterator[list[RunExtras]], take: Take, what: str) -> None:
        """Take each batch, in smaller ones where one run spoils it for the others."""
        for batch in batches:
            with self.context.server.together() as effort:
                await self._take(batch, take, what, effort)

    async def _take(self, batch: list[RunExtras], take: Take, what: str, effort: Effort) -> None:
        try:
            await take(batch)
        except (Unreachable, AuthError):
            raise
        except Exception as error:
            if not isinstance(error, CommError) and not is_of_data(error):
                raise
            if len(batch) == 1 or effort.over:
                for run in batch:
                    await self._set_aside(run, f"its {what} could not be read: {error}")
                return
            size = -(-len(batch) // PIECES)
            for first in range(0, len(batch), size):
                await self._take(batch[first : first + size], take, what, effort)

    async def _set_aside(self, run: RunExtras, error: str) -> None:
        self.result.failed.setdefault(run.run_id, error)
        await self._note([_failed(run)])

    async def _note(self, entries: Sequence[RunExtras]) -> None:
        await self.context.writer.write(lambda tx: tx.set_extras(entries))

    async def take_events(self, batch: list[RunExtras]) -> None:
        """Take the system metrics of these runs in place of what is mirrored of them."""
        samples = max(map(_event_lines, batch))
        names = [run.run_id for run in batch]
        found = await remote_history.fetch_events(self.context.server, self.project, names, samples)
        pages = [json_history.parse_events(run_id, texts) for run_id, texts in found.items()]
        taken = [
            replace(
                run,
                events=len(found[run.run_id]) if run.server_events is None else run.server_events,
                attempts=0,
                next_try_at=None,
            )
            for run in batch
            if run.run_id in found
        ]

        def write(tx: Writes) -> None:
            for page in pages:
                tx.replace_system_metrics(self.project, page)
            tx.set_extras(taken)

        await self.context.writer.write(write)

    async def take_files(self, batch: list[RunExtras]) -> None:
        """Take the metadata file of these runs; one that cannot be had is no failure of the pass."""
        found, nodes = await files.metadata(self.context.server, self.project, [run.run_id for run in batch])
        documents = {run_id: answer for run_id, answer in found.items() if not isinstance(answer, CommError)}
        entries = []
        for run in batch:
            answer = found.get(run.run_id)
            if isinstance(answer, CommError):
                log.warning("the metadata file of %s/%s: %s", self.project, run.run_id, answer)
                entries.append(_failed(run))
            elif run.run_id in found:
                absent = "not yet" if run.state in plan.LIVE_STATES else "none"
                file = absent if answer is None else "taken"
                entries.append(replace(run, file=file, attempts=0, next_try_at=None))

        def write(tx: Writes) -> None:
            tx.put_metadata_files(self.project, documents, nodes)
            tx.set_extras(entries)

        await self.context.writer.write(write)

    async def take_lists(self, batch: list[RunExtras]) -> None:
        """Take the lists of files of these runs in place of those that are mirrored."""
        # What changes while the server is asked is asked for again.
        now = utc_now()
        found = await files.lists(self.context.server, self.project, [run.run_id for run in batch])
        taken = [replace(run, listed_at=now, attempts=0, next_try_at=None) for run in batch if run.run_id in found]

        def write(tx: Writes) -> None:
            tx.put_file_lists(self.project, found)
            tx.set_extras(taken)

        await self.context.writer.write(write)

    async def take_console(self, batch: list[RunExtras]) -> None:
        """Take the console lines of these runs, page by page, each committed with the place behind it.

        The last page that a former pass took is taken again: a live run may have changed lines in it. Where the first
        line is another one than the mirror's, the run was resumed and wrote over its console: it is taken as a whole.
        """
        runs = {run.run_id: run for run in batch}
        former: dict[str, Place] = {}
        groups = deque([[_console_place(run) for run in batch]])
        heads = True
        while groups:
            places = groups.popleft()
            asked = heads and any(place.after for place in places)
            found = await console.fetch(self.context.server, self.project, places, heads=asked)
            with self.context.server.together() as effort:
                effort.succeeded()
            answers = {place: answer for place, answer in found.items() if answer is not None}
            again = await self._written_over(answers) if asked else []
            heads = False
            pages: list[ConsolePage] = []
            entries: list[RunExtras] = []
            following = [Place(run_id) for run_id in again]
            for place, answer in answers.items():
                run_id = place.run_id
                if run_id in again:
                    continue
                if answer.stuck and len(places) > 1:
                    groups.append([place])
                    continue
                pages.append(answer.page)
                if answer.more:
                    former[run_id] = place
                    following.append(answer.behind)
                    run = replace(runs[run_id], log_cursor=answer.behind.after, log_from=answer.behind.first)
                else:
                    # An empty page is none to begin with the next time.
                    begin = place if answer.page.lines else former.get(run_id, place)
                    run = _console_taken(runs[run_id], begin, answer.behind)
                runs[run_id] = run
                entries.append(run)
            if following:
                groups.append(following)

            def write(tx: Writes, pages: list[ConsolePage] = pages, entries: list[RunExtras] = entries) -> None:
                tx.put_console(self.project, pages)
                tx.set_extras(entries)

            await self.context.writer.write(write)

    async def _written_over(self, answers: Mapping[Place, Answer]) -> list[str]:
        """The runs whose first line on the server is not what is mirrored of it."""
        told = {place.run_id: answer.head for place, answer in answers.items() if place.after and answer.head}
        numbers = {run_id: line[0] for run_id, line in told.items()}
        held = await self.context.writer.read(lambda store: store.console_lines(self.project, numbers))
        return [run_id for run_id, line in told.items() if held.get(run_id) != line]


def _console_place(run: RunExtras) -> Place:
    """Where the console goes on; from the start for a run that has fewer lines than it had."""
    shrunk = run.server_log_lines is not None and run.server_log_lines < (run.log_lines or 0)
    return Place(run.run_id) if shrunk else Place(run.run_id, run.log_cursor, run.log_from)


def _console_taken(run: RunExtras, place: Place, behind: Place) -> RunExtras:
    """The run with all of its console taken; the next time begins with its last page again."""
    return replace(
        run,
        log_lines=behind.first if run.server_log_lines is None else run.server_log_lines,
        log_cursor=place.after,
        log_from=place.first,
        log_live=run.state in plan.LIVE_STATES,
        attempts=0,
        next_try_at=None,
    )


def _failed(run: RunExtras) -> RunExtras:
    return replace(run, attempts=run.attempts + 1, next_try_at=plan.retry_at(run.attempts, utc_now()))
