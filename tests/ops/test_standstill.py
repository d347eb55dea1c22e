"""What stands still shows: in status, its check, doctor and the metrics, and it is over when it is over."""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager
from datetime import timedelta

import pytest

from mirror.control import Control
from mirror.sync import project
from mirror.sync.context import utc_now
from tests.daemon.conftest import CONFIG
from tests.daemon.test_daemon import add
from tests.ops.test_health import samples
from tests.ops.test_schedule import pass_times
from tests.sync.rig import spoil

FAR = timedelta(days=40)


def problems(bench):
    """kind to (level, message), as `status` tells of them."""
    found = json.loads(bench.here("status", "--json").stdout)["problems"]
    return {problem["kind"]: (problem["level"], problem["message"]) for problem in found}


def reported(bench, kind):
    """How status, its check, doctor and the metrics tell of one kind: lines, exit code, findings, sample."""
    page = bench.here("status").stdout
    check = bench.here("status", "--check")
    doctor = bench.here("doctor", "--json")
    findings = [found["level"] for found in json.loads(doctor.stdout) if found["check"] == kind]
    metrics = samples(bench.here("status", "--prometheus").stdout)
    shown = [line for line in page.splitlines() if line.startswith("problem  ")]
    return shown, (check.exit_code, doctor.exit_code), findings, metrics["mirror_problem", ("kind", kind)]


def test_publishing_that_fails_is_reported_while_passes_go_on(bench):
    """Whatever the reason is, a disk or a bug."""
    add(bench, "one")
    bench.configure(interval="300ms")
    flag = bench.root / "broken"
    prelude = f"""
import pathlib, mirror.store.store as store
whole, flag = store.publish.publish, pathlib.Path({str(flag)!r})
def failing(*arguments):
    if flag.exists():
        raise ValueError("a bug") if flag.read_text() == "bug" else OSError(5, "Input/output error")
    return whole(*arguments)
store.publish.publish = failing
"""
    with bench.daemon(prelude, verbose=True):
        bench.until(lambda: bench.sql("select last_success_at is not null from projects") == [(True,)])
        assert problems(bench) == {}
        flag.write_text("disk")
        add(bench, "two")
        bench.until(lambda: "publish" in problems(bench))
        before = len(pass_times(bench))
        bench.until(lambda: len(pass_times(bench)) > before + 3)
        level, message = problems(bench)["publish"]
        assert (level, message[:28]) == ("fail", "nothing was published since ")
        assert message.endswith("(Input/output error); what was committed is safe")
        assert reported(bench, "publish") == ([f"problem  {message}"], (1, 1), ["fail"], 1)
        assert bench.sql("select run_id from runs") == [("one",)]
        flag.write_text("bug")
        bench.until(lambda: problems(bench)["publish"] == ("fail", message[:48] + ": unexpected ValueError: a bug"))
        flag.unlink()
        bench.until(lambda: bench.sql("select count(*) from runs") == [(2,)])
        bench.until(lambda: problems(bench) == {})
        assert bench.here("status", "--check").exit_code == 0
        bench.until(lambda: "published again" in [line["message"] for line in bench.log()])
    log = bench.log()
    assert not any("error" in line for line in log if line.get("event") == "pass")
    said = [line["message"] for line in log if line["level"] == "error"]
    assert [line[:15] for line in said] == ["not published: ", "publishing cras"]


@contextmanager
def clock(monkeypatch, ahead):
    """Passes in this process by a clock that is ahead of the right one."""
    with monkeypatch.context() as patch:
        for module in (project, project.history):
            patch.setattr(module, "utc_now", lambda: utc_now() + ahead)
        yield


def test_a_clock_that_was_set_back_is_reported_and_stops_nothing(bench, monkeypatch):
    """Nothing is 40 days away: no lag, no full listing, no next try of a run that failed."""
    add(bench, "one")
    spoil(add(bench, "bad"))
    bench.configure(interval="5m")
    with clock(monkeypatch, FAR):
        bench.here("sync")
    ((at, lag),) = bench.sql("select last_success_at, lag_s from projects")
    assert lag is None
    reason = f"the last good pass is dated {at:%Y-%m-%d %H:%M:%S}Z, which is in the future: the clock was set back"
    assert problems(bench) == {"clock": ("fail", f"team/p: {reason}")}
    check = bench.here("status", "--check")
    assert (check.exit_code, check.stdout) == (4, f"team/p  stale   unknown, 16 min 0 s allowed: {reason}\n")
    assert "-" not in bench.here("status").stdout.splitlines()[-4].split()[6]
    metrics = samples(bench.here("status", "--prometheus").stdout)
    assert metrics["mirror_problem", ("kind", "clock")] == 1
    assert ("mirror_project_lag_seconds", ("project", "team/p")) not in metrics
    doctor = bench.here("doctor")
    assert doctor.exit_code == 1
    assert f"fail  freshness    team/p: {reason}\n" in doctor.stdout

    bench.here("sync")
    ((attempts,),) = bench.sql("select attempts from store.run_history where error is not null")
    assert attempts == 2
    ((reconciled,),) = bench.sql("select reconciled_at from store.project_records")
    assert reconciled < utc_now()
    assert problems(bench) == {}
    assert bench.here("status", "--check").exit_code == 0


def test_a_clock_that_is_set_back_under_a_daemon_does_not_stop_its_passes(bench):
    add(bench, "one")
    bench.configure(interval="1h")
    flag = bench.root / "set_back"
    prelude = f"""
import os, time, datetime
from mirror.daemon import pulse, schedule
pulse.BEAT = 0.2
AHEAD = 40 * 86400
def ahead():
    return 0 if os.path.exists({str(flag)!r}) else AHEAD
class Clock:
    monotonic = staticmethod(time.monotonic)
    @staticmethod
    def time():
        return time.time() + ahead()
pulse.time = Clock
from apscheduler.schedulers import base
class Moved(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.now(tz) + datetime.timedelta(seconds=ahead())
base.datetime = schedule.datetime = Moved
"""
    with bench.daemon(prelude):
        bench.until(lambda: len(pass_times(bench)) == 1)
        add(bench, "two")
        flag.touch()
        bench.until(lambda: bench.sql("select count(*) from runs") == [(2,)])
        bench.until(lambda: problems(bench) == {})
        reported = json.loads(bench.here("status", "--json").stdout)["daemon"]["projects"]["team/p"]["next_pass"]
        assert reported[:10] <= f"{utc_now() + timedelta(days=1):%Y-%m-%d}"
    assert "the clock was set back by 3456000 s; syncing every project now" in [line["message"] for line in bench.log()]


def test_each_part_that_stands_still_is_named(bench):
    """A writer that hangs, a job that is planned for ever later, a watch that crashes, a port and a log that are taken."""
    (bench.home / "mirror.log").mkdir()
    add(bench, "one")
    taken = socket.create_server(("127.0.0.1", 0))
    listen = f"127.0.0.1:{taken.getsockname()[1]}"
    config = CONFIG.format(projects='["team/p"]', interval="1h", listen=listen)
    # No commit of the first pass publishes it.
    bench.configure(text=config.replace('min_interval = "200ms"', 'min_interval = "1h"'))
    flag = bench.root / "hang"
    prelude = f"""
import os, time, datetime
from mirror.daemon import daemon, outcomes, problems, schedule
outcomes.CRASH_PAUSE = 0.1
problems.STUCK = 0.5
def changes(*_):
    raise ValueError("a bug")
daemon.sources.changes = changes
original = schedule.Schedule.late
def late(self):
    if os.path.exists({str(flag)!r}):
        for job in self._scheduler.get_jobs():
            self._scheduler.modify_job(job.id, next_run_time=datetime.datetime(2999, 1, 1, tzinfo=datetime.timezone.utc))
    return original(self)
schedule.Schedule.late = late
whole = daemon.Daemon._publish_regularly
async def hanging(self):
    while not os.path.exists({str(flag)!r}):
        await daemon.asyncio.sleep(0.1)
    def wait(_):
        while os.path.exists({str(flag)!r}):
            time.sleep(0.1)
    await self._context.writer.read(wait)
    await whole(self)
daemon.Daemon._publish_regularly = hanging
"""
    with taken, bench.daemon(prelude):
        bench.until(lambda: Control(bench.home / "mirror.sock").status()["passes"])
        flag.touch()
        bench.until(lambda: set(problems(bench)) == {"jobs", "log", "page", "schedule", "writer"})
        found = problems(bench)
        assert found["jobs"] == (
            "fail",
            "config watch keeps crashing (ValueError: a bug) and is started again each time",
        )
        assert found["schedule"] == ("fail", "team/p will not be synced before 2999-01-01 00:00:00Z")
        assert found["writer"][1].startswith("the writer has been busy with one job since ")
        assert found["page"][0] == found["log"][0] == "warn"
        shown, codes, findings, sample = reported(bench, "writer")
        # 4: what hangs is what publishes, so that readers never saw a good pass.
        assert (len(shown), codes, findings, sample) == (4, (4, 1), ["fail"], 1)
        flag.unlink()
        bench.until(lambda: "writer" not in problems(bench))


def test_the_check_judges_by_what_readers_see(bench):
    """A pass that was committed and not published makes nothing fresher."""
    add(bench, "one")
    bench.configure(interval="5m")
    bench.here("sync")
    ((before,),) = bench.sql("select last_success_at from projects")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mirror.store.store.publish.publish", lambda *_: 1 / 0)
        assert bench.here("sync").exit_code == 1
    assert bench.sql("select last_success_at from projects") == [(before,)]
    found = json.loads(bench.here("status", "--check", "--json", "--max-age", "1ms").stdout)["projects"]
    assert found[0]["state"] == "stale"
    assert found[0]["lag_s"] >= (utc_now() - before).total_seconds() - 5
