"""Publish time as history grows, and with many runs: how long a reader waits after a commit.

Synthetic history is written directly to segments; then each publish follows a commit of a thousand values and one run.
Prints seconds (median, minimum, maximum), the size of the published file and the segments' bytes per value.
Usage: python benchmarks/publish.py [--values 10,100,300] [--runs 100000] [--repeat 7]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from mirror.settings.home import Home
from mirror.store import history, projects
from mirror.store import runs as stored_runs
from mirror.store.records import HistoryPage, ProjectKey, RunRecord
from mirror.store.store import Store

PROJECT = ProjectKey("acme", "bench")
NOW = datetime(2026, 1, 1)
KEYS = [f"metric/{number:02d}" for number in range(20)]
STEPS = 50_000
RUN = RunRecord(
    entity=PROJECT.entity,
    project=PROJECT.project,
    run_id="",
    storage_id="",
    name="brave-sun-1",
    state="finished",
    created_at=NOW,
    heartbeat_at=NOW,
    updated_at=NOW,
    duration_s=3600.0,
    username="ada",
    group_name=None,
    job_type="train",
    sweep=None,
    notes=None,
    description=None,
    tags=("base",),
    git_commit=None,
    host="box",
    url="https://wandb.ai/acme/bench/runs/x",
)


def run(number: int, leaves: int = 30) -> RunRecord:
    """Return a run with `leaves` config values and half as many summary values."""
    config = {f"group_{place % 5}.option_{place}": number * place * 0.37 for place in range(leaves)}
    summary = {f"metric/{place:02d}": number / (place + 1) for place in range(leaves // 2)}
    name = f"r{number:07d}"
    return replace(RUN, run_id=name, storage_id=name, name=f"run {number}", config=config, summary=summary)


def page(run_id: str, first: int, steps: int, random: np.random.Generator) -> HistoryPage:
    """Return noise of single precision, as metrics are logged, one value per step and key, sorted by key."""
    values = random.standard_normal(steps * len(KEYS)).astype(np.float32).astype(np.float64)
    table = pa.table(
        {
            "step": np.tile(np.arange(first, first + steps), len(KEYS)),
            "key": pa.array(np.repeat(np.array(KEYS), steps)),
            "value": values,
            "text": pa.nulls(len(values), pa.string()),
        }
    )
    return HistoryPage(run_id, table, rows=steps, last_step=first + steps - 1)


def backfill(store: Store, millions: int, number: int, random: np.random.Generator) -> int:
    """Add runs of a million values each, four per transaction, up to `millions`; returns the next run's number."""
    while number < millions:
        batch = range(number, min(number + 4, millions))
        with store.transaction() as tx:
            stored_runs.upsert(tx, [run(each) for each in batch], now=NOW)
            history.append(
                tx, PROJECT, [page(run(each).run_id, 0, STEPS, random) for each in batch], to_come=10_000_000
            )
        number = batch.stop
    return number


def timed(store: Store, repeat: int, random: np.random.Generator) -> list[float]:
    """Return the seconds of each publish after a small commit."""
    seconds = []
    for round_ in range(repeat):
        with store.transaction() as tx:
            stored_runs.upsert(tx, [replace(run(0), name=f"renamed {round_} {time.monotonic()}")], now=NOW)
            step = STEPS + round_ + int(time.monotonic() * 1000)
            history.append(tx, PROJECT, [page(run(0).run_id, step, 50, random)])
        started = time.perf_counter()
        store.publish()
        seconds.append(time.perf_counter() - started)
    return seconds


def print_line(label: str, seconds: list[float], home: Home) -> None:
    """Print one line of the table."""
    with duckdb.connect(str(home.published), read_only=True) as connection:
        segments = "FROM store.segments WHERE retired_at IS NULL"
        found = connection.execute(f"SELECT count(*), sum(bytes) / sum(value_count) {segments}").fetchone()
    assert found is not None
    each = f"{found[1]:.2f} B/value in {found[0]} segments" if found[0] else "no segments"
    size = home.published.stat().st_size / 1e6
    times = f"{statistics.median(seconds):.3f} s ({min(seconds):.3f}-{max(seconds):.3f})"
    print(f"{label}: publish {times}, file {size:.1f} MB, {each}", flush=True)


@contextmanager
def fresh() -> Iterator[Store]:
    """Create a store in a temporary folder, deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="publish-") as folder:
        store = Store.open(Home(Path(folder), Path(folder) / "config.toml"), tail_values=1_000_000)
        try:
            with store.transaction() as tx:
                projects.add(tx, PROJECT)
            yield store
        finally:
            store.close()


def main() -> None:
    """Measure both, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", default="10,100,300", help="millions of history values, ascending")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=7)
    given = parser.parse_args()
    random = np.random.default_rng(1)
    medians = []
    with fresh() as store:
        number = 0
        for millions in map(int, given.values.split(",")):
            number = backfill(store, millions, number, random)
            store.seal()
            store.publish()
            seconds = timed(store, given.repeat, random)
            medians.append(statistics.median(seconds))
            print_line(f"{millions} million values, {number} runs", seconds, store.home)
    print(f"largest median / smallest: {max(medians) / min(medians):.2f}")
    with fresh() as store:
        started = time.perf_counter()
        for first in range(0, given.runs, 5_000):
            with store.transaction() as tx:
                stored_runs.upsert(tx, [run(each) for each in range(first, min(first + 5_000, given.runs))], now=NOW)
        written = time.perf_counter() - started
        started = time.perf_counter()
        store.publish()
        print(f"{given.runs} runs written in {written:.1f} s, first publish {time.perf_counter() - started:.1f} s")
        seconds = timed(store, given.repeat, random)
        print_line(f"{given.runs} runs", seconds, store.home)


if __name__ == "__main__":
    main()
