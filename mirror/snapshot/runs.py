"""Some runs of one snapshot, read together when the first of them is looked at."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from mirror.snapshot.paths import Project
from mirror.snapshot.prefetch import Reader
from mirror.snapshot.snapshot import Snapshot
from mirror.wandb_json import loads


class Page:
    """Runs that stand beside each other in a list; what is read of one is read of all in one query."""

    def __init__(self, snapshot: Snapshot, rids: Sequence[int], reader: Reader | None = None) -> None:
        self.snapshot = snapshot
        self.reader = reader or Reader(snapshot, rids)
        self._rids = rids
        self._columns: dict[str, dict[int, Any]] = {}
        self._lock = threading.Lock()

    def fact(self, rid: int, column: str) -> Any:
        """One column of FACTS, `tags`, the JSON text of one of DOCUMENTS, or what the server `told`, of one run.

        `heavy` is what it told that may be long; None where it did not.
        """
        values = self._columns.get(column)
        if values is None:
            with self._lock:
                values = self._columns[column] = self._read(column)
        if column == "told":
            return values.get(rid, {})
        if column == "heavy":
            return values.get(rid)
        return values.get(rid, []) if column == "tags" else values[rid]

    def _read(self, column: str) -> dict[int, Any]:
        """The column for every run of the page."""
        if column == "told":
            return self.snapshot.told(self._rids)
        if column == "heavy":
            return self.snapshot.heavy(self._rids)
        return self.snapshot.tags(self._rids) if column == "tags" else self.snapshot.column(column, self._rids)

    def document(self, rid: int, name: str) -> Any:
        """A document of one run, an object of its own each time; {} for none."""
        text: str | None = self.fact(rid, name)
        return loads(text) if text else {}


class RunPage(Page):
    """Runs of one project."""

    def __init__(self, snapshot: Snapshot, rids: Sequence[int], key: Project, reader: Reader | None = None) -> None:
        super().__init__(snapshot, rids, reader)
        self.key = key
