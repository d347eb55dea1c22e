"""The HTTP interface of a world: its routes, and the checks that every request passes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import format_datetime
from typing import Any

import orjson
from graphql import GraphQLError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mirror.sandbox import filestream
from mirror.sandbox.answers import (
    TRANSPORT,
    Dripping,
    Torn,
    errors_answer,
    file_answer,
    gateway_answer,
    json_answer,
    login_page,
    storage_refusal,
    truncated,
)
from mirror.sandbox.artifact_storage import ArtifactStorage
from mirror.sandbox.context import Context
from mirror.sandbox.documents import Documents, InvalidDocument, Operation, execute
from mirror.sandbox.errors import Refused
from mirror.sandbox.faults import Fault, Faults
from mirror.sandbox.limits import Limit
from mirror.sandbox.run import Run
from mirror.sandbox.world import World

_OPERATION = re.compile(r"\b(?:query|mutation)\s+(\w+)")
Produce = Callable[[], Response]
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass
class Gate:
    """The checks that every request passes: the count, the key, the limit and the faults, in this order."""

    key: str
    limit: Limit | None = None
    faults: Faults = field(default_factory=Faults)
    requests: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)

    async def answer(self, request: Request, operation: str, produce: Produce, *, signed: bool = False) -> Response:
        """Return the answer of `produce`, unless a check answers first. A `signed` address needs no key."""
        self.requests[operation] += 1
        if not signed and not self._authorised(request):
            return errors_answer("user is not logged in", 401)
        headers: dict[str, str] = {}
        if self.limit is not None and not signed:
            allowed, headers = self.limit.take()
            if not allowed:
                return errors_answer("rate limit exceeded", 429, headers)
        body = await request.body() if request.method == "POST" else b""
        met = self.faults.take(operation, request.scope["path"] + body.decode("utf-8", "replace"))
        for fault in met:
            if fault.kind == "latency":
                await asyncio.sleep(fault.seconds)
        broken = next((fault for fault in met if fault.kind != "latency"), None)
        answer = produce() if broken is None else _broken(broken, produce)
        answer.headers.update(headers)
        if broken is None:
            self.sent[operation] += len(answer.body)
        return answer

    def _authorised(self, request: Request) -> bool:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            user, _, password = base64.b64decode(value).decode().partition(":")
        except (binascii.Error, ValueError):
            return False
        return user == "api" and password == self.key


def _broken(fault: Fault, produce: Produce) -> Response:
    match fault.kind:
        case "429":
            return errors_answer("rate limit exceeded", 429, {"Retry-After": f"{fault.retry_after:g}"})
        case "403":
            return errors_answer("permission denied", 403)
        case "404":
            return errors_answer("project not found", 404)
        case "html":
            return login_page()
        case "redirect":
            return Response(status_code=302, headers={"Location": "https://login.example.com/sso?token=abc"})
        case "drip":
            return Dripping(produce(), fault.seconds, fault.piece)
        case "500" | "502" | "503" | "504":
            headers = {"Retry-After": f"{fault.retry_after:g}"} if fault.kind == "503" else {}
            return gateway_answer(int(fault.kind), headers)
        case "graphql":
            return errors_answer("An internal error occurred. Please contact support.", 200)
        case "expired":
            return storage_refusal("Request has expired", 403)
        case "truncated":
            return truncated(produce())
        case _:
            return Torn(produce())


class Api:
    """The endpoints of one server."""

    def __init__(self, context: Context, documents: Documents, gate: Gate) -> None:
        self.context = context
        self.documents = documents
        self.gate = gate

    def app(self) -> ASGIApp:
        """Return the ASGI application."""
        path = "{entity}/{project}/{run}"
        routes = [
            Route("/graphql", self.graphql, methods=["POST"]),
            Route(f"/files/{path}/file_stream", self.file_stream, methods=["POST"]),
            Route(f"/files/{path}/{{name:path}}", self.file, methods=["GET"]),
            Route(f"/storage/parquet/{path}/{{index:int}}", self.stored_parquet, methods=["GET"]),
            Route(f"/storage/files/{path}/{{name:path}}", self.stored_file, methods=["GET", "PUT"]),
            *ArtifactStorage(self.context.world.artifacts, self.gate.answer, self._storage_error).routes(),
        ]
        return _with_transport(_dated(Starlette(routes=routes), self.context.world))

    async def graphql(self, request: Request) -> Response:
        """POST /graphql"""  # noqa: D400, D415
        try:
            body = orjson.loads(_unpacked(request, await request.body()))
            query, name, variables = body["query"], body.get("operationName"), body.get("variables") or {}
        except (ValueError, TypeError, KeyError):
            return await self.gate.answer(
                request, "invalid", lambda: errors_answer("the body is not a GraphQL request", 400)
            )
        try:
            operation = self.documents.operation(query, name)
        except InvalidDocument as invalid:
            refusal = _refusal(invalid)
            named = _OPERATION.search(str(query))
            return await self.gate.answer(request, name or (named and named[1]) or "invalid", lambda: refusal)
        return await self.gate.answer(request, operation.name, lambda: self._execute(operation, variables))

    def _execute(self, operation: Operation, given: Mapping[str, Any]) -> Response:
        try:
            variables = self.documents.variables(operation, given)
            with self.context.world.lock:
                data, errors, status = execute(operation, self.context, variables)
        except InvalidDocument as invalid:
            return _refusal(invalid)
        except GraphQLError as error:
            return json_answer({"errors": [{"message": error.message}], "data": None}, 400)
        return json_answer({"errors": errors, "data": data} if errors else {"data": data}, status)

    async def file_stream(self, request: Request) -> Response:
        """POST /files/{entity}/{project}/{run}/file_stream"""  # noqa: D400, D415
        raw = await request.body()

        def produce() -> Response:
            try:
                return json_answer(filestream.receive(self._run(request), orjson.loads(_unpacked(request, raw))))
            except Refused as refusal:
                return json_answer({"error": refusal.message}, refusal.status)
            except ValueError:
                return json_answer({"error": "the body is not JSON"}, 400)

        return await self.gate.answer(request, "file_stream", produce)

    async def file(self, request: Request) -> Response:
        """GET /files/{entity}/{project}/{run}/{name}, with the key"""  # noqa: D400, D415
        return await self.gate.answer(request, "file", lambda: self._file(request))

    async def stored_file(self, request: Request) -> Response:
        """GET or PUT of a signed file address."""
        if request.method == "PUT":
            content = await request.body()
            return await self.gate.answer(request, "upload", lambda: self._upload(request, content), signed=True)
        produce: Produce = lambda: self._storage_error(request) or self._file(request)  # noqa: E731
        return await self.gate.answer(request, "file", produce, signed=True)

    async def stored_parquet(self, request: Request) -> Response:
        """GET of the signed address of an exported history file."""

        def produce() -> Response:
            refusal = self._storage_error(request)
            if refusal is not None:
                return refusal
            index = request.path_params["index"]
            try:
                exports = self._run(request).exports
            except Refused:
                exports = []
            if index >= len(exports):
                return storage_refusal("NoSuchKey", 404)
            return file_answer(exports[index], "application/octet-stream", request.headers.get("range"))

        return await self.gate.answer(request, "parquet", produce, signed=True)

    def _storage_error(self, request: Request) -> Response | None:
        # An object store accepts one kind of authorisation, never two.
        if "authorization" in request.headers:
            return storage_refusal("Only one auth mechanism allowed", 400)
        expires, signature = (request.query_params.get(key, "") for key in ("X-Expires", "X-Signature"))
        verb = "PUT" if request.method == "PUT" else "GET"
        reason = self.context.signer.check(verb, request.scope["path"], expires, signature)
        return None if reason is None else storage_refusal(reason, 403)

    def _file(self, request: Request) -> Response:
        try:
            stored = self._run(request).files.get(request.path_params["name"])
        except Refused:
            stored = None
        if stored is None:
            return json_answer({"error": "file not found"}, 404)
        return file_answer(stored.content, stored.mimetype, request.headers.get("range"))

    def _upload(self, request: Request, content: bytes) -> Response:
        refusal = self._storage_error(request)
        if refusal is not None:
            return refusal
        try:
            self._run(request).add_file(request.path_params["name"], content)
        except Refused as missing:
            return storage_refusal(missing.message, 404)
        return Response(b"", 200)

    def _run(self, request: Request) -> Run:
        names = request.path_params
        run = self.context.world.find(names["entity"], names["project"], names["run"])
        if run is None:
            raise Refused(f"run {names['entity']}/{names['project']}/{names['run']} not found", 404)
        return run


def _unpacked(request: Request, body: bytes) -> bytes:
    """Return the body as it was before it was gzipped. Raises ValueError."""
    if request.headers.get("content-encoding") != "gzip":
        return body
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError("the body is not gzip") from error


def _refusal(invalid: InvalidDocument) -> Response:
    # The real server quotes names with double quotes.
    messages = [error.message.replace("'", '"') for error in invalid.errors]
    return json_answer({"errors": [{"message": message} for message in messages]}, 400)


def _dated(app: ASGIApp, world: World) -> ASGIApp:
    """Add a `Date` header from the world's clock to every answer, in whole seconds."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start" and world.tells_date:
                date = format_datetime(world.moment().replace(tzinfo=UTC), usegmt=True)
                message["headers"] = [*message.get("headers", ()), (b"date", date.encode())]
            await send(message)

        await app(scope, receive, dated)

    return serve


def _with_transport(app: ASGIApp) -> ASGIApp:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        # uvicorn's `send` belongs to the cycle that holds the connection; ASGI itself has no way to abort one.
        scope[TRANSPORT] = getattr(getattr(send, "__self__", None), "transport", None)
        await app(scope, receive, send)

    return serve
