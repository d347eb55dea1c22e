"""Runs that were changed on the server through the endpoint, until the change is pulled and published.

The first edit of a project starts a task, which has the edited runs pulled together after a short time, or at once when
a list that may show them is requested. It ends when there was no edit for a while, so nothing runs while nobody edits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    # The daemon has edits also while it does not listen, and the endpoint takes 0.1 s to import.
    from mirror.serve.context import RunPath

DELAY = 1.0
"""Seconds after the first edit of a project until it is pulled, together with those that followed it."""

PAUSE = 5.0
SHARE = 9.0
LONGEST_PAUSE = 60.0
"""The next pull begins PAUSE after one, or SHARE times as long as it took, so that edits in a loop cause few."""

PATIENCE = 5.0
"""Seconds that requests wait for a pull. While none succeeds, only the first ones wait."""

ANSWER_SECONDS = 10.0
"""How long the server is waited for when it is asked for what is not pulled; then the mirror answers without it."""

AGAIN = 60.0
"""Seconds after a failed pull until the next one, unless there is another edit."""

Pull = Callable[[tuple[str, str], Sequence[str]], Awaitable[bool]]
"""Pulls these runs of a project and publishes them; returns False if that failed. The id of a new run may be ""."""

Start = Callable[[Awaitable[None], str], None]
"""Starts background work, which is cancelled with the daemon."""


class _Project(Struct):
    """The edits of a project by run id, numbered in their order, and the attempts to pull them."""

    edits: dict[str, int] = field(default_factory=dict)
    last: int = 0
    pulled_to: int = 0
    failed: bool = False
    patient_until: float | None = None
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    edited: asyncio.Event = field(default_factory=asyncio.Event)
    attempt: asyncio.Event = field(default_factory=asyncio.Event)


class Edits:
    """The edits that are not pulled yet. Used in the event loop; any thread may call `unpulled`."""

    def __init__(self, pull: Pull, start: Start) -> None:
        self._pull = pull
        self._start = start
        self._projects: dict[tuple[str, str], _Project] = {}

    def note(self, run: RunPath) -> None:
        """Record that this run has been changed on the server. A pull that began before does not count."""
        key = run[:2]
        here = self._projects.get(key)
        if here is None:
            here = self._projects[key] = _Project()
            self._start(self._work(key, here), f"pulling edits of {'/'.join(key)}")
        here.last += 1
        here.edits[run[2]] = here.last
        here.failed = False
        here.edited.set()

    def unpulled(self, path: Sequence[str]) -> bool:
        """Return True if an edit of this run, of any run of this project, or of this entity is not pulled yet."""
        if len(path) == 1:
            return any(here.edits for (entity, _), here in list(self._projects.items()) if entity == path[0])
        here = self._projects.get((path[0], path[1]))
        return here is not None and (path[2] in here.edits if path[2:] else bool(here.edits))

    async def pulled(self, path: Sequence[str]) -> None:
        """Wait until the edits until now of this project or entity are pulled, at most PATIENCE."""
        found = [here for key, here in self._projects.items() if key[: len(path)] == tuple(path)]
        await asyncio.gather(*(_pulled(here) for here in found))

    async def _work(self, key: tuple[str, str], here: _Project) -> None:
        loop = asyncio.get_running_loop()
        try:
            await _within(DELAY, here.wanted)
            while here.edits:
                here.wanted.clear()
                here.edited.clear()
                began, to = loop.time(), here.last
                if await self._pull(key, list(here.edits)):
                    here.edits = {run_id: number for run_id, number in here.edits.items() if number > to}
                    here.pulled_to, here.failed, here.patient_until = to, False, None
                    _end_attempt(here)
                    pause = max(PAUSE, SHARE * (loop.time() - began))
                    await _within(min(pause, LONGEST_PAUSE), here.wanted)
                else:
                    here.failed = not here.edited.is_set()
                    _end_attempt(here)
                    await _within(AGAIN, here.edited)
        finally:
            del self._projects[key]
            here.failed = True
            _end_attempt(here)


def _end_attempt(here: _Project) -> None:
    here.attempt.set()
    here.attempt = asyncio.Event()


async def _pulled(here: _Project) -> None:
    """Wait until the edits of a project until now are pulled, a pull fails, or PATIENCE is over."""
    needed = here.last
    if here.pulled_to == needed:
        return
    if here.patient_until is None:
        here.patient_until = asyncio.get_running_loop().time() + PATIENCE
    with suppress(TimeoutError):
        async with asyncio.timeout_at(here.patient_until):
            while here.pulled_to < needed and not here.failed:
                here.wanted.set()
                await here.attempt.wait()


async def _within(seconds: float, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
