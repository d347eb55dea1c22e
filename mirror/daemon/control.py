"""The control socket: HTTP and JSON over a Unix socket that only its owner may open.

    GET  /status                           what the daemon is and does
    POST /sync   {"paths", "since", "timeout"}  one pass now; lines of progress, then the results; "since" is a time in
                                           naive UTC: runs that neither began nor logged from then on wait
    POST /flush  {"paths", "wait", "timeout"}   forget and pull afresh; as /sync, or at once with "wait": false
    POST /ingest {"paths": [...]}          mirror local runs below these folders; lines as of /sync, a result a file
    POST /publish                          show readers all that is committed, now
    POST /mend   {"paths": [...]}          bring what disagrees within the store in line
    POST /check                            see that the state file on the disk can be read
    POST /reload                           read the config again
    POST /stop                             stop as on SIGTERM

Answers to /sync and /flush are JSON lines: {"event": "runs_expected", "project", "count"} and the like while it works,
{"event": "finished", ...} for each project, and at last {"event": "done", "results": [...]} or
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
    """What the control socket may ask of a daemon."""

    def status(self) -> dict[str, Any]:
        """What `GET /status` answers."""

    async def sync_now(
        self, paths: Sequence[str], *, afresh: bool, progress: Progress, since: datetime | None = None
    ) -> list[PassResult]:
        """One pass over the paths, or over everything in the config; over runs since then alone, if that is given."""

    async def ingest_now(self, paths: Sequence[str]) -> list[FileResult]:
        """Mirror local runs below these folders, or below those of the config."""

    async def publish(self) -> None:
        """Show readers all that is committed."""

    async def mend(self, paths: Sequence[str]) -> dict[str, list[str]]:
        """Mend the projects of the paths; what was done, by project."""

    async def check(self) -> str | None:
        """What is wrong with the state file, or None."""

    async def reload(self) -> None:
        """Read the config again. Raises ConfigError and changes nothing when it is not valid."""

    def stop(self) -> None:
        """Begin to stop."""

    def start_task(self, work: Awaitable[Any], what: str) -> None:
        """Go on with something after the answer was sent; a crash of it is told of as `what`."""


class _Lines:
    """Progress as JSON lines in a queue."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def _put(self, event: str, project: ProjectKey, count: int) -> None:
        self.queue.put_nowait({"event": event, "project": str(project), "count": count})

    def projects_expected(self, projects: int) -> None:
        """Tell how many projects there are."""
        self.queue.put_nowait({"event": "projects_expected", "count": projects})

    def runs_expected(self, project: ProjectKey, runs: int) -> None:
        """Add to the total of runs."""
        self._put("runs_expected", project, runs)

    def runs_done(self, project: ProjectKey, runs: int) -> None:
        """Move the runs on."""
        self._put("runs_done", project, runs)

    def rows_expected(self, project: ProjectKey, rows: int) -> None:
        """Add to the total of history rows."""
        self._put("rows_expected", project, rows)

    def rows_done(self, project: ProjectKey, rows: int) -> None:
        """Move the history rows on."""
        self._put("rows_done", project, rows)

    def finished(self, result: PassResult) -> None:
        """End the project."""
        self.queue.put_nowait({"event": "finished", **result.as_json()})

    def notice(self, text: str) -> None:
        """Tell what goes wrong at the server, while it is tried again."""
        self.queue.put_nowait({"event": "notice", "message": without_secrets(text)})


_Work = Callable[[Sequence[str], datetime | None, _Lines], Awaitable[Sequence[PassResult | FileResult]]]


def application(daemon: Controlled) -> Starlette:
    """The routes of the control socket."""

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
                told = without_secrets(f"{type(error).__name__}: {error}")
                message = f"unexpected {told} (the daemon's mirror.log has the traceback)"
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

    async def check(request: Request) -> Response:
        del request
        return JSONResponse({"problem": await daemon.check()})

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
            route("/check", check, "POST"),
            route("/reload", reload, "POST"),
            route("/stop", stop, "POST"),
        ]
    )


async def _stream(lines: _Lines, timeout: float | None) -> AsyncIterator[bytes]:  # noqa: ASYNC109 - of the client
    """The lines as they come; when the time is over, one that says so, while the work goes on."""
    loop = asyncio.get_running_loop()
    limit = None if timeout is None else loop.time() + timeout
    while True:
        try:
            left = None if limit is None else max(0.0, limit - loop.time())
            event = await asyncio.wait_for(lines.queue.get(), left)
        except TimeoutError:
            message = f"not done after {timeout:g} s; what was committed stays, and the daemon goes on with it"
            event = {"event": "error", "message": message, "exit_code": TimedOut.exit_code}
            yield json.dumps(event).encode() + b"\n"
            return
        if event is None:
            return
        yield json.dumps(event).encode() + b"\n"
