"""What a sync costs, compared with the alternative: reading the same sample server with the official SDK.

    python benchmarks/sync.py [--repeat 5] [--latency 0,30,100] [--small]
                              [--only runs,history,lines,long,flush,idle,step]

- runs: 5,000 runs with config and summary, against `api.runs(lazy=False)` at 50 and at 1,000 a page
- history: 500 runs x 2,000 steps x 20 metrics that the server has exported, against `scan_history` of some of them
- lines: the same without exports, in rows per second
- long: a run of 1,000,000 rows x 10 metrics in exports, against `scan_history` and against DuckDB alone
- flush: the runs and the history above pulled again by `mirror flush`, against the first sync
- idle: a pass without changes over 5,000 mirrored runs, in requests and CPU
- step: a pass over one new step of one running run, with few and with many mirrored runs, until it is published

Prints medians. The server runs in its own process, and answers each request the latency (ms) later; it counts the
requests and the bytes of its answers. Both clients start as installed programs do, and take turns. The time of the
mirror includes the start of its process and its last publishing, that of the SDK neither its start nor its imports.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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
import json, sys
sys.path.insert(0, sys.argv[1])
from importlib import import_module
from mirror.sandbox import Sandbox
with Sandbox(eval("module." + sys.argv[2], {"module": import_module(sys.argv[3])})) as server:
    print(server.url, server.key, flush=True)
    for line in sys.stdin:
        what, _, value = line.strip().partition(" ")
        if what == "latency":
            server.faults.clear()
            server.faults.add("latency", None, seconds=float(value))
        print(json.dumps([server.requests.total(), server.sent.total()]), flush=True)
        server.reset_counts()
"""

SDK = """
import json, sys, time
import wandb
what, path = sys.argv[1:]
for line in sys.stdin:
    api = wandb.Api(timeout=300)
    started, cpu = time.perf_counter(), time.process_time()
    count = 0
    if what.startswith("runs"):
        for run in api.runs(path, per_page=int(what[4:]), lazy=False):
            count += bool(run.config) and bool(dict(run.summary.items()))
    else:
        for run in api.runs(path, per_page=1000)[: int(line)]:
            for row in run.scan_history():
                count += 1
    print(json.dumps([time.perf_counter() - started, time.process_time() - cpu, count]), flush=True)
"""


@dataclass(frozen=True)
class Cost:
    """What one reading took: wall and CPU seconds of the client, and what the server counted."""

    seconds: float
    cpu: float
    requests: float
    sent: float

    def shown(self) -> str:
        """One cell of the table."""
        return f"{self.seconds:7.2f} s {self.cpu:6.2f} s {self.requests:6,.0f} {self.sent / 1e6:6.1f} MB"


def median(costs: Sequence[Cost]) -> Cost:
    """Return the median of each figure."""
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in Cost.__dataclass_fields__))


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


class SampleServer:
    """A sample server in its own process, and an environment that points at it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to, self._from = process.stdin, process.stdout
        self.url, self.key = self._from.readline().split()
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        own = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": self.key, "WANDB_SILENT": "true"}
        self.environ = {**environ, **own, "WANDB_ERROR_REPORTING": "false"}

    def counts(self, what: str = "counts") -> tuple[int, int]:
        """Return the requests and the bytes sent since the last call."""
        print(what, file=self._to, flush=True)
        requests, sent = json.loads(self._from.readline())
        return requests, sent

    def delay(self, milliseconds: int) -> None:
        """Answer every request this much later from now on."""
        self.counts(f"latency {milliseconds / 1000}")


@contextmanager
def server(world: str, module: str = "sync") -> Iterator[SampleServer]:
    """Start a sample server in its own process; a function of `module` makes its world."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, HERE, world, module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield SampleServer(process)
    finally:
        process.terminate()
        process.wait()


class Mirror:
    """Runs `mirror sync` into an empty home; `check` must return `expected` from the published file.

    With `again` it is `mirror flush` into a home that a sync has filled.
    """

    def __init__(self, at: SampleServer, path: str, check: str, expected: int, *, again: bool = False) -> None:
        self._at, self._path, self._check, self._expected, self._again = at, path, check, expected, again

    def read(self) -> Cost:
        """Sync once, including start and publishing."""
        home = Path(tempfile.mkdtemp(prefix="mirror-bench-"))
        environ = {**self._at.environ, "MIRROR_HOME": str(home)}
        mirror = [str(Path(sys.executable).with_name("mirror")), "-q"]
        try:
            if self._again:
                subprocess.run([*mirror, "sync", self._path], env=environ, check=True)
            self._at.counts()
            before, started = os.times(), time.perf_counter()
            command = ["flush", "--yes"] if self._again else ["sync"]
            subprocess.run([*mirror, *command, self._path], env=environ, check=True)
            seconds, after = time.perf_counter() - started, os.times()
            cpu = after.children_user + after.children_system - before.children_user - before.children_system
            with duckdb.connect(str(home / "mirror.duckdb"), read_only=True) as connection:
                [(found,)] = connection.execute(self._check).fetchall()
        finally:
            shutil.rmtree(home)
        if found != self._expected:
            raise SystemExit(f"{self._path}: {found:,} by `{self._check}` where there are {self._expected:,}")
        return Cost(seconds, cpu, *self._at.counts())


class Sdk:
    """Reads the same with the official client, in one process that has imported it; `runs` of them."""

    def __init__(self, at: SampleServer, what: str, path: str, expected: int, stack: ExitStack, runs: int = 1) -> None:
        home = tempfile.mkdtemp(prefix="sdk-bench-")
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        self._cache = Path(home, "cache")
        own = dict.fromkeys(("HOME", "WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"), home)
        own["WANDB_CACHE_DIR"] = str(self._cache)
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", SDK, what, path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**at.environ, **own},
                cwd=home,
            )
        )
        stack.callback(process.terminate)
        assert process.stdin is not None
        assert process.stdout is not None
        self._to, self._from = process.stdin, process.stdout
        self._at, self._expected, self._runs = at, expected, runs

    def read(self) -> Cost:
        """Read once, with a new `Api`, an empty cache, and without its start."""
        shutil.rmtree(self._cache, ignore_errors=True)
        self._at.counts()
        print(self._runs, file=self._to, flush=True)
        line = self._from.readline()
        while line and not line.startswith("["):
            line = self._from.readline()
        seconds, cpu, count = json.loads(line or "[0, 0, -1]")
        if count != self._expected:
            raise SystemExit(f"the SDK gave {count:,} where there are {self._expected:,}")
        return Cost(seconds, cpu, *self._at.counts())


def alternating(clients: Sequence[Mirror | Sdk], repeat: int) -> list[Cost]:
    """Let the clients read in turn, `repeat` times each; return the median of each."""
    taken: list[list[Cost]] = [[] for _ in clients]
    for _ in range(repeat):
        for client, costs in zip(clients, taken, strict=True):
            costs.append(client.read())
    return [median(costs) for costs in taken]


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

    async def work(at: SampleServer) -> None:
        url, key = at.url, at.key
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
        with server(f"many_runs({runs}, live={stepping})") as at:
            asyncio.run(work(at))
    finally:
        shutil.rmtree(folder)
    return (
        statistics.median(seconds for seconds, _, _ in found[1:]),
        statistics.median(cpu for _, cpu, _ in found[1:]),
        found[-1][2],
    )


def line(name: str, mirror: str, other: str = "", ratio: str = "") -> None:
    print(f"{name:38}{mirror:>38}{other:>40}{ratio:>8}", flush=True)


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repeat", type=int, default=5)
    options.add_argument("--latency", default="0,30,100", help="of runs, history and lines: milliseconds a request")
    options.add_argument("--only", default="runs,history,lines,long,flush,idle,step")
    options.add_argument("--small", action="store_true", help="a tenth of the data, to try the script")
    given = options.parse_args()
    part, repeat = (10 if given.small else 1), given.repeat
    latencies = [int(text) for text in given.latency.split(",")]
    wanted: dict[str, Callable[[], Any]] = {
        "runs": lambda: measure_runs(5000 // part, repeat, latencies),
        "history": lambda: measure_history(500 // part, repeat, latencies),
        "lines": lambda: measure_lines(500 // part, repeat, latencies),
        "long": lambda: measure_long(1_000_000 // part, repeat),
        "flush": lambda: measure_flush(5000 // part, 500 // part, repeat),
        "idle": lambda: measure_idle(5000 // part, repeat),
        "step": lambda: measure_step(5000 // part, repeat),
    }
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, DuckDB {duckdb.__version__}, medians of {repeat}")
    cell = f"{'wall':>9}{'CPU':>9}{'requests':>9}{'sent':>7}"
    line("", f"mirror:{cell[2:]}", f"SDK:{cell}", "times")
    for name in given.only.split(","):
        wanted[name]()


def measure_runs(runs: int, repeat: int, latencies: Sequence[int]) -> None:
    with server(f"many_runs({runs})") as at, ExitStack() as stack:
        clients: list[Mirror | Sdk] = [
            Mirror(at, "acme/bench", "select count(*) from runs", runs),
            *(Sdk(at, f"runs{page}", "acme/bench", runs, stack) for page in (50, 1000)),
        ]
        for latency in latencies:
            at.delay(latency)
            mirror, *others = alternating(clients, repeat)
            for page, sdk in zip((50, 1000), others, strict=True):
                name = f"{runs:,} runs, {page} a page, {latency} ms"
                line(name, mirror.shown(), sdk.shown(), f"{sdk.seconds / mirror.seconds:.1f}x")


def measure_history(runs: int, repeat: int, latencies: Sequence[int]) -> None:
    rows, scanned = runs * 2000, min(runs, 20)
    with server(f"grid({runs}, 2000, 20, True)") as at, ExitStack() as stack:
        clients: list[Mirror | Sdk] = [
            Mirror(at, "acme/bench", "select sum(history_rows)::bigint from runs", rows),
            Sdk(at, "scan", "acme/bench", scanned * 2000, stack, scanned),
        ]
        for latency in latencies:
            at.delay(latency)
            mirror, sdk = alternating(clients, repeat)
            fast, slow = rows / mirror.seconds, scanned * 2000 / sdk.seconds
            line(f"{rows:,} rows x 20 exported, {latency} ms", mirror.shown(), sdk.shown())
            line(f"  rows a second (SDK: {scanned} runs)", f"{fast:,.0f}", f"{slow:,.0f}", f"{fast / slow:.1f}x")


def measure_lines(runs: int, repeat: int, latencies: Sequence[int]) -> None:
    rows = runs * 2000
    with server(f"grid({runs}, 2000, 20, False)") as at:
        client = Mirror(at, "acme/bench", "select sum(history_rows)::bigint from runs", rows)
        for latency in latencies:
            at.delay(latency)
            [mirror] = alternating([client], repeat)
            line(f"the same as lines, {latency} ms", mirror.shown(), f"{rows / mirror.seconds:,.0f} rows/s")


def measure_long(rows: int, repeat: int) -> None:
    with server(f"long_run({rows}, 10)") as at, ExitStack() as stack:
        client = Mirror(at, "acme/long", "select sum(history_rows)::bigint from runs", rows)
        [mirror] = alternating([client], repeat)
        # A loop of 40 seconds; its times differ little.
        [sdk] = alternating([Sdk(at, "scan", "acme/long", rows, stack)], min(repeat, 2))
    alone = by_duckdb(rows, 10, repeat)
    line(f"{rows:,} rows x 10", mirror.shown(), sdk.shown(), f"{sdk.seconds / mirror.seconds:.1f}x")
    line("  the time of DuckDB alone", "", f"{alone:.2f} s", f"{alone / mirror.seconds:.1f}x")


def measure_flush(runs: int, long: int, repeat: int) -> None:
    counted = "select sum(history_rows)::bigint from runs"
    for world, check, expected, name in (
        (f"many_runs({runs})", "select count(*) from runs", runs, f"{runs:,} runs"),
        (f"grid({long}, 2000, 20, True)", counted, long * 2000, f"{long * 2000:,} rows x 20"),
    ):
        with server(world) as at:
            first, again = alternating(
                [Mirror(at, "acme/bench", check, expected, again=again) for again in (False, True)], repeat
            )
        line(f"{name}, pulled again", again.shown())
        line("  a first sync", first.shown(), "", f"{first.seconds / again.seconds:.1f}x")


def measure_idle(runs: int, repeat: int) -> None:
    seconds, cpu, requests = passes(runs, repeat, stepping=False)
    line(f"nothing new, {runs:,} runs", f"{seconds:.2f} s, {cpu * 1000:.0f} ms CPU, {requests} request")


def measure_step(runs: int, repeat: int) -> None:
    for count in (runs // 50, runs):
        seconds, cpu, _ = passes(count, repeat, stepping=True)
        line(f"one new step, {count:,} runs", f"{seconds:.2f} s, {cpu * 1000:.0f} ms CPU")


if __name__ == "__main__":
    main()
