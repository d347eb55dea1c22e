"""The daemon's exports to a lake: on schedule beside the passes, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from mirror.daemon.logs import without_secrets
from mirror.daemon.outcomes import stamp
from mirror.errors import one_line
from mirror.settings.home import Home
from mirror.settings.settings import LakeSettings
from mirror.store.steady import fingerprint
from mirror.sync.context import utc_now

log = logging.getLogger("mirror.daemon")

_COMMAND = (sys.executable, "-m", "mirror.lake.worker")
_STOPPING_SECONDS = 10.0

LONGEST = 6 * 3600.0
"""An export that takes more seconds hangs; what it has written is taken up by the next one."""


class Lake:
    """One export at a time. `settings` returns the current section [lake] of the config."""

    def __init__(self, home: Home, environ: Mapping[str, str], settings: Callable[[], LakeSettings]) -> None:
        self._home = home
        self._environ = environ
        self._settings = settings
        self._wake = asyncio.Event()
        self._exported: tuple[LakeSettings, object] | None = None
        self._running = False
        self._last: dict[str, Any] | None = None
        self._snapshot_at: str | None = None
        self._totals = {"exports": 0, "failed_exports": 0, "bytes": 0}

    def wake(self) -> None:
        """Look at the settings now: they may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Export at every interval, until the task is cancelled."""
        while True:
            settings = self._settings()
            if settings.url:
                await self._export_if_changed(settings)
            if settings == self._settings():
                with suppress(TimeoutError):
                    async with asyncio.timeout(settings.interval if settings.url else None):
                        await self._wake.wait()
            self._wake.clear()

    async def _export_if_changed(self, settings: LakeSettings) -> None:
        published = fingerprint(self._home.published)
        if published is None or self._exported == (settings, published):
            return
        self._running = True
        started = time.monotonic()
        try:
            outcome = await self._export(settings)
        finally:
            self._running = False
        error = outcome.get("error")
        self._log(settings.url, outcome)
        if error is None:
            self._exported, self._snapshot_at = (settings, published), outcome["snapshot_at"]
        self._last = {
            "at": stamp(utc_now()),
            "seconds": round(time.monotonic() - started, 3),
            "error": error,
            **{name: outcome.get(name) for name in ("tables", "written", "bytes", "deleted", "rows")},
        }
        self._totals["exports"] += 1
        self._totals["failed_exports"] += error is not None
        self._totals["bytes"] += outcome.get("bytes", 0)

    async def _export(self, settings: LakeSettings) -> dict[str, Any]:
        """Return the answer of the process, or an `error`."""
        process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            str(self._home.data),
            settings.url,
            str(settings.keep),
            env=dict(self._environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(LONGEST):
                answer, errors = await process.communicate()
        except asyncio.CancelledError:
            await _end(process)
            raise
        except TimeoutError:
            await _end(process)
            return {"error": f"the export took longer than {LONGEST / 3600:g} h and was ended"}
        try:
            found: dict[str, Any] = json.loads(answer)
        except ValueError:
            message = one_line(errors.decode(errors="replace").strip().rpartition("\n")[2])
            found = {"error": f"the export ended with exit code {process.returncode}: {message}"}
        if "error" in found:
            found["error"] = without_secrets(found["error"])
        return found

    def _log(self, url: str, outcome: Mapping[str, Any]) -> None:
        """Log what was written, and why an export fails once for each reason."""
        error, former = outcome.get("error"), self.error
        if error is None:
            if former is not None:
                log.info("lake: exported again")
            if outcome["written"]:
                log.info("lake: %s files written, %.1f MB, to %s", outcome["written"], outcome["bytes"] / 1e6, url)
        elif error != former:
            log.error("nothing is exported to the lake: %s", error)

    @property
    def error(self) -> str | None:
        """Why the last export failed; None if it did not, or if no lake is wanted any more."""
        return self._last["error"] if self._last and self._settings().url else None

    def status(self) -> dict[str, Any]:
        """Return the part of the status about the lake; `totals` count since the start."""
        return {
            "url": self._settings().url or None,
            "running": self._running,
            "snapshot_at": self._snapshot_at,
            "last": self._last,
            "totals": dict(self._totals),
        }


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the process; what it has not finished is taken up by the next export."""
    with suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(_STOPPING_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            # One that waits for a disk ends when that answers.
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await process.wait()
