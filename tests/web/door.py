"""The port of a mirror, served in this process by a loop of its own, as the daemon serves it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from mirror.settings.home import Home
from mirror.web.listener import Listener


class Door:
    """An open port, and a client of it with the home's own token."""

    def __init__(self, home: Home, **more: Any) -> None:
        self.home = home
        self.loop = asyncio.new_event_loop()
        self.listener = Listener(home, dict, **more)
        # One client, since making another reads all certificates of the machine again.
        self._client = httpx.Client(timeout=60)
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def listen(self, address: str = "127.0.0.1:0", **more: Any) -> None:
        self.run(self.listener.listen_on(address, **more))

    @property
    def url(self) -> str:
        found = self.listener.status()
        assert found["error"] is None, found
        return str(found["url"])

    @property
    def token(self) -> str:
        return self.home.web_token.read_text().strip()

    def ask(self, method: str, path: str, token: str | None = None, headers: Any = None, **more: Any) -> httpx.Response:
        """Send a request with a token: the home's own, unless another or none ("") is named."""
        sent = {"Authorization": f"Bearer {token or self.token}"} if token != "" else {}
        return self._client.request(method, f"{self.url}{path}", headers={**sent, **(headers or {})}, **more)

    def query(self, asked: Any, accept: str = "application/json", **more: Any) -> httpx.Response:
        return self.ask("POST", "/api/query", json=asked, headers={"Accept": accept}, **more)

    def close(self) -> None:
        self._client.close()
        self.run(self.listener.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@contextmanager
def opened(home: Home, **more: Any) -> Iterator[Door]:
    door = Door(home, **more)
    try:
        door.listen()
        yield door
    finally:
        door.close()
