"""Exports to a lake: the first, the second after 1% of the runs changed, and one with nothing new.

Synthetic history of 20 metrics is written directly to segments; the newest 1% of the runs then get 1% more steps and
another config. Prints wall and CPU seconds and bytes written and, with --spread, the same where the changed runs are
spread over all of them. The benchmark fails if the second export takes a tenth of the first one's CPU time or bytes, or
more. Looking for changes takes 0.15 s even where there are none, so small mirrors do fail.
With --read, also what readers take to answer two questions of the lake.
Usage: python benchmarks/lake.py [--values 300] [--runs 3000] [--spread] [--read] [--folder DIR]
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from publish import KEYS, NOW, PROJECT, page, run

from mirror.lake.export import export
from mirror.lake.target import find
from mirror.settings.home import Home
from mirror.store import history, projects
from mirror.store import runs as stored_runs
from mirror.store.store import Store

BATCH = 4_000_000


def fill(store: Store, runs: int, steps: int, random: np.random.Generator) -> None:
    """Write the runs, a few million values per transaction."""
    at_once = min(max(1, BATCH // (steps * len(KEYS))), 1000)
    for first in range(0, runs, at_once):
        numbers = range(first, min(first + at_once, runs))
        with store.transaction() as tx:
            stored_runs.upsert(tx, [run(number) for number in numbers], now=NOW)
            pages = [page(run(number).run_id, 0, steps, random) for number in numbers]
            history.append(tx, PROJECT, pages, to_come=10_000_000)
    store.seal()
    store.publish()


def change(store: Store, numbers: Sequence[int], steps: int, random: np.random.Generator) -> None:
    """Change these runs, and log 1% more steps of each."""
    more = max(1, steps // 100)
    with store.transaction() as tx:
        changed = [replace(run(number), name=f"again {number}", config={"changed": number}) for number in numbers]
        stored_runs.upsert(tx, changed, now=NOW)
        history.append(tx, PROJECT, [page(run(number).run_id, steps, more, random) for number in numbers])
    store.publish()


def measured(label: str, home: Home, address: str) -> tuple[float, int]:
    """Export, print a line, and return CPU seconds and bytes written."""
    before, started = _cpu(), time.perf_counter()
    done = export(home, None, find(address))
    wall, cpu = time.perf_counter() - started, _cpu() - before
    print(
        f"{label}: {wall:.2f} s, {cpu:.2f} s CPU, {done.written} files, {done.bytes / 1e6:.1f} MB written, "
        f"{done.kept} files and {done.rows:,} rows in all",
        flush=True,
    )
    return cpu, done.bytes


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def read(address: str, published: Path) -> None:
    """Print what readers take for the mean loss of each run at the end, and for the values of one run."""
    import duckdb
    import polars as pl

    frame = pl.scan_delta(f"{address}/history")
    one = (pl.col("run_id") == run(7).run_id) & (pl.col("key") == KEYS[0])

    def whole() -> object:
        return frame.group_by("run_id", "key").agg(pl.col("value").mean()).collect()

    def single() -> object:
        return frame.filter(one).select("step", "value").collect()

    _timed("Polars on the lake", whole, single)
    with duckdb.connect(str(published), read_only=True) as connection:
        grouped = "SELECT run_id, key, avg(value) FROM history GROUP BY ALL"
        named = f"SELECT step, value FROM history WHERE run_id = '{run(7).run_id}' AND key = '{KEYS[0]}'"
        _timed(
            "DuckDB on the mirror",
            lambda: connection.execute(grouped).fetchall(),
            lambda: connection.execute(named).fetchall(),
        )


def _timed(label: str, *questions: Callable[[], object]) -> None:
    for what, question in zip(("means of every run and key", "one curve"), questions, strict=True):
        started = time.perf_counter()
        question()
        print(f"{label}: {what} in {time.perf_counter() - started:.2f} s", flush=True)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=float, default=300, help="millions of history values")
    parser.add_argument("--runs", type=int, default=3000)
    parser.add_argument("--spread", action="store_true")
    parser.add_argument("--read", action="store_true")
    parser.add_argument("--folder", help="keep the mirror and the lake in this new folder")
    given = parser.parse_args()
    random = np.random.default_rng(1)
    steps = max(1, int(given.values * 1_000_000 / given.runs / len(KEYS)))
    share = max(1, given.runs // 100)
    with tempfile.TemporaryDirectory(prefix="lake-") as scratch:
        root = Path(given.folder or scratch)
        store = Store.open(Home(root / "mirror", root / "config.toml"), tail_values=1_000_000)
        try:
            with store.transaction() as tx:
                projects.add(tx, PROJECT)
            fill(store, given.runs, steps, random)
            address = str(root / "lake")
            cpu, size = measured(f"first, {given.runs:,} runs of {steps:,} steps", store.home, address)
            change(store, range(given.runs - share, given.runs), steps, random)
            cpu_again, size_again = measured("after the newest 1% of the runs changed", store.home, address)
            measured("with nothing new", store.home, address)
            if given.spread:
                change(store, range(0, given.runs, 100), steps + steps // 100 + 1, random)
                measured("after 1% of the runs, spread over all, changed", store.home, address)
            if given.read:
                read(address, store.home.published)
        finally:
            store.close()
    print(f"second / first: {cpu_again / cpu:.1%} of the CPU time, {size_again / size:.1%} of the bytes")
    if cpu_again >= cpu / 10 or size_again >= size / 10:
        sys.exit("the second export costs a tenth of the first or more")


if __name__ == "__main__":
    main()
