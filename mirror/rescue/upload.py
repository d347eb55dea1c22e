"""Sends the server what it lost of runs that have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from mirror.errors import AuthError, CommError, MirrorError
from mirror.local.blocks import NotReadable
from mirror.remote import mutations
from mirror.remote.client import Server, Unreachable
from mirror.rescue.findings import Look
from mirror.rescue.rows import Rows
from mirror.store.records import RunRecord

REQUEST_BYTES = 4 << 20
REQUEST_LINES = 10_000
"""Limits on one request; the client sends up to 10 MiB."""

WAITS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between checks of a run: the hosted server counts lines some seconds after it accepts them."""


class Sent(Struct):
    """What was sent for one run. `error` is why something was not; `before` and `state` are its states then and now.

    If `unreachable` is True, nothing can be sent for other runs either.
    """

    path: str
    rows: int = 0
    summary: int = 0
    before: str = ""
    state: str = ""
    error: str | None = None
    exit_code: int = 0
    unreachable: bool = False


async def send(server: Server, look: Look) -> Sent:
    """Send the rows after the server's last one, then the summary. Errors are reported in the result, not raised.

    Sends nothing for a run that changed since it was compared. The rows are appended at the server's own line count.
    """
    sent = Sent(look.path, before=look.record.state, state=look.record.state)
    try:
        await _send(server, look, sent)
    except OSError as error:
        sent.error, sent.exit_code = f"its file cannot be read: {error.strerror or error}", 1
    except NotReadable as error:
        sent.error, sent.exit_code = f"its file cannot be read: {error}", 1
    except MirrorError as error:
        sent.error, sent.exit_code = str(error), error.exit_code
        sent.unreachable = isinstance(error, Unreachable | AuthError)
    return sent


async def _send(server: Server, look: Look, sent: Sent) -> None:
    before = await mutations.current(server, look.project, look.known.run_id)
    if _head(before) != _head(look.record):
        raise CommError("it changed on the server since it was compared; run the command again")
    now = before
    if look.tail is not None:
        try:
            await _send_rows(server, look, before, sent)
        finally:
            if sent.rows:
                now = await _settled(server, look, before, before.server_rows + sent.rows)
                sent.state = now.state
    if look.summary:
        await mutations.edit_run(server, now, mutations.Edit(summary=look.summary))
        sent.summary = len(look.summary)


async def _send_rows(server: Server, look: Look, record: RunRecord, sent: Sent) -> None:
    last = -1 if look.compared.last is None else look.compared.last
    # If the run failed but the file has no exit code, the real one is unknown: send 1.
    code = 0 if record.state == "finished" else look.exit_code or 1
    found = Rows(look.paths, last)
    requests = _requests(found)
    while lines := await asyncio.to_thread(next, requests, None):
        await mutations.append_lines(server, record, record.server_rows + sent.rows, lines, code=code)
        sent.rows += len(lines)
    if found.left_out:
        sent.error, sent.exit_code = f"{found.left_out:,} rows exceed 10 MiB or are not JSON, and were not sent", 1


def _requests(found: Iterable[str]) -> Iterator[Sequence[str]]:
    lines: list[str] = []
    size = 0
    for line in found:
        if lines and (size + len(line) > REQUEST_BYTES or len(lines) >= REQUEST_LINES):
            yield lines
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield lines


async def _settled(server: Server, look: Look, before: RunRecord, lines: int) -> RunRecord:
    """Wait until the server counts all lines and the run has its former state again, or WAITS ends; return the run."""
    now = before
    for wait in WAITS:
        await asyncio.sleep(wait)
        now = await mutations.current(server, look.project, look.known.run_id)
        if now.state != before.state:
            await mutations.restore_state(server, before)
            now = await mutations.current(server, look.project, look.known.run_id)
        if now.server_rows >= lines and now.state == before.state:
            break
    return now


def _head(record: RunRecord) -> tuple[object, ...]:
    return record.storage_id, record.state, record.server_rows, record.server_last_step, record.heartbeat_at
