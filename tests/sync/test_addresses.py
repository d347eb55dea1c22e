"""runs.url leads to the page of the run, also in mirrors that were made when it did not."""

from __future__ import annotations

import duckdb
import pytest

from tests.daemon.conftest import bench
from tests.daemon.test_daemon import add
from tests.store.kit import downgrade

__all__ = ["bench"]

APP = "https://app.example.com"
URLS = "select run_id, url from runs order by 1"


def state(bench, *statements):
    with duckdb.connect(str(bench.home / "state.duckdb")) as connection:
        for statement in statements:
            connection.execute(statement)


def test_addresses_are_put_right_by_the_next_pass_without_pulling_anything_again(bench):
    add(bench, "one")
    add(bench, "a b", project="odd [1]")
    bench.here("sync", "team/*")
    own = bench.server.url
    assert bench.sql(URLS) == [("a b", f"{own}/team/odd%20%5B1%5D/runs/a%20b"), ("one", f"{own}/team/p/runs/one")]
    before = bench.sql("select run_id, synced_at from runs order by 1")
    bench.here("sync", "team/*", WANDB_APP_URL=f"{APP}/")
    assert bench.sql(URLS) == [("a b", f"{APP}/team/odd%20%5B1%5D/runs/a%20b"), ("one", f"{APP}/team/p/runs/one")]
    assert bench.sql('select url from "team/p"') == [(f"{APP}/team/p/runs/one",)]
    assert bench.sql("select run_id, synced_at from runs order by 1") == before
    assert bench.here("sync", "team/*", WANDB_APP_URL="nowhere").stderr.startswith("error: WANDB_APP_URL must be")


@pytest.mark.parametrize(
    ("stored", "right"),
    [
        ("https://api.forge.coreweave.com", "https://forge.coreweave.com/wandb"),
        ("https://api.qa.forge.coreweave.com", "https://qa.forge.coreweave.com/wandb"),
        ("https://api.qa.wandb.ai", "https://qa.forge.coreweave.com/wandb"),
        ("https://api.example.com", "https://app.example.com"),
        ("https://api.wandb.example.com", "https://wandb.example.com"),
        ("https://api.wandb.test", "https://app.wandb.test"),
        ("https://wandb.ai", "https://wandb.ai"),
        ("http://localhost:8080", "http://localhost:8080"),
    ],
)
def test_an_older_mirror_is_put_right_when_it_is_opened(bench, stored, right):
    """Also of projects that are not synced any more."""
    add(bench, "one")
    bench.here("sync", "team/p")
    downgrade(bench.home / "state.duckdb")
    state(
        bench,
        f"update store.runs set url = '{stored}/team/p/runs/one'",
        "delete from store.migrations where number = 11",
    )
    (bench.root / "empty").mkdir()
    assert bench.here("ingest", str(bench.root / "empty")).exit_code == 0
    assert bench.sql(URLS) == [("one", f"{right}/team/p/runs/one")]


def test_commands_take_the_address_of_a_page_on_any_host(bench):
    add(bench, "one")
    for app in ("https://wandb.ai", "https://forge.coreweave.com/wandb", "http://localhost:8080", f"{APP}/wandb"):
        address = f"{app}/team/p/runs/one/overview?nw=1"
        assert bench.here("sync", address).exit_code == 0
        assert bench.here("history", address).stdout.splitlines()[0].startswith("step\t"), address
    assert bench.sql("select run_id from runs") == [("one",)]
