"""Full history of a project: `mirror sync` into a fresh mirror, against a loop over the official SDK's `scan_history`.

Both read the same sample server, which runs in a process of its own. Prints seconds (median), rows a second and the
ratio. Usage: python benchmarks/history.py [--runs 500] [--steps 2000] [--metrics 20] [--repeat 3] [--sdk-repeat 1]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

SERVER = """
import sys, time
from mirror.sandbox import Sandbox, sample
runs, steps, metrics = map(int, sys.argv[1:4])
with Sandbox(sample.grid(runs=runs, steps=steps, metrics=metrics)) as server:
    print(server.url, server.key, flush=True)
    sys.stdin.read()
"""

SDK = """
import json, sys, time
import wandb
started = time.perf_counter()
rows = values = 0
for run in wandb.Api(timeout=120).runs(sys.argv[1], per_page=1000):
    for row in run.scan_history(page_size=1000):
        rows += 1
        values += len(row)
print(json.dumps({"rows": rows, "values": values, "seconds": time.perf_counter() - started}))
"""

PATH = "acme/bench"


@contextmanager
def sample_server(*size: int) -> Iterator[dict[str, str]]:
    """A sample server in a process of its own; the environment that points at it."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *map(str, size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        url, key = process.stdout.readline().split()
        # Both run as installed programs do, with their modules compiled once.
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        yield {**environ, "WANDB_BASE_URL": url, "WANDB_API_KEY": key, "WANDB_SILENT": "true"}
    finally:
        process.terminate()
        process.wait()


def time_mirror(environ: dict[str, str], rows: int) -> float:
    """Seconds of one `mirror sync` into a fresh home; checks that everything came."""
    home = Path(tempfile.mkdtemp(prefix="mirror-bench-"))
    try:
        started = time.perf_counter()
        command = [Path(sys.executable).with_name("mirror"), "-q", "sync", PATH]
        subprocess.run(command, env={**environ, "MIRROR_HOME": str(home)}, check=True)
        seconds = time.perf_counter() - started
        with duckdb.connect(str(home / "mirror.duckdb"), read_only=True) as connection:
            found = connection.execute("select sum(history_rows) from runs").fetchall()[0][0]
        if found != rows:
            raise SystemExit(f"{found:,} rows were mirrored where {rows:,} were logged")
        return seconds
    finally:
        shutil.rmtree(home)


def time_sdk(environ: dict[str, str], rows: int) -> float:
    """Seconds that the official client needs for the same rows, its start not counted."""
    home = tempfile.mkdtemp(prefix="sdk-bench-")
    try:
        own = dict.fromkeys(("HOME", "WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR"), home)
        command = [sys.executable, "-c", SDK, PATH]
        done = subprocess.run(command, env={**environ, **own}, check=True, capture_output=True, text=True, cwd=home)
        found = json.loads(done.stdout.splitlines()[-1])
        if found["rows"] != rows:
            raise SystemExit(f"the SDK read {found['rows']:,} rows where {rows:,} were logged")
        return float(found["seconds"])
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main() -> None:
    """Measure both and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    for name, default in (("runs", 500), ("steps", 2000), ("metrics", 20), ("repeat", 3), ("sdk-repeat", 1)):
        options.add_argument(f"--{name}", type=int, default=default)
    given = options.parse_args()
    rows = given.runs * given.steps
    with sample_server(given.runs, given.steps, given.metrics) as environ:
        mirror = statistics.median(time_mirror(environ, rows) for _ in range(given.repeat))
        sdk = statistics.median(time_sdk(environ, rows) for _ in range(given.sdk_repeat))
    print(f"{given.runs} runs x {given.steps} steps x {given.metrics} metrics, {os.cpu_count()} cores")
    print(f"{'':14}{'seconds':>10}{'rows/s':>12}")
    for name, seconds in (("mirror sync", mirror), ("scan_history", sdk)):
        print(f"{name:14}{seconds:10.1f}{rows / seconds:12,.0f}")
    print(f"ratio {sdk / mirror:.1f}")


if __name__ == "__main__":
    main()
