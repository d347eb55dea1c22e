"""The parsed answers of history requests, before they are committed."""

from __future__ import annotations

from msgspec import Struct, field

from mirror.errors import CommError
from mirror.remote.history import Window
from mirror.store.records import HistoryPage


class Batch(Struct):
    """One or more parsed answers: pages in the order of their windows, and the runs that failed."""

    windows: list[Window]
    pages: list[tuple[Window, HistoryPage]] = field(default_factory=list)
    failed: dict[str, CommError] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)

    @property
    def values(self) -> int:
        """The number of logged values."""
        return sum(page.values.num_rows for _, page in self.pages)

    def add(self, other: Batch) -> None:
        """Append another answer to this one."""
        self.windows += other.windows
        self.pages += other.pages
        self.failed.update(other.failed)
        self.gone += other.gone
