"""How many runs to request at once."""

from __future__ import annotations

MOST_RUNS = 1000
"""The largest number of runs in a page that servers are known to return."""

PAGE_BYTES = 4 << 20
"""The target size of an answer; pages of heavy runs shrink towards it."""

GROWTH = 10
"""How much larger than the page before a page may be."""


class PageSize:
    """The number of runs in a page: grows and shrinks so that an answer stays near PAGE_BYTES.

    The first page is a sample: a thousand runs with large documents are too much for one answer.
    """

    def __init__(self, start: int = 100) -> None:
        self.runs = start

    def learn(self, runs: int, size: int) -> None:
        """Record an answer of `size` bytes with `runs` runs."""
        if runs:
            fitting = int(PAGE_BYTES / max(1.0, size / runs))
            self.runs = max(1, min(MOST_RUNS, fitting, self.runs * GROWTH))

    def shrink(self, requested: int, parts: int = 4) -> bool:
        """Request fewer than a page of `requested` runs divided by `parts`; return False if it cannot get smaller."""
        self.runs = min(self.runs, max(1, requested // parts))
        return requested > 1
