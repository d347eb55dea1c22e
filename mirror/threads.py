"""Threads that do not keep the process from ending: whatever they wait for may never answer, as a network folder.

Python waits at its exit for the threads of its own pools. These are daemons.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")

PATIENCE = 2.0
"""Seconds that the end of a pool waits for what its threads do."""

_Work = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads(ThreadPoolExecutor):
    """At most `most` threads, started when needed. The event loop takes it as its own pool, too."""

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most, name)
        self._most = most
        self._name = name
        self._given: SimpleQueue[_Work | None] = SimpleQueue()
        self._free = threading.Semaphore(0)
        self._guard = threading.Lock()
        self._started: list[threading.Thread] = []
        self._ended = False

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """Have a thread call the function."""
        future: Future[Result] = Future()
        with self._guard:
            if self._ended:
                raise RuntimeError("the threads have ended")
            if not self._free.acquire(blocking=False) and len(self._started) < self._most:
                self._start()
            self._given.put((future, lambda: fn(*args, **kwargs)))
        return future

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The system allows no more; those that there are do it.
            if not self._started:
                raise
        else:
            self._started.append(thread)

    def _run(self) -> None:
        while (given := self._given.get()) is not None:
            _do(*given)
            del given
            self._free.release()
        self._given.put(None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads, and wait for them no longer than PATIENCE. What has not begun is cancelled if they hang."""
        with self._guard:
            self._ended = True
        if cancel_futures:
            self._cancel_waiting()
        self._given.put(None)
        until = time.monotonic() + PATIENCE
        for thread in self._started if wait else ():
            thread.join(max(0.0, until - time.monotonic()))
        if wait and any(thread.is_alive() for thread in self._started):
            self._cancel_waiting()
            self._given.put(None)

    def _cancel_waiting(self) -> None:
        while not self._given.empty():
            if (given := self._given.get()) is not None:
                given[0].cancel()


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - raised where it is awaited
        future.set_exception(error)
    else:
        future.set_result(result)


async def in_thread(work: Callable[[], Result], unwanted: Callable[[Result], object] = lambda _: None) -> Result:
    """Return what `work` returns in a thread of its own; if this is cancelled, that is passed to `unwanted` instead."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            with suppress(InvalidStateError):
                future.set_exception(error)
            return
        try:
            future.set_result(result)
        except InvalidStateError:
            unwanted(result)

    threading.Thread(target=run, name="download", daemon=True).start()
    return await asyncio.wrap_future(future)
