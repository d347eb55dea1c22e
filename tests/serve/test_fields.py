"""Every field that clients ask for: the same answer as the server's, from the mirror, with the server switched off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from mirror.sandbox import World
from mirror.sandbox.sweep import Sweep
from tests.serve.conftest import Served, served

pytestmark = pytest.mark.xdist_group("fields")

NOON = datetime(2025, 3, 3, 12)
EVERYTHING = "console = true\nmetadata = true\nreports = true\n"


def world() -> World:
    """Two projects, one of them without runs, and runs of one second with all that there may be to tell of a run."""
    made = World(username="ada-lovelace", entity="team")
    project = made.add_project("team", "p", created_at=NOON)
    project.description = "What the project is about"
    project.sweeps["sw1"] = Sweep("sw1", "team", "p", NOON, "method: random")
    made.add_sweep(
        "team", "p", {"method": "grid", "parameters": {}}, sweep_id="sw2", created_at=NOON, display_name="grid"
    )
    for number in range(2):
        made.add_report("team", "p", f"report {number}", {"blocks": []}, name=f"r{number}", created_at=NOON)
    made.add_report("team", "p", "view", {}, kind="project-view", created_at=NOON)
    made.add_project("team", "empty", created_at=NOON)
    facts = {"os": "Linux", "python": "3.11", "program": "train.py", "args": [], "gpu_count": 2, "cpu_count": 8}
    rich = made.add_run(
        "team", "p", run_id="zz-rich", config={"lr": 1}, created_at=NOON, user="bob", sweep="sw1", metadata=facts
    )
    rich.log_many({"loss": 1 / (step + 1), "nested": {"a": step, "b": {"c": -step}}} for step in range(6))
    rich.log({"v": 1, "up": 1})
    rich.log({"v": "two", "up": 2})
    rich.log({"v": 3, "list": [1, 2], "flag": True, "nan": float("nan")})
    rich.log_system({"system.cpu": 12.5, "system.gpu.0.gpu": 3})
    rich.log_system({"system.cpu": 14.0})
    rich.write_console(0, [f"2025-03-03T12:00:{second:02}.500000 line {second}" for second in range(30)])
    rich.write_console(30, ["ERROR 2025-03-03T12:01:00.500000 [rank1] broken", "plain"])
    rich.finish("failed", 3)
    made.add_run("team", "p", run_id="aa-bare", created_at=NOON).finish()
    made.add_run("team", "p", run_id="mm-live", created_at=NOON).log({"loss": 1})
    return made


@pytest.fixture(scope="module")
def reported() -> Iterator[tuple[Served, Any]]:
    """The endpoint of a mirror whose server is switched off, and what asks the server as if it were still there."""
    with served(world(), '["team/*"]', sync=EVERYTHING) as site:
        site.until(lambda: site.sql("select count(*) from files where run_id = 'zz-rich'") == [(1,)])
        site.until(lambda: site.sql("select count(*) from console where run_id = 'zz-rich'") == [(32,)])
        site.until(lambda: site.sql("select count(*) from projects") == [(2,)])
        site.until(lambda: site.sql("select count(*) from reports") == [(2,)])
        expected = {query: ask(site.server.url, site.server.key, query) for query in QUERIES.values()}
        site.server.stop()
        yield site, expected


def ask(url: str, key: str, query: str) -> Any:
    return httpx.post(f"{url}/graphql", auth=("api", key), json={"query": query}, timeout=30).json()


USER = "id name username email admin flags entity deletedAt apiKeys { edges { node { id name } } } teams { edges { node { name } } }"
ABOUT = f"""__typename id internalId name entityName createdAt updatedAt lastActive totalRuns isBenchmark readOnly description
    access user {{ {USER} }} entity {{ id name }}"""
RUN = """id name displayName projectId state stopped exitcode tags group jobType sweepName sweep { name } notes description
    commit readOnly host createdAt heartbeatAt updatedAt computeSeconds config wandbConfig summaryMetrics systemMetrics
    historyKeys historyLineCount eventsLineCount logLineCount user { id name username } project { name internalId }
    runInfo { program args os python gpu gpuCount cpuCount git { commit remote } } fileCount"""
PAGE = "pageInfo { hasNextPage hasPreviousPage }"


def of(run: str, fields: str) -> str:
    return f'{{ project(name: "p", entityName: "team") {{ run(name: "{run}") {{ {fields} }} }} }}'


SWEEP = """__typename id name displayName method state description bestLoss config createdAt updatedAt runCount
    runCountExpected"""
VIEW = "id name displayName description user { username photoUrl email } spec createdAt updatedAt"
LINES = "edges { node { number timestamp level label line } }"
QUERIES = {
    "a project": f'{{ project(name: "p", entityName: "team") {{ {ABOUT} }} }}',
    "a project without runs": f'{{ project(name: "empty", entityName: "team") {{ {ABOUT} runCount }} }}',
    "a model": f'{{ model(name: "p", entityName: "team") {{ {ABOUT} }} }}',
    "models": f'{{ models(entityName: "team") {{ edges {{ node {{ {ABOUT} }} }} {PAGE} }} }}',
    "projects": f'{{ projects(entityName: "team", order: "-lastActive") {{ edges {{ node {{ {ABOUT} }} }} {PAGE} }} }}',
    "projects of an entity": f'{{ entity(name: "team") {{ id name projects(first: 1) {{ edges {{ node {{ name }} }} {PAGE} }} }} }}',
    "a page of projects": f'{{ models(entityName: "team", first: 1, order: "+createdAt") {{ edges {{ node {{ name }} }} {PAGE} }} }}',
    "viewer": f"{{ viewer {{ {USER} defaultEntity {{ id name }} }} }}",
    "server": """{ serverInfo { cliVersionInfo latestLocalVersionInfo { outOfDate latestVersionString }
        features { name isEnabled } } }""",
    "runs": f'{{ project(name: "p", entityName: "team") {{ runs {{ totalCount edges {{ node {{ {RUN.replace("stopped", "")} }} }} {PAGE} }} }} }}',
    "runs by names": f"""{{ project(name: "p", entityName: "team") {{ runs(names: ["zz-rich", "aa-bare", "none"], order: "+created_at",
        filters: "{{\\"state\\": \\"failed\\"}}") {{ totalCount edges {{ node {{ name }} }} {PAGE} }} }} }}""",
    "buckets": f'{{ model(name: "p", entityName: "team") {{ buckets(first: 2) {{ totalCount edges {{ node {{ name }} }} {PAGE} }} }} }}',
    "a bucket": f'{{ model(name: "p", entityName: "team") {{ bucket(name: "zz-rich", missingOk: true) {{ {RUN} }} }} }}',
    "runs of one second": '{ project(name: "p", entityName: "team") { runs(order: "+created_at") { edges { node { name } } } } }',
    "the same, last first": '{ project(name: "p", entityName: "team") { runs(order: "-created_at") { edges { node { name } } } } }',
    "a run": of("zz-rich", RUN),
    "a bare run": of("aa-bare", RUN),
    "a live run": of("mm-live", RUN.replace("stopped", "")),
    "a summary": of("zz-rich", 'summaryMetrics(keys: ["loss"], packVersion: 1)'),
    "history": of("zz-rich", "history(samples: 100, maxKeyLimit: 1000)"),
    "history of few keys": of("zz-rich", "history(samples: 100, maxKeyLimit: -1)"),
    "system metrics": of("zz-rich", "events(samples: 100)"),
    "no system metrics": of("aa-bare", "events(samples: 100)"),
    "the last lines": of("zz-rich", f"logLines(last: 3) {{ {LINES} }}"),
    "more lines than there are": of("zz-rich", f"logLines(last: 300) {{ {LINES} }}"),
    "a page of lines": of("zz-rich", f"logLines(first: 10, useImprovedPagination: true) {{ {LINES} {PAGE} }}"),
    "sweeps": f"""{{ project(name: "p", entityName: "team") {{ totalSweeps
        sweeps(first: 1, filters: "{{}}") {{ edges {{ node {{ {SWEEP} }} }} {PAGE} }} }} }}""",
    "no sweeps": f"""{{ project(name: "empty", entityName: "team") {{ totalSweeps sweeps {{ edges {{ node {{ id }} }} {PAGE} }} }} }}""",
    "a sweep": f'{{ project(name: "p", entityName: "team") {{ sweep(sweepName: "sw2") {{ {SWEEP} }} }} }}',
    "the sweep of a run": of("zz-rich", f"sweep {{ {SWEEP} }}"),
    "reports": f"""{{ project(name: "p", entityName: "team") {{
        allViews(viewType: "runs", first: 1) {{ edges {{ node {{ {VIEW} }} }} {PAGE} }} }} }}""",
    "a report": f"""{{ project(name: "p", entityName: "team") {{
        allViews(viewName: "r0", userName: "ada-lovelace") {{ edges {{ node {{ {VIEW} }} }} }} }} }}""",
    "saved views": f"""{{ project(name: "p", entityName: "team") {{
        allViews(viewType: "project-view") {{ edges {{ node {{ {VIEW} }} }} }} }} }}""",
    "no lines": of("aa-bare", f"logLineCount logLines(first: 10, useImprovedPagination: true) {{ {LINES} {PAGE} }}"),
}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each value with its path, documents read; 2.0 is 2."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        value = json.loads(value)
    if isinstance(value, dict | list) and value:
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(entry, f"{path}/{key}")
    else:
        whole = isinstance(value, float) and value.is_integer()
        yield path, repr(int(value) if whole else value)


@pytest.mark.parametrize("name", QUERIES)
def test_it_is_answered_as_by_the_server(reported: tuple[Served, Any], name: str) -> None:
    site, expected = reported
    found = ask(site.address.url, site.server.key, QUERIES[name])
    assert "errors" not in expected[QUERIES[name]]
    assert dict(leaves(found)) == dict(leaves(expected[QUERIES[name]]))


def test_the_sdk_reads_console_lines_from_the_mirror(reported: tuple[Served, Any]) -> None:
    text = """
import json, wandb
run = wandb.Api().run("team/p/zz-rich")
for lines in (run.console_logs(per_page=7), run.console_logs(last=2)):
    print(json.dumps([[line.number, str(line.timestamp), line.level, line.label, line.content] for line in lines]))
"""
    site, _ = reported
    lines = [[second, f"2025-03-03 12:00:{second:02}.500000+00:00", "", "", f"line {second}"] for second in range(30)]
    lines += [[30, "2025-03-03 12:01:00.500000+00:00", "error", "rank1", "broken"], [31, "None", "", "", "plain"]]
    assert site.script(site.address, text) == [lines, lines[-2:]]
