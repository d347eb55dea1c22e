"""The daemon downloads beside its passes, and its endpoint gives the official client what the server has no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mirror.control import Control
from mirror.sandbox import World
from tests.serve.conftest import served

PAGE = b"<script>alert(1)</script>"
LARGE = bytes(range(256)) * 4096

READ = """
import json, wandb
run = wandb.Api().run("team/p/one")
for file in run.files():
    with file.download(root="out") as opened:
        print(json.dumps([file.name, file.size, open(opened.name, "rb").read().hex()[:60]]))
"""


def weights(site):
    """The content of the artifact's versions, oldest first."""
    held = "select local_path from artifact_files where local_path is not null order by version"
    return [Path(path).read_bytes() for (path,) in site.sql(held)]


@pytest.fixture(scope="module")
def site():
    """A daemon that has mirrored all files and artifacts, whose server does not give any file away any more."""
    world = World(username="ada", entity="team")
    run = world.add_run("team", "p", run_id="one")
    run.log({"loss": 0.5, "page": {"_type": "html-file", "path": "media/html/page.html", "size": len(PAGE)}})
    run.add_file("media/html/page.html", PAGE)
    run.add_file("large.bin", LARGE)
    run.add_file("bad.bin", b"bad")
    run.finish()
    world.add_run("team", "p", run_id="two").add_file("../up.txt", b"up")
    world.run("team", "p", "two").finish()
    world.add_artifact("team", "p", "model", "net", {"weights.bin": b"weights"})
    with served(world, '["team/p"]', files='"content"', sync='artifacts = "content"\n') as made:
        made.until(lambda: made.sql("select count(*) from files where local_path is not null") == [(4,)], 90)
        made.until(lambda: weights(made) == [b"weights"], 90)
        made.server.faults.add("403", None, "file")
        yield made


def test_the_daemon_has_downloaded_everything_and_says_so(site):
    query = "select name, local_path from files where run_id = 'one'"
    found = {name: Path(path).read_bytes() for name, path in site.sql(query)}
    assert found == {"media/html/page.html": PAGE, "large.bin": LARGE, "bad.bin": b"bad"}
    ((path,),) = site.sql("select local_path from media where step is not null")
    assert Path(path).read_bytes() == PAGE
    status = Control(site.home / "mirror.sock").status()
    assert (status["files"]["last"]["error"], status["files"]["last"]["failed"]) == (None, 0)


def test_a_new_version_of_an_artifact_is_downloaded_after_the_pass_that_finds_it(site):
    site.server.world.add_artifact("team", "p", "model", "net", {"weights.bin": b"better"})
    site.mirror("sync", "team/p")
    site.until(lambda: weights(site) == [b"weights", b"better"], 90)


def test_the_official_client_downloads_from_the_mirror(site):
    assert sorted(site.script(site.address, READ)) == [
        ["bad.bin", 3, b"bad".hex()],
        ["large.bin", len(LARGE), LARGE.hex()[:60]],
        ["media/html/page.html", len(PAGE), PAGE.hex()[:60]],
    ]


def test_content_is_served_in_parts_and_never_acts_as_a_page(site):
    with site.client() as client:
        answer = client.get("/files/team/p/one/large.bin", headers={"Range": "bytes=256-511"})
        assert (answer.status_code, answer.content) == (206, LARGE[256:512])
        answer = client.get("/files/team/p/one/media/html/page.html")
        assert (answer.status_code, answer.content) == (200, PAGE)
        wanted = ("content-disposition", "content-security-policy", "x-content-type-options")
        assert [answer.headers[name] for name in wanted] == ["attachment", "sandbox", "nosniff"]
        assert client.head("/files/team/p/one/large.bin").headers["content-length"] == str(len(LARGE))
        assert client.get("/files/team/p/one/..%2Fone/large.bin").content != LARGE
    with site.client(key="x" * 40) as client:
        assert client.get("/files/team/p/one/large.bin").status_code == 401
    query = """query ($name: [String]) { project(name: "p", entityName: "team") { run(name: "one") {
        files(names: $name) { edges { node { directUrl md5 } } } } } }"""
    (edge,) = site.ask(query, name=["large.bin"])["data"]["project"]["run"]["files"]["edges"]
    (hostile,) = site.ask(query.replace('"one"', '"two"'), name=["../up.txt"])["data"]["project"]["run"]["files"][
        "edges"
    ]
    with site.client(key="") as client:
        client.auth = None
        assert client.get(edge["node"]["directUrl"]).content == LARGE
        assert client.get(hostile["node"]["directUrl"]).content == b"up"


def test_a_failure_is_in_the_status_and_garbage_goes_through_the_daemon(site):
    run = site.server.world.find("team", "p", "one")
    run.add_file("bad.bin", b"changed")
    run.edit(notes="later")

    def failed():
        return json.loads(site.mirror("status", "--json").stdout)["files"]["failed"]

    site.until(lambda: [one["file"] for one in failed()] == ["bad.bin"], 90)
    assert failed()[0]["error"].endswith("/bad.bin was refused (403)")
    assert site.sql("select name from files where local_path is null") == [("bad.bin",)]
    assert json.loads(site.mirror("gc", "--dry-run", "--json").stdout)[0]["files"] == 0
    # From the server first, or the next pass would take it in again.
    site.server.world.delete_run("team", "p", "one")
    site.mirror("forget", "team/p/one", "--yes")
    assert site.mirror("gc", "--grace", "0s").stderr.startswith("deleted 3 files (1.0 MB)")
    left = {path.read_bytes() for path in (site.home / "blobs").glob("??/*")}
    assert left == {b"up", *weights(site)}


def test_lost_content_is_downloaded_again_once_it_is_forgotten(site):
    site.server.faults.clear()
    (path,) = [path for path in (site.home / "blobs").glob("??/*") if path.read_bytes() == b"up"]
    path.unlink()
    assert "of which there was no file" in str(Control(site.home / "mirror.sock").mend(["team/p"]))
    site.mirror("sync", "team/p/two")
    site.until(path.exists, 90)
    assert path.read_bytes() == b"up"
