"""What the server answers to queries: runs, pages, history."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import pytest

from mirror.sandbox import Sandbox, World
from tests.sandbox.conftest import Client, connected

RUNS = """query Runs($f: JSONString, $o: String, $n: Int, $c: String) {
  project(name: "vision", entityName: "my-team") {
    runCount(filters: $f)
    runs(filters: $f, order: $o, first: $n, after: $c) {
      edges { node { name } cursor }
      pageInfo { endCursor hasNextPage }
    }
  }
}"""
HISTORY = """query H($run: String!, $min: Int64, $max: Int64, $n: Int) {
  project(name: "oddities", entityName: "my-team") { run(name: $run) { history(minStep: $min, maxStep: $max, samples: $n) } }
}"""


def listed(client: Client, filters: dict | None = None, order: str = "+created_at") -> list[str]:
    runs = client.data(RUNS, f=json.dumps(filters or {}), o=order)["project"]["runs"]
    return [edge["node"]["name"] for edge in runs["edges"]]


def steps(
    client: Client, run: str, low: int | None = None, high: int | None = None, samples: int | None = None
) -> list[int]:
    lines = client.data(HISTORY, run=run, min=low, max=high, n=samples)["project"]["run"]["history"]
    return [json.loads(line)["_step"] for line in lines]


def test_viewer_is_the_owner_of_the_key(client: Client) -> None:
    data = client.data("query Viewer { viewer { username entity teams { edges { node { name } } } } }")
    assert data == {
        "viewer": {"username": "ada", "entity": "my-team", "teams": {"edges": [{"node": {"name": "my-team"}}]}}
    }


@pytest.mark.parametrize("auth", [None, ("api", "wrong"), ("user", "{key}")])
def test_a_wrong_key_is_refused(server: Sandbox, auth: tuple[str, str] | None) -> None:
    if auth:
        auth = (auth[0], auth[1].format(key=server.key))
    answer = httpx.post(f"{server.url}/graphql", json={"query": "{ viewer { id } }"}, auth=auth)
    assert answer.status_code == 401


def test_projects_of_an_entity(client: Client) -> None:
    query = """query P($e: String!) {
      models(entityName: $e, first: 10) { edges { node { name entityName } } pageInfo { hasNextPage } }
      entity(name: $e) { projects(order: "+created_at") { edges { node { name } } } }
    }"""
    data = client.data(query, e="my-team")
    assert {edge["node"]["name"] for edge in data["models"]["edges"]} == {"vision", "oddities"}
    assert [edge["node"]["name"] for edge in data["entity"]["projects"]["edges"]] == ["vision", "oddities"]


def test_what_is_not_there_is_null(client: Client) -> None:
    query = """{ a: project(name: "nope", entityName: "my-team") { id }
      b: project(name: "vision", entityName: "my-team") { run(name: "nope") { id } } }"""
    assert client.data(query) == {"a": None, "b": {"run": None}}


def test_one_request_counts_and_lists_with_two_filters(client: Client) -> None:
    query = """query Changed($since: JSONString) { project(name: "vision", entityName: "my-team") {
      all: runCount changed: runs(filters: $since, order: "+heartbeat_at") { edges { node { name } } } } }"""
    data = client.data(query, since='{"heartbeatAt": {"$gte": "2025-03-03T12:00:00+00:00"}}')["project"]
    assert data["all"] == 5
    assert [edge["node"]["name"] for edge in data["changed"]["edges"]] == ["vision03", "vision04"]


def test_every_page_once_in_a_quiet_project(client: Client) -> None:
    names, cursor = [], None
    while True:
        runs = client.data(RUNS, o="+created_at", n=2, c=cursor)["project"]["runs"]
        names += [edge["node"]["name"] for edge in runs["edges"]]
        cursor = runs["pageInfo"]["endCursor"]
        assert cursor == runs["edges"][-1]["cursor"]
        if not runs["pageInfo"]["hasNextPage"]:
            break
    assert names == ["vision00", "vision01", "vision02", "vision03", "vision04"]


def test_a_deletion_between_two_pages_hides_a_run(client: Client, world: World) -> None:
    first = client.data(RUNS, o="+created_at", n=2)["project"]["runs"]
    world.delete_run("my-team", "vision", "vision00")
    second = client.data(RUNS, o="+created_at", n=2, c=first["pageInfo"]["endCursor"])["project"]["runs"]
    assert [edge["node"]["name"] for edge in second["edges"]] == ["vision03", "vision04"]


def test_a_new_run_between_two_pages_repeats_one(client: Client, world: World) -> None:
    first = client.data(RUNS, o="-created_at", n=2)["project"]["runs"]
    world.add_run("my-team", "vision", run_id="newest")
    second = client.data(RUNS, o="-created_at", n=2, c=first["pageInfo"]["endCursor"])["project"]["runs"]
    assert [edge["node"]["name"] for edge in first["edges"]] == ["vision04", "vision03"]
    assert [edge["node"]["name"] for edge in second["edges"]] == ["vision03", "vision02"]


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("+created_at", "vision00"),
        ("-created_at", "vision04"),
        ("created_at", "vision00"),
        ("-config.batch_size.value", "vision04"),
        ("config.batch_size", "vision00"),
        ("-heartbeat_at", "vision04"),
        ("-display_name", "vision04"),
    ],
)
def test_orders(client: Client, order: str, first: str) -> None:
    assert listed(client, order=order)[0] == first


def test_order_by_summary_puts_missing_and_nan_last(client: Client, world: World) -> None:
    for name, value in (("vision00", math.nan), ("vision01", 0.5), ("vision02", 0.7)):
        world.run("my-team", "vision", name).edit(summary={"score": value})
    assert listed(client, order="-summary_metrics.score") == [
        "vision02",
        "vision01",
        "vision00",
        "vision03",
        "vision04",
    ]
    assert listed(client, order="+summary_metrics.score")[:2] == ["vision01", "vision02"]


def test_bad_filters_orders_and_cursors_are_errors(client: Client) -> None:
    assert client.post(RUNS, f='{"state": {"$foo": 1}}').status_code == 400
    assert client.errors(RUNS, f='{"state": {"$foo": 1}}')[0] == "invalid filters: unknown operator: $foo"
    assert client.errors(RUNS, f="{")[0].startswith("invalid filters: not JSON")
    assert (
        client.errors(RUNS, f='{"summary.acc": 1}') == ["invalid filter key 'summary.acc': write summary_metrics"] * 2
    )
    assert client.errors(RUNS, o="+nothing") == ["invalid order: +nothing"]
    assert client.errors(RUNS, c="???") == ["invalid cursor: '???'"]


def test_documents_are_json_text_with_bare_tokens(client: Client) -> None:
    query = """{ project(name: "oddities", entityName: "my-team") { run(name: "numbers1") {
      config(keys: ["big"]) summaryMetrics(keys: ["diverges", "x"]) wandbConfig(keys: ["t"]) } } }"""
    run = client.data(query)["project"]["run"]
    assert run["config"] == '{"big":{"value":9223372036854775809,"desc":null}}'
    assert run["summaryMetrics"] == '{"x":0.30000000000000004,"diverges":Infinity}'
    assert set(json.loads(run["wandbConfig"])) == {"t"}


def test_history_pages_include_the_first_step_and_leave_out_the_last(client: Client) -> None:
    assert steps(client, "gaps0001", 0, 1000, 1000) == [0, 5]
    assert steps(client, "gaps0001", 5, 1001, 1000) == [5, 1000]
    assert steps(client, "gaps0001", 2000, 3000, 1000) == []
    assert steps(client, "gaps0001", 1001, 300_000, 300_000) == [1001, 250_000]


def test_samples_are_the_most_rows_that_come(client: Client) -> None:
    assert steps(client, "gaps0001", 0, 300_000, 300_000) == [0, 5, 1000, 1001, 250_000]
    assert steps(client, "gaps0001", 0, 300_000, 5) == [0, 5, 1000, 1001, 250_000]
    some = steps(client, "gaps0001", 0, 300_000, 3)
    assert (len(some), some) == (3, sorted(some))


def test_history_without_bounds_is_a_sample(client: Client) -> None:
    assert steps(client, "crashed1", samples=500) == list(range(21))
    sampled = steps(client, "crashed1", samples=5)
    assert len(sampled) == 5
    assert sampled == sorted(sampled)


def test_history_of_many_runs_in_one_request(client: Client) -> None:
    query = """query Many($e: String!) { project(name: "oddities", entityName: $e) {
      a: run(name: "crashed1") { history(minStep: 19, maxStep: 21, samples: 2) }
      b: run(name: "empty001") { history(minStep: 0, maxStep: 1, samples: 1) historyKeys historyLineCount }
      c: run(name: "gone") { history } } }"""
    data = client.data(query, e="my-team")["project"]
    assert [json.loads(line)["_step"] for line in data["a"]["history"]] == [19, 20]
    assert data["b"] == {"history": [], "historyKeys": None, "historyLineCount": 0}
    assert data["c"] is None


def test_history_keys_tell_the_last_step_and_the_types(client: Client) -> None:
    query = '{ project(name: "oddities", entityName: "my-team") { run(name: "types001") { historyKeys } } }'
    keys = client.data(query)["project"]["run"]["historyKeys"]
    assert keys["lastStep"] == 3
    assert keys["keys"]["v"]["typeCounts"] == [
        {"type": "number", "count": 2},
        {"type": "string", "count": 1},
        {"type": "list", "count": 1},
    ]
    assert keys["keys"]["nested.a.b"]["typeCounts"] == [{"type": "number", "count": 2}]
    assert keys["keys"]["image"]["typeCounts"] == [{"type": "image-file", "count": 1}]


def test_sampled_history_holds_rows_with_all_keys(client: Client) -> None:
    query = """query S($s: [JSONString!]!) { project(name: "oddities", entityName: "my-team") {
      run(name: "types001") { sampledHistory(specs: $s) } } }"""
    specs = [
        json.dumps({"keys": ["_step", "nested.a.b"], "samples": 100}),
        json.dumps({"keys": ["_step", "v"], "minStep": 1, "maxStep": 2, "samples": 100}),
        json.dumps({"keys": ["v", "list"], "samples": 100}),
    ]
    assert client.data(query, s=specs)["project"]["run"]["sampledHistory"] == [
        [{"_step": 0, "nested.a.b": 1.5}, {"_step": 1, "nested.a.b": 2.5}],
        [{"_step": 1, "v": "two"}, {"_step": 2, "v": 3.5}],
        [{"v": "two", "list": [1, 2.5, "three"]}],
    ]


def test_console_lines_and_system_metrics(client: Client, world: World) -> None:
    run = world.run("my-team", "vision", "vision00")
    run.write_console(0, ["2025-03-03T09:00:00.000001 hello", "ERROR 2025-03-03T09:00:01 [rank 1] oh", "plain"])
    query = """{ project(name: "vision", entityName: "my-team") { run(name: "vision00") {
      logLineCount logLines(last: 2) { edges { node { number timestamp level label line } } }
      page: logLines(first: 1, useImprovedPagination: true) { edges { node { line } } pageInfo { hasNextPage } }
      eventsLineCount events(samples: 10) systemMetrics } } }"""
    data = client.data(query)["project"]["run"]
    assert data["logLineCount"] == 3
    assert [edge["node"] for edge in data["logLines"]["edges"]] == [
        {"number": 1, "timestamp": "2025-03-03T09:00:01", "level": "error", "label": "rank 1", "line": "oh"},
        {"number": 2, "timestamp": None, "level": "", "label": "", "line": "plain"},
    ]
    assert data["page"] == {"edges": [{"node": {"line": "hello"}}], "pageInfo": {"hasNextPage": True}}
    assert data["eventsLineCount"] == len(data["events"]) == 4
    assert json.loads(data["systemMetrics"]) == {"system.cpu": 43.0, "system.gpu.0.gpu": 87.0, "system.memory": 55.5}


CONSOLE = """query Console($first: Int, $after: String) { project(name: "vision", entityName: "my-team") {
  run(name: "vision01") { logLineCount logLines(first: $first, after: $after%s) {
    edges { node { number line } } pageInfo { endCursor hasNextPage } } } } }"""
PAGED = CONSOLE % ", useImprovedPagination: true"


def console(client: Client, query: str, **variables: Any) -> tuple[list[int], str | None, bool]:
    found = client.data(query, **variables)["project"]["run"]["logLines"]
    info = found["pageInfo"]
    return [edge["node"]["number"] for edge in found["edges"]], info["endCursor"], info["hasNextPage"]


def test_without_the_argument_the_console_is_given_from_its_end_and_never_ends(client: Client, world: World) -> None:
    run = world.run("my-team", "vision", "vision01")
    run.write_console(0, [f"line {number}" for number in range(1200)])
    numbers, after, more = console(client, CONSOLE % "", first=10)
    assert (numbers, more) == (list(range(700, 1200)), True)
    numbers, after, more = console(client, CONSOLE % "", first=10, after=after)
    assert (numbers, more) == (list(range(200, 700)), True)
    numbers, after, more = console(client, CONSOLE % "", first=10, after="5000")
    assert (numbers, more) == ([], True)


def test_with_the_argument_the_console_is_paged_forward_and_lines_far_back_are_gone(
    client: Client, world: World
) -> None:
    run = world.run("my-team", "vision", "vision01")
    run.console.clear()
    run.write_console(0, [f"line {number}" for number in range(25)])
    run.console_kept = 20
    numbers, after, more = console(client, PAGED, first=12)
    assert (numbers, more) == (list(range(5, 17)), True)
    numbers, after, more = console(client, PAGED, first=12, after=after)
    assert (numbers, more) == (list(range(17, 25)), False)


def test_a_page_of_console_is_cut_by_its_size_and_says_that_nothing_follows(world: World) -> None:
    run = world.run("my-team", "vision", "vision01")
    run.console.clear()
    run.console_kept = 100_000
    run.write_console(0, ["x" * 10 for _ in range(10)])
    with Sandbox(world, console_bytes=35) as server, connected(server) as one:
        numbers, after, more = console(one, PAGED, first=8)
        assert (numbers, more) == ([0, 1, 2], False)
        assert console(one, PAGED, first=8, after=after)[0] == [3, 4, 5]


def test_a_server_before_0_77_does_not_know_the_argument(world: World) -> None:
    with Sandbox(world, features={"console_pages": False}) as server, connected(server) as one:
        answer = one.post(PAGED)
        assert answer.status_code == 400
        refusal = 'Unknown argument "useImprovedPagination" on field "Run.logLines".'
        assert answer.json() == {"errors": [{"message": refusal}]}
        assert one.post(CONSOLE % "").status_code == 200


def test_requests_are_counted_by_operation(client: Client) -> None:
    client.data("query Viewer { viewer { id } }")
    client.data("{ serverInfo { features { name } } }")
    client.http.post(
        "/graphql", json={"query": "query A { viewer { id } } query B { viewer { id } }", "operationName": "B"}
    )
    assert client.server.requests == {"Viewer": 1, "serverInfo": 1, "B": 1}
    client.server.reset_counts()
    assert not client.server.requests
