"""What a sync costs, compared with the alternative: reading the same sample server with the official SDK.

    python benchmarks/sync.py [--repeat 5] [--only runs,history,lines,long,idle,step] [--small]

- runs: 5,000 runs with config and summary, against `api.runs(lazy=False)` at 50 and at 1,000 a page
- history: 500 runs x 2,000 steps x 20 metrics that the server has exported, against a loop over `scan_history`
- lines: the same without exports, in rows per second
- long: a run of 1,000,000 rows x 10 metrics in exports, against `beta_scan_history` and against DuckDB alone
- idle: a pass without changes over 5,000 mirrored runs, in requests and CPU
- step: a pass over one new step of one running run, with few and with many mirrored runs, until it is published

Prints medians. The server runs in its own process; both clients start as installed programs do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import httpx

from mirror.remote.client import Server
from mirror.sandbox import World
from mirror.settings.home import Home
from mirror.store.records import ProjectKey
from mirror.store.store import Store
from mirror.sync import engine
from mirror.sync.context import Context, Scope
from mirror.sync.targets import Target
from mirror.sync.writer import Writer

HERE = str(Path(__file__).parent)

SERVER = """
import sys
sys.path.insert(0, sys.argv[1])
import sync
from mirror.sandbox import Sandbox
with Sandbox(eval("sync." + sys.argv[2])) as server:
    print(server.url, server.key, flush=True)
    sys.stdin.read()
"""

SDK = """
import json, sys, time
import wandb
what, path, repeat = sys.argv[1], sys.argv[2], int(sys.argv[3])
for _ in range(repeat):
    api = wandb.Api(timeout=300)
    started = time.perf_counter()
    count = 0
    if what.startswith("runs"):
        for run in api.runs(path, per_page=int(what[4:]), lazy=False):
            count += bool(run.config) and bool(dict(run.summary.items()))
    else:
        for run in api.runs(path, per_page=1000):
            rows = run.scan_history(page_size=1000) if what == "scan" else run.beta_scan_history(use_cache=False)
            for row in rows:
                count += 1
    print(json.dumps([time.perf_counter() - started, count]), flush=True)
"""


def many_runs(runs: int, *, live: bool = False) -> World:
    """Return `acme/bench`: runs with 80 values in config and summary, and with `live` one that is running."""
    import random

    from filters import document

    world, rng = World(username="ada", entity="acme"), random.Random(7)
    for number in range(runs):
        config, summary = document(rng, number)
        # An hour apart, over half a year: a pass requests changes from two minutes before the newest run on.
        at = datetime(2026, 1, 1) + timedelta(hours=number)
        world.add_run("acme", "bench", config=config, summary=summary, state="finished", created_at=at)
    if live:
        world.add_run("acme", "bench", run_id="live")
    return world


def grid(runs: int, steps: int, metrics: int, exported: bool) -> World:
    """Return `acme/bench`: finished runs with a row of `metrics` values at every step."""
    from mirror.sandbox import sample

    return sample.grid(runs, steps, metrics, exported=exported)


def long_run(rows: int, metrics: int) -> World:
    """Return `acme/long`: one finished run."""
    from mirror.sandbox import sample

    return sample.long_run(rows, metrics)


@contextmanager
def server(world: str) -> Iterator[dict[str, str]]:
    """Start a sample server in its own process; yields an environment that points at it."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, HERE, world], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        url, key = process.stdout.readline().split()
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        yield {**environ, "WANDB_BASE_URL": url, "WANDB_API_KEY": key, "WANDB_SILENT": "true"}
    finally:
        process.terminate()
        process.wait()


def by_mirror(environ: dict[str, str], path: str, check: str, expected: int, repeat: int) -> float:
    """Return the median seconds of `mirror sync` into an empty home, including start and publishing."""
    times = []
    command = [Path(sys.executable).with_name("mirror"), "-q", "sync", path]
    for _ in range(repeat):
        home = Path(tempfile.mkdtemp(prefix="mirror-bench-"))
        try:
            started = time.perf_counter()
            subprocess.run(command, env={**environ, "MIRROR_HOME": str(home)}, check=True)
            times.append(time.perf_counter() - started)
            with duckdb.connect(str(home / "mirror.duckdb"), read_only=True) as connection:
                [(found,)] = connection.execute(check).fetchall()
            if found != expected:
                raise SystemExit(f"{path}: {found:,} by `{check}` where there are {expected:,}")
        finally:
            shutil.rmtree(home)
    return statistics.median(times)


def by_sdk(environ: dict[str, str], what: str, path: str, expected: int, repeat: int) -> float:
    """Return the median seconds that the official client needs for the same, without its start."""
    home = tempfile.mkdtemp(prefix="sdk-bench-")
    try:
        own = dict.fromkeys(("HOME", "WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"), home)
        done = subprocess.run(
            [sys.executable, "-c", SDK, what, path, str(repeat)],
            env={**environ, **own},
            check=True,
            capture_output=True,
            text=True,
            cwd=home,
        )
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        if any(count != expected for _, count in found):
            raise SystemExit(f"the SDK gave {found} where there are {expected:,}")
        return statistics.median(seconds for seconds, _ in found)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def by_duckdb(rows: int, metrics: int, repeat: int) -> float:
    """Return the median seconds that DuckDB alone needs to load the same files into the mirror's table."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        run = long_run(rows, metrics).run("acme", "long", "long")
        paths = []
        for number, content in enumerate(run.exports):
            paths.append(f"{folder}/{number}.parquet")
            Path(paths[-1]).write_bytes(content)
        for number in range(repeat):
            with duckdb.connect(f"{folder}/{number}.duckdb") as connection:
                connection.execute(
                    "CREATE TABLE history_tail (rid BIGINT, step BIGINT, key VARCHAR, value DOUBLE, text VARCHAR)"
                ).fetchall()
                started = time.perf_counter()
                connection.execute(
                    f"""INSERT INTO history_tail SELECT 1, _step, key, value, NULL FROM (
                        UNPIVOT (SELECT _step, CAST(COLUMNS(* EXCLUDE (_step)) AS DOUBLE) FROM read_parquet({paths}))
                        ON * EXCLUDE (_step) INTO NAME key VALUE value)"""
                ).fetchall()
                connection.execute("CHECKPOINT").fetchall()
                times.append(time.perf_counter() - started)
    return statistics.median(times)


def passes(runs: int, repeat: int, *, stepping: bool) -> tuple[float, float, int]:
    """Return seconds, CPU seconds and requests of one pass in a running process with `runs` mirrored runs."""
    folder = Path(tempfile.mkdtemp(prefix="mirror-bench-"))
    project = ProjectKey("acme", "bench")
    found: list[tuple[float, float, int]] = []

    async def work(environ: dict[str, str]) -> None:
        url, key = environ["WANDB_BASE_URL"], environ["WANDB_API_KEY"]
        store = Store.open(Home(folder, folder / "config.toml"))
        writer = Writer(store, 3600)
        async with Server(url, key) as client, httpx.AsyncClient(auth=("api", key)) as logger:
            context = Context(client, writer, Scope())
            await engine.sync(context, [Target(project)])
            for number in range(repeat + 1):
                if stepping:
                    rows = {"offset": number, "content": [json.dumps({"_step": number, "loss": number / 7})]}
                    body = {"files": {"wandb-history.jsonl": rows}}
                    await logger.post(f"{url}/files/acme/bench/live/file_stream", json=body)
                started, cpu = time.perf_counter(), time.process_time()
                [result] = await engine.sync(context, [Target(project)])
                found.append((time.perf_counter() - started, time.process_time() - cpu, result.requests))
                assert result.rows == (1 if stepping else 0), result
        writer.close()
        store.close()

    try:
        with server(f"many_runs({runs}, live={stepping})") as environ:
            asyncio.run(work(environ))
    finally:
        shutil.rmtree(folder)
    return (
        statistics.median(seconds for seconds, _, _ in found[1:]),
        statistics.median(cpu for _, cpu, _ in found[1:]),
        found[-1][2],
    )


def line(name: str, mirror: str, other: str = "", ratio: str = "", wanted: str = "") -> None:
    print(f"{name:44}{mirror:>16}{other:>26}{ratio:>10}{wanted:>14}", flush=True)


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repeat", type=int, default=5)
    options.add_argument("--only", default="runs,history,lines,long,idle,step")
    options.add_argument("--small", action="store_true", help="a tenth of the data, to try the script")
    given = options.parse_args()
    part, repeat = (10 if given.small else 1), given.repeat
    wanted: dict[str, Callable[[], Any]] = {
        "runs": lambda: measure_runs(5000 // part, repeat),
        "history": lambda: measure_history(500 // part, repeat),
        "lines": lambda: measure_lines(500 // part, repeat),
        "long": lambda: measure_long(1_000_000 // part, repeat),
        "idle": lambda: measure_idle(5000 // part, repeat),
        "step": lambda: measure_step(5000 // part, repeat),
    }
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, DuckDB {duckdb.__version__}, medians of {repeat}")
    line("", "mirror", "instead", "ratio", "aim")
    for name in given.only.split(","):
        wanted[name]()


def measure_runs(runs: int, repeat: int) -> None:
    with server(f"many_runs({runs})") as environ:
        mirror = by_mirror(environ, "acme/bench", "select count(*) from runs", runs, repeat)
        for page, aim in ((50, "10x"), (1000, "2x")):
            sdk = by_sdk(environ, f"runs{page}", "acme/bench", runs, repeat)
            name = f"{runs:,} runs, api.runs at {page} a page"
            line(name, f"{mirror:.2f} s", f"{sdk:.2f} s", f"{sdk / mirror:.1f}x", aim)


def measure_history(runs: int, repeat: int) -> None:
    rows = runs * 2000
    with server(f"grid({runs}, 2000, 20, True)") as environ:
        mirror = by_mirror(environ, "acme/bench", "select sum(history_rows)::bigint from runs", rows, repeat)
        # A loop of two minutes; its times differ little.
        sdk = by_sdk(environ, "scan", "acme/bench", rows, min(repeat, 2))
    line(f"{rows:,} rows x 20 metrics, scan_history", f"{mirror:.1f} s", f"{sdk:.1f} s", f"{sdk / mirror:.1f}x", "20x")


def measure_lines(runs: int, repeat: int) -> None:
    rows = runs * 2000
    with server(f"grid({runs}, 2000, 20, False)") as environ:
        mirror = by_mirror(environ, "acme/bench", "select sum(history_rows)::bigint from runs", rows, repeat)
    line("the same as lines, rows a second", f"{rows / mirror:,.0f}", "", "", "60,000")


def measure_long(rows: int, repeat: int) -> None:
    with server(f"long_run({rows}, 10)") as environ:
        mirror = by_mirror(environ, "acme/long", "select sum(history_rows)::bigint from runs", rows, repeat)
        sdk = by_sdk(environ, "beta", "acme/long", rows, min(repeat, 2))
    alone = by_duckdb(rows, 10, repeat)
    line(f"{rows:,} rows x 10, beta_scan_history", f"{mirror:.1f} s", f"{sdk:.1f} s", f"{sdk / mirror:.1f}x", "10x")
    line("the same, DuckDB alone", f"{mirror:.1f} s", f"{alone:.1f} s", f"{mirror / alone:.1f}x", "at most 2.5x")


def measure_idle(runs: int, repeat: int) -> None:
    seconds, cpu, requests = passes(runs, repeat, stepping=False)
    line(
        f"nothing new, {runs:,} runs", f"{cpu * 1000:.0f} ms CPU", f"{requests} request, {seconds:.2f} s", "", "100 ms"
    )


def measure_step(runs: int, repeat: int) -> None:
    for count in (runs // 50, runs):
        seconds, cpu, _ = passes(count, repeat, stepping=True)
        line(f"one new step, {count:,} runs", f"{seconds:.2f} s", f"{cpu * 1000:.0f} ms CPU", "", "2 s")


if __name__ == "__main__":
    main()
