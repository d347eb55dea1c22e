"""What scripts change of files by way of the endpoint, and what is asked before the mirror answers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from mirror.sandbox import World
from tests.serve.conftest import Served, served

pytestmark = pytest.mark.xdist_group("changes")


@pytest.fixture(scope="module")
def site() -> Iterator[Served]:
    """Two projects, so that the mirror's numbers for them are not the server's; a run whose history is exported."""
    world = World(username="ada", entity="team")
    world.add_run("team", "first", run_id="other").finish()
    run = world.add_run("team", "p", run_id="run", metadata={"os": "Linux"})
    run.log_many({"loss": step, "nested": {"x": {"y": step}}} for step in range(8))
    run.add_file("notes.txt", "notes")
    run.add_file("old.txt", "old")
    run.finish()
    run.export_history()
    later = world.add_run("team", "p", run_id="later")
    later.log_many({"nested": {"x": step}} for step in range(3))
    later.finish()
    with served(world, '["team/*"]', sync="metadata = true\n") as made:
        made.until(lambda: made.sql("select count(*) from files where run_id = 'run'") == [(3,)])
        yield made


def test_an_upload_is_there_at_once_and_comes_back_with_the_next_pass(site: Served) -> None:
    text = """
import json, wandb
run = wandb.Api().run("team/p/run")
for text in ("once", "once more"):
    with open("up.txt", "w") as file:
        file.write(text)
    uploaded = run.upload_file("up.txt")
    print(json.dumps([uploaded.name, uploaded.size]))
"""
    assert site.script(site.address, text) == [["up.txt", 4], ["up.txt", 9]]
    site.until(lambda: site.sql("select size from files where name = 'up.txt'") == [(9,)])


def test_a_deleted_file_is_gone_at_once_and_from_the_mirror_with_the_next_pass(site: Served) -> None:
    """The project's number, which the SDK sends with it, is the server's own."""
    text = """
import json, wandb
run = wandb.Api().run("team/p/run")
run.file("old.txt").delete()
print(json.dumps(sorted(file.name for file in run.files())))
"""
    names = site.script(site.address, text)[0]
    assert "old.txt" not in names
    assert "notes.txt" in names
    assert "old.txt" not in site.world.run("team", "p", "run").files
    site.until(lambda: site.sql("select count(*) from files where name = 'old.txt'") == [(0,)])


def test_a_direct_address_needs_no_key(site: Served) -> None:
    text = """
import json, wandb
print(json.dumps(wandb.Api().run("team/p/run").file("notes.txt").direct_url))
"""
    [address] = site.script(site.address, text)
    assert httpx.get(address).text == "notes"
    assert httpx.get(address, headers={"Range": "bytes=0-1"}).text == "no"
    assert httpx.post(address, content=b"").status_code == 401
    for other in (
        address.replace("notes", "up"),
        address[:-1] + ("0" if address[-1] != "0" else "1"),
        address.split("?")[0],
    ):
        assert httpx.get(other).status_code == 401
    assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 421
    assert (
        httpx.post(
            site.address.url + "/graphql?" + address.split("?")[1], json={"query": "{ viewer { id } }"}
        ).status_code
        == 401
    )


# The script ends itself: the client's own end, after a scan by its background process, may wait for that for minutes.
SCAN = """
import json, os, sys, wandb
run = wandb.Api().run("team/p/%s")
for rows in (run.scan_history(use_cache=False), run.beta_scan_history(use_cache=False), run.history(pandas=False)):
    print(json.dumps([sorted(key for key, value in row.items() if key[0] != "_" and value is not None) for row in rows]))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("run_id", ["run", "later"])
def test_scans_of_an_exported_run_give_dotted_keys_as_the_server_does(site: Served, run_id: str) -> None:
    """Steps that are exported stand in files with a column for each dotted key; the others, and samples, are nested."""
    if run_id == "later":
        # Hours after the end of a run, when no pass looks at it again.
        site.world.run("team", "p", "later").export_history()
    expected = site.script(site.server, SCAN % run_id)
    assert expected[0][0][-1] in ("nested.x.y", "nested.x")
    assert site.script(site.address, SCAN % run_id) == expected


def test_raw_pages_of_an_exported_history_stay_nested(site: Served) -> None:
    page = '{ project(name: "p", entityName: "team") { run(name: "run") { history(minStep: 0, maxStep: 2, samples: 2) } } }'
    rows = site.ask(page)["data"]["project"]["run"]["history"]
    assert [json.loads(row)["nested"] for row in rows] == [{"x": {"y": 0}}, {"x": {"y": 1}}]


def test_whether_a_live_run_is_to_stop_is_asked_of_the_server(site: Served) -> None:
    run = site.world.add_run("team", "p", run_id="live")
    run.log({"loss": 1})
    stopped = '{ project(name: "p", entityName: "team") { run(name: "live") { stopped } } }'
    site.until(lambda: site.sql("select count(*) from runs where run_id = 'live'") == [(1,)])
    assert site.ask(stopped)["data"]["project"]["run"]["stopped"] is False
    with site.world.lock:
        run.stop_requested = True
    assert site.ask(stopped)["data"]["project"]["run"]["stopped"] is True
    run.finish()


def test_what_the_server_can_do_is_known(site: Served) -> None:
    """The SDK refuses sweeps with filters and the state of a run where the server is not known to have them."""
    text = """
import json, wandb
api = wandb.Api()
print(json.dumps([sweep.id for sweep in api.project("p", "team").sweeps(filters={"state": "FINISHED"})]))
print(json.dumps([api.run("team/p/waiting").update_state("failed"), api.project("p", "team").owner.name]))
"""
    site.world.add_run("team", "p", run_id="waiting", state="pending")
    site.until(lambda: site.sql("select count(*) from runs where run_id = 'waiting'") == [(1,)])
    assert site.script(site.address, text) == [[], [True, "Ada"]]
    assert site.world.run("team", "p", "waiting").state == "failed"


def test_nothing_of_a_history_is_downloaded_where_exports_may_be_incomplete(site: Served) -> None:
    text = """
import json, wandb
found = wandb.Api().run("team/p/run").download_history_exports("exports", require_complete_history=False)
print(json.dumps([found.paths, found.contains_live_data]))
"""
    assert site.script(site.address, text) == [[[], True]]


def test_metadata_is_read_from_the_mirror_with_the_server_switched_off(site: Served) -> None:
    site.server.stop()
    text = 'import json, wandb\nprint(json.dumps(wandb.Api().run("team/p/run").metadata))'
    assert site.script(site.address, text) == [{"os": "Linux"}]
