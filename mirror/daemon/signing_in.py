"""Signs in at the start and after a change of the key: whether the server accepts the key, and whose it is."""

from __future__ import annotations

import asyncio
import logging

from mirror.daemon.clients import Clients
from mirror.errors import AuthError, CommError

log = logging.getLogger("mirror.daemon")

KEY_PATIENCE = 15.0
"""Seconds that the start waits for the server to accept the key; after that a pass finds out that it is wrong."""


class SignIn:
    """The owner of the current key: `username` is None until the server has named it."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self.username: str | None = None

    async def check(self) -> None:
        """Sign in. Raises AuthError for a wrong key; a server that cannot be reached or is slow is only logged."""
        try:
            await self._sign_in()
        except AuthError:
            raise
        except CommError as error:
            log.warning("%s; retrying on schedule", error)
        except TimeoutError:
            log.warning("%s does not answer; retrying on schedule", self._clients.current.base_url)

    async def again(self) -> None:
        """Sign in and only log failures: passes report a wrong key or an unreachable server themselves."""
        try:
            await self._sign_in()
        except CommError as error:
            log.warning("%s", error)
        except TimeoutError:
            log.warning("%s does not answer; retrying on schedule", self._clients.current.base_url)

    async def _sign_in(self) -> None:
        async with self._clients.borrowed() as server, asyncio.timeout(KEY_PATIENCE):
            viewer = await server.viewer()
            if server is self._clients.current:
                self.username = viewer.get("username")
                log.info("signed in to %s as %s", server.base_url, self.username)
