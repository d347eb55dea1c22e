"""The schedule in bad weather: signals, a suspended process, and commands beside it."""

from __future__ import annotations

import json
import re
import signal
import time
from datetime import datetime

from tests.daemon.conftest import Bench
from tests.daemon.test_daemon import add


def pass_times(bench):
    """When passes ended, in seconds."""
    return [datetime.fromisoformat(line["time"]).timestamp() for line in bench.log() if line.get("event") == "pass"]


def test_after_a_suspend_one_pass_catches_up_and_not_all_that_were_missed(bench):
    add(bench, "one")
    bench.configure(interval="1s")
    with bench.daemon(verbose=True) as daemon:
        bench.until(lambda: len(pass_times(bench)) >= 2)
        daemon.send_signal(signal.SIGSTOP)
        time.sleep(5)
        before = len(pass_times(bench))
        woken = time.time()
        daemon.send_signal(signal.SIGCONT)
        bench.until(lambda: len(pass_times(bench)) >= before + 3)
    first, second, third, *_ = pass_times(bench)[before:]
    # One that was under way when it stopped may end first; five that were missed would follow at once.
    assert first < woken + 3
    assert third - first > 0.8, (first - woken, second - first, third - second)


def test_a_machine_that_slept_does_at_once_what_is_due(bench):
    """Timers do not run on during a suspend: a clock that jumps stands for one."""
    add(bench, "one")
    bench.configure(interval="1h")
    flag = bench.root / "slept"
    prelude = f"""
import os, time, datetime
from mirror.daemon import pulse
pulse.BEAT = 0.2
class Clock:
    monotonic = staticmethod(time.monotonic)
    @staticmethod
    def time():
        return time.time() + (7200 if os.path.exists({str(flag)!r}) else 0)
pulse.time = Clock
from apscheduler.schedulers import base
class Later(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.now(tz) + datetime.timedelta(hours=2 if os.path.exists({str(flag)!r}) else 0)
base.datetime = Later
"""
    with bench.daemon(prelude):
        bench.until(lambda: len(pass_times(bench)) == 1)
        add(bench, "two")
        flag.touch()
        bench.until(lambda: bench.sql("select count(*) from runs") == [(2,)])
    assert "the machine slept for 7200 s; running the passes that are due" in [line["message"] for line in bench.log()]


def test_sighup_reads_the_config_where_nobody_watches_it(bench):
    add(bench, "one", project="p")
    add(bench, "two", project="q")
    elsewhere = bench.root / "elsewhere.toml"
    elsewhere.write_text('projects = ["team/p"]\n[publish]\nmin_interval = "200ms"\n')
    (bench.home / "config.toml").symlink_to(elsewhere)
    unwatched = """
import mirror.daemon.sources as sources
async def signals(*_):
    await sources.asyncio.Event().wait()
    yield
sources._signals = signals
"""
    with bench.daemon(unwatched) as daemon:
        bench.until(lambda: bench.sql("select project from runs") == [("p",)])
        elsewhere.write_text('projects = ["team/q", "team/p"]\n[publish]\nmin_interval = "200ms"\n')
        daemon.send_signal(signal.SIGHUP)
        bench.until(lambda: sorted(bench.sql("select project from runs")) == [("p",), ("q",)])
        elsewhere.write_text("projects = 1\n")
        daemon.send_signal(signal.SIGHUP)
        bench.until(lambda: "; the running settings stay" in str(bench.log()))
        elsewhere.write_text('projects = ["team/q", "team/p"]\n')
        daemon.send_signal(signal.SIGHUP)
        bench.until(lambda: json.loads(bench.here("status", "--json").stdout)["daemon"]["config_error"] is None)


def settled(done, bench):
    """What a command said, without what differs from one home to another."""
    text = f"{done.returncode}\n{done.stdout}\n{done.stderr}".replace(str(bench.root), "ROOT")
    return re.sub(r"\d+\.\d s\b", "N s", text)


def test_commands_print_the_same_with_and_without_a_daemon(bench, tmp_path):
    add(bench, "one", state="running")
    add(bench, "two", project="q")
    (tmp_path / "b").mkdir()
    other = Bench(tmp_path / "b", bench.server)
    for one in (bench, other):
        one.configure('["team/p", "team/q"]', interval="1h")
        one.configure(text=(one.home / "config.toml").read_text().replace('"300ms"', '"1h"'))
    other.mirror("sync")
    with bench.daemon():
        bench.until(lambda: bench.sql("select count(*) from runs") == [(2,)])
        for arguments in (
            ["sync"],
            ["sync", "team/none"],
            ["sync", "team/zz*"],
            ["sync", "just-a-name"],
            ["sync", "team/p/none"],
            ["flush", "team/p/one"],
            ["flush", "--all"],
            ["-q", "sync", "team/p"],
        ):
            mine, theirs = (settled(one.mirror(*arguments, check=False), one) for one in (bench, other))
            assert mine == theirs, arguments
        found = [json.loads(one.here("status", "--json").stdout) for one in (bench, other)]
        for status in found:
            for project in status["projects"]:
                del project["last_success_at"], project["lag_s"]
        assert found[0]["projects"] == found[1]["projects"]
        assert found[0]["server"] == found[1]["server"]
        assert set(found[0]) == set(found[1])
        assert found[1]["daemon"] == {"running": False}
