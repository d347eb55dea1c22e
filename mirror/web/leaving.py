"""Notices that a client has left while its query waits for its turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.types import Receive

from mirror.web.access import Access, caller
from mirror.web.turns import Turn
from mirror.web.worker import Abandoned


@asynccontextmanager
async def turn_of(access: Access, request: Request, seconds: float) -> AsyncIterator[Turn]:
    """Wait for the turn of a request's caller. Raises Abandoned if the client leaves while it waits."""
    who = caller(request)
    task = asyncio.current_task()
    watching = asyncio.ensure_future(gone(request.receive))
    waits = True

    def stop(_: object) -> None:
        if waits and task is not None and not watching.cancelled():
            task.cancel()

    watching.add_done_callback(stop)
    try:
        async with access.turns.waiting(who.name, seconds, unlimited=who.owner) as turn:
            waits = False
            watching.cancel()
            yield turn
    except asyncio.CancelledError:
        if task is None or not waits or not watching.done() or watching.cancelled():
            raise
        task.uncancel()
        raise Abandoned("the client left") from None
    finally:
        waits = False
        watching.cancel()


async def gone(receive: Receive) -> None:
    """Return when the client has left, after its request was read."""
    while (await receive())["type"] != "http.disconnect":
        pass
