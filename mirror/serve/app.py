"""The endpoint itself: `POST /graphql` from the mirror, everything else from the real server.

Official clients read the same here as from the server. Changes are forwarded to the real server, or refused; so are
requests for what the mirror does not hold: content that is not mirrored, artifacts, other projects.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import orjson
from msgspec import Struct, field
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mirror.errors import CommError, MirrorError
from mirror.metrics import STEP
from mirror.remote.errors import Unanswered
from mirror.serve import ARTIFACTS, documents
from mirror.serve.answers import HANDLERS, error_answer, json_answer
from mirror.serve.artifact_files import MANIFESTS
from mirror.serve.artifact_files import content as artifact_content
from mirror.serve.bodies import parsed, text_of, whole_body
from mirror.serve.changes import Changes
from mirror.serve.context import SECONDS, Context, RunPath
from mirror.serve.documents import NotPulled, NotServed, Operation, ServerKnowsBetter, Write
from mirror.serve.edits import Edits
from mirror.serve.files import content
from mirror.serve.guard import KeyGuard, raw_path
from mirror.serve.history_fields import ANY_VERSION, ExportsUnknown
from mirror.serve.pages import continues_list
from mirror.serve.readers import Readers
from mirror.serve.resolvers import RESOLVERS
from mirror.serve.runs import Listings
from mirror.serve.signing import Signer
from mirror.serve.touched import ended_run
from mirror.serve.upstream import FAILS, FORWARDED, REFUSES, MirrorOnly, Upstream
from mirror.snapshot.connection import refusal
from mirror.wandb_json import UNREADABLE, loads
from mirror.web.access import Access
from mirror.web.snapshots import Snapshots
from mirror.web.statements import unless_left

log = logging.getLogger("mirror.serve")

_THREADS = 4
_CLIENTS = ("W&B Public Client", "wandb-core")
_SCANS = frozenset({"RunParquetHistory", "HistoryPage"})
T = TypeVar("T")

_TRIES = 3
"""How often a request is tried again because a newer snapshot was published meanwhile."""

_SERVER_KNOWS_BETTER = frozenset({"viewer"})
"""Fields that the mirror can only guess: requested from the server while it can be reached, and remembered."""

_REMEMBERED = 32
_FRESH_SECONDS = 600.0
"""How long an answer of the server is reused: the user seldom changes, and each script asks twice."""


class Policy(Struct, frozen=True):
    """The mirrored server, whether writes are forwarded to it, the default entity, and the user of the key.

    `of_token` is True for callers with a token of the mirror, which only reads what is mirrored.
    """

    base_url: str
    writes: bool = True
    entity: str | None = None
    username: str | None = None
    of_token: bool = False


class _NewerSnapshot(Exception):
    """A newer snapshot was published during the request."""


class _Options(Struct, frozen=True):
    """How to answer a request: the endpoint's address, the cancel event, and three settings of the context."""

    base_url: str
    cancelled: threading.Event
    without_server: bool
    scans: bool
    waited: bool


class Endpoint(Struct):
    """The request handlers and their shared state."""

    snapshots: Snapshots
    upstream: Upstream
    policy: Callable[[], Policy]
    signer: Signer
    changes: Changes
    listings: Listings = field(default_factory=Listings)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="serve"))
    remembered: OrderedDict[tuple[str, str, bytes], tuple[float, bytes]] = field(default_factory=OrderedDict)

    async def graphql(self, request: Request) -> Response:
        """POST /graphql"""  # noqa: D400, D415
        body = await whole_body(request)
        # A script first asks for the viewer, then for runs.
        self.snapshots.statements.warm()
        text = body
        try:
            text = text_of(body, request.headers.get("content-encoding", ""))
            operation, variables = parsed(text)
            if operation.roots & _SERVER_KNOWS_BETTER:
                return await self._server_first(request, body, operation, variables)
            if operation.schema_question is not None:
                return await self._answer_schema_question(request, body, operation, variables)
            return await self._answer(request, body, operation, variables, continues=continues_list(text))
        except Write:
            return await self._write(request, body, text)
        except NotServed as missing:
            if continues_list(text):
                return error_answer(f"{missing}; ask for the first page of the list again", 400)
            return await self._forward(request, body, str(missing))
        except MirrorError as error:
            return error_answer(str(error), 400)

    async def artifact(self, request: Request) -> Response:
        """Handle the addresses of files of artifacts."""
        path = raw_path(request.scope)
        found = await self._in_pool(partial(self._artifact_content, path))
        if found is not None:
            return found
        if path.startswith(MANIFESTS):
            return error_answer("the files of this artifact are not mirrored any more; ask for it again", 404)
        return await self._forward(request, b"", "the content of this file is not mirrored")

    def _artifact_content(self, path: str) -> Response | None:
        with self.snapshots.connection(SECONDS) as connection:
            return artifact_content(connection, path)

    async def rest(self, request: Request) -> Response:
        """Handle /files/: files of runs, and the streams that runs log to."""
        if request.method in ("GET", "HEAD"):
            content, changed_since = await self._in_pool(partial(self._file, request.path_params["path"]))
            if content is None:
                return await self._forward(request, b"", "the content of this file is not mirrored")
            if changed_since:
                with suppress(CommError):
                    return await self._send(request, b"")
            return content
        return await self._write(request, await whole_body(request), b"")

    async def _answer(
        self,
        request: Request,
        body: bytes,
        operation: Operation,
        variables: Any,
        *,
        continues: bool,
        waited: bool = False,
    ) -> Response:
        """Answer from the mirror; ask the server first where it knows better, or for what the mirror needs to know.

        `continues` is True if the request continues a list that began here, which the server could not continue, and
        `waited` if edits were waited for.
        """
        try:
            return await self._answer_from_mirror(
                request, operation, variables, without_server=continues, waited=waited
            )
        except NotPulled as edited:
            await self.changes.pulled(edited.path)
            return await self._answer(request, body, operation, variables, continues=continues, waited=True)
        except ExportsUnknown as unknown:
            learned = await self._exported_to(request, body)
            last = None if learned is None else min(learned, unknown.last_step)
            self.listings.exported.keep(ANY_VERSION, unknown.rid, (last, time.monotonic()))
            return await self._answer_from_mirror(request, operation, variables, without_server=True)
        except ServerKnowsBetter as better:
            answer = await self.upstream.better(request, body, better.seconds)
            if answer is not None:
                return answer
            return await self._answer_from_mirror(request, operation, variables, without_server=True)

    async def _answer_from_mirror(
        self,
        request: Request,
        operation: Operation,
        variables: Any,
        *,
        without_server: bool = False,
        waited: bool = False,
    ) -> Response:
        cancelled = threading.Event()
        # Only newer official clients name the operation, and read exported files beside pages of a history.
        scans = operation.named in _SCANS and request.headers.get("user-agent", "").startswith(_CLIENTS)
        base_url = str(request.base_url).rstrip("/")
        options = _Options(base_url, cancelled, without_server=without_server, scans=scans, waited=waited)
        return await unless_left(
            request.receive, self._in_pool(partial(self._execute, operation, variables, options)), cancelled
        )

    def _in_pool(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self.pool, work)

    def _execute(self, operation: Operation, variables: Any, options: _Options) -> Response:
        for _ in range(_TRIES):
            with suppress(_NewerSnapshot):
                return self._execute_once(operation, variables, options, exactly=True)
        return self._execute_once(operation, variables, options, exactly=False)

    def _execute_once(self, operation: Operation, variables: Any, options: _Options, *, exactly: bool) -> Response:
        """Answer from one snapshot. With `exactly`, raises _NewerSnapshot if a list came from a newer snapshot."""
        import duckdb

        policy = self.policy()
        # Read before the connection is opened: what is remembered may be newer than its version, never older.
        version = self.snapshots.version()

        def ask(question: str, arguments: Mapping[str, Any]) -> bytes:
            answer = self.snapshots.statements.ask(question, arguments, SECONDS, options.cancelled)
            if exactly and answer.version != version:
                raise _NewerSnapshot
            return answer.content

        with self.snapshots.connection(SECONDS) as connection:
            context = Context(
                connection,
                version,
                self.listings,
                ask,
                policy.entity,
                policy.username,
                read_only=not policy.writes,
                base_url=options.base_url,
                server_url=policy.base_url,
                without_server=options.without_server,
                scans=options.scans,
                sign=self.signer.sign,
                touched=self.changes.touched.when,
                refresh_files=self.changes.refresh_files,
                unpulled=self.changes.unpulled,
                waited=options.waited,
                of_token=policy.of_token,
            )
            try:
                data, errors = documents.execute(operation, context, variables, RESOLVERS)
            except duckdb.Error as error:
                raise refusal(error) from error
        return json_answer({"errors": errors, "data": data} if errors else {"data": data})

    def _file(self, path: str) -> tuple[Response | None, bool]:
        """Return a file, None if the mirror does not hold it, and whether files of its run were changed since."""
        entity, _, rest = path.partition("/")
        project, _, rest = rest.partition("/")
        run_id, _, name = rest.partition("/")
        run = (entity, project, run_id)
        with self.snapshots.connection(SECONDS) as connection:
            found = content(connection, run, name)
        return found, found is not None and self.changes.touched.when(run) is not None

    async def _exported_to(self, request: Request, body: bytes) -> int | None:
        """Return the last step that the server has exported of a history; None if it has none, or does not answer."""
        try:
            answer = orjson.loads(bytes((await self._send(request, body)).body))
            exports = answer["data"]["project"]["run"]["parquetHistory"]
            steps = [int((loads(row) if isinstance(row, str) else row)[STEP]) for row in exports["liveData"]]
        except (CommError, *UNREADABLE):
            return None
        if not exports["parquetUrls"]:
            return None
        return min(steps) - 1 if steps else sys.maxsize

    async def _server_first(self, request: Request, body: bytes, operation: Operation, variables: Any) -> Response:
        """Return the server's answer, else its remembered one, else what the mirror knows."""
        if FORWARDED in request.headers:
            return await self._answer_from_mirror(request, operation, variables, without_server=True)
        # Only requests for nothing but the viewer are remembered: the rest may change at any time.
        policy = self.policy()
        question = None if operation.roots - _SERVER_KNOWS_BETTER else (policy.base_url, self.upstream.key(), body)
        never = (-_FRESH_SECONDS, b"")
        answered_at, last_answer = self.remembered.get(question, never) if question else never
        if time.monotonic() - answered_at < _FRESH_SECONDS:
            return Response(last_answer, media_type="application/json")
        try:
            answer = await self.upstream.graphql(request, body)
        except CommError:
            if last_answer:
                return Response(last_answer, media_type="application/json")
            return await self._answer_from_mirror(request, operation, variables, without_server=True)
        if question and answer.status_code == 200 and b'"errors"' not in bytes(answer.body):
            self.remembered[question] = (time.monotonic(), bytes(answer.body))
            while len(self.remembered) > _REMEMBERED:
                self.remembered.popitem(last=False)
        return answer

    async def _answer_schema_question(
        self, request: Request, body: bytes, operation: Operation, variables: Any
    ) -> Response:
        """Answer a question about the schema: from the server, which has more fields, else from the mirror."""
        if FORWARDED not in request.headers:
            with suppress(CommError):
                answer = await self.upstream.graphql(request, body)
                if answer.status_code == 200 and b'"errors"' not in bytes(answer.body):
                    return answer
        return await self._answer_from_mirror(request, operation, variables)

    async def _write(self, request: Request, body: bytes, text: bytes) -> Response:
        """Forward a change and return the server's answer. `text` is the decompressed body of a GraphQL request."""
        if self.policy().of_token:
            return error_answer(
                "a token of the mirror only reads; unset WANDB_BASE_URL and use your own key to write", 403
            )
        if not self.policy().writes:
            return error_answer(
                'the mirror accepts no changes ([http] writes = "refuse"); unset WANDB_BASE_URL to write', 403
            )
        try:
            answer = await self._send(request, body)
            maybe_made = not REFUSES <= answer.status_code < FAILS
        except CommError as error:
            answer = error_answer(f"changes go to the server: {error}", 400)
            # The server may have made the change before its answer was lost.
            maybe_made = isinstance(error, Unanswered)
        if not maybe_made:
            return answer
        if request.url.path == "/graphql":
            note = partial(self.changes.note, text, bytes(answer.body), self.policy().entity)
            edited = await self._in_pool(note)
        else:
            encoding = request.headers.get("content-encoding", "")
            ended = await self._in_pool(partial(ended_run, request.path_params["path"], body, encoding))
            edited = [] if ended is None else [ended]
        self.changes.await_pull(edited)
        return answer

    async def _forward(self, request: Request, body: bytes, missing: str) -> Response:
        try:
            return await self._send(request, body)
        except CommError as error:
            return error_answer(f"the mirror does not serve this ({missing}), and {error}", 400)

    async def _send(self, request: Request, body: bytes) -> Response:
        send = self.upstream.graphql if request.url.path == "/graphql" else self.upstream.file
        return await send(request, body)


def application(
    snapshots: Snapshots,
    key: Callable[[], str],
    policy: Callable[[], Policy],
    refresh_files: Callable[[RunPath], None],
    access: Access | None = None,
    edits: Edits | None = None,
) -> Starlette:
    """Return the endpoint over these snapshots. `key` and `policy` are called for each request.

    `refresh_files` is called, from any thread, with a run whose list of files the next pass should pull again. With
    `access`, tokens of the mirror are accepted in place of the key, for reading what is mirrored. `edits` has the runs
    that are changed through the endpoint pulled; without it, their edits are read after the next pass.
    """

    def of_tokens(snapshots: Snapshots, signer: Signer) -> Starlette:
        def reading() -> Policy:
            return replace(policy(), writes=False, of_token=True)

        nobody = MirrorOnly(lambda: policy().base_url, lambda: "")
        endpoint = Endpoint(snapshots, nobody, reading, signer, Changes(snapshots))
        return Starlette(routes=_routes(endpoint), exception_handlers=HANDLERS)

    signer = Signer()
    changes = Changes(snapshots, refresh_files, edits)
    endpoint = Endpoint(snapshots, Upstream(lambda: policy().base_url, key), policy, signer, changes)
    readers = None if access is None else Readers(access, of_tokens)
    return Starlette(
        routes=_routes(endpoint),
        middleware=[Middleware(KeyGuard, key=key, signer=signer, readers=readers)],
        exception_handlers=HANDLERS,
    )


def _routes(endpoint: Endpoint) -> list[Route]:
    return [
        Route("/graphql", endpoint.graphql, methods=["POST"]),
        *(Route(f"{prefix}{{path:path}}", endpoint.artifact, methods=["GET", "HEAD"]) for prefix in ARTIFACTS),
        Route("/files/{path:path}", endpoint.rest, methods=["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]),
    ]
