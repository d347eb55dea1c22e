"""How long the content of files takes to mirror, compared with the official client's `file.download` in a loop.

    python benchmarks/files.py [--small N] [--large N] [--megabytes N] [--latency SECONDS] [--rates MB,MB] [--repeat N]

- small: 2,000 files of 50 kB in 20 runs
- large: 20 files of 100 MB in 4 runs, each connection with 100, 300 and any number of MB/s

The server is a process of its own on the same cores, and answers each request for a file after the latency. `mirror
sync` includes its start, the pass and publishing; the client's loop includes its list of files, but not its start.
Prints medians, and the peak memory of the mirror's process beside that of the same sync without files.
"""

from __future__ import annotations

import argparse
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
import random, sys
from mirror.sandbox import Sandbox, World
runs, files, size, latency, rate = *map(int, sys.argv[1:4]), *map(float, sys.argv[4:])
world, draw = World(username="ada", entity="acme"), random.Random(7)
for number in range(runs):
    run = world.add_run("acme", "bench", run_id=f"run{number}")
    for index in range(files // runs):
        run.add_file(f"media/{index}.bin", draw.randbytes(size))
        run.files[f"media/{index}.bin"].md5
    run.finish()
with Sandbox(world) as server:
    server.faults.add("latency", None, "file", seconds=latency)
    if rate:
        server.faults.add("drip", None, "file", seconds=0.25 / rate, piece=250_000)
    print(server.url, server.key, flush=True)
    sys.stdin.read()
"""

SDK = """
import sys, time, wandb
api = wandb.Api(timeout=300)
started = time.perf_counter()
for run in api.runs("acme/bench"):
    for file in run.files(per_page=1000):
        file.download(root=f"out/{run.id}", replace=True).close()
print(time.perf_counter() - started)
"""


@contextmanager
def server(runs: int, files: int, size: int, latency: float, rate: float) -> Iterator[dict[str, str]]:
    """Start a sample server in its own process; yields an environment that points at it."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *map(str, (runs, files, size, latency, rate))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        url, key = process.stdout.readline().split()
        yield {**os.environ, "WANDB_BASE_URL": url, "WANDB_API_KEY": key, "WANDB_SILENT": "true"}
    finally:
        process.terminate()
        process.wait()


def by_mirror(environ: dict[str, str], expected: int) -> tuple[float, float]:
    """Return the seconds of `mirror sync` into an empty home, and its peak memory in MB; `expected` files or none."""
    home = Path(tempfile.mkdtemp(prefix="mirror-bench-"))
    try:
        choice = '"content"' if expected else '"list"'
        limits = 'files_max = ""\nfiles_budget = ""\n'
        (home / "config.toml").write_text(f'projects = ["acme/bench"]\n[sync]\nfiles = {choice}\n{limits}')
        command = str(Path(sys.executable).with_name("mirror"))
        started = time.perf_counter()
        process = subprocess.Popen([command, "-q", "sync"], env={**environ, "MIRROR_HOME": str(home)})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        with duckdb.connect(str(home / "mirror.duckdb"), read_only=True) as connection:
            [(found,)] = connection.execute("SELECT count(local_path) FROM files").fetchall()
        if process.returncode or found != expected:
            raise SystemExit(f"{found:,} files instead of {expected:,}, exit code {process.returncode}")
        return seconds, usage.ru_maxrss / 1000
    finally:
        shutil.rmtree(home)


def by_sdk(environ: dict[str, str]) -> float:
    """Return the seconds of the official client's loop."""
    home = tempfile.mkdtemp(prefix="sdk-bench-")
    try:
        own = dict.fromkeys(("HOME", "WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"), home)
        done = subprocess.run(
            [sys.executable, "-c", SDK], env={**environ, **own}, check=True, capture_output=True, text=True, cwd=home
        )
        return float(done.stdout.splitlines()[-1])
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--large", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--latency", type=float, default=0.03)
    parser.add_argument("--rates", default="100,300,", metavar="MB,MB", help="MB/s a connection; empty for no limit")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    large = (min(4, given.large), given.large, given.megabytes * 1_000_000)
    parts = [("small", 20, given.small, 50_000, 0.0)]
    parts += [(f"large, {rate or 'all'} MB/s", *large, float(rate or 0)) for rate in given.rates.split(",")]
    for name, runs, files, size, rate in parts:
        if not files:
            continue
        with server(runs, files, size, given.latency, rate) as environ:
            _, without = by_mirror(environ, 0)
            ours = [by_mirror(environ, files) for _ in range(given.repeat)]
            theirs = statistics.median(by_sdk(environ) for _ in range(given.repeat))
        seconds, memory = (statistics.median(column) for column in zip(*ours, strict=True))
        print(
            f"{name}: {files:,} files of {size / 1e6:g} MB: mirror sync {seconds:.1f} s, "
            f"official client {theirs:.1f} s, {theirs / seconds:.1f} times as long; "
            f"memory {memory:.0f} MB, without files {without:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
