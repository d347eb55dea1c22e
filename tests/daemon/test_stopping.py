"""Endless work of the daemon ends when it is cancelled, also at the moment at which it is woken."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from mirror.daemon import lake as lakes
from mirror.daemon.commands import Commands
from mirror.daemon.downloads import Downloads
from mirror.daemon.lake import Lake
from mirror.local.ingest import Ingest
from mirror.local.reader import Options
from mirror.local.watch import Watch
from mirror.settings.settings import LakeSettings, Settings
from mirror.store.contents import Selection
from mirror.store.records import ProjectKey
from mirror.sync.targets import Target
from tests.forked import Forked


def downloads(_home):
    work = Downloads(SimpleNamespace(), SimpleNamespace(), Selection)
    return work.run, work.wake


def lake(home):
    work = Lake(home, {}, LakeSettings)
    return work.run, work.wake


def local_runs(home):
    work = Watch(SimpleNamespace(), Settings())
    return work.run, work._changed.set


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("kind", [downloads, lake, local_runs])
def test_work_that_is_woken_as_it_is_cancelled_ends(home, kind, turns):
    async def ends():
        run, wake = kind(home)
        task = asyncio.create_task(run())
        await asyncio.sleep(0.01)
        wake()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=2)
        assert done
        assert task.cancelled()

    asyncio.run(ends())


OPENS_LONG = """
import threading
from pathlib import Path
from mirror import threads
from mirror.store.store import Store

threads.PATIENCE = 0.1

def hang(home, **_):
    home.data.joinpath("opening").touch()
    threading.Event().wait()

Store.open = hang
"""


def test_a_daemon_ends_while_its_store_is_still_being_opened(bench):
    bench.configure()
    said = bench.root / "stderr"
    said.touch()
    process = Forked(["daemon"], bench.environ, said, OPENS_LONG)
    try:
        bench.until((bench.home / "opening").exists)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert [line["message"] for line in bench.log()] == ["stopped before the store was open"]


def test_an_export_to_a_lake_that_takes_too_long_is_ended(home, monkeypatch):
    monkeypatch.setattr(lakes, "LONGEST", 0.05)
    monkeypatch.setattr(lakes, "_COMMAND", ("/bin/sh", "-c", "exec sleep 1000"))
    settings = LakeSettings(url="x")
    reported = asyncio.run(Lake(home, {}, lambda: settings)._export(settings))
    assert reported == {"error": "the export took longer than 1.38889e-05 h and was ended"}


def test_to_forget_keeps_no_pass_waiting_for_local_runs_that_are_read(home):
    project = ProjectKey("team", "p")
    removed = []

    class Writer:
        async def read(self, _):
            return [Target(project)]

        async def write(self, _):
            removed.append(project)

        async def maintain(self):
            pass

        publish = maintain

    async def work():
        writer, passing = Writer(), asyncio.Lock()
        ingest = Ingest(writer, Options())
        commands = Commands(
            lambda: SimpleNamespace(writer=writer),
            Settings,
            home.config,
            None,
            SimpleNamespace(lock=lambda _: passing),
            SimpleNamespace(ingest=ingest),
            None,
            asyncio.Event(),
        )
        async with ingest._lock:
            forgetting = asyncio.create_task(commands.forget(["team/p"]))
            await asyncio.sleep(0.01)
            assert (passing.locked(), removed) == (False, [])
        await forgetting
        assert removed == [project]

    asyncio.run(work())
