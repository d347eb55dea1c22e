"""Slows down who tries tokens: an address that sends many wrong ones is refused for a while."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict

from mirror.web.refusal import Refused

log = logging.getLogger("mirror.web")

MOST_WRONG = 30
"""How many wrong tokens an address may send at once."""

SECONDS = 2.0
"""After this many seconds it may send another one."""

_QUIET_SECONDS = 600.0
"""An address is logged again only after this."""

_MOST_ADDRESSES = 10_000
_MOST_KNOWN = 10_000


class Guesses:
    """The addresses that sent wrong tokens, and the tokens that were used from an address before these.

    The latter stay usable: behind a proxy or a router, many people have one address. Used in one event loop.
    """

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._logged: dict[str, float] = {}
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def note(self, address: str) -> None:
        """Count a wrong token. Raises Refused if the address sent too many."""
        self._refuse(address)
        self._wrong[address] = (self._left(address) - 1, time.monotonic())
        self._wrong.move_to_end(address)
        while len(self._wrong) > _MOST_ADDRESSES:
            self._logged.pop(self._wrong.popitem(last=False)[0], None)

    def check(self, address: str, token: str) -> None:
        """Raise Refused for a token that is used from such an address for the first time."""
        if (address, token) not in self._known:
            self._refuse(address)
            self._known[address, token] = None
        self._known.move_to_end((address, token))
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    def _left(self, address: str) -> float:
        left, counted_at = self._wrong.get(address, (float(MOST_WRONG), 0.0))
        return min(left + (time.monotonic() - counted_at) / SECONDS, float(MOST_WRONG))

    def _refuse(self, address: str) -> None:
        left = self._left(address)
        if left < 1:
            if time.monotonic() - self._logged.get(address, float("-inf")) > _QUIET_SECONDS:
                self._logged[address] = time.monotonic()
                log.warning("too many wrong tokens came from %s; it is refused for a while", address or "a client")
            wait = (1 - left) * SECONDS
            raise Refused(429, "too many wrong tokens came from this address", "check the token, then try again", wait)
