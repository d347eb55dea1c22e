"""Outcomes since the daemon started: passes, and crashes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from mirror.daemon.logs import without_secrets
from mirror.errors import one_line
from mirror.store.records import ProjectKey
from mirror.sync.context import PassResult, utc_now

CRASH_PAUSE = 5.0
"""Seconds until crashed work is started again."""

RECOVERED = 30.0
"""Seconds after which restarted work counts as recovered."""


class Ledger:
    """Keeps the last result of each project, and counts."""

    def __init__(self) -> None:
        self.last: dict[ProjectKey, PassResult] = {}
        self._ended: dict[ProjectKey, datetime] = {}
        self._passes: Counter[ProjectKey] = Counter()
        self._failed: Counter[ProjectKey] = Counter()
        self._crash: dict[str, str] | None = None
        self.down: dict[str, str] = {}

    def note_pass(self, result: PassResult) -> None:
        """Record the end of a pass, good or failed."""
        self.last[result.project] = result
        self._ended[result.project] = utc_now()
        self._passes[result.project] += 1
        self._failed[result.project] += result.error is not None

    def note_crash(self, what: str, error: BaseException) -> None:
        """Record that `what` raised an unexpected exception."""
        text = without_secrets(f"{type(error).__name__}: {error}")
        self._crash = {"at": stamp(utc_now()), "what": what, "error": text}

    def note_down(self, what: str, error: BaseException) -> None:
        """Record that a permanent part of the daemon has crashed."""
        self.down[what] = without_secrets(one_line(f"{type(error).__name__}: {error}"))

    def note_recovered(self, what: str) -> None:
        """Record that this part runs again."""
        self.down.pop(what, None)

    def as_json(self) -> dict[str, Any]:
        """Return the part of the status about passes and crashes."""
        return {
            "last_passes": {
                str(project): {**result.as_json(), "ended_at": stamp(self._ended[project])}
                for project, result in self.last.items()
            },
            "passes": {
                str(project): {"total": total, "failed": self._failed[project]}
                for project, total in self._passes.items()
            },
            "last_crash": self._crash,
        }

    def line(self, projects: int, live: int) -> str:
        """Return one line: projects, the last pass, and how many runs failed and will be retried."""
        parts = [f"{projects} {'project' if projects == 1 else 'projects'}, {live} live"]
        if self._ended:
            last = max(self._ended, key=lambda project: self._ended[project])
            outcome = f"failed: {self.last[last].error}" if self.last[last].error else "ok"
            parts.append(f"last pass {last} at {self._ended[last]:%H:%M:%S}Z {outcome}")
        if failed := sum(len(result.failed) for result in self.last.values()):
            parts.append(f"{failed} {'run' if failed == 1 else 'runs'} to retry")
        return "; ".join(parts)


def stamp(moment: datetime) -> str:
    """Format a naive UTC time as ISO 8601."""
    return f"{moment.isoformat(timespec='seconds')}Z"


async def kept_running(
    work: Callable[[], Awaitable[None]], crashed: Callable[[BaseException], None], recovered: Callable[[], None]
) -> None:
    """Run endless work; pass whatever it raises to `crashed`, and start it again after CRASH_PAUSE.

    `recovered` is called when it has run for RECOVERED seconds after a crash, or returned.
    """
    while True:
        recovery = asyncio.get_running_loop().call_later(RECOVERED, recovered)
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - a crash must not silently stop this part of the daemon
            crashed(error)
        else:
            recovered()
            return
        finally:
            recovery.cancel()
        await asyncio.sleep(CRASH_PAUSE)
