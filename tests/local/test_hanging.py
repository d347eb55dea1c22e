"""A network folder that does not answer any more costs its own runs their freshness, and nothing else anything."""

from __future__ import annotations

import asyncio
import json
import queue
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from mirror.control import Control
from mirror.local import looks
from mirror.local.looks import Hangs, Looks
from tests.daemon.conftest import bench as bench  # noqa: PLC0414 - the fixture
from tests.local.kit import now, run_file
from tests.local.test_daemon import configure, known

HANGS = """
import os, threading
from mirror import threads
from mirror.local import looks
threads.PATIENCE, looks.SECONDS = 0.1, 0.3
stat = os.stat

def hang(path, *more, **named):
    if isinstance(path, (str, os.PathLike)) and "/hangs" in os.fspath(path):
        threading.Event().wait()
    return stat(path, *more, **named)

os.stat = hang
"""


def test_a_folder_that_hangs_holds_up_nothing_and_is_named(bench):
    bench.world.add_run("team", "p", run_id="server").finish()
    hanging, answering, elsewhere = (bench.root / name for name in ("hangs", "answers", "elsewhere"))
    run_file(hanging, "r0", start=now()).lines(0, 1)
    file = run_file(answering, "r1", start=now()).lines(0, 2)
    run_file(elsewhere, "r2", start=now()).lines(0, 3).exit()
    configure(bench, hanging, answering)
    reported = f"{hanging} does not answer"
    with bench.daemon(HANGS):
        control = Control(bench.home / "mirror.sock")
        bench.until(lambda: {run_id for run_id, *_ in known(bench)} == {"r1", "server"})
        bench.until(lambda: control.status()["local"]["error"])
        assert control.status()["local"]["error"] == f"{reported}; runs elsewhere are mirrored"
        problems = [one["message"] for one in control.status()["problems"] if one["kind"] == "local"]
        assert problems == [f"local runs: {reported}; runs elsewhere are mirrored"]
        file.lines(2, 4)
        bench.until(lambda: ("r1", "running", 4) in known(bench))
        assert bench.mirror("ingest", str(elsewhere)).returncode == 0
        refused = bench.mirror("ingest", check=False)
        assert (refused.returncode, f"warning: {hanging} cannot be read: {reported}" in refused.stderr) == (1, True)
        assert bench.pull()[-1]["event"] == "done"
        assert bench.mirror("forget", "local/p", "--yes").returncode == 0
        # It ends by itself, in time and with exit code 0, although threads of it hang.
    stopped = [line["message"] for line in bench.log()][-1]
    assert stopped == "stopped"


def test_a_place_that_hangs_costs_one_thread_and_is_asked_again_when_it_answers(monkeypatch, tmp_path):
    monkeypatch.setattr(looks, "SECONDS", 0.05)
    goes_on, asked = threading.Event(), []

    def hang(_):
        asked.append(1)
        return goes_on.wait(30)

    async def work():
        own, answers = Looks(), asyncio.Event()
        own.follow([tmp_path])
        noted = own._hang.subtract
        monkeypatch.setattr(own._hang, "subtract", lambda places: (noted(places), answers.set()), raising=False)
        for _ in range(3):
            with pytest.raises(Hangs, match="does not answer"):
                await own.at(tmp_path / "a" / "b", hang)
        assert await own.at(tmp_path.parent / "other", lambda _: "answers") == "answers"
        assert len(asked) == 1
        goes_on.set()
        await asyncio.wait_for(answers.wait(), 10)
        assert await own.at(tmp_path / "c", lambda _: "answers") == "answers"

    asyncio.run(work())


def test_a_look_that_tells_that_it_goes_on_may_take_its_time(monkeypatch, tmp_path):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(looks, "time", SimpleNamespace(monotonic=lambda: clock.now))
    beats, goes_on = queue.SimpleQueue(), threading.Event()

    def slow(beat):
        beats.put(beat)
        return goes_on.wait(30)

    async def work():
        own = Looks()

        async def look_until(last):
            looking = asyncio.create_task(own.at(tmp_path, slow))
            beat = await asyncio.to_thread(beats.get, timeout=10)
            for moment in (15.0, 30.0, 45.0):
                clock.now += 15.0
                own._check()
                assert not looking.done(), moment
                beat()
            clock.now += last
            own._check()
            goes_on.set()
            try:
                return await looking
            finally:
                goes_on.clear()

        assert await look_until(looks.SECONDS - 1) is True
        with pytest.raises(Hangs):
            await look_until(looks.SECONDS + 1)

    asyncio.run(work())


def test_the_process_that_watches_tells_what_changes_and_ends_with_its_input(tmp_path):
    watcher = subprocess.Popen(
        [sys.executable, "-m", "mirror.local.watcher", str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert json.loads(watcher.stdout.readline()) == "ready"
        (tmp_path / "other.txt").write_text("")
        (tmp_path / "ü b.wandb").write_text("")
        assert json.loads(watcher.stdout.readline()) == str(tmp_path / "ü b.wandb")
        assert json.loads(watcher.stdout.readline()) is None
        watcher.stdin.close()
        assert watcher.wait(20) == 0
    finally:
        watcher.kill()
