"""Engines with environments of their own read a lake, and a lake in a bucket is kept up to date."""

from __future__ import annotations

import base64
import email.utils
import hmac
import json
import os
import socket
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest
from deltalake import DeltaTable

from mirror.lake.export import export
from mirror.lake.target import find
from mirror.query.export import RELATIONS
from mirror.store.records import ProjectKey
from tests.bi.test_own_environments import CLIENTS, ENVIRONMENTS, program
from tests.lake import worked
from tests.query.conftest import publish
from tests.store.kit import curve, opened, run, write

pytestmark = pytest.mark.bi


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A lake in a folder, and the answers to expect."""
    root = tmp_path_factory.mktemp("lake")
    home = worked.exported(root / "mirror", str(root / "lake"))
    return root / "lake", worked.answers(home)


def asked(engine, lake, division=None, **environ):
    """The answers of an engine, and what it logs; `division` is how its SQL rounds a quotient down."""
    questions = {
        name: question if division is None else worked.portable(question, division)
        for name, question in worked.questions().items()
    }
    command = [program(engine), str(CLIENTS / f"{engine}_reads_lake.py"), str(lake)]
    done = subprocess.run(
        command,
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: worked.approximate(rows) for name, rows in found.items()}, done.stderr


def test_duckdb_reads_a_lake_with_its_delta_extension(lake):
    """DuckDB 1.5; the queries as they are."""
    assert asked("duckdb", lake[0])[0] == lake[1]


def test_daft_reads_a_lake(lake):
    assert asked("daft", lake[0], "floor({} / {})")[0] == lake[1]


def test_sail_reads_a_lake_with_several_workers(lake):
    """A driver and two workers, which exchange their data over gRPC."""
    found, log = asked(
        "sail",
        lake[0],
        "{} div {}",
        SAIL_MODE="local-cluster",
        SAIL_CLUSTER__WORKER_INITIAL_COUNT="2",
        SAIL_CLUSTER__WORKER_MAX_COUNT="2",
        SAIL_CLUSTER__WORKER_TASK_SLOTS="1",
        RUST_LOG="sail_execution=debug",
    )
    assert found == lake[1]
    assert {number for number in "12" if f"worker {number} is available" in log} == {"1", "2"}
    assert "RunTaskBatchRequest" in log


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def serving(command, made, log):
    """A server, once `made` has made a bucket in it; ended after the block."""
    with log.open("w") as out:
        server = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out)
    try:
        limit = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(made, timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < limit, log.read_text()
                time.sleep(0.2)
        yield
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """A server that speaks S3, on loopback, with a bucket."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    made = urllib.request.Request(f"{address}/bucket", method="PUT")
    command = [program("moto", "moto_server"), "-H", "127.0.0.1", "-p", port]
    with serving(command, made, tmp_path / "moto.log"):
        yield "s3://bucket/team/lake"


ACCOUNT = "devstoreaccount1"


@pytest.fixture
def azure(tmp_path, monkeypatch):
    """Azurite, which speaks Azure's protocol, on loopback, with a container."""
    port = free_port()
    key = base64.b64encode(b"a key of this test").decode()
    address = f"http://127.0.0.1:{port}/{ACCOUNT}"
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", key)
    # Azurite ignores where a listing is to start, which the client asks the real store for.
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AZURITE_ACCOUNTS", f"{ACCOUNT}:{key}")
    moment = email.utils.formatdate(usegmt=True)
    signed = (
        f"PUT{chr(10) * 12}x-ms-date:{moment}\nx-ms-version:2021-08-06\n/{ACCOUNT}/{ACCOUNT}/box\nrestype:container"
    )
    signature = base64.b64encode(hmac.digest(base64.b64decode(key), signed.encode(), "sha256")).decode()
    headers = {"x-ms-date": moment, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey {ACCOUNT}:{signature}"}
    made = urllib.request.Request(f"{address}/box?restype=container", method="PUT", headers=headers)
    command = [ENVIRONMENTS / "node" / "node_modules" / ".bin" / "azurite-blob", "--inMemoryPersistence"]
    command += ["--skipApiVersionCheck", "--blobPort", port]
    with serving(command, made, tmp_path / "azurite.log"):
        yield "az://box/team/lake"


@pytest.mark.parametrize("store", ["s3", "azure"])
def test_a_lake_in_a_bucket_is_kept_up_to_date(store, request, tmp_path):
    """A second export uploads nothing; Polars reads it there."""
    import polars as pl

    address = request.getfixturevalue(store)
    home = worked.exported(tmp_path / "mirror", address)
    expected = worked.answers(home)
    tables = {name: pl.scan_delta(f"{address}/{name}", storage_options={"allow_http": "true"}) for name in RELATIONS}
    with pl.SQLContext(tables) as context:
        for name, question in worked.questions().items():
            found = context.execute(worked.portable(question, "{} // {}"), eager=True)
            assert worked.approximate(found.rows()) == expected[name], name
    again = export(home, None, find(address), keep=timedelta(hours=1))
    assert (again.tables, again.written, again.deleted) == (0, 0, 0)


def test_exports_to_a_bucket_at_once_leave_one_whole_state(s3, tmp_path):
    home = publish(tmp_path / "mirror", tail_values=1)
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: export(home, None, find(s3)), range(2)))
    assert [one.superseded for one in done] == [False, False]
    again = export(home, None, find(s3))
    assert (again.written, again.rows) == (0, 79)


def test_names_with_signs_of_addresses_come_back_from_a_bucket(s3, tmp_path):
    odd = ProjectKey("te am", "a=b%20[x]é*")
    with opened(tmp_path / "home", tail_values=1) as store:
        write(store, run(project=odd), history=[curve("a1", range(5))], project=odd)
        store.seal()
        store.publish()
        export(store.home, None, find(s3))
    table = DeltaTable(f"{s3}/history", storage_options={"AWS_ALLOW_HTTP": "true"}).to_pyarrow_table()
    assert set(zip(table["entity"].to_pylist(), table["project"].to_pylist(), strict=True)) == {
        ("te am", "a=b%20[x]é*")
    }


def test_a_bucket_that_does_not_exist_is_one_line(s3, tmp_path, cli, monkeypatch):
    home = publish(tmp_path / "mirror")
    monkeypatch.setenv("MIRROR_HOME", str(home.data))
    done = cli("export", "--lake", "s3://nowhere/lake")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: the lake s3://nowhere/lake cannot be read or written: ")
