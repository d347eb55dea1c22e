"""Downloads that are killed again and again, on a server that fails, while files change: nothing wrong, nothing twice."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.daemon.conftest import Bench

KILLS = 40
SMALL, LARGE = 400, 8
CHANGES = 20
"""How many files change between two kills."""

CONFIG = """projects = ["team/p"]
[sync]
files = "content"
artifacts = "content"
[http]
listen = ""
"""


def fill(bench: Bench, draw: random.Random) -> None:
    """Runs with files of their own, some of which others have, too."""
    for index in range(8):
        run = bench.world.add_run("team", "p", run_id=f"run{index}")
        run.log({"loss": 1.0})
        for number in range(SMALL // 8):
            run.add_file(f"media/{number}.bin", draw.randbytes(20_000))
        run.add_file("requirements.txt", "torch==2.0\n")
        for number in range(LARGE // 8):
            run.add_file(f"model-{number}.ckpt", draw.randbytes(4_000_000))
        run.finish()
    for index in range(20):
        log_artifact(bench, draw, f"model-{index % 5}")


def log_artifact(bench: Bench, draw: random.Random, name: str) -> None:
    """Add a version, of which one file is like that of a run, and one may be in another version, too."""
    run = bench.world.find("team", "p", f"run{draw.randrange(8)}")
    files = {
        "weights.bin": draw.randbytes(draw.choice([20_000, 1_000_000])),
        "config.json": b'{"layers": %d}' % draw.randrange(3),
        "requirements.txt": b"torch==2.0\n",
    }
    bench.world.add_artifact("team", "p", "model", name, files, references={"far": "s3://b/far"}, by=run)


def change(bench: Bench, draw: random.Random) -> None:
    """Replace a file of a run."""
    run = bench.world.find("team", "p", f"run{draw.randrange(8)}")
    run.add_file(draw.choice(sorted(run.files)), draw.randbytes(draw.choice([5_000, 50_000, 2_000_000])))
    run.edit(notes=str(draw.random()))
    if draw.random() < 0.1:
        log_artifact(bench, draw, f"model-{draw.randrange(8)}")


def kill_sometime(bench: Bench, draw: random.Random) -> bool:
    """Start a sync, and kill it at a random time after its downloads have begun. Returns False if it ended before."""
    parts = bench.home / "blobs" / ".parts"
    environ = {**os.environ, **bench.environ}
    with subprocess.Popen(
        [sys.executable, "-m", "mirror.cli", "sync"], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        before = {part.name: part.stat().st_mtime_ns for part in parts.glob("*")} if parts.exists() else {}
        while process.poll() is None:
            now = {part.name: part.stat().st_mtime_ns for part in list(parts.glob("*")) if part.exists()}
            if now != before:
                break
            time.sleep(0.002)
        time.sleep(draw.expovariate(1 / 0.3))
        if process.poll() is not None:
            return False
        process.kill()
        return True


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_downloads_end_as_undisturbed_ones_do(bench: Bench) -> None:
    seed = int(os.environ.get("SOAK_SEED", random.randrange(10**6)))
    print(f"SOAK_SEED={seed}")
    draw = random.Random(seed)
    fill(bench, draw)
    bench.configure(text=CONFIG)
    faults = bench.server.faults
    for operation in ("file", "artifact", "manifest"):
        faults.add("latency", None, operation, seconds=0.05)
        for kind in ("reset", "truncated", "500", "expired"):
            faults.add(kind, None, operation, probability=0.02)
    killed = 0
    for _ in range(int(os.environ.get("SOAK_KILLS", KILLS))):
        killed += kill_sometime(bench, draw)
        for _ in range(CHANGES):
            change(bench, draw)
    print(f"killed {killed} times")
    assert killed
    faults.clear()
    bench.mirror("sync", check=False)
    with_failures = bench.sql("select count(*) from store.content_names where error is not null")
    print(f"waiting to be retried: {with_failures[0][0]}")
    retry(bench)
    assert bench.mirror("sync").returncode == 0

    there = {
        (run_id, name): file.content
        for run_id, run in bench.world.projects["team", "p"].runs.items()
        for name, file in run.files.items()
    }
    rows = bench.sql("select run_id, name, digest, local_path from files")
    assert {(run_id, name) for run_id, name, *_ in rows} == there.keys()
    for run_id, name, digest, path in rows:
        assert Path(path).read_bytes() == there[run_id, name]
        assert hashlib.sha256(there[run_id, name]).hexdigest() == digest
    versions = {
        (collection.name, version.name, path): bench.world.artifacts.content(version, entry)
        for collection in bench.world.artifacts.of_project("team", "p").values()
        for version in collection.versions
        for path, entry in version.entries.items()
    }
    found = bench.sql("select collection, version, path, local_path from artifact_files")
    assert {tuple(names): path and Path(path).read_bytes() for *names, path in found} == versions
    assert len(found) == len(versions)
    blobs = list((bench.home / "blobs").glob("??/*"))
    for path in blobs:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name
    assert bench.mirror("gc", "--grace", "0s").returncode == 0
    left = {path.parent.name + path.name for path in (bench.home / "blobs").glob("??/*")}
    held = [*there.values(), *(content for content in versions.values() if content is not None)]
    assert left == {hashlib.sha256(content).hexdigest() for content in held}


def retry(bench: Bench) -> None:
    """Have everything that failed tried again now."""
    from mirror.settings.home import Home
    from mirror.store import contents
    from mirror.store.store import Store

    store = Store.open(Home.find(bench.environ))
    with store.transaction() as tx:
        contents.retry_now(tx)
    store.close()
