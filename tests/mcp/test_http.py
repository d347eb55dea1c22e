"""`/mcp` on the daemon's port, called by the official client, with all kinds of tokens."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

import mcp
import pytest

from mirror.mcp.door import door
from mirror.settings import tokens
from mirror.settings.tokens import Tokens
from tests.web.door import opened

pytestmark = pytest.mark.xdist_group("mcp")

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
HEADERS = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def port(mirrored):
    """The port of the mirror, with tokens: for everything, for one project, expired, revoked."""
    store = Tokens(mirrored.tokens)
    secrets = {"all": store.add("all", [], None), "seeds": store.add("seeds", ["team/seeds"], 30)}
    secrets["gone"] = store.add("gone", [], None)
    store.revoke("gone")
    with pytest.MonkeyPatch.context() as patch:
        long_ago = tokens._now() - timedelta(days=3)
        patch.setattr(tokens, "_now", lambda: long_ago)
        secrets["old"] = store.add("old", [], 1)
    with opened(mirrored, further_doors=[door]) as made:
        made.secrets = {**secrets, "owner": made.token, "wrong": "0" * 40, "none": ""}
        yield made


def called(port, name, *calls, mode="auto"):
    """The texts that these calls of tools return, and whether they are errors."""
    import httpx2

    async def main():
        headers = {"Authorization": f"Bearer {port.secrets[name]}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            transport = mcp.client.streamable_http.streamable_http_client(f"{port.url}/mcp", http_client=http)
            async with mcp.Client(transport, mode=mode) as client:
                found = [await client.call_tool(tool, arguments) for tool, arguments in calls]
                return [(one.is_error, one.content[0].text) for one in found]

    return asyncio.run(main())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_token_for_everything_reads_every_project(port, mode):
    ((failed, text),) = called(port, "all", ("find_runs", {"limit": 0}), mode=mode)
    assert (failed, text.splitlines()[0]) == (False, "11 runs match")


def test_a_limited_token_sees_its_projects_only(port):
    counted, listed, hidden, sql = called(
        port,
        "seeds",
        ("find_runs", {"limit": 0}),
        ("list_projects", {}),
        ("diagnose_run", {"run": "oom"}),
        ("query", {"sql": "SELECT DISTINCT project FROM history"}),
    )
    assert counted[1].splitlines()[0] == "6 runs match"
    assert [line.split("\t")[0] for line in listed[1].splitlines()[1:-1]] == ["team/seeds"]
    assert hidden == (True, "no run oom in the mirror")
    assert sql[1].splitlines()[:-1] == ["project", "seeds"]


def test_the_home_s_own_token_reads_every_project(port):
    ((failed, text),) = called(port, "owner", ("query", {"sql": "SELECT count(*) AS n FROM runs"}))
    assert (failed, text.splitlines()[:2]) == (False, ["n", "11"])


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("all", 200, None),
        ("seeds", 200, None),
        ("owner", 200, None),
        ("none", 401, "the token is missing"),
        ("wrong", 401, "the token is wrong"),
        ("gone", 401, "the token gone is revoked"),
        ("old", 401, "the token old is expired"),
    ],
)
def test_who_may_call(port, name, status, error):
    answer = port.ask("POST", "/mcp", port.secrets[name], json=CALL, headers=HEADERS)
    assert answer.status_code == status
    assert answer.json().get("error") == error


def test_other_methods_and_pages_of_other_origins_are_refused(port):
    answer = port.ask("GET", "/mcp")
    assert (answer.status_code, answer.json()["error"]) == (405, "/mcp takes POST only, not GET")
    answer = port.ask("POST", "/mcp", json=CALL, headers={**HEADERS, "Origin": "https://elsewhere.example"})
    assert answer.status_code == 403


def test_a_body_that_is_no_message_is_refused(port):
    assert (
        port.ask("POST", "/mcp", content=b"{", headers={**HEADERS, "Content-Type": "application/json"}).status_code
        == 400
    )
    long = {**CALL, "params": {"_meta": {"x": "y" * (1 << 20)}}}
    assert port.ask("POST", "/mcp", json=long, headers=HEADERS).status_code == 413


def test_without_the_package_the_answer_says_how_to_install_it(port, monkeypatch):
    for name in [
        name for name in sys.modules if name == "mirror.mcp.server" or name.split(".")[0] in ("mcp", "mcp_types")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    answer = port.ask("POST", "/mcp", json=CALL, headers=HEADERS)
    assert answer.status_code == 501
    assert answer.json() == {
        "error": "mcp is not installed where the daemon runs",
        "hint": "`pip install 'wandb-mirror[mcp]'` there, and restart the daemon",
    }


def test_stdio_without_the_package_says_how_to_install_it(cli, mirrored, monkeypatch):
    monkeypatch.setenv("MIRROR_HOME", str(mirrored.data))
    monkeypatch.setitem(sys.modules, "mcp", None)
    done = cli("mcp")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "error: mcp is not installed: `pip install 'wandb-mirror[mcp]'`\n"
