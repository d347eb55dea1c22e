"""Fetches and parses the history lines of many runs, a few requests ahead of whoever commits or compares them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Executor
from contextlib import aclosing

from mirror.errors import CommError
from mirror.remote.client import Server
from mirror.remote.history import Answer, HistoryReader, Window
from mirror.remote.json_history import KeyGlobs, parse
from mirror.store.records import ProjectKey
from mirror.sync.ahead import in_order
from mirror.sync.history_batch import Batch
from mirror.sync.request_windows import RowSize, Span, requests
from mirror.sync.scout import locate


class LineFetcher:
    """One project's history requests; `ahead` of them may wait, which bounds the memory.

    Lines are parsed in `executor`, by default the loop's own. `complete_to` returns up to which step a window's answer
    is complete; None, the default, means up to its last line.
    """

    def __init__(
        self,
        server: Server,
        project: ProjectKey,
        run_ids: Sequence[str],
        keys: KeyGlobs,
        *,
        ahead: int,
        executor: Executor | None = None,
        complete_to: Callable[[Window], int | None] = lambda _: None,
    ) -> None:
        self._server = server
        self._project = project
        self._reader = HistoryReader(server, project, run_ids)
        self._keys = keys
        self._ahead = ahead
        self._executor = executor
        self._complete_to = complete_to
        self._size = RowSize()

    async def fetch(self, spans: Sequence[Span], *, dropped: AbstractSet[str] = frozenset()) -> AsyncGenerator[Batch]:
        """Yield the lines of all spans, those of one run in their order; nothing more of runs in `dropped`."""
        jobs = requests(await locate(self._server, self._project, spans, self._size), self._size)
        trouble = self._reader.in_trouble
        answers = in_order(jobs, self._ask, ahead=self._ahead, in_trouble=trouble, dropped=dropped)
        async with aclosing(answers):
            async for batch in answers:
                yield batch

    async def _ask(self, windows: list[Window]) -> Batch:
        answer = await self._reader.read(windows)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._parse, windows, answer)

    def _parse(self, windows: list[Window], answer: Answer) -> Batch:
        batch = Batch(list(windows), failed=answer.failed)
        for window, texts in answer.lines.items():
            if texts is None:
                batch.gone.append(window.run_id)
                continue
            self._size.learn(len(texts), sum(map(len, texts)))
            try:
                page = parse(window.run_id, texts, self._keys, complete_to=self._complete_to(window))
            except CommError as error:
                batch.failed[window.run_id] = error
                continue
            batch.pages.append((window, page))
        return batch
