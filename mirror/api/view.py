"""The snapshot that an `Api` shows, and when it is replaced by a newer one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from mirror.api.session import Session
from mirror.errors import ArgumentError
from mirror.snapshot.snapshot import Snapshot

_CLOCK_SKEW = timedelta(minutes=1)
"""How far two clocks may differ."""


class View:
    """One snapshot of the mirror, what was read of it, and which projects and runs were used."""

    def __init__(self, session: Session, max_age: timedelta | None) -> None:
        """Open nothing yet. A project whose last sync is older than `max_age` is pulled when it is first used."""
        self.known: dict[Any, Any] = {}
        """What was read of the snapshot; emptied when it is replaced."""
        self._session = session
        self._max_age = max_age
        self._snapshot: Snapshot | None = None
        self._used: dict[str, None] = {}
        self._checked: set[str] = set()

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot, opened when it is first used."""
        if self._snapshot is None:
            self._snapshot = self._session.open_snapshot()
        return self._snapshot

    def forget(self) -> None:
        """Show the newest snapshot from now on."""
        self._snapshot = None
        self.known.clear()

    def check_again(self) -> None:
        """As `forget`, and pull projects again if they are older than `max_age`."""
        self._checked.clear()
        self.forget()

    def use(self, path: object) -> None:
        """Count a project or run as used."""
        self._used[str(path)] = None

    def projects_used(self, *, opened: bool = True) -> list[str]:
        """Return the projects that were used; without `opened`, not those of which only single runs were opened."""
        paths = [path for path in self._used if opened or path.count("/") == 1]
        return list(dict.fromkeys("/".join(path.split("/")[:2]) for path in paths))

    def as_of(self) -> datetime | None:
        """Return the oldest of the last complete syncs of the used projects; None if one was never synced."""
        successes = self.snapshot.successes()
        used = self.projects_used()
        times = [at for name, at in successes.items() if not used or str(name) in used]
        known = [at for at in times if at is not None]
        return min(known) if known and len(known) == len(times) else None

    def pull_if_old(self, path: str | None) -> bool:
        """Pull the project of a complete path if it is older than `max_age` or missing; return True if it pulled."""
        if self._max_age is None or path is None or path.count("/") != 1 or path in self._checked:
            return False
        self._checked.add(path)
        at = None
        if self._session.home.published.exists():
            at = next((at for name, at in self.snapshot.successes().items() if str(name) == path), None)
        # A time in the future was written before a clock was set back, so the age is unknown.
        if at is not None and -_CLOCK_SKEW <= datetime.now(UTC) - at <= self._max_age:
            return False
        self._session.pull([path])
        self.forget()
        return True

    def flush(self, paths: Sequence[str]) -> None:
        """Pull everything of these paths again; without paths, of the opened runs, and of listed projects what changed.

        Raises CommError.
        """
        if paths:
            self._session.pull(paths, afresh=True)
        else:
            projects = self.projects_used(opened=False)
            runs = [path for path in self._used if path.count("/") == 2]
            if projects or not runs:
                self._session.pull(projects)
            if runs:
                self._session.pull(runs, afresh=True)
        self.check_again()


def span(given: str | float | None) -> timedelta | None:
    """Parse the time span of `max_age`, such as "90s", "5m", "2h", or seconds. Raises ArgumentError."""
    if given is None:
        return None
    from mirror.settings.values import Impossible, seconds

    try:
        found = float(given) if isinstance(given, int | float) else seconds(given)
    except Impossible as error:
        raise ArgumentError(f"max_age={given!r}: {error}") from None
    if not 0 <= found < float("inf"):
        raise ArgumentError(f"max_age={given!r} is not a time span")
    return timedelta(seconds=found)
