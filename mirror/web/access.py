"""Who may read what: finds the caller of a request by its token, and what this caller reads.

An application behind `TokenGuard` calls `caller(request)`, and reads the mirror through `Access.reader(caller)`.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mirror.errors import MirrorError
from mirror.patterns import fitting
from mirror.settings.home import Home
from mirror.settings.tokens import Token, Tokens
from mirror.web import guard
from mirror.web.guesses import Guesses
from mirror.web.refusal import Refused, response
from mirror.web.scopes import Scopes
from mirror.web.snapshots import Snapshots
from mirror.web.statements import Statements
from mirror.web.token import matches
from mirror.web.turns import AT_ONCE, RATE, Turns

log = logging.getLogger("mirror.web")

NICE = 10
"""Queries of others give way to the passes and the page where the processor is short."""

OWNER = "the owner"
_STATE = "mirror.caller"


class Caller(Struct, frozen=True):
    """Who sent a request: the name of the token, and the patterns of projects that it may read, None for all.

    `owner` is True for the home's own token.
    """

    name: str
    projects: tuple[str, ...] | None = None
    owner: bool = False

    def check(self, project: str) -> None:
        """Raise Refused if this caller may not read the project."""
        if (
            self.projects is not None
            and "/" in project
            and not any(fitting(pattern, [project]) for pattern in self.projects)
        ):
            raise Refused(403, f"this token may not read {project}", f"it may read {', '.join(self.projects)}")


class Reader(Struct, frozen=True):
    """What a caller reads: a pool of snapshots, and the workers that answer questions over the same file."""

    snapshots: Snapshots
    statements: Statements

    def version(self) -> str:
        """The version of the file that is read; "" if nothing was published yet."""
        return self.snapshots.version()


class Access:
    """Knows the tokens, and has the readers of all callers. Used in one event loop."""

    def __init__(self, home: Home, key: str, snapshots: Snapshots, rate: int = RATE) -> None:
        """`key` is the home's own token, `snapshots` what the page reads; `rate` is as in `Turns`."""
        self.page = snapshots
        self._home = home
        self._key = key
        self._tokens = Tokens(home.tokens)
        self._scopes = Scopes(home, NICE)
        self._copying = ThreadPoolExecutor(2, thread_name_prefix="web-scopes")
        self._being_made: dict[tuple[str, ...], asyncio.Future[Snapshots]] = {}
        self._guesses = Guesses()
        # Workers of their own: queries from elsewhere do not make the page wait.
        self._everything = Reader(snapshots, Statements(home, workers=AT_ONCE, nice=NICE))
        self.turns = Turns(rate)
        # Scripts for the official SDK have turns of their own, since they send many small requests.
        self.sdk_turns = Turns(rate)
        self.pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="web-queries")

    @property
    def spool_folder(self) -> Path:
        """Where answers wait for slow clients."""
        return self._home.data

    @property
    def blobs(self) -> Path:
        """Where the content of files is."""
        return self._home.blobs

    def find(self, secret: str, address: str) -> Caller:
        """The caller with this token. Raises Refused if there is none.

        An address that sends many wrong tokens is refused for a while.
        """
        if matches(secret, self._key):
            return Caller(OWNER, owner=True)
        if not secret:
            raise Refused(
                401, "the token is missing", "send `Authorization: Bearer TOKEN`; `mirror token add` makes one"
            )
        try:
            token = self._tokens.find(secret)
        except MirrorError as error:
            message, _, hint = str(error).partition("; ")
            raise Refused(503, message, hint) from error
        if token is None:
            self._guesses.note(address)
            raise Refused(
                401, "the token is wrong", "`mirror token list` shows the tokens; `mirror token add` makes one"
            )
        self._guesses.check(address, token.name)
        state = token.state(datetime.now(UTC))
        if state != "valid":
            raise Refused(401, f"the token {token.name} is {state}", "`mirror token add` makes another one")
        if token.is_use_to_note(datetime.now(UTC)):
            self._copying.submit(self._note_use, token)
        return Caller(token.name, token.projects or None)

    async def reader(self, who: Caller) -> Reader:
        """What this caller reads.

        For a caller with some projects, this may wait for a copy of the published file; if making one takes long, the
        former one is read in the meantime. Raises Refused if nothing was published yet, and StoreError if no copy can
        be made.
        """
        if not self._everything.version():
            raise Refused(503, "nothing is mirrored yet", "try again after the first pass of the daemon", 30)
        if who.projects is None:
            return self._everything
        found = self._scopes.current(who.projects)
        if found is None:
            found, is_being_made = self._scopes.former(who.projects)
            if not is_being_made:
                making = self._copy(who.projects)
                # Others wait for the same copy, also when this one leaves.
                found = found or await asyncio.shield(making)
            assert found is not None
        return Reader(found, found.statements)

    def _copy(self, projects: tuple[str, ...]) -> asyncio.Future[Snapshots]:
        """Make the newest copy of these projects: once for all who wait for it, or they would take all threads."""
        key = tuple(sorted(projects))
        making = self._being_made.get(key)
        if making is None:
            making = asyncio.get_running_loop().run_in_executor(self._copying, self._scopes.newest, projects)
            self._being_made[key] = making
            making.add_done_callback(lambda _: self._being_made.pop(key))
        return making

    def close_idle(self) -> None:
        """Close what nobody uses any more. Blocks for a moment."""
        self._scopes.close_idle()

    def _note_use(self, token: Token) -> None:
        try:
            self._tokens.note_use(token)
        except MirrorError as error:
            log.warning("%s", error)

    def close(self) -> None:
        """End the workers, and delete the copies."""
        self._everything.statements.close()
        self._scopes.stop()
        self._copying.shutdown(wait=True, cancel_futures=True)
        self._scopes.close()
        self.pool.shutdown(wait=False)


def caller(request: HTTPConnection) -> Caller:
    """The caller of a request that has passed a TokenGuard."""
    found: Caller = request.scope[_STATE]
    return found


class TokenGuard:
    """Passes a request on if it carries a token, in `Authorization`, as Bearer or as the password of Basic.

    Refuses requests of other origins and, without a token, all but those with a loopback Host header. A valid token may
    come from any machine, under any name of this one.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on with its caller."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        app = self._app
        try:
            scope[_STATE] = self._caller(scope, headers)
        except MirrorError as error:
            app = response(error)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                out.setdefault("cache-control", "no-store")
                out["x-content-type-options"] = "nosniff"
            await send(message)

        await app(scope, receive, guarded)

    def _caller(self, scope: Scope, headers: Headers) -> Caller:
        sent = headers.get("authorization", "")
        if not sent and not guard.is_local(headers):
            raise Refused(
                421, "without a token, this port only answers to localhost", "send `Authorization: Bearer TOKEN`"
            )
        if guard.is_elsewhere(headers):
            raise Refused(403, "requests from other origins are refused", "send them from a program, not from a page")
        return self._access.find(guard.password(sent), scope["client"][0] if scope.get("client") else "")
