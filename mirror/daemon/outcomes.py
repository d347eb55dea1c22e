"""What happened since the daemon started: passes, and whatever crashed."""

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
"""Seconds until something that crashed begins anew."""

RECOVERED = 30.0
"""Seconds after which something that began anew is taken for well."""


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
        """A pass ended, well or not."""
        self.last[result.project] = result
        self._ended[result.project] = utc_now()
        self._passes[result.project] += 1
        self._failed[result.project] += result.error is not None

    def note_crash(self, what: str, error: BaseException) -> None:
        """Something raised what it never should."""
        told = without_secrets(f"{type(error).__name__}: {error}")
        self._crash = {"at": stamp(utc_now()), "what": what, "error": told}

    def note_down(self, what: str, error: BaseException) -> None:
        """Something that is to run for as long as the daemon does has crashed."""
        self.down[what] = without_secrets(one_line(f"{type(error).__name__}: {error}"))

    def note_well(self, what: str) -> None:
        """It runs again."""
        self.down.pop(what, None)

    def as_json(self) -> dict[str, Any]:
        """The part of the status that tells of passes and crashes."""
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
        """One line: projects, the last pass, and how many runs are set aside."""
        parts = [f"{projects} {'project' if projects == 1 else 'projects'}, {live} live"]
        if self._ended:
            last = max(self._ended, key=lambda project: self._ended[project])
            outcome = f"failed: {self.last[last].error}" if self.last[last].error else "ok"
            parts.append(f"last pass {last} at {self._ended[last]:%H:%M:%S}Z {outcome}")
        if aside := sum(len(result.failed) for result in self.last.values()):
            parts.append(f"{aside} {'run' if aside == 1 else 'runs'} set aside")
        return "; ".join(parts)


def stamp(moment: datetime) -> str:
    """A time in naive UTC as ISO 8601."""
    return f"{moment.isoformat(timespec='seconds')}Z"


async def kept_running(
    work: Callable[[], Awaitable[None]], crashed: Callable[[BaseException], None], well: Callable[[], None]
) -> None:
    """Do work that has no end; whatever it raises is told of, and it begins anew after CRASH_PAUSE.

    `well` is called when it has run on for RECOVERED seconds after a crash, or came to an end.
    """
    while True:
        recovery = asyncio.get_running_loop().call_later(RECOVERED, well)
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - one thing that breaks must not silently stop the others
            crashed(error)
        else:
            well()
            return
        finally:
            recovery.cancel()
        await asyncio.sleep(CRASH_PAUSE)
