"""What the mirror does not hold is asked of the server, and is an error where that cannot be reached: never made up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from mirror.sandbox import Sandbox, World
from mirror.serve.app import Policy, application
from mirror.web.snapshots import Snapshots
from tests.sync.rig import Rig

Ask = Callable[[str], Any]

FIELDS = {
    "project": ["id", "internalId", "createdAt", "updatedAt", "lastActive", "totalRuns", "isBenchmark", "description"],
    "of project": ["access", "readOnly", "user { name }", "entity { id }"],
    "run": ["projectId", "user { name }", "stopped", "exitcode", "systemMetrics", "runInfo { os }", "readOnly"],
    "of run": ["events(samples: 5)", "logLines(last: 5) { edges { node { line } } }", "fileCount"],
    "root": ["serverInfo { features { name } }", "viewer { id name email }", 'entity(name: "team") { id }'],
    "list": ['models(entityName: "team") { edges { node { createdAt } } }'],
}


def queries() -> list[str]:
    of_runs = [f'run(name: "one") {{ {field} }}' for field in FIELDS["run"] + FIELDS["of run"]]
    of_projects = [*FIELDS["project"], *FIELDS["of project"], *of_runs]
    projects = [f'project(name: "p", entityName: "team") {{ {field} }}' for field in of_projects]
    return [f"{{ {field} }}" for field in [*projects, *FIELDS["root"], *FIELDS["list"]]]


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Ask]]:
    """A mirror that a program of before these were kept has published, and what asks the endpoint over it."""
    with Sandbox(World(username="ada", entity="team")) as server:
        home = tmp_path_factory.mktemp("former") / "home"
        rig = Rig(home, server)
        run = rig.world.add_run("team", "p", run_id="one", config={}, metadata={"os": "Linux"}, user="bob-b")
        run.log({"loss": 1})
        run.log_system({"system.cpu": 5})
        run.write_console(0, ["a line"])
        run.finish()
        rig.sync()
        with duckdb.connect(str(rig.home.published)) as published:
            for table in ("server_facts", "run_facts", "run_exports"):
                published.execute(f"drop table store.{table}")
            published.execute("alter table store.project_records drop column facts")
        yield rig, endpoint(rig)


def endpoint(rig: Rig) -> Ask:
    policy = Policy(base_url=rig.sandbox.url)
    app = application(Snapshots(rig.home), lambda: rig.sandbox.key, lambda: policy, lambda _: None)

    async def asked(query: str) -> Any:
        transport = httpx.ASGITransport(app)
        auth = ("api", rig.sandbox.key)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1", auth=auth) as client:
            return (await client.post("/graphql", json={"query": query})).json()

    return lambda query: asyncio.run(asked(query))


@pytest.mark.parametrize("query", queries())
def test_it_is_asked_of_the_server(former: tuple[Rig, Ask], query: str) -> None:
    rig, ask = former
    reported = httpx.post(f"{rig.sandbox.url}/graphql", auth=("api", rig.sandbox.key), json={"query": query}).json()
    assert ask(query) == reported
    assert "errors" not in reported


def test_it_is_an_error_where_the_server_cannot_be_reached(tmp_path: Path) -> None:
    """The same questions, each answered by an error that says so."""
    with Sandbox(World(username="ada", entity="team")) as server:
        rig = Rig(tmp_path / "home", server)
        run = rig.world.add_run("team", "p", run_id="one", config={}, metadata={"os": "Linux"})
        run.log_system({"system.cpu": 5})
        run.write_console(0, ["a line"])
        run.finish()
        rig.sync()
    with duckdb.connect(str(rig.home.published)) as published:
        for table in ("server_facts", "run_facts", "run_exports"):
            published.execute(f"delete from store.{table}")
        published.execute("update store.project_records set facts = null")
    ask = endpoint(rig)
    for query in queries():
        reported = ask(query)
        assert reported["data"] is None, query
        [error] = reported["errors"]
        assert f"cannot reach {rig.sandbox.url}" in error["message"], query
