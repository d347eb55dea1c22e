"""Asks for logged values: the lines of several runs in one request, and in smaller ones where that fails.

With `samples` at least as large as the steps of a window, the server gives every line of it. Steps can be too far apart
for that, such as those of a clock in nanoseconds. Then fewer samples than steps are asked for, which gives every line
while there are fewer lines than samples. An answer that reaches `samples` may be a sample: the window is cut in two, at
a step that the answer showed, and asked for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mirror.errors import AuthError, CommError
from mirror.remote import queries
from mirror.remote.client import Server
from mirror.remote.errors import SlowAnswer, Unanswered, Unreachable
from mirror.store.records import ProjectKey
from mirror.wandb_json import UNREADABLE, loads, unreadable

SMALL_STEPS = 1000
"""A question for so many steps may be about what runs now; one for more is a backfill, and goes last."""


PIECES = 8
"""Into how many a question is cut that got no answer: groups of runs, and pieces of a window."""

GIVE_UP_AFTER = 4
"""So many runs of which the server gives no line whatever is asked, and no answer between them: it is not the runs."""


class NoHistory(Unreachable):
    """The server gives no history for now. `failed` are the runs that were tried in vain."""

    def __init__(self, failed: dict[str, CommError]) -> None:
        error = next(reversed(failed.values()))
        super().__init__(f"{error}; {len(failed)} runs in a row gave no history", error)
        self.failed = failed


MOST_SAMPLES = 2**31 - 1
"""The largest `samples` that GraphQL's Int holds."""

MOST_STEP = 2**63 - 1


@dataclass(frozen=True)
class Window:
    """Steps `first` (inclusive) to `end` (exclusive) of one run.

    With `most`, so many lines are asked for; by default as many as there are steps.
    """

    run_id: str
    first: int
    end: int
    most: int | None = None

    @property
    def samples(self) -> int:
        """How many lines are asked for."""
        steps = self.end - self.first
        return min(steps, MOST_SAMPLES if self.most is None else self.most)

    def is_sampled(self, lines: int) -> bool:
        """Whether an answer of so many lines may lack some of the window's."""
        return self.samples <= lines and self.samples < self.end - self.first


async def fetch(server: Server, project: ProjectKey, windows: Sequence[Window]) -> dict[Window, list[str] | None]:
    """The raw history lines of each window, in one request; None for a run that the server does not have.

    These are all of its lines unless `Window.is_sampled` says otherwise.
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


@dataclass
class Answer:
    """The lines of each window, None for a run that is not there; and the runs that cannot be read, with the reason."""

    lines: dict[Window, list[str] | None] = field(default_factory=dict)
    failed: dict[str, CommError] = field(default_factory=dict)


class HistoryReader:
    """Reads the lines of a project's runs, asking for less at once where the server does not give that much.

    When some runs in a row give nothing, a line of one of `others` is asked for, to tell these runs from the server.
    """

    def __init__(self, server: Server, project: ProjectKey, others: Sequence[str] = ()) -> None:
        self._server = server
        self._project = project
        self._others = others
        self._silent: dict[str, CommError] = {}
        self.in_trouble: set[str] = set()
        """Runs that wait for an answer to a smaller question; what follows of them is not worth asking for now."""

    async def read(self, windows: Sequence[Window]) -> Answer:
        """The lines of these windows. A run that spoils an answer is found out and told as failed, with no lines.

        All that is asked for has the time of one question together; runs that were not asked for in it are failed, too.
        Raises AuthError, and Unreachable (NoHistory) where nothing more can be had of any run.
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
                await self._note_silence(run_id, error)
            return Answer(failed={run_id: error})
        self._silent = {}
        return await self._completed(Answer(lines))

    async def _completed(self, answer: Answer) -> Answer:
        """The answer with every line of the windows of which it may hold a sample."""
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

    async def _note_silence(self, run_id: str, error: CommError) -> None:
        """Count a run of which nothing comes. Raises NoHistory where it is likely not the runs."""
        self._silent[run_id] = error
        if len(self._silent) >= GIVE_UP_AFTER:
            if not await self._answers():
                raise NoHistory(self._silent) from error
            self._silent = {}

    async def _answers(self) -> bool:
        """Whether the server gives as much as one line of a run, if there is one that was not tried in vain."""
        other = next((run_id for run_id in reversed(self._others) if run_id not in self._silent), None)
        if other is None:
            return False
        try:
            with self._server.together(anew=True):
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
                # Of a run that failed nothing is kept, so that nothing more of it is asked for.
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
            whole.lines = {window: found for window, found in whole.lines.items() if window.run_id not in whole.failed}
            return whole
        if whole.failed:
            if effort.over:
                await self._note_silence(windows[0].run_id, error)
            return Answer(failed=whole.failed)
        found = [whole.lines[part] for [part] in parts]
        there = [lines for lines in found if lines is not None]
        lines = [line for lines in there for line in lines] if len(there) == len(found) else None
        return Answer({windows[0]: lines})


def _parts(windows: Sequence[Window], *, splittable: bool) -> list[list[Window]]:
    """Smaller questions: groups of the runs, or pieces of the one run. None where it gets no smaller."""
    if len(windows) > 1:
        size = -(-len(windows) // PIECES)
        return [list(windows[first : first + size]) for first in range(0, len(windows), size)]
    [window] = windows
    steps = window.end - window.first
    if not splittable or steps < 2:
        return []
    if window.samples < steps:
        # Where the lines lie shows in fewer of them; cut blindly, most pieces would be empty.
        fewer = window.samples // PIECES
        return [[replace(window, most=fewer)]] if fewer > 1 else []
    size = -(-steps // PIECES)
    return [
        [Window(window.run_id, first, min(first + size, window.end))] for first in range(window.first, window.end, size)
    ]


def _cuts(window: Window, steps: Sequence[int]) -> list[Window]:
    """The window in two, each with about half of the lines that these steps are a sample of."""
    middle = min(max(steps[len(steps) // 2], window.first + 1), window.end - 1)
    return [replace(window, end=middle), replace(window, first=middle)]


def steps_of(run_id: str, texts: Sequence[str]) -> list[int]:
    """The steps of history lines, rising. Raises CommError for a line that has none."""
    try:
        return sorted(int(loads(text)["_step"]) for text in texts)
    except UNREADABLE as error:
        raise unreadable(f"a history line of {run_id}", error) from error


async def fetch_events(
    server: Server, project: ProjectKey, run_ids: Sequence[str], samples: int = 10_000
) -> dict[str, list[str]]:
    """The raw system metric lines of runs, in one request; W&B itself samples them. A run that is gone is left out."""
    variables: dict[str, Any] = {"entity": project.entity, "project": project.project}
    for index, run_id in enumerate(run_ids):
        variables[f"run{index}"] = run_id
        variables[f"samples{index}"] = samples
    data = await server.graphql("MirrorEvents", queries.events(len(run_ids)), variables, divisible=len(run_ids) > 1)
    found = data.get("project") or {}
    answers = [found.get(f"r{index}") for index in range(len(run_ids))]
    return {run_id: answer["events"] or [] for run_id, answer in zip(run_ids, answers, strict=True) if answer}
