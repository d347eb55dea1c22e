"""Runs that continue to log while the server runs."""

from __future__ import annotations

import threading
from random import Random
from types import TracebackType
from typing import Self

from mirror.sandbox.run import Run
from mirror.sandbox.sample import curves


class LiveRun:
    """Logs a row to a running run at intervals, from its own thread, until stopped."""

    def __init__(self, run: Run, every: float, seed: int = 0) -> None:
        """`every` in seconds."""
        self.run = run
        self._every = every
        self._draw = Random(seed)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"live-{run.run_id}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._stopped.is_set():
            step = self.run.history.last_step + 1
            value = curves.loss(self._draw, step, 2000, 3e-4)
            # The sample's clock is long ago; without this the run would seem to have run ever since.
            runtime = self.run.summary.get("_runtime", 0.0) + self._every
            self.run.log({"loss": value, "train/acc": curves.accuracy(value), "_runtime": round(runtime, 6)})
            if step % 10 == 0:
                self.run.log_system({"system.cpu": round(self._draw.uniform(20, 90), 1)})
            self._stopped.wait(self._every)

    def stop(self) -> None:
        """Stop logging; the run stays in the state `running`."""
        self._stopped.set()
        self._thread.join(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def keep_logging(run: Run, every: float = 0.2) -> LiveRun:
    """Log a row to the run every `every` seconds, until `stop` or the end of the `with` block."""
    return LiveRun(run, every)
