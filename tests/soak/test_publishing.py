"""Readers of three DuckDB versions, each at its own pace, while a daemon publishes as often as it can."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

CONFIG = """projects = ["team/p"]
[sync]
interval = "1h"
live_interval = "100ms"
[store]
tail_values = "500"
[publish]
min_interval = "50ms"
"""

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("readers.py")
PYTHONS = {
    "1.4": ROOT / ".cache/readers/1.4/bin/python",
    "1.5": ROOT / ".cache/readers/1.5/bin/python",
    "": Path(sys.executable),
}
PUBLISHES = 250
OPENS = 3000


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_readers_of_every_version_see_whole_snapshots_of_a_daemon_that_publishes(bench, capsys):
    for python in PYTHONS.values():
        assert python.exists(), f"{python} is missing; `make soak` makes it"
    bench.configure(text=CONFIG)
    runs = [bench.world.add_run("team", "p", run_id=name, config={"turn": 0}) for name in "abc"]
    for run in runs:
        run.log({"loss": 1.0}, step=0)
    ended = threading.Event()

    def train() -> None:
        step = 0
        while not ended.wait(0.05):
            step += 1
            for run in runs:
                run.log({"loss": 1 / step, "acc": step / 7, "lr": 0.1, "note": f"at {step}"}, step=step)
            runs[step % 3].edit(config={"turn": step})

    training = threading.Thread(target=train)
    file = bench.home / "mirror.duckdb"
    published: set[tuple[int, int]] = set()
    with bench.daemon():
        bench.until(lambda: bench.sql("select count(*) from runs where history_rows > 0") == [(3,)])
        training.start()
        readers = {
            (version, seconds): subprocess.Popen(
                [python, SCRIPT, file, str(seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for version, python in PYTHONS.items()
            for seconds in (0, 0.5, 20)
        }
        try:
            began = time.monotonic()
            # Readers that look once open the file some 10 to 40 times a second.
            while len(published) < PUBLISHES or time.monotonic() < began + 120:
                found = file.stat()
                published.add((found.st_ino, found.st_mtime_ns))
                time.sleep(0.005)
                assert time.monotonic() < began + 600, f"{len(published)} publishes in ten minutes"
                assert all(reader.poll() is None for reader in readers.values()), [
                    reader.stderr.read() for reader in readers.values() if reader.poll() is not None and reader.stderr
                ]
            reported = {kind: reader.communicate(timeout=60) for kind, reader in readers.items()}
        finally:
            ended.set()
            training.join()
            for reader in readers.values():
                reader.kill()
                reader.wait()
    assert {kind: said for kind, (_, said) in reported.items() if said} == {}
    assert [reader.returncode for reader in readers.values()] == [0] * len(readers)
    lines = {kind: out.split() for kind, (out, _) in reported.items()}
    versions = {version.rpartition(".")[0] for version, *_ in lines.values()}
    opens, looks, torn = (sum(int(counts[number]) for _, *counts in lines.values()) for number in range(3))
    retired = bench.sql("select count(*) from store.segments where retired_at is not null")[0][0]
    with capsys.disabled():
        print(
            f"\n{len(published)} publishes, {opens:,} opened, {looks:,} looks with DuckDB {', '.join(sorted(versions))}; "
            f"{retired} segments retired, {torn} errors of DuckDB 2.0, no others"
        )
    assert versions >= {"1.4", "1.5"}
    assert len(versions) == 3
    assert opens >= OPENS
    assert torn <= opens / 1000
    assert retired > 0
