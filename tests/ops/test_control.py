"""The control socket answers as docs/control.md says: every field with its type, and nothing else."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import httpx
import pytest

from tests.daemon.conftest import CONFIG
from tests.daemon.test_daemon import add
from tests.sync.rig import spoil

PAGE = (Path(__file__).parents[2] / "docs" / "control.md").read_text()


def tables():
    """The documented objects: name to {field: type}."""
    found = {}
    for section in PAGE.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        rows = re.findall(r"^\| `(\w+)` \| ([a-z? ]+) \| .+ \|$", body, re.MULTILINE)
        if "| field | type |" in body:
            found[title.lower()] = dict(rows)
    found["pass"] = {**found["result"], **found["pass"]}
    return found


def lines():
    """The documented events: name to {field: type}."""
    body = PAGE.split("| event | further fields |\n| --- | --- |\n")[1].split("\n\n")[0]
    found = {}
    for names, fields in re.findall(r"^\| (.+?) \| (.+?) \|$", body, re.MULTILINE):
        typed = dict(re.findall(r"`(\w+)` ([a-z ]+)", fields)) or TABLES["result"]
        found |= {name: {"event": "text", **typed} for name in re.findall(r"`(\w+)`", names)}
    return found


TABLES = tables()
EVENTS = lines()
PLAIN = {"text": str, "boolean": bool, "integer": int, "number": (int, float)}


def check(value, kind, where):
    """Hold a value against a documented type."""
    if kind.endswith("?"):
        if value is None:
            return
        kind = kind[:-1]
    if kind in PLAIN:
        assert isinstance(value, PLAIN[kind]), (where, value)
        assert kind == "boolean" or not isinstance(value, bool), (where, value)
    elif kind.startswith("map of "):
        for name, inner in value.items():
            check(inner, kind.removeprefix("map of "), f"{where}.{name}")
    elif kind.startswith("list of "):
        for inner in value:
            check(inner, kind.removeprefix("list of "), where)
    else:
        matches(value, TABLES[kind], where)


def matches(value, fields, where):
    """Exactly these fields, each of its type."""
    assert set(value) == set(fields), where
    for name, kind in fields.items():
        check(value[name], kind, f"{where}.{name}")


@pytest.fixture
def socket(bench):
    """A client of the control socket."""
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(bench.home / "mirror.sock")), base_url="http://mirror", timeout=30
    ) as client:
        yield client


def events(answer):
    assert answer.status_code == 200
    found = [json.loads(line) for line in answer.text.splitlines()]
    for event in found:
        matches(event, EVENTS[event["event"]], event["event"])
    return found


def test_the_page_lists_every_object():
    status = {
        "status",
        "budget",
        "publications",
        "project",
        "count",
        "crash",
        "local",
        "files",
        "lake",
        "export",
        "exports",
        "round",
        "totals",
        "http",
        "pass",
        "problem",
    }
    assert set(TABLES) == status | {"result", "file", "refusal"}
    assert len(EVENTS) == 9


def test_every_endpoint_keeps_its_contract(bench, socket):
    add(bench, "one", state="running")
    spoil(add(bench, "bad"))
    # No scheduled pass may meet the fault that is meant for a command.
    bench.configure(text=CONFIG.format(projects='["team/p"]', interval="1h", listen="").replace("300ms", "1h"))
    ingestible = bench.root / "train" / "wandb" / "run-20261101_120000-abc" / "run-abc.wandb"
    ingestible.parent.mkdir(parents=True)
    ingestible.write_bytes(b"no such file")
    prelude = """
import os, mirror.daemon.passes as passes
whole = passes.sync_project
async def failing(context, project, **options):
    if options["run_ids"] == ("crash",):
        raise ValueError("no such thing")
    return await whole(context, project, **options)
passes.sync_project = failing
"""
    with bench.daemon(prelude) as daemon:
        bench.until(lambda: bench.sql("select count(*) from runs") == [(2,)])
        found = events(socket.post("/sync", json={"paths": ["team/p"]}))
        assert (found[0]["event"], found[-1]["event"]) == ("projects_expected", "done")
        bench.server.faults.add("html", times=1, operation="MirrorRuns")
        found = events(socket.post("/flush", json={"paths": ["team/p/one"]}))
        assert {event["event"] for event in found} == set(EVENTS) - {"error"}
        (failed,) = events(socket.post("/sync", json={"paths": ["team/p/crash"]}))[-1]["results"]
        assert failed["error"] == "unexpected ValueError: no such thing (mirror.log has the traceback)"
        assert events(socket.post("/sync", json={"paths": ["team/none*"]}))[-1] == {
            "event": "error",
            "message": f"no project on {bench.server.url} matches team/none*",
            "exit_code": 2,
        }
        ingested = [
            json.loads(line)
            for line in socket.post("/ingest", json={"paths": [str(bench.root / "train")]}).text.splitlines()
        ]
        assert [event["event"] for event in ingested] == ["done"]
        check(ingested[0]["results"], "list of file", "ingest")
        assert [result["outcome"] for result in ingested[0]["results"]] == ["failed"]
        assert socket.post("/publish").json() == {"published": True}
        assert socket.post("/mend", json={"paths": ["team/p"]}).json() == {"mended": {"team/p": []}}
        later = socket.post("/flush", json={"wait": False})
        assert (later.status_code, later.json()) == (202, {"accepted": True})

        status = socket.get("/status").json()
        check(status, "status", "status")
        assert (status["pid"], status["last_crash"]["what"]) == (daemon.pid, "the pass over team/p")
        assert set(status["last_passes"]["team/p"]["failed_runs"]) <= {"bad"}
        assert status["published"]["count"] > 0
        check(socket.post("/reload").json(), "status", "reload")
        bench.configure(text="projects = 1")
        refused = socket.post("/reload")
        assert refused.status_code == 422
        check(refused.json(), "refusal", "reload")
        assert refused.json()["exit_code"] == 2
        for body in (b"[]", b"{", b'{"paths": 1}', b'{"timeout": "soon"}'):
            refused = socket.post("/sync", content=body)
            assert refused.status_code == 400, body
            check(refused.json(), "refusal", "sync")
        assert socket.post("/stop").json() == {"stopping": True}
        assert daemon.wait(20) == 0


def test_a_time_limit_ends_the_wait_with_4_while_the_daemon_goes_on(bench):
    add(bench, "one")
    bench.configure(interval="1h")
    with bench.daemon():
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
        add(bench, "two")
        bench.server.faults.add("latency", times=1, seconds=3)
        done = bench.mirror("sync", "--timeout", "500ms", check=False)
        said = "error: not done after 0.5 s; what was committed stays, and the daemon continues the work\n"
        assert (done.returncode, done.stderr) == (4, said)
        bench.until(lambda: bench.sql("select count(*) from runs") == [(2,)])


def test_a_time_limit_without_a_daemon_keeps_what_was_committed(bench):
    for index in range(3):
        add(bench, f"run{index}")
    bench.mirror("sync", "team/p/run0")
    bench.server.faults.add("latency", times=None, seconds=3)
    done = bench.mirror("flush", "team/p", "--timeout", "500ms", check=False)
    said = "error: not done after 0.5 s; what was committed stays, the next sync continues the work\n"
    assert (done.returncode, done.stderr) == (4, said)
    bench.server.faults.clear()
    bench.mirror("sync", "team/p", "--timeout", "50s")
    assert bench.sql("select count(*), sum(history_rows) from runs") == [(3, 9)]


def test_time_limits_that_mean_nothing_are_usage_errors(bench):
    for arguments in (
        ["sync", "--timeout", "soon"],
        ["flush", "--timeout", "0s"],
        ["flush", "--all", "--no-wait", "--timeout", "1s"],
    ):
        done = bench.here(*arguments)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "--timeout" in done.stderr


def test_a_daemon_that_does_not_answer_is_reported_and_not_waited_for(bench, monkeypatch):
    monkeypatch.setattr("mirror.control.PATIENCE", 0.5)
    monkeypatch.setattr("mirror.control.RELOAD_PATIENCE", 0.5)
    bench.configure(interval="1h")
    with bench.daemon() as daemon:
        daemon.send_signal(signal.SIGSTOP)
        try:
            done = bench.here("status")
            assert "problem  the daemon at " in done.stdout
            assert "does not answer; it may hang or be suspended" in done.stdout
            done = bench.here("daemon", "--reload")
            assert (done.exit_code, done.stdout) == (4, "")
            assert "does not answer; it may hang or be suspended" in done.stderr
        finally:
            daemon.send_signal(signal.SIGCONT)


def test_a_daemon_can_be_reloaded_and_stopped_by_command(bench):
    bench.configure(interval="1h")
    with bench.daemon() as daemon:
        assert bench.mirror("daemon", "--reload").stderr == "the daemon has read its config again\n"
        assert bench.mirror("daemon", "--stop").stderr == "the daemon has stopped\n"
        assert daemon.wait(5) == 0
    for option in ("--stop", "--reload"):
        done = bench.here("daemon", option)
        assert (done.exit_code, done.stderr) == (2, f"error: no daemon runs in {bench.home}\n")
