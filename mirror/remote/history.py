"""Requests logged values: the lines of several runs in one request, and in smaller requests if that fails.

If `samples` is at least the number of steps in a window, the server returns every line of it. Steps can be too far
apart for that, such as those of a clock in nanoseconds. Then fewer samples than steps are requested, and the answer is
complete while there are fewer lines than samples. An answer with `samples` lines may be a sample: the window is split
in two, at a step of the answer, and requested again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from mirror.errors import AuthError, CommError
from mirror.metrics import STEP
from mirror.remote import queries
from mirror.remote.client import Server
from mirror.remote.errors import SlowAnswer, Unanswered, Unreachable
from mirror.store.records import ProjectKey
from mirror.wandb_json import UNREADABLE, loads, unreadable

SMALL_STEPS = 1000
"""A request for at most this many steps may be for a live run; a larger one is a backfill, and goes last."""


PIECES = 8
"""A request that got no answer is split into this many: groups of runs, or pieces of a window."""

GIVE_UP_AFTER = 4
"""After this many runs in a row without a line in any answer, the server, not the runs, may be at fault."""


class NoHistory(Unreachable):
    """The server returns no history for now. `failed` are the runs that were tried."""

    def __init__(self, failed: dict[str, CommError]) -> None:
        error = next(reversed(failed.values()))
        super().__init__(f"{error}; no history for {len(failed)} runs in a row", error)
        self.failed = failed


MOST_SAMPLES = 2**31 - 1
"""The largest `samples` that GraphQL's Int holds."""

MOST_STEP = 2**63 - 1


class Window(Struct, frozen=True):
    """Steps `first` (inclusive) to `end` (exclusive) of one run.

    `most` is the number of lines to request, by default the number of steps.
    """

    run_id: str
    first: int
    end: int
    most: int | None = None

    @property
    def samples(self) -> int:
        """The number of lines to request."""
        steps = self.end - self.first
        return min(steps, MOST_SAMPLES if self.most is None else self.most)

    def is_sampled(self, lines: int) -> bool:
        """Return True if an answer of `lines` lines may lack some of the window's."""
        return self.samples <= lines and self.samples < self.end - self.first


async def fetch(server: Server, project: ProjectKey, windows: Sequence[Window]) -> dict[Window, list[str] | None]:
    """Return the raw history lines of each window, from one request; None for a run that the server does not have.

    These are all lines of the window unless `Window.is_sampled` returns True.
    """
    variables: dict[str, Any] = {"entity": project.entity, "project": project.project}
    for index, window in enumerate(windows):
        variables[f"run{index}"] = window.run_id
        variables[f"min{index}"] = window.first
        variables[f"max{index}"] = min(window.end, MOST_STEP)
        variables[f"samples{index}"] = window.samples
    bulk = sum(window.samples for window in windows) > SMALL_STEPS
    document = queries.history(len(windows))
    divisible = len(windows) > 1 or windows[0].end - windows[0].first > 1
    data = await server.graphql("MirrorHistory", document, variables, bulk=bulk, divisible=divisible)
    found = data.get("project") or {}
    answers = [found.get(f"r{index}") for index in range(len(windows))]
    return {
        window: (answer["history"] or []) if answer else None for window, answer in zip(windows, answers, strict=True)
    }


class Answer(Struct):
    """The lines of each window, None for a run that does not exist; and the unreadable runs, with the reason."""

    lines: dict[Window, list[str] | None] = field(default_factory=dict)
    failed: dict[str, CommError] = field(default_factory=dict)


class HistoryReader:
    """Reads the lines of a project's runs, with smaller requests where the server does not answer a large one.

    When several runs in a row return nothing, one line of one of `others` is requested, to find out whether the runs or
    the server is at fault.
    """

    def __init__(self, server: Server, project: ProjectKey, others: Sequence[str] = ()) -> None:
        self._server = server
        self._project = project
        self._others = others
        self._unanswered: dict[str, CommError] = {}
        self.in_trouble: set[str] = set()
        """Runs that wait for an answer to a smaller request; their later windows are not worth requesting now."""

    async def read(self, windows: Sequence[Window]) -> Answer:
        """Return the lines of these windows. A run that spoils an answer is identified and reported as failed.

        All requests share the retry time of one; runs that were not requested within it are failed, too. Raises
        AuthError, and Unreachable (NoHistory) if the server returns nothing more of any run.
        """
        with self._server.together():
            try:
                return await self._read(windows)
            finally:
                self.in_trouble.difference_update(window.run_id for window in windows)

    async def _read(self, windows: Sequence[Window]) -> Answer:
        try:
            lines = await fetch(self._server, self._project, windows)
        except (Unreachable, AuthError):
            raise
        except CommError as error:
            self.in_trouble.update(window.run_id for window in windows)
            parts = _parts(windows, splittable=isinstance(error, Unanswered))
            if parts:
                return await self._read_parts(windows, parts, error)
            run_id = windows[0].run_id
            if isinstance(error, Unanswered):
                await self._count_unanswered(run_id, error)
            return Answer(failed={run_id: error})
        self._unanswered = {}
        return await self._completed(Answer(lines))

    async def _completed(self, answer: Answer) -> Answer:
        """Complete the answer: request every line of the windows for which it may contain a sample."""
        for window, texts in answer.lines.items():
            if window.run_id in answer.failed or texts is None or not window.is_sampled(len(texts)):
                continue
            try:
                cuts = _cuts(window, steps_of(window.run_id, texts))
            except CommError as error:
                answer.failed[window.run_id] = error
                continue
            sampled = CommError(f"{self._project}/{window.run_id} has more history lines than one answer holds")
            whole = await self._read_parts([window], [[part] for part in cuts], sampled)
            answer.failed.update(whole.failed)
            answer.lines.update(whole.lines)
        if answer.failed:
            answer.lines = {
                window: texts for window, texts in answer.lines.items() if window.run_id not in answer.failed
            }
        return answer

    async def _count_unanswered(self, run_id: str, error: CommError) -> None:
        """Count a run that got no answer. Raises NoHistory when the server is probably failing."""
        self._unanswered[run_id] = error
        if len(self._unanswered) >= GIVE_UP_AFTER:
            if not await self._server_answers():
                raise NoHistory(self._unanswered) from error
            self._unanswered = {}

    async def _server_answers(self) -> bool:
        """Return True if the server returns one line of another run; False if there is no other run to try."""
        other = next((run_id for run_id in reversed(self._others) if run_id not in self._unanswered), None)
        if other is None:
            return False
        try:
            with self._server.together(separate=True):
                await fetch(self._server, self._project, [Window(other, 0, 1)])
        except (Unreachable, AuthError):
            raise
        except CommError:
            return False
        return True

    async def _read_parts(
        self, windows: Sequence[Window], parts: Sequence[Sequence[Window]], error: CommError
    ) -> Answer:
        whole = Answer()
        with self._server.together() as effort:
            for part in parts:
                # Nothing of a failed run is kept, so no more of it is requested.
                wanted = [window for window in part if window.run_id not in whole.failed]
                if wanted and effort.over:
                    late = SlowAnswer(f"{error}; the time for it and for its smaller parts is over", error)
                    whole.failed |= {window.run_id: late for window in wanted}
                elif wanted:
                    answer = await self._read(wanted)
                    whole.lines.update(answer.lines)
                    whole.failed.update(answer.failed)
                if len(windows) > 1:
                    self.in_trouble.difference_update(window.run_id for window in part)
        if len(windows) > 1:
            whole.lines = {window: texts for window, texts in whole.lines.items() if window.run_id not in whole.failed}
            return whole
        if whole.failed:
            if effort.over:
                await self._count_unanswered(windows[0].run_id, error)
            return Answer(failed=whole.failed)
        pieces = [whole.lines[part] for [part] in parts]
        existing = [lines for lines in pieces if lines is not None]
        lines = [line for lines in existing for line in lines] if len(existing) == len(pieces) else None
        return Answer({windows[0]: lines})


def _parts(windows: Sequence[Window], *, splittable: bool) -> list[list[Window]]:
    """Split a request into groups of runs, or into pieces of the one run. Empty if it cannot get smaller."""
    if len(windows) > 1:
        size = -(-len(windows) // PIECES)
        return [list(windows[first : first + size]) for first in range(0, len(windows), size)]
    [window] = windows
    steps = window.end - window.first
    if not splittable or steps < 2:
        return []
    if window.samples < steps:
        # A smaller sample shows where the lines are; splitting evenly, most pieces would be empty.
        fewer = window.samples // PIECES
        return [[replace(window, most=fewer)]] if fewer > 1 else []
    size = -(-steps // PIECES)
    return [
        [Window(window.run_id, first, min(first + size, window.end))] for first in range(window.first, window.end, size)
    ]


def _cuts(window: Window, steps: Sequence[int]) -> list[Window]:
    """Split the window in two, each with about half of the lines; `steps` are a sample of theirs."""
    middle = min(max(steps[len(steps) // 2], window.first + 1), window.end - 1)
    return [replace(window, end=middle), replace(window, first=middle)]


def steps_of(run_id: str, texts: Sequence[str]) -> list[int]:
    """Return the steps of history lines, sorted. Raises CommError for a line without a step."""
    try:
        return sorted(int(loads(text)[STEP]) for text in texts)
    except UNREADABLE as error:
        raise unreadable(f"a history line of {run_id}", error) from error


async def fetch_events(
    server: Server, project: ProjectKey, run_ids: Sequence[str], samples: int = 10_000
) -> dict[str, list[str]]:
    """Return the raw system metric lines of runs, from one request; W&B samples them. Missing runs are left out."""
    variables: dict[str, Any] = {"entity": project.entity, "project": project.project}
    for index, run_id in enumerate(run_ids):
        variables[f"run{index}"] = run_id
        variables[f"samples{index}"] = samples
    data = await server.graphql("MirrorEvents", queries.events(len(run_ids)), variables, divisible=len(run_ids) > 1)
    found = data.get("project") or {}
    answers = [found.get(f"r{index}") for index in range(len(run_ids))]
    return {run_id: answer["events"] or [] for run_id, answer in zip(run_ids, answers, strict=True) if answer}
