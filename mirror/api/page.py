"""Some runs of one snapshot, read together when the first of them is looked at."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from mirror.api.histories import Reader
from mirror.api.snapshot import Address, Snapshot
from mirror.remote.lenient import loads


class Page:
    """Runs that stand beside each other in a list; what is read of one is read of all in one query."""

    def __init__(self, snapshot: Snapshot, addresses: Sequence[Address], reader: Reader | None = None) -> None:
        self.snapshot = snapshot
        self.reader = reader or Reader(snapshot, addresses)
        self._rids = [address.rid for address in addresses]
        self._facts: dict[int, dict[str, Any]] | None = None
        self._documents: dict[int, tuple[str | None, str | None, str | None]] | None = None
        self._lock = threading.Lock()

    def facts(self, rid: int) -> dict[str, Any]:
        """The columns of one run."""
        with self._lock:
            if self._facts is None:
                self._facts = self.snapshot.facts(self._rids)
            return self._facts[rid]

    def documents(self, rid: int) -> tuple[str | None, str | None, str | None]:
        """The JSON texts of one run: config, W&B's own part of it, summary."""
        with self._lock:
            if self._documents is None:
                self._documents = self.snapshot.documents(self._rids)
            return self._documents[rid]


def parsed(text: str | None) -> Any:
    """The value of a document's text, an object of its own each time; {} for none."""
    return loads(text) if text else {}
