"""Reading a mirror through its port, against DuckDB reading the file itself.

1,000,000 history values as an Arrow table: DuckDB in this process, `mirror.connect(url)`, and POST /api/query. The port
is served by a process of its own, as by a daemon. They are read in turn, so that other load on the machine hits all
alike; prints medians. Then 50 clients at once, each with a statement after the other: the median and the 99th
percentile of one. Fails if `mirror.connect(url)` has less than half the speed of DuckDB.
Usage: python benchmarks/query_api.py [--repeat 9] [--clients 50] [--statements 20]
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parent))

from publish import PROJECT, backfill

import mirror
from mirror.settings.home import Home
from mirror.store import projects
from mirror.store.store import Store

VALUES = "SELECT run_id, key, step, value FROM history"
SMALL = "SELECT run_id, name, state FROM runs WHERE run_id = ?"
SERVE = """
import asyncio, sys
from pathlib import Path
from mirror.settings.home import Home
from mirror.web.listener import Listener

async def main():
    home = Path(sys.argv[1])
    listener = Listener(Home(home, home / "config.toml"), dict)
    await listener.listen_on("127.0.0.1:0")
    print(listener.status()["url"], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await listener.close()

asyncio.run(main())
"""


@contextmanager
def served(millions: int) -> Iterator[tuple[Home, str, str]]:
    """Yield a mirror with so many values, the address of its port, and the token."""
    with tempfile.TemporaryDirectory(prefix="query-") as folder:
        home = Home(Path(folder), Path(folder) / "config.toml")
        store = Store.open(home, tail_values=1_000_000)
        with store.transaction() as tx:
            projects.add(tx, PROJECT)
        backfill(store, millions, 0, np.random.default_rng(1))
        store.publish()
        store.close()
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            yield home, url, home.web_token.read_text().strip()
        finally:
            process.stdin.close()
            process.wait(30)


def posted(url: str, token: str) -> pa.Table:
    """Return the answer of POST /api/query, as a program without wandb-mirror reads it."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.apache.arrow.stream"}
    connection.request("POST", "/api/query", json.dumps({"sql": VALUES, "limit": 100_000_000}), headers)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    return pa.ipc.open_stream(response).read_all()


def in_turn(readers: dict[str, Callable[[], pa.Table]], repeat: int) -> dict[str, float]:
    """Return the median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in readers}
    rows = {name: read().num_rows for name, read in readers.items()}
    assert len(set(rows.values())) == 1, rows
    for _ in range(repeat):
        for name, read in readers.items():
            started = time.perf_counter()
            read()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def at_once(url: str, token: str, clients: int, statements: int) -> list[float]:
    """Return the seconds of each statement of so many clients, which all start together."""
    seconds: list[float] = []
    failures: list[BaseException] = []
    ready = threading.Barrier(clients)

    def client() -> None:
        try:
            with mirror.connect(url, token=token) as connection:
                ready.wait()
                for _ in range(statements):
                    started = time.perf_counter()
                    assert len(connection.execute(SMALL, ["r0000000"]).fetchall()) == 1
                    seconds.append(time.perf_counter() - started)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)
            ready.abort()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sorted(seconds)


def main() -> None:
    """Measure, print, and fail if the port is too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--statements", type=int, default=20)
    given = parser.parse_args()
    with served(1) as (home, url, token), mirror.connect(url, token=token) as there:
        with duckdb.connect(str(home.published), read_only=True) as here:
            # As many threads as the port gives to a statement.
            here.execute("SET threads = 2").fetchall()
            readers: dict[str, Callable[[], Any]] = {
                "DuckDB on the file": lambda: here.sql(VALUES).to_arrow_table(),
                "mirror.connect(url)": lambda: there.sql(VALUES).to_arrow_table(),
                "POST /api/query": lambda: posted(url, token),
            }
            medians = in_turn(readers, given.repeat)
        own = medians["DuckDB on the file"]
        for name, seconds in medians.items():
            print(f"1,000,000 values, {name}: {seconds:.3f} s, {own / seconds:.2f} of its speed", flush=True)
        each = at_once(url, token, given.clients, given.statements)
        median, late = statistics.median(each), each[int(len(each) * 0.99)]
        rate = given.clients / statistics.mean(each)
        print(f"{given.clients} clients at once: median {median * 1000:.0f} ms, p99 {late * 1000:.0f} ms, {rate:.0f}/s")
        if own / medians["mirror.connect(url)"] < 0.5:
            sys.exit("less than half the speed of DuckDB on the file")


if __name__ == "__main__":
    main()
