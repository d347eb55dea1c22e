"""Questions to a server that wants to be left alone for a while."""

from __future__ import annotations

import asyncio
import time

from mirror.remote.client import Server
from mirror.sandbox import Sandbox, World
from tests.sync.rig import HASTY


def test_a_server_that_is_down_is_asked_again_when_it_said_by_nobody_sooner():
    async def go(sandbox):
        async with Server(sandbox.url, sandbox.key, retry=HASTY) as server:
            begun = time.monotonic()
            asked = asyncio.create_task(server.viewer())
            while not sandbox.faults.counts["503"]:  # noqa: ASYNC110 - the sandbox runs in another thread
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            paused = server.limiter.snapshot().paused_for_s
            await asyncio.gather(asked, server.viewer())
            return paused, time.monotonic() - begun

    with Sandbox(World()) as sandbox:
        sandbox.faults.add("503", times=1, retry_after=0.7)
        paused, seconds = asyncio.run(go(sandbox))
        assert 0.1 < paused <= 0.7
        assert seconds >= 0.7
        assert sandbox.requests["Viewer"] == 3
