"""Faults that the server can inject, to test how a client handles them."""

from __future__ import annotations

import random
import threading
from collections import Counter

from msgspec import Struct

KINDS = (
    "403", "404", "429", "500", "502", "503", "504", "reset", "truncated", "graphql", "latency", "expired",
    "html", "redirect", "drip",
)  # fmt: skip
STORAGE = ("parquet", "file", "artifact", "manifest")
HTTP_ONLY = ("file_stream", "upload", *STORAGE)


class Fault(Struct):
    """A kind of fault for `left` more requests (None: for ever) of `operation` (None: any)."""

    kind: str
    left: int | None
    operation: str | None
    probability: float
    retry_after: float
    seconds: float
    about: str = ""
    piece: int = 1

    def fits(self, operation: str, text: str = "") -> bool:
        """Return True if the fault applies to a request of this operation, with `text` as its path and body."""
        if self.left == 0 or self.operation not in (None, operation) or self.about not in text:
            return False
        if self.kind == "expired":
            return operation in STORAGE
        return self.kind != "graphql" or operation not in HTTP_ONLY


class Faults:
    """The active faults, and counts of injected ones. Threads may add some while the server runs."""

    def __init__(self, seed: int = 0) -> None:
        self.counts: Counter[str] = Counter()
        self._waiting: list[Fault] = []
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def add(
        self,
        kind: str,
        times: int | None = 1,
        operation: str | None = None,
        *,
        retry_after: float = 0.1,
        seconds: float = 0.2,
        probability: float = 1.0,
        about: str = "",
        piece: int = 1,
    ) -> None:
        """Inject the fault into the next `times` matching requests; None: into all of them.

        `retry_after` applies to 429 and 503, `seconds` to latency and, for each `piece` of that many bytes, to drip.
        With `probability`, a seeded random choice decides for each matching request. Only requests with `about` in
        their path or body match, such as those for one run. Raises ValueError for an unknown kind.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown fault {kind!r}; there are {', '.join(KINDS)}")
        with self._lock:
            self._waiting.append(Fault(kind, times, operation, probability, retry_after, seconds, about, piece))

    def clear(self) -> None:
        """Remove all faults; the counts stay."""
        with self._lock:
            self._waiting.clear()

    def take(self, operation: str, text: str = "") -> list[Fault]:
        """Return, and count, the faults for a request with `text`: all latencies, and at most one of another kind."""
        with self._lock:
            met: list[Fault] = []
            for fault in self._waiting:
                if not fault.fits(operation, text) or (
                    fault.kind != "latency" and any(it.kind != "latency" for it in met)
                ):
                    continue
                if fault.probability < 1 and self._random.random() >= fault.probability:
                    continue
                if fault.left is not None:
                    fault.left -= 1
                self.counts[fault.kind] += 1
                met.append(fault)
            return met
