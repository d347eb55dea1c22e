"""What a pass has not brought yet, or could not read, is the server's to answer; lists end where they began."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from mirror.sandbox import Sandbox, World
from mirror.serve import history_fields, signing
from mirror.serve.app import Policy, application
from mirror.serve.touched import changed
from mirror.web.snapshots import Snapshots
from tests.sync.rig import Rig

NOON = datetime(2025, 3, 3, 12)
CORE = {"User-Agent": "wandb-core"}


class Site(Rig):
    """A mirror and the endpoint over it, in this process."""

    def __init__(self, root: Path, sandbox: Sandbox) -> None:
        super().__init__(root / "home", sandbox)
        self.again: list[tuple[str, str, str]] = []
        policy = Policy(base_url=sandbox.url, entity="team", username="ada")
        self.app = application(Snapshots(self.home), lambda: sandbox.key, lambda: policy, self.again.append)

    def request(self, method: str, path: str, *, key: bool = True, **arguments: Any) -> httpx.Response:
        async def answer() -> httpx.Response:
            auth = ("api", self.sandbox.key) if key else None
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1", auth=auth) as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(answer())

    def ask(self, query: str, headers: dict[str, str] | None = None, name: str | None = None, **variables: Any) -> Any:
        body = {"query": query, "variables": variables, "operationName": name}
        return self.request("POST", "/graphql", json=body, headers=headers or {}).json()

    def reported(self, query: str, **variables: Any) -> Any:
        """What the server itself answers."""
        body = {"query": query, "variables": variables}
        return httpx.post(f"{self.sandbox.url}/graphql", auth=("api", self.sandbox.key), json=body).json()

    def refused(self, query: str, **variables: Any) -> str:
        """The one error of an answer without data."""
        answer = self.ask(query, **variables)
        assert answer["data"] is None, answer
        [error] = answer["errors"]
        return str(error["message"])


Build = Callable[..., Site]


@pytest.fixture
def site(tmp_path: Path) -> Any:
    with Sandbox(World(username="ada", entity="team")) as server:
        yield Site(tmp_path, server)


def of(run: str, fields: str) -> str:
    return f'{{ project(name: "p", entityName: "team") {{ run(name: "{run}") {{ {fields} }} }} }}'


HISTORIES = (
    "history(samples: 10)",
    "historyKeys",
    'sampledHistory(specs: ["{\\"keys\\": [\\"_step\\", \\"acc\\"]}"])',
)


@pytest.mark.parametrize("globs", [(), ("loss",)])
def test_history_that_is_not_mirrored_is_never_reported_as_empty(site: Site, globs: tuple[str, ...]) -> None:
    """Neither the keys that `sync.history` leaves out, nor what is yet to come."""
    run = site.world.add_run("team", "p", run_id="one")
    run.log_many({"loss": step, "acc": step} for step in range(3))
    run.finish()
    site.sync(history=globs)
    assert site.ask(of("one", "historyLineCount")) == {"data": {"project": {"run": {"historyLineCount": 3}}}}
    for field in HISTORIES:
        assert site.ask(of("one", field)) == site.reported(of("one", field))
    site.sandbox.stop()
    for field in HISTORIES:
        assert f"cannot reach {site.sandbox.url}" in site.refused(of("one", field))
    if globs:
        held = site.ask(of("one", 'sampledHistory(specs: ["{\\"keys\\": [\\"loss\\"]}"])'))
        assert held["data"]["project"]["run"]["sampledHistory"] == [[{"loss": 0}, {"loss": 1}, {"loss": 2}]]


def test_a_project_of_which_single_runs_were_pulled_is_the_servers(site: Site) -> None:
    """Its ids are the server's own, and its list of runs is not taken for whole."""
    for run_id in ("other", "one"):
        site.world.add_run("team", "first" if run_id == "other" else "p", run_id=run_id).finish()
    site.world.add_run("team", "p", run_id="two").finish()
    site.sync("team/p/one")
    about = '{ project(name: "p", entityName: "team") { internalId createdAt totalRuns } }'
    runs = '{ project(name: "p", entityName: "team") { runCount runs { totalCount edges { node { name } } } } }'
    expected = site.reported(about)
    assert site.ask(runs) == site.reported(runs)
    site.sandbox.stop()
    assert site.ask(about) == expected
    assert "not all runs of team/p are mirrored yet" in site.refused(runs)


def test_what_could_not_be_read_is_the_servers(site: Site) -> None:
    run = site.world.add_run("team", "p", run_id="one", config={"lr": 1})
    run.finish()
    run.spoilt = {"config": '{"lr": {"value": 1}', "summaryMetrics": "{"}
    site.sync()
    for field in ("config", "summaryMetrics", "wandbConfig"):
        assert site.ask(of("one", field)) == site.reported(of("one", field))
    site.sandbox.stop()
    assert "config of team/p/one could not be read" in site.refused(of("one", "name config"))
    assert site.ask(of("one", "name")) == {"data": {"project": {"run": {"name": "one"}}}}


PAGES = """query Q($after: String) { project(name: "p", entityName: "team") { runs(first: 2, order: "+created_at", after: $after) {
    edges { node { name config } } pageInfo { endCursor hasNextPage } } } }"""


def test_a_list_whose_later_pages_the_mirror_lacks_is_the_servers_from_its_start(site: Site) -> None:
    """Neither goes on with a list of the other."""
    for index in range(5):
        site.world.add_run("team", "p", run_id=f"run{index}", config={"n": index}).finish()
    site.world.run("team", "p", "run4").spoilt = {"config": "{"}
    site.sync()
    names, after = [], None
    for _ in range(3):
        page = site.ask(PAGES, after=after)
        assert page == site.reported(PAGES, after=after)
        runs = page["data"]["project"]["runs"]
        names += [edge["node"]["name"] for edge in runs["edges"]]
        after = runs["pageInfo"]["endCursor"]
    assert names == [f"run{index}" for index in range(5)]


def test_the_server_is_not_sent_a_place_in_a_list_of_the_mirrors(site: Site) -> None:
    for index in range(3):
        site.world.add_run("team", "p", run_id=f"run{index}").finish()
    site.sync()
    light = PAGES.replace("config", "")
    after = site.ask(light)["data"]["project"]["runs"]["pageInfo"]["endCursor"]
    assert [edge["node"] for edge in site.ask(light, after=after)["data"]["project"]["runs"]["edges"]] == [
        {"name": "run2"}
    ]
    unknown = PAGES.replace("config", "historyTail")
    assert site.refused(unknown, after=after).endswith("ask for the first page of the list again")
    theirs = site.reported(light)["data"]["project"]["runs"]["pageInfo"]["endCursor"]
    assert site.ask(light, after=theirs) == site.reported(light, after=theirs)


def test_console_lines_that_came_since_are_the_servers(site: Site) -> None:
    run = site.world.add_run("team", "p", run_id="one")
    run.write_console(0, ["a"])
    run.finish()
    site.sync(console=True)
    run.write_console(1, ["b"])
    run.finish()
    site.sync(console=False)
    lines = of("one", "logLineCount logLines(first: 9, useImprovedPagination: true) { edges { node { line } } }")
    assert site.ask(lines) == site.reported(lines)
    site.sandbox.stop()
    assert "not all console lines of team/p/one are mirrored" in site.refused(lines)


def test_a_record_is_answered_as_by_the_server(site: Site) -> None:
    """Where the mirror holds what serves its readers better: a duration, a commit, plain values."""
    world = site.world
    described = world.add_run("team", "p", run_id="described", created_at=NOON, metadata={"git": {"commit": "abc"}})
    described.set_config({"lr": {"value": 1, "desc": "rate"}, "n": {"value": 2, "desc": None}, "wandb_version": 1})
    described.finish()
    bare = world.add_run("team", "p", run_id="bare", created_at=NOON)
    bare.state, bare.heartbeat_at = "pending", bare.created_at
    bare.labels.commit = ""
    bare.spoilt = {"summaryMetrics": None}
    mixed = world.add_run("team", "p", run_id="mixed", created_at=NOON)
    mixed.log({"v": 1, "a.b": {"c.d": 1}})
    mixed.log({"v": {"deep": 2}})
    mixed.finish()
    fields = "commit computeSeconds summaryMetrics config"
    asked = [["_step", "v"], ["_step", "a.b"], ["_step", "v.deep"], ["v", "_step"], ["_runtime", "_step", "a.b"]]
    specs = [json.dumps({"keys": keys}) for keys in asked]
    sampled = """query Q($specs: [JSONString!]!) { project(name: "p", entityName: "team") {
        run(name: "mixed") { sampledHistory(specs: $specs) } } }"""
    site.sync()
    expected = {run_id: site.reported(of(run_id, fields)) for run_id in ("described", "bare")}
    rows = site.reported(sampled, specs=specs)
    site.sandbox.stop()
    for run_id, answer in expected.items():
        found = site.ask(of(run_id, fields))["data"]["project"]["run"]
        right = answer["data"]["project"]["run"]
        for node in (found, right):
            node.update({name: json.loads(node[name]) for name in ("config", "summaryMetrics") if node[name]})
        assert found == right
    # As text: the columns of a frame are in the order of the keys.
    assert json.dumps(site.ask(sampled, specs=specs)) == json.dumps(rows)


CONDITIONS = {
    "of a fragment": "...f @include(if: $no) ... on Run @skip(if: $yes) { state } name",
    "of a field that is asked for twice": "name @skip(if: $yes) name user @include(if: $no) { id } user { name }",
    "that hold": "...f @include(if: $yes) ... @skip(if: $no) { name }",
}


@pytest.mark.parametrize("case", CONDITIONS)
def test_conditions_are_heeded(site: Site, case: str) -> None:
    site.world.add_run("team", "p", run_id="one", config={"a": 1}).finish()
    site.sync()
    asked = of("one", CONDITIONS[case]).replace("{", "query Q($yes: Boolean = true, $no: Boolean = false) {", 1)
    asked += " fragment f on Run { config tags }" if "...f" in asked else ""
    expected = site.reported(asked)
    site.sandbox.stop()
    assert site.ask(asked) == expected
    kept = {"of a fragment": {"name"}, "of a field that is asked for twice": {"name", "user"}}
    assert expected["data"]["project"]["run"].keys() == kept.get(case, {"config", "tags", "name"})


def test_an_answer_has_bounds(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(30):
        site.world.add_run("team", "p", run_id=f"run{index}").finish()
    long = site.world.add_run("team", "p", run_id="long")
    long.log_many({"loss": step} for step in range(100))
    site.sync()
    site.sandbox.stop()
    inner = "name"
    for _ in range(4):
        inner = f"project {{ runs {{ edges {{ node {{ {inner} }} }} }} }}"
    assert "asks for too much at once" in site.refused(of("run0", inner))
    monkeypatch.setattr(history_fields, "MOST_VALUES", 100)
    assert "are too many at once" in site.refused(of("long", "history(samples: 100)"))
    assert len(site.ask(of("long", "history(samples: 20)"))["data"]["project"]["run"]["history"]) == 20


@pytest.mark.parametrize(
    "fields",
    [
        'history(minStep: "x")',
        "history(minStep: {a: 1})",
        "history(maxStep: 1e400)",
        'sampledHistory(specs: ["{\\"keys\\": [\\"a\\"], \\"minStep\\": 1e400}"])',
    ],
)
def test_steps_that_mean_nothing_are_reported_in_one_line(site: Site, fields: str) -> None:
    site.world.add_run("team", "p", run_id="one").finish()
    site.sync()
    [error] = site.ask(of("one", fields))["errors"]
    assert "minStep" in error["message"] or "maxStep" in error["message"]
    assert "\n" not in error["message"]


SCAN = """query RunParquetHistory($liveKeys: [String!]!) { project(name: "p", entityName: "team") {
    run(name: "one") { parquetHistory(liveKeys: $liveKeys) { parquetUrls liveData } } } }"""
PAGE = """query HistoryPage($low: Int64!, $high: Int64!, $size: Int!) { project(name: "p", entityName: "team") {
    run(name: "one") { history(minStep: $low, maxStep: $high, samples: $size) } } }"""


def test_a_scan_gives_the_same_keys_while_the_mirror_moves_on(site: Site) -> None:
    """Also where the server tells the steps that are not exported as JSON texts."""
    run = site.world.add_run("team", "p", run_id="one")
    run.log_many({"nested": {"x": step}} for step in range(4))
    run.finish()
    site.sync()
    run.spoilt = {
        "parquetHistory": {"parquetUrls": ["http://127.0.0.1:1/x"], "liveData": ['{"_step": 2}', {"_step": 3}]}
    }
    site.ask(SCAN, CORE, "RunParquetHistory", liveKeys=["_step"])

    def page(low: int) -> list[str]:
        answer = site.ask(PAGE, CORE, "HistoryPage", low=low, high=low + 1, size=1)
        row = json.loads(answer["data"]["project"]["run"]["history"][0])
        return [key for key in row if key[0] != "_"]

    assert page(0) == ["nested.x"]
    site.world.add_run("team", "p", run_id="two").finish()
    site.sync()
    assert [page(step) for step in (1, 2)] == [["nested.x"], ["nested"]]


def test_a_signed_address_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signed address is valid for its file and for its time; the server does not learn of it."""
    run = site.world.add_run("team", "p", run_id="one")
    for name in ("a:b~c+d&e=f?g#h %25.txt", "other.txt"):
        run.add_file(name, name)
    run.finish()
    site.sync(files=True)
    asked = of("one", "files { edges { node { name directUrl } } }")

    def addresses() -> dict[str, str]:
        edges = site.ask(asked)["data"]["project"]["run"]["files"]["edges"]
        return {edge["node"]["name"]: edge["node"]["directUrl"] for edge in edges}

    first = addresses()
    for name, address in first.items():
        assert site.request("GET", address, key=False).text == name
        assert site.request("GET", address, key=True).text == name
    paths, signatures = zip(*(address.split("?") for address in first.values()), strict=True)
    assert site.request("GET", f"{paths[0]}?{signatures[1]}", key=False).status_code == 401
    monkeypatch.setattr(signing, "LIFETIME", -1)
    assert {site.request("GET", address, key=False).status_code for address in addresses().values()} == {401}


def test_who_somebody_is_is_remembered_and_nothing_else(site: Site) -> None:
    run = site.world.add_run("team", "p", run_id="one", state="running")
    site.sync()
    asked = '{ viewer { username } project(name: "p", entityName: "team") { run(name: "one") { state } } }'
    assert site.ask(asked)["data"]["project"]["run"] == {"state": "running"}
    run.finish()
    assert site.ask(asked)["data"]["project"]["run"] == {"state": "finished"}


NEW_FILES = """mutation {
  createRunFiles(input: {entityName: "team", projectName: "p", runName: "one", files: ["a"]}) { runID }
}"""


def test_a_packed_change_of_files_is_noticed(site: Site) -> None:
    site.world.add_run("team", "p", run_id="one").finish()
    site.sync()
    body = gzip.compress(json.dumps({"query": NEW_FILES}).encode())
    answer = site.request("POST", "/graphql", content=body, headers={"Content-Encoding": "gzip"})
    assert answer.json()["data"]["createRunFiles"]["runID"]
    assert site.again == [("team", "p", "one")]


def test_a_refused_change_is_none(site: Site) -> None:
    site.world.add_run("team", "p", run_id="one").finish()
    site.sync()
    site.world.delete_run("team", "p", "one")
    assert "not found" in site.ask(NEW_FILES)["errors"][0]["message"]
    assert site.again == []


def test_a_change_that_leaves_the_entity_to_the_settings_is_one_of_it() -> None:
    query = NEW_FILES.replace('entityName: "team", ', "")
    assert changed(json.dumps({"query": query}).encode(), b"", "team").runs == [("team", "p", "one")]


def test_a_long_document_is_passed_on(site: Site) -> None:
    """One that may change something counts as a change."""
    site.world.add_run("team", "p", run_id="one").finish()
    site.sync()
    asked = "{ " + " ".join(f"a{index}: viewer {{ username }}" for index in range(700)) + " }"
    assert site.ask(asked) == site.reported(asked)
    site.sandbox.stop()
    assert "a document of more than 3,000 tokens" in site.refused(asked)
    change = "mutation " + asked
    assert site.refused(change).startswith("changes go to the server")


def test_a_run_with_long_documents_is_answered_when_no_list_was_asked_for(site: Site) -> None:
    """Runs of a list with such documents are read one at a time; a run that is asked for by name is in no list."""
    config = {f"key{index}": "x" * 1000 for index in range(200)}
    site.world.add_run("team", "p", run_id="one", config=config).finish()
    site.sync()
    asked = of("one", "name config")
    expected = site.reported(asked)
    site.sandbox.stop()
    assert site.ask(asked) == expected
