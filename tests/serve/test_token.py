"""A colleague's script reads the team's mirror with a token in place of the API key, and changes nothing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from mirror.serve.readers import _InTurn
from mirror.web.turns import OF_TOKEN, Turns
from tests.serve.conftest import Address, Served

SCRIPT = """
import json
import wandb

api = wandb.Api(timeout=20)
print(json.dumps([[run.name, run.config, run.tags] for run in api.runs("team/p", order="+config.lr")]))
run = api.run("team/p/run2")
print(json.dumps([row["loss"] for row in run.scan_history(keys=["loss"])]))
print(json.dumps([file.name for file in run.files()]))
run.tags.append("new")
for attempt in (run.update, run.file("notes.txt").download, lambda: api.run("team/other/run1").name):
    try:
        attempt()
        print(json.dumps("done"))
    except Exception as error:
        print(json.dumps(str(error)))
"""


def test_the_official_client_reads_by_token_and_never_reaches_the_server(live: Served) -> None:
    added = live.mirror("token", "add", "ada", "--project", "team/*")
    sent = sum(live.server.requests.values())
    runs, losses, files, *refused = live.script(Address(live.address.url, added.stdout.strip()), SCRIPT)
    assert runs == [[f"run{index}", {"lr": 10.0**-index}, [f"t{index % 2}"]] for index in (4, 3, 2, 1, 0)]
    assert losses == [1.0 / (step + 1) for step in range(10)]
    assert files == ["notes.txt"]
    for error, reason in zip(
        refused,
        ("only reads", "only what is mirrored", "only what is mirrored"),
        strict=True,
    ):
        assert reason in error, refused
    assert sum(live.server.requests.values()) == sent
    assert all(
        run.tags != [f"t{index % 2}", "new"] for index, run in enumerate(live.world.projects["team", "p"].runs.values())
    )
    (listed,) = [line for line in live.mirror("token", "list", "--csv").stdout.splitlines() if line.startswith("ada,")]
    assert listed.split(",")[1:3] == ["valid", "team/*"]
    logged = live.mirror("log", "-n", "1000").stdout
    assert "request by ada from 127.0.0.1: POST /graphql, 200, " in logged


def test_requests_of_a_token_take_turns_and_wait_where_there_are_too_many():
    running, most, statuses = 0, 0, []

    async def app(scope, receive, send):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        statuses.extend([message["status"]] if "status" in message else [])

    async def all_at_once():
        door = _InTurn(SimpleNamespace(sdk_turns=Turns(6000)), "ada", app)
        scope = {"type": "http", "method": "POST", "path": "/graphql"}
        # The first 6,000 are allowed at once, then one every 10 ms.
        for _ in range(61):
            await asyncio.gather(*(door(scope, None, send) for _ in range(100)))

    asyncio.run(all_at_once())
    assert statuses == [200] * 6100
    assert most == OF_TOKEN
