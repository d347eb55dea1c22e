"""What changes in folders, as a process of its own notices it (`mirror/local/watcher.py`)."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from mirror.local import files

_QUIET = 0.5
"""Seconds without a change after which everything is checked again, following a start or a new folder."""

_LONGEST_LINE = 1 << 20

_END_SECONDS = 1.0
"""How long to wait for the end of the killed process: one that waits for a disk does not end before it answers."""


async def of(folders: Sequence[Path], stop: asyncio.Event, rescan: float) -> AsyncGenerator[set[str], None]:
    """Yield changed run files and new folders, until `stop` is set; an empty set if everything should be checked again.

    That is every `rescan` seconds, and when changes pause after the start and after new folders: what was written
    before a folder was watched is not reported. Raises OSError if the folders cannot be watched.
    """
    stopped = asyncio.create_task(stop.wait())
    line: asyncio.Task[bytes] | None = None
    due, unwatched = time.monotonic() + rescan, False
    changed: set[str] = set()
    try:
        async with _watcher(folders) as output:
            while not stop.is_set():
                line = line or asyncio.create_task(output.readline())
                left = max(0.0, due - time.monotonic())
                await asyncio.wait(
                    [line, stopped],
                    timeout=min(_QUIET, left) if unwatched else left,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if line.done():
                    message, line = _read(line.result()), None
                    if isinstance(message, str) and message != "ready":
                        changed.add(message)
                        continue
                    unwatched = unwatched or message == "ready" or not all(map(files.is_run_file, changed))
                    if changed:
                        found, changed = changed, set()
                        yield found
                elif not stop.is_set():
                    due, unwatched = time.monotonic() + rescan, False
                    yield set()
                if time.monotonic() >= due:
                    due, unwatched = time.monotonic() + rescan, False
                    yield set()
    finally:
        stopped.cancel()
        if line is not None:
            line.cancel()


def _read(line: bytes) -> str | None:
    if not line:
        raise OSError("the process that watches has ended")
    message = json.loads(line)
    if isinstance(message, dict):
        raise OSError(message["error"])
    return None if message is None else str(message)


@asynccontextmanager
async def _watcher(folders: Sequence[Path]) -> AsyncIterator[asyncio.StreamReader]:
    """Run the process, and yield its output."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mirror.local.watcher", *map(str, folders)),
        env=environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_LONGEST_LINE,
        # Ctrl-C in a terminal is for the daemon, which ends this.
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
