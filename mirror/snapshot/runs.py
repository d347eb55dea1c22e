"""Pages of runs of one snapshot: what is read of one run is read for the whole page at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from mirror.snapshot.paths import Project
from mirror.snapshot.prefetch import Reader
from mirror.snapshot.snapshot import Snapshot
from mirror.wandb_json import loads


class Page:
    """Neighbouring runs of a list. A column that is read for one of them is read for all, in one query."""

    def __init__(self, snapshot: Snapshot, rids: Sequence[int], reader: Reader | None = None) -> None:
        self.snapshot = snapshot
        self.reader = reader or Reader(snapshot, rids)
        self._rids = rids
        self._columns: dict[str, dict[int, Any]] = {}
        self._lock = threading.Lock()

    def fact(self, rid: int, column: str) -> Any:
        """One fact about one run.

        `column` is one of `run_rows.FACTS`, `tags`, one of DOCUMENTS (as JSON text), `history_rows` for the number of
        mirrored history lines, `reported` for what the server returned about the run, or `heavy` for the parts of that
        which may be long (None if the server did not return them).
        """
        values = self._columns.get(column)
        if values is None:
            with self._lock:
                values = self._columns[column] = self._read(column)
        if column == "reported":
            return values.get(rid, {})
        if column in ("heavy", "history_rows"):
            return values.get(rid)
        return values.get(rid, []) if column == "tags" else values[rid]

    def _read(self, column: str) -> dict[int, Any]:
        """The column for every run of the page."""
        if column == "reported":
            return self.snapshot.run_facts(self._rids)
        if column == "heavy":
            return self.snapshot.heavy(self._rids)
        if column == "history_rows":
            return self.snapshot.history_rows(self._rids)
        return self.snapshot.tags(self._rids) if column == "tags" else self.snapshot.column(column, self._rids)

    def document(self, rid: int, name: str) -> Any:
        """A document of one run, parsed again on each call; {} if the run has none."""
        text: str | None = self.fact(rid, name)
        return loads(text) if text else {}


class RunPage(Page):
    """Runs of one project."""

    def __init__(self, snapshot: Snapshot, rids: Sequence[int], key: Project, reader: Reader | None = None) -> None:
        super().__init__(snapshot, rids, reader)
        self.key = key
