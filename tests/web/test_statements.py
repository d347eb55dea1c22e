"""What people ask in their own words may take any time and memory: it costs them their answer, and the daemon nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from mirror.errors import QueryError, StoreError, TimedOut
from mirror.settings.home import Home
from mirror.web import statements as module
from mirror.web import worker as process
from mirror.web.app import application
from mirror.web.snapshots import Snapshots
from mirror.web.statements import Statements
from mirror.web.worker import Abandoned
from tests.query.conftest import published  # noqa: F401 - a fixture

LONG = "select count(*) from range(100000000) a, range(100000) b where a.range + b.range = 7"
DEAF = f"select {'.'.join('a' * 8000)}"
"""The binder of DuckDB takes minutes for it, and hears no interruption."""

TOO_MUCH = "the statement needed more than 2 GB; request less at once, or use `mirror query`, which has no such limit"


@pytest.fixture
def own(published, tmp_path):  # noqa: F811
    """A small mirror whose workers are those of one test."""
    shutil.copytree(published.data, tmp_path / "own")
    return Home(tmp_path / "own", tmp_path / "config.toml")


@pytest.fixture
def asked(own):
    """Statements over a small mirror, and a way to ask them."""

    class Asked(Statements):
        def rows(self, text, seconds=30.0, cancelled=None):
            return json.loads(self.ask("sql", {"text": text, "limit": 1000}, seconds, cancelled).content)["rows"]

    made = Asked(own)
    try:
        yield made
    finally:
        made.close()


def workers(home, parent=None):
    """The processes of the workers that read this home."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            words = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields["PPid"]) == (parent or os.getpid()) and str(home).encode() in words:
            found.add(int(fields["Pid"]))
    return found


def until_gone(pid):
    """Wait until a process has ended, whether somebody asked for its exit code or not."""
    limit = time.monotonic() + 20
    while True:
        try:
            if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return
        except OSError:
            return
        assert time.monotonic() < limit
        time.sleep(0.02)


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at the processes in /proc")


@pytest.mark.parametrize(
    "text",
    [
        "select range(350000000)",
        "select length(repeat('x', 3000000000))",
        "select string_agg(repeat('y', 1000000), '') from range(3000)",
        "select format('{:>1500000000}', 1)",
    ],
)
def test_a_statement_that_needs_too_much_memory_is_refused(asked, text):
    with pytest.raises(QueryError) as refused:
        asked.rows(text, 100)
    assert str(refused.value) == TOO_MUCH
    assert asked.rows("select count(*) from runs") == [["6"]]


def test_what_hears_no_interruption_is_killed(asked):
    assert asked.rows("select 1") == [["1"]]
    started = time.monotonic()
    with pytest.raises(TimedOut) as stopped:
        asked.rows(DEAF, 0.5)
    assert str(stopped.value) == "this took longer than 0.5 s and was stopped"
    assert time.monotonic() - started < 10
    assert asked.rows("select 1") == [["1"]]


@linux
def test_what_hears_an_interruption_costs_no_process(asked, monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 20.0)  # else a busy machine decides
    assert asked.rows("select 1") == [["1"]]
    before = workers(asked._home.data)
    with pytest.raises(TimedOut):
        asked.rows("select sum(range) from range(1000000000000)", 0.3)
    assert asked.rows("select 1") == [["1"]]
    assert workers(asked._home.data) == before


def test_a_question_ends_when_nobody_waits_for_it_any_more(asked):
    for text in (LONG, DEAF):
        assert asked.rows("select 1") == [["1"]]
        cancelled = threading.Event()
        threading.Timer(0.2, cancelled.set).start()
        started = time.monotonic()
        with pytest.raises(Abandoned):
            asked.rows(text, 60, cancelled)
        assert time.monotonic() - started < 20


def test_long_statements_keep_no_list_of_runs_waiting(published):  # noqa: F811
    from tests.web.test_data import Served

    snapshots = Snapshots(published)
    client = Served(published)
    client.app = application(snapshots, "a" * 40, dict, seconds=60)
    with ThreadPoolExecutor(3) as threads:
        slow = [threads.submit(client.post, "/api/sql", json={"sql": LONG}) for _ in range(3)]
        while snapshots.statements._count < 2 or snapshots.statements._idle:
            time.sleep(0.01)
        answer = client.get("/api/runs", params={"project": "team/vision"})
        assert answer.json()["total"] == 4
        assert client.get("/api/state").status_code == 200
        assert not any(each.done() for each in slow)
        snapshots.close()
        assert [each.result().status_code for each in slow] == [503, 503, 503]


def test_when_all_workers_are_busy_a_question_waits_for_its_time(published):  # noqa: F811
    asked = Statements(published, workers=1)
    with ThreadPoolExecutor(1) as threads:
        one = {"text": LONG, "limit": 1}
        first = threads.submit(asked.ask, "sql", one, 60)
        while not asked._count or asked._idle:
            time.sleep(0.01)
        with pytest.raises(TimedOut, match=r"other statements took all of 0\.2 s; try again"):
            asked.ask("sql", one, 0.2)
        asked.close()
        with pytest.raises(StoreError, match="the daemon is stopping"):
            first.result(10)


def test_an_answer_is_bounded_and_a_stream_is_not(asked, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 2 << 20)
    with pytest.raises(QueryError, match="the answer is longer than 2 MiB; ask for less"):
        asked.rows("select repeat('x', 5000000)")
    reading = asked.stream("sql", {"text": "select repeat('x', 5000000)", "limit": 1}, 60)
    assert sum(map(len, reading)) > 5_000_000
    reading = asked.stream("sql", {"text": "select repeat('x', 5000000)", "limit": 1}, 60)
    next(reading)
    reading.close()
    assert asked.rows("select 1") == [["1"]]


def test_the_time_of_who_takes_a_stream_does_not_count(asked, monkeypatch):
    class Clock:
        ahead = 0.0

        def monotonic(self):
            return time.monotonic() + self.ahead

    clock = Clock()
    monkeypatch.setattr(process, "time", clock)
    reading = asked.stream("sql", {"text": "select repeat('x', 5000000)", "limit": 1}, 60)
    taken = len(next(reading))
    clock.ahead = 1000.0
    assert taken + sum(map(len, reading)) > 5_000_000


@linux
def test_a_worker_that_dies_is_reported_and_replaced(asked):
    assert asked.rows("select 1") == [["1"]]
    (worker,) = workers(asked._home.data)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(asked.rows, LONG, 60)
        while asked._idle:
            time.sleep(0.01)
        os.kill(worker, signal.SIGSEGV)
        with pytest.raises(QueryError, match=r"the statement crashed the process that ran it \(SIGSEGV\)"):
            waiting.result(30)
    assert asked.rows("select 1") == [["1"]]
    # One that is killed while nothing is asked of it is replaced, too.
    (worker,) = workers(asked._home.data)
    os.kill(worker, signal.SIGKILL)
    asked._idle[0]._process.wait()
    assert asked.rows("select 2") == [["2"]]


def test_a_worker_that_does_not_start_says_why(asked, monkeypatch):
    monkeypatch.setattr(process.sys, "path", [])
    with pytest.raises(StoreError, match=r"the process that answers statements does not start \(exit code 1: .*mirror"):
        asked.rows("select 1")


def test_without_a_thread_nobody_waits_and_the_next_question_is_answered(asked, monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        asked.warm()
        with pytest.raises(StoreError, match="no thread for statements can be started: can't start new thread"):
            asked.rows("select 1", 60)
    assert asked.rows("select 1") == [["1"]]


def test_whatever_keeps_a_worker_from_starting_is_told_and_the_next_question_is_answered(asked, monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(module, "Worker", refuse)
        with pytest.raises(StoreError, match="no process for statements can be started: RuntimeError: can't start"):
            asked.rows("select 1", 60)
    assert asked.rows("select 1") == [["1"]]


@linux
def test_workers_end_with_the_process_that_asks_even_when_it_is_killed(own):
    code = f"""
import sys, threading, time
from pathlib import Path
from mirror.settings.home import Home
from mirror.web.statements import Statements
asked = Statements(Home(Path({str(own.data)!r}), Path("config.toml")))
asked.ask("sql", {{"text": "select 1", "limit": 1}}, 60)
threading.Thread(target=asked.ask, args=("sql", {{"text": {DEAF!r}, "limit": 1}}, 60), daemon=True).start()
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "ready\n"
        (worker,) = workers(own.data, parent.pid)
        parent.kill()
    until_gone(worker)


@linux
def test_a_worker_holds_nothing_of_the_daemon_and_can_write_nothing(asked, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with (asked._home.data / "state.duckdb").open("wb"):
        assert asked.rows("select 1") == [["1"]]
        (worker,) = workers(asked._home.data)
        held = {str(each.readlink()) for each in Path(f"/proc/{worker}/fd").iterdir()}
    files = {each for each in held if not each.startswith(("pipe:", "anon_inode:"))}
    assert files <= {"/dev/null", str(asked._home.published)}
    assert b"WANDB_API_KEY" not in Path(f"/proc/{worker}/environ").read_bytes()
    limits = Path(f"/proc/{worker}/limits").read_text()
    assert [line.split()[4] for line in limits.splitlines() if line.startswith(("Max file size",))] == ["0"]
    assert Path(f"/proc/{worker}/oom_score_adj").read_text() == "1000\n"


@linux
def test_idle_workers_end(asked, monkeypatch):
    assert asked.rows("select 1") == [["1"]]
    (worker,) = workers(asked._home.data)
    monkeypatch.setattr(module, "LAST_SECONDS", 0.0)
    with asked._changed:
        asked._changed.notify_all()
    until_gone(worker)
    monkeypatch.undo()
    assert asked.rows("select 1") == [["1"]]


def test_half_of_a_character_is_refused(asked):
    with pytest.raises(QueryError, match="lone surrogate"):
        asked.rows("select '\ud800'")


def test_an_order_that_takes_too_long_to_plan_is_refused(published):  # noqa: F811
    from tests.web.test_data import Served

    order = ",".join(f"+config.key{index}" for index in range(200))
    answer = Served(published).get("/api/runs", params={"project": "team/vision", "order": order})
    assert (answer.status_code, answer.json()) == (
        400,
        {"message": "order '+config.key0,+config.key1,+config.key2,+'... has 200 fields; an order has at most 16"},
    )


def test_a_client_that_leaves_ends_its_statement_and_the_daemon_is_untouched(site):
    """Through the daemon: the statement of a client that went away, one that is too large, and what goes on meanwhile."""
    with pytest.raises(httpx.ReadTimeout), site.client(Authorization=f"Bearer {site.token}") as client:
        client.post("/api/sql", json={"sql": LONG}, timeout=0.5)
    pid = json.loads(site.mirror("status", "--json").stdout)["daemon"]["pid"]
    if sys.platform == "linux":
        ticks = {each: cpu(each) for each in workers(site.home, pid)}
        site.until(
            lambda: all(cpu(each) == before or ticks.update({each: cpu(each)}) for each, before in ticks.items()), 10
        )
    answer = site.sql_rows("select range(350000000)")
    assert (answer.status_code, answer.json()) == (400, {"message": TOO_MUCH})
    assert site.get("/api/state")["projects"]
    assert json.loads(site.mirror("status", "--json").stdout)["daemon"]["pid"] == pid


def cpu(pid):
    """Clock ticks that a process has used."""
    try:
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    except OSError:
        return 0


pytestmark = pytest.mark.xdist_group("site")
