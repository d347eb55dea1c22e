"""Every DuckDB that is promised opens the published file and reads every relation of it."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import pytest

from mirror.store import history, runs, staging
from tests.store.kit import PROJECT, curve, opened, page, read, run, write
from tests.store.test_relations import CONTRACT

ENVIRONMENTS = Path(__file__).parents[2] / ".cache" / "duckdb-envs"

READ = textwrap.dedent("""
    import json, sys, duckdb
    path, *relations = sys.argv[1:]
    with duckdb.connect(path, read_only=True) as reader:
        found = {}
        for relation in relations:
            types = [row[:2] for row in reader.execute(f'describe "{relation}"').fetchall()]
            rows = reader.execute(f'from "{relation}"').fetchall()
            found[relation] = [types, sorted(map(repr, rows))]
    print(json.dumps([duckdb.__version__, found]))
""")


def python_with(version: str) -> Path:
    """The interpreter of an environment that holds this DuckDB and nothing else, made when it is first asked for."""
    folder = ENVIRONMENTS / version
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with (ENVIRONMENTS / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "complete"
        if not done.exists():
            uv = [sys.executable, "-m", "uv", "--quiet"]
            subprocess.run([*uv, "venv", "--clear", "--python", sys.executable, str(folder)], check=True)
            python = folder / "bin" / "python"
            subprocess.run([*uv, "pip", "install", "--python", str(python), f"duckdb=={version}"], check=True)
            done.touch()
    return folder / "bin" / "python"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("version", "storage_version"),
    [("1.4.4", "v1.4.0"), ("1.5.6", "v1.4.0"), ("2.0.0", "v1.4.0"), ("1.3.2", "v1.2.0"), ("2.0.0", "v1.2.0")],
)
def test_a_published_file_opens_in_every_promised_duckdb(tmp_path, version, storage_version):
    root = tmp_path / "a [home] of 'ünusual' name"
    with opened(root, tail_values=20, storage_version=storage_version) as store:
        config = {"lr": 0.1, "LR": 1, "deep": {"on": True, "list": [1]}, "inf": float("inf")}
        write(store, run(config=config, tags=("x",)), run("b2"), run("c3", summary={"acc": 1}))
        write(store, history=[curve("a1", range(15)), curve("b2", range(15)), page("c3", [(0, "t", None, '"x"')])])
        assert store.seal()
        with store.transaction() as tx:
            staging.stage(tx, PROJECT, [curve("b2", range(3))])
            staging.swap(tx, PROJECT, {"b2": (3, 2)})
            history.replace_system_metrics(tx, PROJECT, curve("a1", range(3), keys=["gpu"]))
        write(store, run("c3", name="renamed"), history=[curve("a1", range(15, 20))])
        assert store.publish() is not None
        # How old the data is depends on the time of reading.
        relations = [name for name in (*CONTRACT, "team/vision") if name != "projects"]
        expected = {}
        for relation in relations:
            types = [list(row[:2]) for row in read(store, f'describe "{relation}"')]
            expected[relation] = [types, sorted(map(repr, read(store, f'from "{relation}"')))]
        published = str(store.home.published)
        command = [str(python_with(version)), "-I", "-c", READ, published, *relations, "projects"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        assert done.stderr == ""
        reader, found = json.loads(done.stdout)
        types, (project,) = found.pop("projects")
        assert reader == version
        assert found == expected
        assert [tuple(column) for column in types] == list(CONTRACT["projects"].items())
        assert project.startswith("('team', 'vision', 3, 0, 24, None, None, ")


def test_a_state_file_keeps_its_format_until_another_is_asked_for(tmp_path):
    def formats():
        with duckdb.connect() as reader:
            reader.execute(f"attach '{tmp_path}/mirror.duckdb' as published (read_only)").fetchall()
            return reader.execute(
                "select tags['storage_version'] from duckdb_databases() where database_name = 'published'"
            ).fetchall()

    for version in ("v1.4.0", "v1.4.0", "v1.2.0", "v1.5.0"):
        with opened(tmp_path, storage_version=version) as store:
            write(store, run(version))
            store.publish()
        assert formats() == [(f"{version}+",)]
    with opened(tmp_path, storage_version="v1.5.0") as store:
        assert not store.changed
        assert len(store.read(lambda db: runs.known(db, PROJECT))) == 3
