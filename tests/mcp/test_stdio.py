"""`mirror mcp` as hosts start it, called by the official client over stdin and stdout."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

import mcp
import pytest

pytestmark = pytest.mark.xdist_group("mcp")

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}

# In `auto` the client speaks the newest version of the protocol, in `legacy` the one that most hosts speak.
both_protocols = pytest.mark.parametrize("mode", ["auto", "legacy"])


def connected(mirrored, mode, work):
    environ = {**os.environ, "MIRROR_HOME": str(mirrored.data)}
    started = mcp.StdioServerParameters(command=sys.executable, args=["-m", "mirror.cli", "mcp"], env=environ)

    async def main():
        async with mcp.Client(started, mode=mode) as client:
            return await work(client)

    return asyncio.run(main())


@both_protocols
def test_a_host_lists_and_calls_tools_and_reads_resources(mirrored, mode):
    async def work(client):
        tools = [tool.name for tool in (await client.list_tools()).tools]
        found = await client.call_tool("find_runs", {"project": "team/seeds", "filter": "config.lr=0.1", "limit": 0})
        wrong = await client.call_tool("find_runs", {"project": "team/sed"})
        unsafe = await client.call_tool("query", {"sql": "COPY runs TO 'stolen.csv'"})
        resources = [str(resource.uri) for resource in (await client.list_resources()).resources]
        schema = (await client.read_resource("mirror://schema")).contents[0].text
        filters = (await client.read_resource("mirror://filters")).contents[0].text
        with pytest.raises(mcp.MCPError, match=r"there is no resource mirror://schem; did you mean mirror://schema"):
            await client.read_resource("mirror://schem")
        assert client.instructions is not None
        assert client.instructions.startswith("Weights & Biases projects, from a local mirror")
        return tools, found, wrong, unsafe, resources, schema, filters

    tools, found, wrong, unsafe, resources, schema, filters = connected(mirrored, mode, work)
    assert tools == [
        *("list_projects", "describe_project", "find_runs", "query", "get_history", "compare_runs", "diagnose_run")
    ]
    assert (found.is_error, found.content[0].text.splitlines()[0]) == (False, "3 runs match")
    assert (wrong.is_error, wrong.content[0].text) == (
        True,
        "no project team/sed in the mirror; did you mean team/seeds? mirrored: team/seeds, team/trouble",
    )
    assert unsafe.is_error
    assert unsafe.content[0].text.startswith("COPY is refused, the mirror is read-only")
    assert resources == ["mirror://schema", "mirror://filters"]
    assert "\nruns: " in schema
    assert "\n  state VARCHAR: " in schema
    assert filters.startswith("# Run filters\n")


def test_ctrl_c_ends_the_server_at_once(mirrored):
    environ = {**os.environ, "MIRROR_HOME": str(mirrored.data)}
    command = [sys.executable, "-m", "mirror.cli", "mcp"]
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        server.stdin.write(json.dumps(INITIALIZE).encode() + b"\n")
        server.stdin.flush()
        assert json.loads(server.stdout.readline())["result"]["serverInfo"]["name"] == "wandb-mirror"
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == -signal.SIGINT
