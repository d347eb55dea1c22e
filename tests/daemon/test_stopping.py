"""Endless work of the daemon ends when it is cancelled, also at the moment at which it is woken."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from mirror.daemon.downloads import Downloads
from mirror.daemon.lake import Lake
from mirror.local.watch import Watch
from mirror.settings.settings import LakeSettings, Settings
from mirror.store.contents import Selection


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
