"""History in Parquet files behind addresses that expire."""

from __future__ import annotations

import io
import math
import time
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from mirror.sandbox import Run, Sandbox, World, sample
from tests.sandbox.conftest import Client, connected

QUERY = """query Parquet($run: String!) { project(name: "oddities", entityName: "my-team") { run(name: $run) {
  parquetHistory(liveKeys: ["_step"]) { parquetUrls liveData } } } }"""


def asked(client: Client, run: str) -> Any:
    return client.data(QUERY, run=run)["project"]["run"]["parquetHistory"]


def rows(url: str) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(httpx.get(url).raise_for_status().content)).to_pylist()


def run_of(world: World, run: str) -> Run:
    return world.run("my-team", "oddities", run)


def test_nothing_exported_means_all_is_live(client: Client) -> None:
    assert asked(client, "gaps0001") == {"parquetUrls": [], "liveData": []}


def test_exported_steps_stand_in_files_and_the_rest_is_live(client: Client, world: World) -> None:
    run = run_of(world, "gaps0001")
    run.export_history(upto_step=5)
    run.export_history(upto_step=1000)
    answer = asked(client, "gaps0001")
    assert answer["liveData"] == [{"_step": 1001}, {"_step": 250_000}]
    files = [rows(url) for url in answer["parquetUrls"]]
    assert sorted([row["_step"] for row in file] for file in files) == [[0, 5], [1000]]
    assert all(not url.startswith(client.server.url) for url in answer["parquetUrls"])


def test_columns_keep_numbers_and_flatten_what_is_nested(client: Client, world: World) -> None:
    for name in ("types001", "numbers1"):
        run_of(world, name).export_history()
    (url,) = asked(client, "types001")["parquetUrls"]
    read = rows(url)
    assert [row["nested.a.b"] for row in read] == [1.5, 2.5, None, None]
    assert [row["flag"] for row in read] == [True, False, None, None]
    assert [row["v"] for row in read] == ["1", "two", "3.5", "[4]"]
    (url,) = asked(client, "numbers1")["parquetUrls"]
    read = rows(url)
    assert [row["count"] for row in read] == [2**53 + 1, 2**60 + 1, 7, None]
    assert [row["_step"] for row in read] == [0, 1, 2, 3]
    assert math.isnan(read[1]["x"])
    assert read[2]["x"] == -math.inf


def test_a_part_of_a_file_can_be_asked_for(client: Client, world: World) -> None:
    run_of(world, "gaps0001").export_history()
    (url,) = asked(client, "gaps0001")["parquetUrls"]
    whole = httpx.get(url).content
    part = httpx.get(url, headers={"Range": "bytes=-8"})
    assert (part.status_code, part.content) == (206, whole[-8:])
    part = httpx.get(url, headers={"Range": "bytes=4-11"})
    assert part.headers["Content-Range"] == f"bytes 4-11/{len(whole)}"
    assert part.content == whole[4:12]
    assert httpx.get(url, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416
    assert httpx.head(url).headers["Content-Length"] == str(len(whole))
    assert client.server.requests["parquet"] == 5


def test_a_signed_address_takes_no_second_credential(client: Client, world: World) -> None:
    run_of(world, "gaps0001").export_history()
    (url,) = asked(client, "gaps0001")["parquetUrls"]
    assert httpx.get(url, auth=("api", client.server.key)).status_code == 400
    assert httpx.get(url[:-4] + "0000").status_code == 403


def test_addresses_expire() -> None:
    world = sample.small()
    run_of(world, "gaps0001").export_history()
    with Sandbox(world, url_lifetime=0.3) as server, connected(server) as client:
        (url,) = asked(client, "gaps0001")["parquetUrls"]
        assert httpx.get(url).status_code == 200
        time.sleep(0.35)
        answer = httpx.get(url)
        assert answer.status_code == 403
        assert "Request has expired" in answer.text
        (again,) = asked(client, "gaps0001")["parquetUrls"]
        assert httpx.get(again).status_code == 200


def test_expired_as_a_fault_touches_storage_alone(client: Client, world: World) -> None:
    run_of(world, "gaps0001").export_history()
    client.server.faults.add("expired", times=1)
    (url,) = asked(client, "gaps0001")["parquetUrls"]
    assert httpx.get(url).status_code == 403
    assert httpx.get(url).status_code == 200
    assert client.server.faults.counts == {"expired": 1}


@pytest.mark.parametrize("step", [999, 1000, 5])
def test_a_rewind_takes_exported_steps_back(client: Client, world: World, step: int) -> None:
    run = run_of(world, "gaps0001")
    run.export_history(upto_step=1001)
    run.rewind(step)
    left = [step_ for step_ in (0, 5, 1000) if step_ <= step]
    answer = asked(client, "gaps0001")
    assert [row["_step"] for url in answer["parquetUrls"] for row in rows(url)] == left
    assert answer["liveData"] == []
    assert [row["_step"] for row in run.rows()] == left
