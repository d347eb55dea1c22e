"""Faults that a server can be told to serve, to find out what a client makes of them."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass

KINDS = ("429", "500", "502", "503", "reset", "truncated", "graphql", "latency", "expired")
STORAGE = ("parquet", "file")
HTTP_ONLY = ("file_stream", "upload", *STORAGE)


@dataclass
class Fault:
    """One kind of fault, for how many more requests (None: for ever), and for which operation (None: any)."""

    kind: str
    left: int | None
    operation: str | None
    probability: float
    retry_after: float
    seconds: float

    def fits(self, operation: str) -> bool:
        """Whether a request of this operation can meet the fault at all."""
        if self.left == 0 or self.operation not in (None, operation):
            return False
        if self.kind == "expired":
            return operation in STORAGE
        return self.kind != "graphql" or operation not in HTTP_ONLY


class Faults:
    """The faults that wait to be served, and how many were. Threads may add some while the server runs."""

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
    ) -> None:
        """Let the next `times` fitting requests meet the fault; None: all of them.

        `retry_after` goes with 429 and 503, `seconds` with latency; with `probability`, a seeded draw decides at each
        fitting request. Refuses an unknown kind.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown fault {kind!r}; there are {', '.join(KINDS)}")
        with self._lock:
            self._waiting.append(Fault(kind, times, operation, probability, retry_after, seconds))

    def clear(self) -> None:
        """Forget what waits; the counts stay."""
        with self._lock:
            self._waiting.clear()

    def take(self, operation: str) -> list[Fault]:
        """What this request meets: any latency, and at most one fault of another kind. They count as served."""
        with self._lock:
            met: list[Fault] = []
            for fault in self._waiting:
                if not fault.fits(operation) or (fault.kind != "latency" and any(it.kind != "latency" for it in met)):
                    continue
                if fault.probability < 1 and self._random.random() >= fault.probability:
                    continue
                if fault.left is not None:
                    fault.left -= 1
                self.counts[fault.kind] += 1
                met.append(fault)
            return met
