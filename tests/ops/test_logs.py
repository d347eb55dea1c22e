"""What the daemon writes: JSON lines in a rotated file, and on stderr what suits its reader."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading

from mirror.control import Control
from tests.daemon.test_daemon import add
from tests.sync.rig import spoil

PASS = {"time", "level", "message", "event", "project", "runs", "rows", "requests", "seconds", "live"}


def passes(lines):
    return [line for line in lines if line.get("event") == "pass"]


class Reader(threading.Thread):
    """Reads what the daemon writes to stderr, as a terminal or a pipe, while it runs."""

    def __init__(self, bench, *, terminal=False):
        super().__init__()
        self._key = bench.server.key
        self._ours, self.theirs = pty.openpty() if terminal else os.pipe()
        self._seen = b""
        self.start()

    def run(self):
        while True:
            try:
                piece = os.read(self._ours, 65536)
            except OSError:  # the terminal was closed
                break
            if not piece:
                break
            self._seen += piece
        os.close(self._ours)

    def started(self):
        """The daemon has the other end now."""
        os.close(self.theirs)

    def lines(self):
        """Everything that was written, when the daemon has ended."""
        self.join(20)
        text = self._seen.decode()
        assert self._key not in text
        return text.replace("\r\n", "\n").splitlines()


def test_a_pass_is_one_json_line_in_the_file_and_on_a_stderr_that_is_no_terminal(bench):
    add(bench, "one")
    bench.configure(interval="1h")
    reader = Reader(bench)
    with bench.daemon(stderr=reader.theirs):
        reader.started()
        bench.until(lambda: passes(bench.log()) != [])
    shown = [json.loads(line) for line in reader.lines()]
    assert shown == bench.log()
    (line,) = passes(shown)
    assert set(line) == PASS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    reported = {key: line[key] for key in ("level", "project", "runs", "rows", "requests", "live")}
    assert reported == {"level": "info", "project": "team/p", "runs": 1, "rows": 3, "requests": 2, "live": 0}
    assert re.fullmatch(r"team/p: 1 run, 3 rows, 2 requests, \d\.\d\d s", line["message"])
    assert (bench.home / "mirror.log").stat().st_mode & 0o777 == 0o600
    assert bench.server.key not in (bench.home / "mirror.log").read_text()


def test_a_terminal_gets_readable_lines(bench):
    add(bench, "one")
    bench.configure(interval="1h")
    reader = Reader(bench, terminal=True)
    with bench.daemon(stderr=reader.theirs):
        reader.started()
        bench.until(lambda: passes(bench.log()) != [])
    shown = reader.lines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \S", line) for line in shown), shown
    assert any(re.search(r"Z team/p: 1 run, 3 rows, 2 requests, \d\.\d\d s$", line) for line in shown)
    assert [line["message"] for line in bench.log()] == [line.partition(" ")[2] for line in shown]


def test_the_journal_gets_priorities_and_no_second_time(bench):
    add(bench, "one")
    spoil(add(bench, "bad"))
    bench.configure(interval="300ms")
    reader = Reader(bench)
    found = os.fstat(reader.theirs)
    with bench.daemon(stderr=reader.theirs, verbose=True, JOURNAL_STREAM=f"{found.st_dev}:{found.st_ino}"):
        reader.started()
        bench.until(lambda: len(passes(bench.log())) > 2)
    shown = [line for line in reader.lines() if "team/p: " in line]
    assert re.fullmatch(r"<4>warning: team/p: 2 runs, 3 rows, .*; 1 run to retry, new: bad \(.*\)", shown[0])
    # What is known already is no warning at each pass, and without -v no line.
    assert re.fullmatch(r"<7>team/p: 0 runs, 0 rows, 1 request, \d\.\d\d s; 1 run to retry", shown[1])


def test_passes_that_find_nothing_new_are_not_logged(bench):
    run = add(bench, "one")
    bench.configure(interval="100ms")
    with bench.daemon():
        bench.until(lambda: passes(bench.log()) != [])
        daemon = Control.find(bench.home / "mirror.sock")
        bench.until(lambda: daemon.status()["passes"]["team/p"]["total"] > 4)
        run.log({"loss": 0.0}, step=9)
        bench.until(lambda: sum(line["rows"] for line in passes(bench.log())) == 4)
        logged, total = passes(bench.log()), daemon.status()["passes"]["team/p"]["total"]
    # A run that changed in the second of a pass is pulled by the next one, too.
    assert (len(logged) <= 4 < total, min(line["runs"] for line in logged)) == (True, 1)


def test_the_file_is_rotated_at_its_size_and_the_newest_are_kept(bench):
    add(bench, "one", state="running")
    bench.configure(interval="1h", text='projects = ["team/p"]\n[sync]\nlive_interval = "30ms"\n')
    prelude = "import mirror.daemon.logs as logs\nlogs.LOG_BYTES = 700"
    with bench.daemon(prelude, stderr=subprocess.DEVNULL, verbose=True):
        bench.until((bench.home / "mirror.log.3").exists)
        bench.until(lambda: "started" not in "".join(path.read_text() for path in bench.home.glob("mirror.log*")))
    found = sorted(path.name for path in bench.home.glob("mirror.log*"))
    assert found == ["mirror.log", "mirror.log.1", "mirror.log.2", "mirror.log.3"]
    for name in found[1:]:
        text = (bench.home / name).read_text()
        assert 400 < len(text) <= 700
        assert all(json.loads(line)["time"] for line in text.splitlines())


def test_quiet_says_only_what_is_wrong(bench):
    add(bench, "one")
    bench.configure(interval="1h")
    process = subprocess.Popen(
        [sys.executable, "-m", "mirror.cli", "-q", "daemon"], env=bench.environ, stderr=subprocess.PIPE, text=True
    )
    try:
        bench.until(lambda: passes(bench.log()) != [])
    finally:
        process.terminate()
        said = process.communicate(timeout=20)[1]
    assert (process.returncode, said) == (0, "")


CRASH = """
import os
import mirror.daemon.passes as passes
whole = passes.sync_project
async def failing(context, project, **options):
    if project.project == "q" and os.path.exists({flag!r}):
        raise KeyError("no such thing, {key}\\nat all")
    return await whole(context, project, **options)
passes.sync_project = failing
"""


def test_a_bug_in_one_pass_is_logged_shown_in_status_and_stops_nothing_else(bench):
    add(bench, "one", project="p")
    add(bench, "two", project="q")
    bench.configure('["team/p", "team/q"]', interval="300ms")
    flag = bench.root / "crash"
    reader = Reader(bench, terminal=True)
    with bench.daemon(CRASH.format(flag=str(flag), key=bench.server.key), stderr=reader.theirs):
        reader.started()
        bench.until(lambda: bench.sql("select count(*) from runs") == [(2,)])
        flag.touch()
        bench.until(lambda: bench.sql("select project from projects where last_error is not null") == [("q",)])
        add(bench, "three", project="p")
        bench.until(lambda: bench.sql("select count(*) from runs") == [(3,)])

        error = "unexpected KeyError: 'no such thing, ***\\nat all' (mirror.log has the traceback)"
        checked = bench.here("status", "--check")
        assert checked.exit_code == 1
        assert checked.stdout.splitlines()[1].endswith(f" allowed: {error}")
        found = json.loads(bench.here("status", "--json").stdout)
        assert [project["last_error"] for project in found["projects"]] == [None, error]
        assert found["daemon"]["last_passes"]["team/q"]["error"] == error
        crash = found["daemon"]["last_crash"]
        assert (crash["what"], crash["error"]) == ("the pass over team/q", "KeyError: 'no such thing, ***\\nat all'")
        assert "crash    the pass over team/q at " in bench.here("status").stdout
        failed = bench.mirror("sync", check=False)
        assert failed.returncode == 1
        assert f"error: team/q: {error}\n" in failed.stderr

        flag.unlink()
        bench.until(lambda: bench.sql("select count(*) from projects where last_error is null") == [(2,)])
    (line, *_) = [line for line in bench.log() if line.get("event") == "crash"]
    assert line["message"] == "the pass over team/q crashed; the daemon goes on"
    assert line["traceback"].startswith("Traceback (most recent call last):\n")
    assert "in failing\n" in line["traceback"]
    assert bench.server.key not in (bench.home / "mirror.log").read_text()
    shown = [line for line in reader.lines() if "crashed" in line]
    assert all("Z error: the pass over team/q crashed; the daemon goes on (KeyError: " in line for line in shown)
    assert not any(line.startswith((" ", "Traceback")) for line in shown)


def test_a_watcher_that_breaks_is_started_again(bench):
    """What runs beside the passes has no scheduler to restart it."""
    bench.configure(interval="1h")
    prelude = """
import mirror.daemon.daemon as daemon, mirror.daemon.outcomes as ledger
ledger.CRASH_PAUSE = 0.1
watch, times = daemon.sources.changes, []
def failing(*arguments, **options):
    times.append(1)
    if len(times) < 3:
        raise ValueError("a bug")
    return watch(*arguments, **options)
daemon.sources.changes = failing

from mirror.web.gate import Gate
serve, begun = Gate.serve, []
async def serve_later(gate, *listeners):
    begun.append(gate)
    if len(begun) == 1:
        raise ValueError("another bug")
    await serve(gate, *listeners)
Gate.serve = serve_later
"""
    with bench.daemon(prelude):
        assert [line["message"] for line in bench.log()].count("control socket crashed; the daemon goes on") == 1
        crashed = "config watch crashed; the daemon goes on"
        bench.until(lambda: [line["message"] for line in bench.log()].count(crashed) == 2)
        bench.configure('["team/p", "team/q"]', interval="1h")
        bench.until(lambda: any(line["message"] == "config applied: team/p, team/q" for line in bench.log()))


def test_a_log_that_cannot_be_written_is_reported_once(bench):
    (bench.home / "mirror.log").mkdir()
    add(bench, "one")
    bench.configure(interval="300ms")
    reader = Reader(bench)
    with bench.daemon(stderr=reader.theirs):
        reader.started()
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
    assert sum("mirror.log cannot be written (Is a directory)" in line for line in reader.lines()) == 1
