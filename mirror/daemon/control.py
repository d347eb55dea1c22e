"""The control socket: HTTP and JSON over a Unix socket that only its owner may open.

    GET  /status                           the state of the daemon
    POST /sync   {"paths", "since", "timeout"}  one pass now; progress lines, then the results; "since" is a naive UTC
                                           time: runs that neither started nor logged since then are left for later
    POST /flush  {"paths", "wait", "timeout"}   pull everything again; as /sync, or answer at once with "wait": false
    POST /ingest {"paths": [...]}          mirror local runs below these folders; lines as of /sync, a result per file
    POST /publish                          publish everything that is committed, now
    POST /mend   {"paths": [...]}          repair inconsistencies in the store
    POST /forget {"paths": [...]}          remove projects and runs from the mirror
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
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mirror.daemon.logs import without_secrets
from mirror.errors import MirrorError, TimedOut, UsageError
from mirror.local.commits import FileResult
from mirror.store.records import ProjectKey
from mirror.sync.context import PassResult, Progress

_BAD_BODY = {"message": 'send a JSON object such as {"paths": ["team/project"]}', "exit_code": UsageError.exit_code}


class Controlled(Protocol):
    """The methods of the daemon that the control socket calls."""

    def status(self) -> dict[str, Any]:
        """Return the answer to `GET /status`."""

    async def sync_now(
        self, paths: Sequence[str], *, afresh: bool, progress: Progress, since: datetime | None = None
    ) -> list[PassResult]:
        """Run one pass over the paths (none: everything in the config); with `since` only over runs since then."""

    async def ingest_now(self, paths: Sequence[str]) -> list[FileResult]:
        """Mirror local runs below these folders; none: those of the config."""

    async def publish(self) -> None:
        """Publish everything that is committed."""

    async def mend(self, paths: Sequence[str]) -> dict[str, list[str]]:
        """Repair the store of the projects of the paths; return what was repaired, by project."""

    async def forget(self, paths: Sequence[str]) -> None:
        """Remove projects and runs from the mirror. Raises UsageError for one that is not mirrored."""

    async def check(self) -> str | None:
        """Return the damage of the state file, or None."""

    async def reload(self) -> None:
        """Read the config again. Raises ConfigError and changes nothing if it is not valid."""

    def stop(self) -> None:
        """Start the shutdown."""

    def start_task(self, work: Awaitable[Any], what: str) -> None:
        """Run a background task that may outlast the answer; a crash of it is reported as `what`."""


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


_Work = Callable[[Sequence[str], datetime | None, _Lines], Awaitable[Sequence[PassResult | FileResult]]]


def application(daemon: Controlled) -> Starlette:
    """Return the application of the control socket."""

    async def status(request: Request) -> Response:
        del request
        return JSONResponse(daemon.status())

    async def sync(request: Request) -> Response:
        return await _work(
            request,
            lambda paths, since, lines: daemon.sync_now(paths, afresh=False, progress=lines, since=since),
        )

    async def flush(request: Request) -> Response:
        return await _work(request, lambda paths, _, lines: daemon.sync_now(paths, afresh=True, progress=lines))

    async def ingest(request: Request) -> Response:
        return await _work(request, lambda paths, _, __: daemon.ingest_now(paths))

    async def _work(request: Request, work: _Work) -> Response:
        try:
            body = await request.json() if await request.body() else {}
            paths = [str(path) for path in body.get("paths", [])]
            wait = bool(body.get("wait", True))
            timeout = None if body.get("timeout") is None else float(body["timeout"])
            since = datetime.fromisoformat(body["since"]) if body.get("since") else None
        except (ValueError, AttributeError, TypeError):
            return JSONResponse(_BAD_BODY, 400)
        lines = _Lines()

        async def run() -> None:
            try:
                results = await work(paths, since, lines)
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

        daemon.start_task(run(), request.url.path)
        if not wait:
            return JSONResponse({"accepted": True}, 202)
        return StreamingResponse(_stream(lines, timeout), media_type="application/jsonl")

    async def publish(request: Request) -> Response:
        del request
        try:
            await daemon.publish()
        except MirrorError as error:
            return JSONResponse({"message": str(error), "exit_code": error.exit_code}, 500)
        return JSONResponse({"published": True})

    async def mend(request: Request) -> Response:
        try:
            paths = [str(path) for path in (await request.json())["paths"]]
        except (ValueError, KeyError, TypeError):
            return JSONResponse(_BAD_BODY, 400)
        try:
            return JSONResponse({"mended": await daemon.mend(paths)})
        except MirrorError as error:
            return JSONResponse({"message": str(error), "exit_code": error.exit_code}, 500)

    async def forget(request: Request) -> Response:
        try:
            paths = [str(path) for path in (await request.json())["paths"]]
        except (ValueError, KeyError, TypeError):
            return JSONResponse(_BAD_BODY, 400)
        try:
            await daemon.forget(paths)
        except UsageError as error:
            return JSONResponse({"message": str(error), "exit_code": error.exit_code}, 422)
        except MirrorError as error:
            return JSONResponse({"message": str(error), "exit_code": error.exit_code}, 500)
        return JSONResponse({"forgotten": paths})

    async def check(request: Request) -> Response:
        del request
        try:
            return JSONResponse({"problem": await daemon.check()})
        except MirrorError as error:
            return JSONResponse({"message": str(error), "exit_code": error.exit_code}, 500)

    async def reload(request: Request) -> Response:
        del request
        try:
            await daemon.reload()
        except MirrorError as error:
            return JSONResponse({"message": str(error), "exit_code": error.exit_code}, 422)
        return JSONResponse(daemon.status())

    async def stop(request: Request) -> Response:
        del request
        daemon.stop()
        return JSONResponse({"stopping": True})

    def route(path: str, handler: Callable[[Request], Awaitable[Response]], method: str) -> Route:
        return Route(path, handler, methods=[method])

    return Starlette(
        routes=[
            route("/status", status, "GET"),
            route("/sync", sync, "POST"),
            route("/flush", flush, "POST"),
            route("/ingest", ingest, "POST"),
            route("/publish", publish, "POST"),
            route("/mend", mend, "POST"),
            route("/forget", forget, "POST"),
            route("/check", check, "POST"),
            route("/reload", reload, "POST"),
            route("/stop", stop, "POST"),
        ]
    )


async def _stream(lines: _Lines, timeout: float | None) -> AsyncIterator[bytes]:  # noqa: ASYNC109 - of the client
    """Yield the lines as they arrive; after the timeout, an error line, while the work goes on."""
    loop = asyncio.get_running_loop()
    limit = None if timeout is None else loop.time() + timeout
    while True:
        try:
            left = None if limit is None else max(0.0, limit - loop.time())
            event = await asyncio.wait_for(lines.queue.get(), left)
        except TimeoutError:
            message = f"not done after {timeout:g} s; what was committed stays, and the daemon continues the work"
            event = {"event": "error", "message": message, "exit_code": TimedOut.exit_code}
            yield json.dumps(event).encode() + b"\n"
            return
        if event is None:
            return
        yield json.dumps(event).encode() + b"\n"
