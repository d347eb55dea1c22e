"""A run of millions of rows takes no more memory than a small one, but for a bound that does not depend on the run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pytest

from mirror.sandbox import Sandbox, World, sample
from tests.daemon.conftest import Bench

MOST_MB = 400

# ru_maxrss of the one child, in KB on Linux.
MEASURED = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "mirror.cli", "-q", *sys.argv[1:]])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(done.returncode)
"""


def peak(world: World, path: str, rows: int, *, again: bool = False) -> list[int]:
    """The most memory of a sync into a fresh home, in MB; with `again`, then of a flush that pulls everything again."""
    found = []
    with tempfile.TemporaryDirectory() as root, Sandbox(world) as server:
        bench = Bench(Path(root), server)
        for command in ["sync", "flush"][: 1 + again]:
            done = subprocess.run(
                [sys.executable, "-c", MEASURED, command, path],
                env=bench.environ,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            with duckdb.connect(str(bench.home / "mirror.duckdb"), read_only=True) as connection:
                assert connection.execute("select sum(history_rows)::bigint from runs").fetchall() == [(rows,)]
                assert connection.execute("select count(distinct step) from history").fetchall() == [(rows,)]
            found.append(int(done.stdout))
    return found


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("rows", "exported"), [(10_000_000, True), (2_000_000, False)], ids=["files", "lines"])
def test_memory_is_bounded_whatever_the_length_of_a_run(rows, exported, capsys):
    [idle] = peak(sample.long_run(10, exported=False), "acme/long", 10)
    busy = peak(sample.long_run(rows, exported=exported), "acme/long", rows, again=True)
    with capsys.disabled():
        print(f"\n{rows:,} rows: {busy[0]} MB, flushed {busy[1]} MB, {idle} MB without them")
    assert max(busy) - idle <= MOST_MB


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rows", [2_000_000])
def test_memory_of_an_export_is_bounded_whatever_the_length_of_a_run(rows, tmp_path, capsys):
    """A run's history is sorted by step on the disk, and written as it comes."""
    found = []
    with Sandbox(sample.long_run(rows, exported=True)) as server:
        bench = Bench(tmp_path, server)
        for command in (["sync", "acme/long"], ["export", "acme/long", "--wandb", str(tmp_path / "out")]):
            done = subprocess.run(
                [sys.executable, "-c", MEASURED, *command],
                env=bench.environ,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            found.append(int(done.stdout))
    [file] = (tmp_path / "out").glob("*/*.wandb")
    with capsys.disabled():
        print(f"\n{rows:,} rows, {file.stat().st_size / 1e6:,.0f} MB: {found[1]} MB")
    assert file.stat().st_size > 100_000_000
    assert found[1] <= MOST_MB
