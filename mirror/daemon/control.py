"""The control socket: HTTP and JSON over a Unix socket that only its owner may open.

    GET  /status                           the state of the daemon
    POST /sync   {"paths", "since", "timeout"}  one pass now; progress lines, then the results; "since" is a naive UTC
                                           time: runs that neither started nor logged since then are left for later
    POST /flush  {"paths", "wait", "timeout"}   pull everything again; as /sync, or answer at once with "wait": false
    POST /ingest {"paths": [...]}          mirror local runs below these folders; lines as of /sync, a result per file
    POST /publish                          publish everything that is committed, now
    POST /mend   {"paths": [...]}          repair inconsistencies in the store
    POST /forget {"paths": [...]}          remove projects and runs from the mirror
    POST /gc     {"grace", "dry_run"}      delete content that nothing has named for `grace` seconds
    POST /check                            check that the state file on disk can be read
    POST /reload                           read the config again
    POST /stop                             stop as on SIGTERM

Answers to /sync and /flush are JSON lines: {"event": "runs_expected", "project", "count"} and the like during the work,
{"event": "finished", ...} for each project, and finally {"event": "done", "results": [...]} or
{"event": "error", "message", "exit_code"}.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from msgspec.structs import asdict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mirror.daemon.daemon import Daemon
from mirror.daemon.logs import without_secrets
from mirror.errors import MirrorError, TimedOut, UsageError
from mirror.local.commits import FileResult
from mirror.store.records import ProjectKey
from mirror.sync.context import PassResult

_BAD_BODY = {"message": 'send a JSON object such as {"paths": ["team/project"]}', "exit_code": UsageError.exit_code}


class _Lines:
    """Progress as JSON lines in a queue."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def _put(self, event: str, project: ProjectKey, count: int) -> None:
        self.queue.put_nowait({"event": event, "project": str(project), "count": count})

    def projects_expected(self, projects: int) -> None:
        """Report the number of projects."""
        self.queue.put_nowait({"event": "projects_expected", "count": projects})

    def runs_expected(self, project: ProjectKey, runs: int) -> None:
        """Add to the total of runs."""
        self._put("runs_expected", project, runs)

    def runs_done(self, project: ProjectKey, runs: int) -> None:
        """Add to the finished runs."""
        self._put("runs_done", project, runs)

    def rows_expected(self, project: ProjectKey, rows: int) -> None:
        """Add to the total of history rows."""
        self._put("rows_expected", project, rows)

    def rows_done(self, project: ProjectKey, rows: int) -> None:
        """Add to the finished history rows."""
        self._put("rows_done", project, rows)

    def finished(self, result: PassResult) -> None:
        """Report the result of a project."""
        self.queue.put_nowait({"event": "finished", **result.as_json()})

    def notice(self, text: str) -> None:
        """Report a failed request that is being retried."""
        self.queue.put_nowait({"event": "notice", "message": without_secrets(text)})


Handler = Callable[[Request], Awaitable[Response]]
_Work = Callable[[Sequence[str], datetime | None, _Lines], Awaitable[Sequence[PassResult | FileResult]]]


def application(daemon: Daemon) -> Starlette:
    """Return the application of the control socket."""
    socket = _Socket(daemon)

    def route(path: str, handler: Handler, method: str) -> Route:
        return Route(path, handler, methods=[method])

    return Starlette(
        routes=[
            route("/status", socket.status, "GET"),
            route("/sync", socket.sync, "POST"),
            route("/flush", socket.flush, "POST"),
            route("/ingest", socket.ingest, "POST"),
            route("/publish", socket.publish, "POST"),
            route("/mend", socket.mend, "POST"),
            route("/forget", socket.forget, "POST"),
            route("/gc", socket.collect, "POST"),
            route("/check", socket.check, "POST"),
            route("/reload", socket.reload, "POST"),
            route("/stop", socket.stop, "POST"),
        ]
    )


class _Socket:
    """The handlers of the control socket."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def status(self, _: Request) -> Response:
        """GET /status."""
        return JSONResponse(self._daemon.status())

    async def sync(self, request: Request) -> Response:
        """POST /sync."""
        return await self._work(
            request,
            lambda paths, since, lines: self._daemon.commands.sync(paths, afresh=False, progress=lines, since=since),
        )

    async def flush(self, request: Request) -> Response:
        """POST /flush."""
        return await self._work(
            request, lambda paths, _, lines: self._daemon.commands.sync(paths, afresh=True, progress=lines)
        )

    async def ingest(self, request: Request) -> Response:
        """POST /ingest."""
        return await self._work(request, lambda paths, _, __: self._daemon.commands.ingest(paths))

    async def publish(self, _: Request) -> Response:
        """POST /publish."""

        async def publish() -> dict[str, Any]:
            await self._daemon.commands.publish()
            return {"published": True}

        return await _answered(publish())

    async def mend(self, request: Request) -> Response:
        """POST /mend."""
        try:
            paths = [str(path) for path in (await request.json())["paths"]]
        except (ValueError, KeyError, TypeError):
            return JSONResponse(_BAD_BODY, 400)

        async def mend() -> dict[str, Any]:
            return {"mended": await self._daemon.commands.mend(paths)}

        return await _answered(mend())

    async def forget(self, request: Request) -> Response:
        """POST /forget."""
        try:
            paths = [str(path) for path in (await request.json())["paths"]]
        except (ValueError, KeyError, TypeError):
            return JSONResponse(_BAD_BODY, 400)

        async def forget() -> dict[str, Any]:
            await self._daemon.commands.forget(paths)
            return {"forgotten": paths}

        return await _answered(forget())

    async def collect(self, request: Request) -> Response:
        """POST /gc."""
        try:
            body = await request.json()
            grace, dry_run = float(body["grace"]), bool(body.get("dry_run", False))
        except (ValueError, KeyError, TypeError, AttributeError):
            return JSONResponse({**_BAD_BODY, "message": 'send a JSON object such as {"grace": 86400}'}, 400)

        async def collect() -> dict[str, Any]:
            return asdict(await self._daemon.commands.collect(grace, dry_run=dry_run))

        return await _answered(collect())

    async def check(self, _: Request) -> Response:
        """POST /check."""

        async def check() -> dict[str, Any]:
            return {"problem": await self._daemon.commands.check()}

        return await _answered(check())

    async def reload(self, _: Request) -> Response:
        """POST /reload."""

        async def reload() -> dict[str, Any]:
            await self._daemon.reload()
            return self._daemon.status()

        return await _answered(reload(), failed=422)

    async def stop(self, _: Request) -> Response:
        """POST /stop."""
        self._daemon.stop()
        return JSONResponse({"stopping": True})

    async def _work(self, request: Request, work: _Work) -> Response:
        """Start the work that the body asks for, and stream its events; with "wait": false, answer at once."""
        try:
            body = await request.json() if await request.body() else {}
            paths = [str(path) for path in body.get("paths", [])]
            wait = bool(body.get("wait", True))
            timeout = None if body.get("timeout") is None else float(body["timeout"])
            since = datetime.fromisoformat(body["since"]) if body.get("since") else None
        except (ValueError, AttributeError, TypeError):
            return JSONResponse(_BAD_BODY, 400)
        lines = _Lines()
        self._daemon.start_task(_run(partial(work, paths, since, lines), lines), request.url.path)
        if not wait:
            return JSONResponse({"accepted": True}, 202)
        return StreamingResponse(_stream(lines, timeout), media_type="application/jsonl")


async def _answered(work: Awaitable[dict[str, Any]], *, failed: int = 500) -> Response:
    """Return what the work returns as JSON; a UsageError becomes a 422, any other MirrorError `failed`."""
    try:
        return JSONResponse(await work)
    except UsageError as error:
        return JSONResponse({"message": str(error), "exit_code": error.exit_code}, 422)
    except MirrorError as error:
        return JSONResponse({"message": str(error), "exit_code": error.exit_code}, failed)


async def _run(work: Callable[[], Awaitable[Sequence[PassResult | FileResult]]], lines: _Lines) -> None:
    """Do the work and put its end into the lines: its results or its error."""
    try:
        results = await work()
        lines.queue.put_nowait({"event": "done", "results": [result.as_json() for result in results]})
    except MirrorError as error:
        lines.queue.put_nowait({"event": "error", "message": str(error), "exit_code": error.exit_code})
    except asyncio.CancelledError:
        lines.queue.put_nowait({"event": "error", "message": "the daemon is stopping", "exit_code": 1})
        raise
    except Exception as error:
        reason = without_secrets(f"{type(error).__name__}: {error}")
        message = f"unexpected {reason} (the daemon's mirror.log has the traceback)"
        lines.queue.put_nowait({"event": "error", "message": message, "exit_code": 1})
        raise
    finally:
        lines.queue.put_nowait(None)


async def _stream(lines: _Lines, timeout: float | None) -> AsyncIterator[bytes]:  # noqa: ASYNC109 - of the client
    """Yield the lines as they arrive; after the timeout, an error line, while the work goes on."""
    loop = asyncio.get_running_loop()
    limit = None if timeout is None else loop.time() + timeout
    while True:
        try:
            async with asyncio.timeout_at(limit):
                event = await lines.queue.get()
        except TimeoutError:
            message = f"not done after {timeout:g} s; what was committed stays, and the daemon continues the work"
            event = {"event": "error", "message": message, "exit_code": TimedOut.exit_code}
            yield json.dumps(event).encode() + b"\n"
            return
        if event is None:
            return
        yield json.dumps(event).encode() + b"\n"
