"""The bodies of requests: read, decompressed and parsed."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any

import orjson
from msgspec.structs import replace
from starlette.requests import ClientDisconnect, Request

from mirror.errors import MirrorError
from mirror.serve import documents
from mirror.serve.documents import Malformed, Operation

MOST_BYTES = 256 << 20
"""The largest request body in bytes; a chunk of a run's log may be large."""

_TOO_LONG = f"a request holds at most {MOST_BYTES >> 20} MiB"


def text_of(body: bytes, encoding: str) -> bytes:
    """Return the decompressed body, or the body itself if it cannot be decompressed. Raises MirrorError."""
    try:
        return _decompress(body) if encoding == "gzip" else body
    except (OSError, EOFError, zlib.error):
        return body


def parsed(body: bytes) -> tuple[Operation, Any]:
    """Parse a request body and return its operation and variables. Raises Malformed."""
    try:
        sent = orjson.loads(body)
        query, name, variables = sent["query"], sent.get("operationName"), sent.get("variables") or {}
    except (ValueError, TypeError, KeyError, AttributeError):
        query, name, variables = None, None, None
    if not isinstance(query, str) or not isinstance(variables, dict) or not isinstance(name, str | None):
        raise Malformed('send JSON such as {"query": "{ viewer { entity } }", "variables": {}}')
    operation = replace(documents.operation(query, name), named=name or "")
    return operation, operation.variables(variables)


def _decompress(body: bytes) -> bytes:
    """Decompress a gzipped body. Raises MirrorError if it is too long, OSError, EOFError or zlib.error if not gzip."""
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as packed:
        content = packed.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise MirrorError(_TOO_LONG)
    return content


async def whole_body(request: Request) -> bytes:
    """Return the body. Raises MirrorError if it is too long, or ends too early."""
    parts: list[bytes] = []
    length = 0
    try:
        async for piece in request.stream():
            parts.append(piece)
            length += len(piece)
            if length > MOST_BYTES:
                raise MirrorError(_TOO_LONG)
    except ClientDisconnect as error:
        # Half of a write must not reach the server.
        raise MirrorError("the client disconnected before its request was complete") from error
    return b"".join(parts)
