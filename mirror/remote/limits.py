"""One request limiter for the whole process: concurrency, pace, order, and pauses.

The pace is learned from the server's headers: `RateLimit-Remaining` and `RateLimit-Reset`, `Retry-After`, and 429s
without any of these. `RateLimit-Remaining` is the rest of a quota, in the server's own units (W&B: 1000 is the whole
quota), not a count of requests; how much of it a request uses is learned from one answer to the next, as the official
client does (core/internal/api/ratelimittracker.go). Without such headers requests are not slowed down.

Waiting requests are served project by project in turn, and small requests before backfills, so that a huge project does
not starve a live run: pages and files leave one slot to small requests, and small requests leave one turn in `SHARE` to
the pages. Files of another host, such as an object store, do not use the server's slots; they have their own.
"""

from __future__ import annotations

import asyncio
import email.utils
import random
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from math import isfinite

from msgspec import Struct, field

asking_for: ContextVar[str] = ContextVar("asking_for", default="")
"""The project that the requests of this task are for."""

LONGEST_PAUSE = 300.0
"""Seconds; a server that asks for a longer pause is tried sooner, since its clock or its header may be wrong."""

LONGEST_RESET = 3600.0

SCARCE = 0.5
"""Below this share of a quota, requests are spread over the time until it is renewed."""

LEARNING = 0.2
"""How much one answer changes the learned cost of a request."""

FIRST_INTERVAL = 0.25
LONGEST_INTERVAL = 10.0
"""Seconds between requests after a 429 without headers: doubled by each such 429, reduced by 5% by each answer."""

SHARE = 5
"""While pages wait, one request in this many is a page, however many small requests there are."""

STORAGE_CONNECTIONS = 32
"""Downloads from object stores under way at the same time; these are made for many connections."""

_MINUTES = 60


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a `Retry-After` header, given as a number or as a date; None without the header.

    A date counts from the server's own `Date`: the clock of this machine may be wrong.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
        return max(0.0, seconds) if isfinite(seconds) else None
    except ValueError:
        until, now = _moment(text), _moment(headers.get("date", ""))
        if until is None:
            return None
        return max(0.0, (until - (now or datetime.now(until.tzinfo))).total_seconds())


def _moment(text: str) -> datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Budget(Struct, frozen=True):
    """The limiter's state. `left` and `resets_in_s` are the server's last report, None if it does not report them.

    `left` is in units of the server's quota; `cost` is how many of them a request uses, None until it is learned.
    `last_minute` is the current minute of the clock. `waiting` counts the waiting requests by project.
    """

    last_minute: int
    last_hour: int
    left: float | None
    cost: float | None
    resets_in_s: float | None
    paused_for_s: float
    waiting: dict[str, int]


class _Queue(Struct):
    """Waiting requests of one kind, served project by project in turn."""

    projects: OrderedDict[str, deque[asyncio.Future[None]]] = field(default_factory=OrderedDict)

    def put(self, project: str, ticket: asyncio.Future[None]) -> None:
        self.projects.setdefault(project, deque()).append(ticket)

    def take(self) -> asyncio.Future[None] | None:
        """Remove and return the next ticket; its project goes to the end of the queue."""
        while self.projects:
            project, tickets = self.projects.popitem(last=False)
            ticket = tickets.popleft()
            if tickets:
                self.projects[project] = tickets
            if not ticket.done():
                return ticket
        return None

    def __len__(self) -> int:
        return sum(map(len, self.projects.values()))


class Limiter:
    """Lets at most `concurrency` requests run at a time, at the pace that the server allows, in a fair order."""

    def __init__(self, concurrency: int) -> None:
        self._free = concurrency
        self._free_for_large = max(1, concurrency - 1)
        self._small_in_a_row = 0
        self._small, self._bulk, self._files = _Queue(), _Queue(), _Queue()
        self._free_in_storage = STORAGE_CONNECTIONS
        self._stored = _Queue()
        self._next_start = 0.0
        self._interval = 0.0
        self._next_slowdown = 0.0
        self._paused_until = 0.0
        self._left: float | None = None
        self._quota = 0.0
        self._reset_at = 0.0
        self._cost: float | None = None
        self._last_left: float | None = None
        self._answers = 0
        self._wake_timer: asyncio.TimerHandle | None = None
        self._minutes: deque[tuple[int, int]] = deque(maxlen=_MINUTES)

    @asynccontextmanager
    async def slot(self, *, bulk: bool = False, file: bool = False) -> AsyncIterator[None]:
        """Wait for a slot. `bulk` requests go after small ones; a `file` does not count against the server's quota."""
        loop = asyncio.get_running_loop()
        large = bulk or file
        queue = self._files if file else self._bulk if bulk else self._small
        async with self._turn(queue, lambda: self._release(loop, large), lambda: self._serve(loop)):
            yield

    @asynccontextmanager
    async def storage_slot(self) -> AsyncIterator[None]:
        """Wait for a slot of the object stores, which have no quota and their own bound of connections."""
        async with self._turn(self._stored, self._release_storage, self._serve_storage):
            yield

    @asynccontextmanager
    async def _turn(self, queue: _Queue, release: Callable[[], None], serve: Callable[[], None]) -> AsyncIterator[None]:
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.put(asking_for.get(), ticket)
        serve()
        try:
            await ticket
        except asyncio.CancelledError:
            if ticket.done() and not ticket.cancelled():
                release()
            raise
        try:
            yield
        finally:
            release()

    def pause(self, seconds: float) -> None:
        """Hold back every request for this many seconds; a longer pause already under way stays."""
        until = asyncio.get_running_loop().time() + min(seconds, LONGEST_PAUSE)
        self._paused_until = max(self._paused_until, until)

    def refused(self, after: float | None) -> None:
        """Handle a 429: wait for the server's `Retry-After`, or find the pace by trying."""
        if after is not None:
            self.pause(after * random.uniform(1.0, 1.1))  # noqa: S311 - not all processes at the same instant
            return
        now = asyncio.get_running_loop().time()
        # A whole burst may be refused; that counts as too fast only once.
        if now >= self._next_slowdown:
            self._interval = min(LONGEST_INTERVAL, max(FIRST_INTERVAL, self._interval * 2))
            self._next_slowdown = now + self._interval
        self.pause(self._interval * random.uniform(0.5, 1.5))  # noqa: S311

    def learn(self, headers: Mapping[str, str]) -> None:
        """Record an answer's `RateLimit-Remaining` and `RateLimit-Reset` (seconds, possibly fractional)."""
        self._interval = self._interval * 0.95 if self._interval > 0.01 else 0.0
        self._answers += 1
        try:
            left = float(headers["ratelimit-remaining"])
            reset = max(0.0, float(headers.get("ratelimit-reset", "0")))
        except (KeyError, ValueError):
            return
        # A reset beyond an hour is not a duration but a point in time.
        if not (isfinite(left) and reset <= LONGEST_RESET):
            return
        now = asyncio.get_running_loop().time()
        if now >= self._reset_at:
            self._quota, self._last_left = left, None
        self._learn_cost(left)
        self._left, self._quota, self._reset_at = left, max(self._quota, left), now + reset
        if left < (1.0 if self._cost is None else min(1.0, self._cost)):
            self.pause(reset)
        elif left < self._quota * SCARCE:
            self._next_start = max(self._next_start, now + self._share(reset))

    def _learn_cost(self, left: float) -> None:
        """Learn how much quota a request uses, from the answers since the server last reported the rest of it."""
        before, answers = self._last_left, self._answers
        self._last_left, self._answers = left, 0
        if before is None or left > before:
            # The quota was renewed, or answers overtook each other.
            return
        cost = (before - left) / answers
        self._cost = cost if self._cost is None else self._cost + LEARNING * (cost - self._cost)

    def _share(self, seconds: float) -> float:
        """Return the interval between requests that makes the remaining quota last for `seconds`."""
        cost = 1.0 if self._cost is None else self._cost
        return seconds * min(1.0, cost / ((self._left or 0.0) + cost)) if cost else 0.0

    def snapshot(self) -> Budget:
        """Return the current state."""
        now = asyncio.get_running_loop().time()
        minute = int(now // 60)
        waiting: dict[str, int] = {}
        for queue in (self._small, self._bulk, self._files, self._stored):
            for project, tickets in queue.projects.items():
                waiting[project] = waiting.get(project, 0) + sum(not ticket.done() for ticket in tickets)
        known = self._left is not None and now < self._reset_at
        return Budget(
            last_minute=sum(count for at, count in self._minutes if at == minute),
            last_hour=sum(count for at, count in self._minutes if at > minute - _MINUTES),
            left=self._left if known else None,
            cost=self._cost if known else None,
            resets_in_s=self._reset_at - now if known else None,
            paused_for_s=max(0.0, self._paused_until - now),
            waiting={project: count for project, count in waiting.items() if count},
        )

    def _release(self, loop: asyncio.AbstractEventLoop, large: bool) -> None:
        self._free += 1
        self._free_for_large += large
        self._serve(loop)

    def _release_storage(self) -> None:
        self._free_in_storage += 1
        self._serve_storage()

    def _serve_storage(self) -> None:
        while self._free_in_storage > 0 and (ticket := self._stored.take()) is not None:
            self._free_in_storage -= 1
            ticket.set_result(None)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the requests that may start now, and schedule a call for when the next one may."""
        while self._free > 0:
            wait = max(self._paused_until, self._next_start) - loop.time()
            asking = len(self._small) or (self._free_for_large and len(self._bulk))
            if asking and wait <= 0:
                ticket, large = self._next_question()
                if ticket is not None:
                    self._start(loop.time())
            else:
                ticket, large = self._files.take() if self._free_for_large else None, True
                if ticket is None:
                    if asking:
                        self._wake_in(loop, wait)
                    return
            if ticket is not None:
                self._free -= 1
                self._free_for_large -= large
                ticket.set_result(None)

    def _next_question(self) -> tuple[asyncio.Future[None] | None, bool]:
        """Return the next ticket, and True if it is for a page."""
        due = self._free_for_large > 0 and len(self._bulk) > 0 and self._small_in_a_row >= SHARE - 1
        if not due and (ticket := self._small.take()) is not None:
            self._small_in_a_row = self._small_in_a_row + 1 if len(self._bulk) else 0
            return ticket, False
        self._small_in_a_row = 0
        return self._bulk.take() if self._free_for_large else None, True

    def _start(self, now: float) -> None:
        interval = self._interval
        if self._left is not None and now < self._reset_at:
            self._left = max(0.0, self._left - (1.0 if self._cost is None else self._cost))
            if self._left < self._quota * SCARCE:
                interval = max(interval, self._share(self._reset_at - now))
        self._next_start = now + interval
        minute = int(now // 60)
        at, count = self._minutes.pop() if self._minutes and self._minutes[-1][0] == minute else (minute, 0)
        self._minutes.append((at, count + 1))

    def _wake_in(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        if self._wake_timer is not None:
            self._wake_timer.cancel()
        self._wake_timer = loop.call_later(seconds, self._serve, loop)
