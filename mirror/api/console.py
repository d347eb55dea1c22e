"""The console lines of a run as a list."""

from __future__ import annotations

from typing import Any

from mirror.api.lists import WholeList
from mirror.snapshot.snapshot import ConsoleLine

__all__ = ["ConsoleLogs"]


class ConsoleLogs(WholeList[ConsoleLine]):
    """Mirrored console lines, oldest first."""

    def __init__(self, run: Any, lines: list[ConsoleLine]) -> None:
        """Use `Run.console_logs` to get them."""
        self.run = run
        self._lines = lines

    def _all(self) -> list[ConsoleLine]:
        return self._lines

    def __repr__(self) -> str:
        return f"<ConsoleLogs {self.run.entity}/{self.run.project}/{self.run.id}>"
