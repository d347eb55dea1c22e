"""An HTTP server that limits its connections, and closes those whose clients keep it waiting."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import uvicorn
from msgspec import Struct
from msgspec.structs import replace
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from mirror.web.certificates import Certificate, wants_tls
from mirror.web.peers import is_this_machine

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("mirror.web")

BACKLOG = 512
"""How many connections the kernel queues until they are accepted."""

_AT_ONCE = 16
"""How many connections one turn of the loop accepts, so that closed ones can free their descriptors in between."""

_CHECK_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0
"""A connection in the middle of a request or response is closed for another one only after this without progress."""

_QUIET_SECONDS = 600.0
"""After this long without a flood of connections, the next flood is logged again."""

_KEY = "mirror.connection"


class Limits(Struct, frozen=True):
    """Limits for the clients of one socket. Times are seconds without progress; None for no limit.

    `head` runs from the connection or the end of the last response until a complete request head has arrived, however
    slowly its bytes come. `body` and `answer` start again with every byte that the client sends or receives.
    """

    connections: int
    head: float = 10.0
    body: float = 30.0
    answer: float | None = 60.0

    def within(self, share: int) -> Limits:
        """These limits, with connections reduced to 1/`share` of the descriptors that this process may open."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = self.connections if soft == resource.RLIM_INFINITY else min(self.connections, soft // share)
        return replace(self, connections=max(most, 1))


class Gate:
    """Serves an application on a listening socket, within limits.

    If there are too many connections, idle ones are closed, the oldest first, so that clients with requests are still
    served. If all connections have requests, further ones wait in the kernel. A flood is logged as one line.
    """

    def __init__(
        self,
        name: str,
        app: ASGIApp,
        limits: Limits,
        *,
        graceful_seconds: int = 1,
        certificate: Certificate | None = None,
    ) -> None:
        """With a `certificate` clients use TLS; those on this machine may do without."""
        self._name = name
        self._certificate = certificate
        self._limits = limits
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiting: dict[_Connection, asyncio.Task[Any]] = {}
        self._listeners: tuple[socket.socket, ...] = ()
        self._accepting = False
        self._retry: asyncio.TimerHandle | None = None
        self._next_check: asyncio.TimerHandle | None = None
        self._flooded_at = float("-inf")
        self._config = uvicorn.Config(
            _watched(app),
            http=H11Protocol,
            log_config=None,
            lifespan="off",
            access_log=False,
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=graceful_seconds,
        )
        self._server = _Quiet(self._config)

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    def stop(self) -> None:
        """Make `serve` end soon; responses in progress get a moment."""
        self._server.end()

    async def serve(self, *listeners: socket.socket) -> None:
        """Accept connections until `stop` is called, then close everything."""
        self._config.load()
        for listener in listeners:
            listener.setblocking(False)
            listener.listen(BACKLOG)
        self._listeners = listeners
        self._resume()
        try:
            await self._server.serve(sockets=[])
        finally:
            self._close()

    def _close(self) -> None:
        self._pause()
        self._listeners = ()
        for timer in (self._retry, self._next_check):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.cancel()
        for connection in list(self._open):
            if connection.made:
                connection.transport.abort()

    def _accept(self, listener: socket.socket) -> None:
        """Accept waiting connections.

        asyncio's own server is not used, since it logs and retries for each connection that gets no descriptor.
        """
        loop = asyncio.get_running_loop()
        spare: list[_Connection] | None = None
        for _ in range(_AT_ONCE):
            if not self._listeners or self._server.should_exit:
                self._pause()
                return
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._log_flood(f"no connection to {self._name} can be accepted: {error.strerror or error}")
                self._pause()
                self._retry = loop.call_later(_RETRY_SECONDS, self._resume)
                return
            accepted.setblocking(False)
            connection = _Connection(self, self._config, self._server.server_state)
            self._open.add(connection)
            task = loop.create_task(self._connect(connection, accepted))
            self._tasks.add(task)
            self._waiting[connection] = task
            task.add_done_callback(self._tasks.discard)
            if len(self._open) > self._limits.connections:
                self._log_flood(
                    f"{self._name} has more than {self._limits.connections} connections at once; idle ones are closed"
                )
                # Once for all of this turn: the connections that it accepts are not made before it ends.
                spare = self._spare() if spare is None else spare
                if not self._make_room(spare):
                    self._pause()
                    return

    async def _connect(self, connection: _Connection, accepted: socket.socket) -> None:
        try:
            context = await self._tls(accepted) if self._certificate is not None else None
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=context,
                ssl_handshake_timeout=None if context is None else self._limits.head,
            )
        except (OSError, TimeoutError, asyncio.CancelledError):
            # The client has closed it already, said nothing, or was closed to make room.
            accepted.close()
            self.forget(connection)
        finally:
            self._waiting.pop(connection, None)

    async def _tls(self, accepted: socket.socket) -> ssl.SSLContext | None:
        """The certificate for a client that uses TLS. Raises ConnectionError if one of another machine does not."""
        assert self._certificate is not None
        if await wants_tls(accepted, self._limits.head):
            return self._certificate.context()
        if not is_this_machine(accepted.getpeername()[0]):
            raise ConnectionAbortedError("a request of another machine without TLS")
        return None

    def _spare(self) -> list[_Connection]:
        """The connections that may be closed, the ones to close first at the end: unused ones, then the oldest."""
        now = asyncio.get_running_loop().time()
        spare = [one for one in self._open if one.made and one.can_be_spared(now)]
        return sorted(spare, key=lambda one: (one.requests > 0, one.since), reverse=True)

    def _make_room(self, spare: list[_Connection]) -> bool:
        """Close one connection: one that has not begun, else one of `spare`. Returns False if all are in use."""
        if self._certificate is not None and len(self._waiting) > 1:
            oldest, task = next(iter(self._waiting.items()))
            if not oldest.made:
                task.cancel()
                del self._waiting[oldest]
                self._open.discard(oldest)
                return True
        if not spare:
            return False
        victim = spare.pop()
        self._open.discard(victim)
        victim.transport.abort()
        return True

    def forget(self, connection: _Connection) -> None:
        """Forget a closed connection, and accept others again."""
        self._open.discard(connection)
        if not self._accepting and self._retry is None and len(self._open) <= self._limits.connections:
            self._resume()

    def look_after(self) -> None:
        """Check every second, while there are connections, how long their clients keep the server waiting."""
        if self._next_check is None:
            self._next_check = asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._check)

    def _check(self) -> None:
        self._next_check = None
        now = asyncio.get_running_loop().time()
        for connection in list(self._open):
            if connection.made and connection.is_overdue(now, self._limits):
                connection.transport.abort()
        if self._open:
            self.look_after()

    def _resume(self) -> None:
        self._retry = None
        if self._listeners and not self._accepting:
            self._accepting = True
            for listener in self._listeners:
                asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _pause(self) -> None:
        if self._listeners and self._accepting:
            self._accepting = False
            for listener in self._listeners:
                asyncio.get_running_loop().remove_reader(listener)

    def _log_flood(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._flooded_at > _QUIET_SECONDS:
            log.warning("%s; passes and commands continue, further such connections are not logged", reason)
        self._flooded_at = now


class _Connection(H11Protocol):
    """One connection, and since when the server has been waiting for its client."""

    def __init__(self, gate: Gate, config: uvicorn.Config, state: Any) -> None:
        super().__init__(config, state, {_KEY: self})
        self._gate = gate
        self.made = False
        self.requests = 0
        self.busy = 0
        self.wants_body = False
        self.since = asyncio.get_running_loop().time()
        self._unsent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to wait for a request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.made = True
        self._gate.look_after()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the gate that there is room for another one."""
        super().connection_lost(exc)
        self._gate.forget(self)

    def data_received(self, data: bytes) -> None:
        """Pass on received bytes. They count as progress in the body of a request, but not in its head."""
        if self.wants_body:
            self.since = asyncio.get_running_loop().time()
        super().data_received(data)

    def can_be_spared(self, now: float) -> bool:
        """Return True if the connection is idle, or has made no progress for a while in a request or response."""
        unsent = self.transport.get_write_buffer_size()
        if self.busy or unsent:
            return bool(self.wants_body or unsent) and now - self.since > _PATIENCE_SECONDS
        return True

    def is_overdue(self, now: float, limits: Limits) -> bool:
        """Return True if this client has kept the server waiting for too long."""
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self.since = unsent, now
            return False
        if unsent:
            return limits.answer is not None and now - self.since > limits.answer
        if self.busy:
            return self.wants_body and now - self.since > limits.body
        return now - self.since > limits.head


def _watched(app: ASGIApp) -> ASGIApp:
    """Wrap the application so that each connection knows whether it waits for its client."""

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        connection: _Connection = scope["state"].pop(_KEY)
        # For answers that fail half-way: without their end, no client takes them for complete.
        scope["mirror.cut"] = connection.transport.abort
        now = asyncio.get_running_loop().time
        connection.requests += 1
        connection.busy += 1
        complete = False

        async def received() -> Message:
            nonlocal complete
            if not complete:
                connection.wants_body, connection.since = True, now()
            try:
                message = await receive()
            finally:
                connection.wants_body = False
            complete = complete or not message.get("more_body", False)
            return message

        try:
            await app(scope, received, send)
        finally:
            connection.busy -= 1
            connection.since = now()

    return watched


class _Quiet(uvicorn.Server):
    """A server that leaves signals to the daemon, and ends as soon as `end` is called.

    uvicorn's own main loop polls ten times a second whether it should end, even in an idle daemon.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Start the shutdown."""
        self.should_exit = True
        self._ending.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        # The tick once a second updates the date in the headers.
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._ending.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's signature
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while state.connections or state.tasks:  # noqa: ASYNC110 - there is no event for their end
                    await asyncio.sleep(0.005)
        for task in state.tasks:
            task.cancel()
