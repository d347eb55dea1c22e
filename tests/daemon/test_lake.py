"""The daemon keeps a lake up to date beside its passes."""

from __future__ import annotations

import json

from tests.daemon.conftest import CONFIG
from tests.daemon.test_daemon import add
from tests.lake.reader import read

HANGING = """
import sys, mirror.daemon.lake as lake
lake._COMMAND = (sys.executable, "-c", "import time; print(1, flush=True); time.sleep(1000)")
"""


def configure(bench, url, interval="1h"):
    base = CONFIG.format(projects='["team/p"]', interval="1h", listen="").replace("300ms", "1h")
    bench.configure(text=f'{base}[lake]\nurl = "{url}"\ninterval = "{interval}"\n')


def status(bench):
    return json.loads(bench.here("status", "--json").stdout)


def test_a_daemon_exports_on_schedule_and_reports_why_it_cannot(bench):
    """A lake that cannot be written is a problem, and passes go on; the config is applied at once."""
    add(bench, "one")
    root = bench.root / "lake"
    configure(bench, root, "200ms")
    with bench.daemon():
        bench.until((root / "_snapshot.json").exists)
        bench.until(lambda: read(root, "select run_id from runs") == [("one",)])
        add(bench, "two")
        bench.pull()
        bench.until(lambda: read(root, "select run_id from runs order by 1") == [("one",), ("two",)])
        bench.until(lambda: status(bench)["daemon"]["lake"]["last"]["rows"])
        reported = status(bench)["daemon"]["lake"]
        assert (reported["url"], reported["last"]["error"]) == (str(root), None)

        def both_tell_the_same() -> bool:  # unless an export ends in between
            reported = status(bench)["daemon"]["lake"]
            return f"lake     {root}, as of {reported['snapshot_at']}Z" in bench.here("status").stdout

        bench.until(both_tell_the_same)
        assert 'mirror_lake_exports_total{result="failed"} 0\n' in bench.here("status", "--prometheus").stdout
        configure(bench, "/dev/null/x")
        bench.until(lambda: status(bench)["problems"])
        reason = "nothing is exported to the lake: the lake /dev/null/x cannot be read or written: Not a directory"
        assert status(bench)["problems"] == [{"kind": "lake", "level": "warn", "message": reason}]
        findings = json.loads(bench.here("doctor", "--json").stdout)
        assert [one["message"] for one in findings if one["check"] == "lake"] == [reason]
        add(bench, "three")
        bench.pull()
        assert bench.sql("select count(*) from runs") == [(3,)]
        configure(bench, root)
        bench.until(lambda: not status(bench)["problems"])
        bench.until(lambda: read(root, "select count(*) from runs") == [(3,)])
    assert [line["message"] for line in bench.log()].count(reason) == 1


def test_an_export_that_hangs_holds_up_neither_passes_nor_the_end(bench):
    add(bench, "one")
    configure(bench, bench.root / "lake")
    with bench.daemon(HANGING):
        bench.until(lambda: status(bench)["daemon"]["lake"]["running"])
        add(bench, "two")
        bench.pull()
        assert bench.sql("select count(*) from runs") == [(2,)]
