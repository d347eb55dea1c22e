"""Special HTTP answers: parts of a file, broken bodies, refusals."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

TRANSPORT = "sandbox.transport"


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer; half surrogate pairs and integers past 64 bits are written as a real server does."""
    try:
        body = orjson.dumps(value)
    except TypeError:
        body = json.dumps(value, separators=(",", ":")).encode()
    return Response(body, status, headers, "application/json")


def errors_answer(message: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Return a refusal in GraphQL's form."""
    return json_answer({"errors": [{"message": message}], "data": None}, status, headers)


def gateway_answer(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Return the HTML page of a gateway whose backend does not answer."""
    titles = {
        500: "Internal Server Error",
        502: "Bad Gateway",
        503: "Service Temporarily Unavailable",
        504: "Gateway Timeout",
    }
    title = f"{status} {titles[status]}"
    body = f"<html>\r\n<head><title>{title}</title></head>\r\n<body><center><h1>{title}</h1></center></body>\r\n</html>"
    return Response(body, status, headers, "text/html")


def login_page() -> Response:
    """Return the page, with status 200, that a network shows in place of every answer until its user signs in."""
    body = (
        "<!doctype html>\n<html><head><title>Sign in &middot; Example University</title></head><body>...</body></html>"
    )
    return Response(body, 200, media_type="text/html")


def storage_refusal(code: str, status: int) -> Response:
    """Return the refusal of an object store."""
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code><Message>{code}</Message></Error>'
    return Response(body, status, media_type="application/xml")


def file_answer(content: bytes, media_type: str, wanted: str | None) -> Response:
    """Return a file, or the part of it that a Range header requests."""
    headers = {"Accept-Ranges": "bytes"}
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted or "")
    if not match or match.group(0) == "bytes=-":
        return Response(content, 200, headers, media_type)
    first, last = match.groups()
    start = int(first) if first else max(len(content) - int(last), 0)
    end = min(int(last) if first and last else len(content) - 1, len(content) - 1)
    if start > end:
        return Response(b"", 416, {"Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
    return Response(content[start : end + 1], 206, headers, media_type)


def truncated(answer: Response) -> Response:
    """Return the answer with half of its body, and a matching length."""
    body = bytes(answer.body)
    return Response(body[: len(body) // 2], answer.status_code, _kept(answer), answer.media_type)


def _kept(answer: Response) -> dict[str, str]:
    """Return the headers of an answer whose body is sent in another way."""
    return {name: value for name, value in answer.headers.items() if name not in ("content-length", "content-type")}


class Dripping(Response):
    """An answer that is sent in pieces of `piece` bytes, one every `seconds`."""

    def __init__(self, answer: Response, seconds: float, piece: int) -> None:
        super().__init__(bytes(answer.body), answer.status_code, _kept(answer), answer.media_type)
        self._seconds = seconds
        self._piece = piece

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the head, then piece after piece until the client disconnects."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        clock = asyncio.get_running_loop().time
        started = clock()
        for number, place in enumerate(range(0, len(self.body), self._piece), 1):
            await asyncio.sleep(started + number * self._seconds - clock())
            if scope[TRANSPORT].is_closing():
                return
            body = bytes(self.body[place : place + self._piece])
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class Torn(Response):
    """An answer whose connection is reset after half of the body."""

    def __init__(self, answer: Response) -> None:
        super().__init__(bytes(answer.body), answer.status_code, _kept(answer), answer.media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the head and half of the body, then abort."""
        body = bytes(self.body)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        # What is in the transport's buffer when it aborts is never sent.
        await asyncio.sleep(0.02)
        transport = scope[TRANSPORT]
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
