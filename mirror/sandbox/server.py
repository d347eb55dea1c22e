"""A running sandbox: a world that is served on a port of this machine."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import uvicorn

from mirror.sandbox import schema
from mirror.sandbox.app import Api, Gate
from mirror.sandbox.artifact_fields import KINDS
from mirror.sandbox.context import Context
from mirror.sandbox.documents import Documents
from mirror.sandbox.faults import Faults
from mirror.sandbox.limits import Limit
from mirror.sandbox.listing import Listing
from mirror.sandbox.resolvers import RESOLVERS
from mirror.sandbox.signing import Signer
from mirror.sandbox.world import World


class Sandbox:
    """Serves a world on 127.0.0.1 from its own thread, between `start` and `stop` or in a `with` block.

    `port` 0 means a free one. `rate_limit` is in requests per second. `features` turns off what older servers lack
    (see schema.FEATURE_FIELDS and FILTER_COLUMNS). `url_lifetime` is how many seconds a signed address is valid,
    `console_bytes` the most bytes of a run's console in one answer.
    """

    def __init__(
        self,
        world: World,
        key: str | None = None,
        port: int = 0,
        rate_limit: float | None = None,
        *,
        features: Mapping[str, bool] | None = None,
        url_lifetime: float = 3600.0,
        console_bytes: int = 1_000_000,
        seed: int = 0,
    ) -> None:
        self.world = world
        self.key = key or secrets.token_hex(20)
        chosen = dict(features or {})
        absent = schema.missing_fields(chosen)
        refused = {column for name, column in schema.FILTER_COLUMNS.items() if not chosen.get(name, True)}
        self._context = Context(world, Listing(refused), Signer(url_lifetime), chosen, console_bytes=console_bytes)
        self._gate = Gate(self.key, Limit(rate_limit) if rate_limit else None, Faults(seed))
        self._app = Api(self._context, Documents(schema.load(absent), RESOLVERS, KINDS), self._gate).app()
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL; empty until the server is started."""
        return self._context.url

    @property
    def faults(self) -> Faults:
        """The faults to inject."""
        return self._gate.faults

    @property
    def requests(self) -> Counter[str]:
        """Requests by operation: the name in the GraphQL document, or file_stream, parquet, file, upload."""
        return self._gate.requests

    @property
    def sent(self) -> Counter[str]:
        """Bytes of the bodies of complete answers, by operation."""
        return self._gate.sent

    @property
    def storage_url(self) -> str:
        """The base of signed addresses: a different host from the API's, as an object store has."""
        return self._context.storage_url

    def reset_counts(self) -> None:
        """Reset the counts of requests, bytes and faults."""
        self._gate.requests.clear()
        self._gate.sent.clear()
        self._gate.faults.counts.clear()

    def start(self) -> Self:
        """Listen, and return when requests are accepted. Raises OSError if the port is not free."""
        listeners = [_bound(self._port), _bound(0)]
        self._context.url, self._context.storage_url = (
            f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in listeners
        )
        config = uvicorn.Config(
            self._app,
            log_level="critical",
            access_log=False,
            lifespan="off",
            ws="none",
            loop="asyncio",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            server_header=False,
            date_header=False,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": listeners}, name="wandb-sandbox", daemon=True
        )
        self._thread.start()
        while not self._server.ready.wait(0.1):
            if not self._thread.is_alive():
                raise RuntimeError(f"the sandbox server did not start at {self.url}")
        return self

    def stop(self) -> None:
        """Stop listening and wait for the thread; current requests get a second to finish."""
        if self._server is not None and self._thread is not None:
            self._server.end()
            self._thread.join(timeout=5)
            self._server = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Server(uvicorn.Server):
    """Starts and stops at once, whereas uvicorn checks ten times a second whether to stop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def end(self) -> None:
        """Start the shutdown, from another thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ending.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.ready.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._ending.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - the base class's signature
        for server in self.servers:
            server.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        ends = asyncio.get_running_loop().time() + (self.config.timeout_graceful_shutdown or 0)
        while (state.connections or state.tasks) and asyncio.get_running_loop().time() < ends:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.002)
        for task in state.tasks:
            task.cancel()


def _bound(port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off only for sockets that specify TCP; with it, each answer took 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.close()
        raise
    return listener
