"""A thousand clients of the query API that read slowly, or not at all, do not slow the passes."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest

from mirror.control import Control
from tests.daemon.conftest import Bench
from tests.web.test_flood import many_descriptors

__all__ = ["many_descriptors"]

pytestmark = pytest.mark.soak

CLIENTS = 1000
PASSES = 10
PAUSE = 10.0
"""Seconds until a client that was refused or disconnected comes back."""

QUERY = json.dumps({"sql": "SELECT repeat('x', 1000) AS t FROM range(8000)", "limit": 8000}).encode()
CONFIG = """projects = ["team/p"]
[sync]
interval = "1h"
live_interval = "1h"
[http]
listen = "127.0.0.1:0"
rate = 1000000
"""


class Crowd:
    """Clients that ask for 8 MB each, read a little now and then, and come back when they are disconnected."""

    def __init__(self, url: str, token: str) -> None:
        self.place = (urlsplit(url).hostname, urlsplit(url).port)
        self.request = (
            f"POST /api/query HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nAccept: text/csv\r\n"
            f"Content-Length: {len(QUERY)}\r\n\r\n"
        ).encode() + QUERY
        self.answered = 0
        self.refused = 0
        self.enough = asyncio.Event()

    async def client(self) -> None:
        while True:
            with suppress(OSError):
                await self.ask()
            await asyncio.sleep(PAUSE)

    async def ask(self) -> None:
        reader, writer = await asyncio.open_connection(*self.place, limit=4096)
        try:
            writer.write(self.request)
            status = await reader.read(12)
            self.answered += status.endswith(b"200")
            self.refused += status.endswith(b"429")
            if self.answered >= 50:
                self.enough.set()
            while await reader.read(2048):  # noqa: ASYNC110 - so that it is slow
                await asyncio.sleep(0.5)
        finally:
            writer.close()

    async def everybody(self) -> None:
        await asyncio.gather(*(self.client() for _ in range(CLIENTS)))


def seconds_of_passes(bench: Bench) -> float:
    """How long these passes take, each with something new."""
    started = time.monotonic()
    for _ in range(PASSES):
        bench.world.add_run("team", "p").log({"loss": 1.0})
        bench.pull()
    return time.monotonic() - started


def test_a_thousand_slow_clients_do_not_slow_the_passes(bench: Bench) -> None:
    bench.configure(text=CONFIG)
    bench.world.add_run("team", "p").log({"loss": 1.0})
    token = bench.mirror("token", "add", "crowd").stdout.strip()
    with bench.daemon():
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
        url = Control(bench.home / "mirror.sock").status()["http"]["url"]
        alone = seconds_of_passes(bench)

        async def among_them() -> tuple[Crowd, float]:
            crowd = Crowd(url, token)
            clients = asyncio.ensure_future(crowd.everybody())
            try:
                await crowd.enough.wait()
                return crowd, await asyncio.to_thread(seconds_of_passes, bench)
            finally:
                clients.cancel()

        crowd, together = asyncio.run(among_them())
        print(f"alone {alone:.2f} s, among them {together:.2f} s; {crowd.answered} answers, {crowd.refused} times 429")
        assert together < 3 * alone + 5
        assert httpx.get(f"{url}/api/state").status_code == 401
