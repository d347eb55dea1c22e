"""Who gets in, what is passed on to the server, what is refused, and that answers are of the newest snapshot."""

from __future__ import annotations

import base64
import gzip
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from mirror.sandbox import World
from mirror.settings.settings import load
from tests.serve.conftest import Served, served

pytestmark = pytest.mark.xdist_group("endpoint")

RUNS = """query Runs($project: String!, $entity: String!, $cursor: String, $perPage: Int = 50, $order: String, $filters: JSONString) {
    project(name: $project, entityName: $entity) { runCount(filters: $filters)
        runs(filters: $filters, after: $cursor, first: $perPage, order: $order) {
            edges { node { ...f } cursor } pageInfo { endCursor hasNextPage } } } }
    fragment f on Run { name config tags }"""
HERE = {"project": "p", "entity": "team"}
VIEWER = {"query": "{ viewer { username entity } }"}


def names(answer: dict) -> list[str]:
    return [edge["node"]["name"] for edge in answer["data"]["project"]["runs"]["edges"]]


@pytest.mark.parametrize("auth", [("api", "x" * 40), ("user", None), None, ("api", "")])
def test_only_the_key_opens_it(live: Served, auth: tuple[str, str | None] | None) -> None:
    given = (auth[0], live.server.key if auth[1] is None else auth[1]) if auth else None
    for path in ("/graphql", "/files/team/p/run0/notes.txt"):
        answer = httpx.post(live.address.url + path, auth=given, json=VIEWER)
        assert answer.status_code == 401
        assert "the API key is missing or wrong" in answer.json()["errors"][0]["message"]


def test_the_token_of_the_page_does_not_open_it(live: Served) -> None:
    token = (live.home / "web.token").read_text().strip()
    assert live.client(token).post("/graphql", json=VIEWER).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
    ],
)
def test_foreign_hosts_and_origins_are_refused(live: Served, headers: dict[str, str], status: int) -> None:
    with live.client(**headers) as client:
        assert client.post("/graphql", json=VIEWER).status_code == status


def test_it_answers_who_holds_the_key(live: Served) -> None:
    assert live.ask(VIEWER["query"]) == {"data": {"viewer": {"username": "ada", "entity": "team"}}}


def test_runs_are_answered_by_the_mirror_alone(live: Served) -> None:
    live.server.reset_counts()
    found = live.ask(RUNS, **HERE, order="-config.lr.value", filters=json.dumps({"tags": "t0"}))
    assert names(found) == ["run0", "run2", "run4"]
    assert found["data"]["project"]["runCount"] == 3
    node = found["data"]["project"]["runs"]["edges"][1]["node"]
    assert (node["tags"], json.loads(node["config"])["lr"]) == (["t0"], {"value": 0.01, "desc": None})
    assert live.server.requests["Runs"] == 0


def test_it_tells_which_fields_it_has(live: Served) -> None:
    """Some versions of the SDK ask before they use a field."""
    reported = live.ask('query Q { __type(name: "ServerFeature") { fields { name } } }')
    assert reported == {"data": {"__type": {"fields": [{"name": "name"}, {"name": "isEnabled"}]}}}


def test_pages_of_a_list_fit_together_while_runs_are_added(live: Served) -> None:
    first = live.ask(RUNS, **HERE, perPage=2, order="-created_at")
    added = live.world.add_run("team", "p", run_id="added")
    live.until(lambda: live.sql("select count(*) from runs where run_id = 'added'") == [(1,)])
    pages = [names(first)]
    info = first["data"]["project"]["runs"]["pageInfo"]
    while info["hasNextPage"]:
        answer = live.ask(RUNS, **HERE, perPage=2, order="-created_at", cursor=info["endCursor"])
        pages.append(names(answer))
        info = answer["data"]["project"]["runs"]["pageInfo"]
    assert pages == [["run4", "run3"], ["run2", "run1"], ["run0"]]
    assert names(live.ask(RUNS, **HERE, perPage=1, order="-created_at")) == ["added"]
    live.world.delete_run("team", "p", added.run_id)


def test_each_request_sees_the_newest_snapshot(live: Served) -> None:
    run = live.world.add_run("team", "p", run_id="growing")
    steps = '{ project(name: "p", entityName: "team") { run(name: "growing") { historyLineCount historyKeys } } }'
    for end in (3, 6):
        run.log_many({"loss": float(step)} for step in range(3))
        live.until(lambda end=end: live.sql("select history_rows from runs where run_id = 'growing'") == [(end,)])
        reported = live.ask(steps)["data"]["project"]["run"]
        assert (reported["historyLineCount"], reported["historyKeys"]["lastStep"]) == (end, end - 1)
        assert reported["historyKeys"]["keys"]["loss"]["typeCounts"] == [{"type": "number", "count": end}]


RUN = """query Run($project: String!, $entity: String!, $name: String!) {
    project(name: $project, entityName: $entity) { run(name: $name) { name config history historyKeys } } }"""


def test_a_loop_over_runs_is_answered_ahead_and_yet_of_the_newest_snapshot(live: Served) -> None:
    """What is read for the next runs of a loop is forgotten when the mirror moves on."""
    listed = names(live.ask(RUNS, **HERE, order="+created_at"))
    for name in listed[:3]:
        reported = live.ask(RUN, **HERE, name=name)["data"]["project"]["run"]
        assert json.loads(reported["config"])["lr"]["value"] == 10.0 ** -int(name[-1])
        assert [json.loads(line)["acc"] for line in reported["history"]] == [step / 10 for step in range(10)]
    changed = live.world.run("team", "p", listed[3])
    before = changed.config
    changed.edit(config={"lr": 7})
    live.until(lambda: live.sql(f"select config from runs where run_id = '{listed[3]}'") == [('{"lr":7}',)])
    reported = live.ask(RUN, **HERE, name=listed[3])["data"]["project"]["run"]
    assert json.loads(reported["config"])["lr"]["value"] == 7
    changed.edit(config=before)


def test_pages_of_a_history_hold_each_row_once(live: Served) -> None:
    """Windows in order, overlapping, behind the end, of nothing: each as if it were asked for alone."""
    run = live.world.add_run("team", "p", run_id="gappy")
    steps = [0, 1, 2, 7, 8, 30, 31, 32, 50]
    run.log_many({"_step": step, "loss": step / 2, **({"rare": "x"} if step == 31 else {})} for step in steps)
    live.until(lambda: live.sql("select history_rows from runs where run_id = 'gappy'") == [(len(steps),)])
    page = """query HistoryPage($low: Int64!, $high: Int64!, $size: Int!) { project(name: "p", entityName: "team") {
        run(name: "gappy") { history(minStep: $low, maxStep: $high, samples: $size) } } }"""
    for low, high in [(0, 5), (5, 10), (10, 15), (28, 33), (3, 31), (50, 51), (51, 60), (0, 100), (8, 8)]:
        reported = live.ask(page, low=low, high=high, size=high - low)["data"]["project"]["run"]["history"]
        rows = [{name: value for name, value in json.loads(line).items() if name[0] != "_"} for line in reported]
        found = [json.loads(line)["_step"] for line in reported]
        assert found == [step for step in steps if low <= step < high]
        assert rows == [{"loss": step / 2, **({"rare": "x"} if step == 31 else {})} for step in found]
    live.world.delete_run("team", "p", "gappy")


@pytest.mark.parametrize(
    ("query", "variables", "message"),
    [
        (RUNS, {**HERE, "filters": "{not json"}, "the filter is not valid JSON"),
        (RUNS, {**HERE, "filters": '{"nofield": 1}'}, "nofield"),
        (RUNS, {**HERE, "order": "-nofield"}, "nofield"),
        (RUNS, {**HERE, "cursor": "mirror~?"}, "is not a cursor of this mirror"),
        (RUNS, {**HERE, "cursor": "?"}, "invalid cursor"),
        (RUNS, {"entity": "team"}, "project"),
        ("{ viewer {", {}, "Syntax Error"),
    ],
)
def test_what_means_nothing_is_reported_in_one_line(live: Served, query: str, variables: dict, message: str) -> None:
    errors = live.ask(query, **variables)["errors"]
    assert errors
    for error in errors:
        assert message in error["message"]
        assert "\n" not in error["message"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"query": 1}', b'{"query": "{ x }", "variables": [1]}', b"\xff"])
def test_a_body_that_is_no_request(live: Served, body: bytes) -> None:
    with live.client() as client:
        answer = client.post("/graphql", content=body)
    assert (answer.status_code, answer.json()["errors"][0]["message"][:9]) == (400, "send JSON")


def test_what_the_mirror_lacks_is_asked_of_the_server(live: Served) -> None:
    """Files, runs and projects that are not mirrored, and the unmodified SDK's way to them."""
    other = live.world.add_run("team", "elsewhere", run_id="far", config={"lr": 5})
    other.finish()
    text = """
import json, wandb
api = wandb.Api()
run = api.run("team/p/run1")
print(json.dumps([file.name for file in run.files()]))
with run.file("notes.txt").download(root="down") as file:
    print(json.dumps(file.read()))
print(json.dumps(api.run("team/elsewhere/far").config))
"""
    assert live.script(live.address, text) == [["notes.txt"], "notes of 1", {"lr": 5}]
    with live.client() as client:
        assert client.get("/files/team/p/run1/notes.txt").text == "notes of 1"


def test_files_are_listed_by_the_mirror_and_fetched_from_the_server(live: Served) -> None:
    live.server.world.run("team", "p", "run1").add_file("media/images/a_1.png", "x" * 10)
    before = live.server.requests["RunFiles"]
    query = """query Q($names: [String], $pattern: String, $after: String, $first: Int) {
      project(name: "p", entityName: "team") { run(name: "run0") { fileCount
        files(names: $names, pattern: $pattern, after: $after, first: $first) {
          edges { node { name sizeBytes url directUrl } } pageInfo { endCursor hasNextPage } } } } }"""

    def names(**variables: Any) -> list[str]:
        files = live.ask(query, **variables)["data"]["project"]["run"]["files"]
        return [edge["node"]["name"] for edge in files["edges"]]

    whole = live.ask(query)["data"]["project"]["run"]
    reported = {edge["node"]["name"]: edge["node"] for edge in whole["files"]["edges"]}
    assert (whole["fileCount"], reported["notes.txt"]["sizeBytes"]) == (len(reported), 10)
    assert names(names=["notes.txt", "none"]) == names(pattern="no%.t_t") == ["notes.txt"]
    assert names(pattern="no\\%") == []
    address = reported["notes.txt"]["url"]
    assert address == f"{live.address.url}/files/team/p/run0/notes.txt"
    with live.client() as client:
        assert client.get(address).text == "notes of 0"
    assert live.server.requests["RunFiles"] == before
    upload = '{ project(name: "p", entityName: "team") { run(name: "run0") { files { edges { node { url(upload: true) } } } } } }'
    edges = live.ask(upload)["data"]["project"]["run"]["files"]["edges"]
    assert all("/storage/files/team/p/run0/" in edge["node"]["url"] for edge in edges), "the server tells where"


def test_the_list_of_files_comes_in_pages(live: Served) -> None:
    run = live.server.world.add_run("team", "p", run_id="many", state="running")
    expected = [f"media/table/{index:03d}.json" for index in range(120)]
    for name in expected:
        run.add_file(name, "{}")
    run.finish()
    live.until(lambda: live.sql("select count(*) from files where run_id = 'many' and size = 2")[0][0] == 120)
    script = "import json, wandb\nfiles = wandb.Api().run('team/p/many').files(per_page=50)\n"
    script += "print(json.dumps([len(files), [file.name for file in files if file.size == 2]]))"
    [[count, found]] = live.script(live.address, script)
    assert (count, found) == (live.sql("select count(*) from files where run_id = 'many'")[0][0], expected)


def test_no_history_is_kept_by_clients_beside_the_mirror(live: Served) -> None:
    """The SDK would read an exported file of a run from its own folder for ever, whatever the run has logged since."""
    script = """
import json, wandb
from wandb.apis.public.runhistory import IncompleteRunHistoryError
run = wandb.Api().run("team/p/run2")
try:
    reported = str(run.download_history_exports("exports"))
except IncompleteRunHistoryError:
    reported = "incomplete"
print(json.dumps([reported, [row["_step"] for row in run.scan_history()], len(list(run.beta_scan_history()))]))
"""
    assert live.script(live.address, script) == [["incomplete", list(range(10)), 10]]


def test_changes_by_the_sdk_go_to_the_server_and_come_back(live: Served) -> None:
    text = """
import json, wandb
run = wandb.Api().run("team/p/run3")
run.config["lr"] = 0.5
run.tags.append("edited")
run.update()
print(json.dumps("done"))
"""
    assert live.script(live.address, text) == ["done"]
    changed = live.world.run("team", "p", "run3")
    assert (changed.config["lr"], changed.tags) == (0.5, ["t1", "edited"])
    live.until(lambda: "edited" in live.sql("select tags from runs where run_id = 'run3'")[0][0])
    assert (
        "edited"
        in live.script(live.address, 'import json, wandb\nprint(json.dumps(wandb.Api().run("team/p/run3").tags))')[0]
    )


def test_a_run_can_be_logged_through_it(live: Served) -> None:
    text = """
import json, wandb
run = wandb.init(entity="team", project="p", id="logged", config={"a": 1})
for step in range(5):
    run.log({"loss": step / 2})
run.finish()
print(json.dumps("done"))
"""
    assert live.script(live.address, text) == ["done"]
    assert [row["loss"] for row in live.world.run("team", "p", "logged").rows()] == [0, 0.5, 1, 1.5, 2]


def test_a_mirror_of_a_mirror_does_not_ask_itself_for_ever(live: Served) -> None:
    with live.client(**{"X-Wandb-Mirror": "1"}) as client:
        answer = client.post("/graphql", json={"query": '{ organization(name: "x") { name } }'})
    assert (answer.status_code, answer.json()["data"]) == (400, None)
    assert "was forwarded by a mirror already" in answer.json()["errors"][0]["message"]


def test_env_prints_what_a_shell_needs(live: Served) -> None:
    printed = live.mirror("env").stdout
    assert printed.splitlines()[1:] == [
        f"export WANDB_BASE_URL={live.address.url}",
        f"export WANDB_APP_URL={live.server.url}",
    ]
    assert live.server.key not in printed
    assert live.mirror("env", "--key").stdout == f"{live.server.key}\n"


def test_the_mirror_itself_never_takes_its_own_address_for_the_server(live: Served) -> None:
    from mirror.settings.home import Home

    environ = {
        "MIRROR_HOME": str(live.home / "none"),
        "HOME": str(live.root),
        "WANDB_BASE_URL": "http://127.0.0.1:8642/",
    }
    assert load(Home.find(environ), environ).server.base_url == "https://api.wandb.ai"


@pytest.fixture(scope="module")
def offline() -> Iterator[Served]:
    """A mirror that refuses changes, whose server went away."""
    world = World(username="ada", entity="team")
    run = world.add_run("team", "p", run_id="run0", config={"lr": 1})
    run.log_many({"loss": float(step)} for step in range(3))
    run.finish()
    with served(world, '["team/p"]', writes="refuse") as site:
        yield site


def test_changes_are_refused_where_the_settings_say_so(offline: Served) -> None:
    mutation = 'mutation { deleteRun(input: {id: "x"}) { clientMutationId } }'
    offline.server.reset_counts()
    with offline.client() as client:
        for answer in (
            client.post("/graphql", json={"query": mutation}),
            client.post("/files/team/p/run0/file_stream", json={"files": {}}),
        ):
            assert answer.status_code == 403
            assert 'accepts no changes ([http] writes = "refuse")' in answer.json()["errors"][0]["message"]
    assert offline.server.requests["deleteRun"] + offline.server.requests["file_stream"] == 0
    assert offline.ask('{ project(name: "p", entityName: "team") { readOnly } }')["data"]["project"] == {
        "readOnly": True
    }


def test_an_order_that_takes_too_long_to_plan_is_refused(live: Served) -> None:
    order = ",".join(f"+config.key{index}" for index in range(200))
    with live.client() as client:
        answer = client.post("/graphql", json={"query": RUNS, "variables": {**HERE, "order": order}})
        assert "has 200 fields; an order has at most 16" in answer.json()["errors"][0]["message"]
        answer = client.post("/graphql", json={"query": RUNS, "variables": {**HERE, "order": "+created_at"}})
        assert names(answer.json())[:2] == ["run0", "run1"]


def test_documents_that_grow_beyond_measure_are_passed_on_or_refused(live: Served) -> None:
    """Fragments that double thirty times; the same field over and over; a gzipped body of gigabytes."""
    doubling = "".join(f"fragment f{n} on User {{ ...f{n + 1} ...f{n + 1} }}" for n in range(30))
    asked = "{ viewer { ...f0 } }" + doubling + "fragment f30 on User { username }"
    assert "a document with more than 5,000 fields" in refused_offline(live, {"query": asked})
    assert "a document of more than 3,000 tokens" in refused_offline(
        live, {"query": f"{{ {'viewer { entity } ' * 5000} }}"}
    )
    with live.client() as client:
        packed = gzip.compress(bytes(300 << 20), 1)
        answer = client.post("/graphql", content=packed, headers={"Content-Encoding": "gzip"})
        assert (answer.status_code, answer.json()["errors"]) == (400, [{"message": "a request holds at most 256 MiB"}])


def refused_offline(live: Served, body: dict[str, Any]) -> str:
    """What the mirror says of a document by itself: it is marked as passed on already."""
    with live.client(**{"X-Wandb-Mirror": "1"}) as client:
        answer = client.post("/graphql", json=body, timeout=10)
    assert answer.status_code == 400
    return answer.json()["errors"][0]["message"]


def test_half_of_a_write_is_not_passed_on(live: Served) -> None:
    address = urlsplit(live.address.url)
    key = base64.b64encode(f"api:{live.server.key}".encode()).decode()
    live.server.reset_counts()
    with socket.create_connection((address.hostname, address.port)) as client:
        head = f"POST /files/team/p/run0/file_stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {key}\r\n"
        client.sendall(f'{head}Content-Length: 100\r\n\r\n{{"files": '.encode())
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1000) == b""
    with live.client() as client:
        assert client.post("/files/team/p/run0/file_stream", json={"files": {}}).status_code == 200
    assert live.server.requests["file_stream"] == 1


def test_without_the_server_the_mirror_says_what_it_does_not_serve(offline: Served) -> None:
    offline.server.stop()
    run = '{ project(name: "p", entityName: "team") { run(name: "run0") { %s } } }'
    for query, missing in (
        (run % "defaultColorIndex", 'Cannot query field "defaultColorIndex"'),
        ('{ project(name: "other", entityName: "team") { id } }', "the project team/other is not mirrored"),
        (
            '{ project(name: "p", entityName: "team") { run(name: "gone") { id } } }',
            "the run team/p/gone is not mirrored",
        ),
    ):
        (error,) = offline.ask(query)["errors"]
        assert error["message"].startswith(f"the mirror does not serve this ({missing}"), error
        assert f"cannot reach {offline.server.url}" in error["message"], error
    assert offline.ask(VIEWER["query"])["data"]["viewer"] == {"username": "ada", "entity": "team"}


def test_clients_that_ask_at_once_get_the_answers_of_one(live: Served) -> None:
    """Sixteen connections, each with other questions, so that an answer that went to another would be seen."""
    history = (
        "query H($project: String!, $entity: String!, $run: String!, $specs: [JSONString!]!) "
        "{ project(name: $project, entityName: $entity) "
        "{ run(name: $run) { name config historyLineCount sampledHistory(specs: $specs) } } }"
    )
    asked: list[tuple[str, dict[str, Any]]] = [
        (history, {**HERE, "run": f"run{run}", "specs": [json.dumps({"keys": ["_step", key], "samples": samples})]})
        for run in range(5)
        for key in ("loss", "acc")
        for samples in (3, 500)
    ]
    # A cursor belongs to the answer that it came with.
    listing = RUNS.replace("cursor } pageInfo { endCursor hasNextPage }", "}")
    asked += [(listing, {**HERE, "filters": json.dumps({"tags": f"t{tag}"}), "perPage": 1 + tag}) for tag in (0, 1)]

    def answers(start: int) -> list[tuple[int, dict[str, Any]]]:
        order = [(start + offset) % len(asked) for offset in range(len(asked))]
        with live.client() as client:
            return [
                (each, client.post("/graphql", json={"query": asked[each][0], "variables": asked[each][1]}).json())
                for each in order
            ]

    alone = dict(answers(0))
    assert all("errors" not in answer for answer in alone.values())
    assert len({json.dumps(answer) for answer in alone.values()}) == len(asked)
    with ThreadPoolExecutor(16) as pool:
        for found in pool.map(answers, range(16)):
            assert dict(found) == alone
