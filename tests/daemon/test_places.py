"""How many passes the daemon runs at once, and that backfills leave room for projects in which something runs."""

from __future__ import annotations

import asyncio
import re

import pytest

from mirror.daemon.slots import PassSlots, is_backfill
from mirror.store.records import ProjectCursor
from mirror.sync.context import PassResult
from mirror.sync.engine import PROJECTS_AT_ONCE
from tests.daemon.test_daemon import add


def test_a_daemon_with_many_projects_looks_at_four_at_once(bench, monkeypatch):
    names = [f"p{index:02}" for index in range(12)]
    for name in names:
        add(bench, "one", project=name)
    bench.configure('["team/*"]', interval="1h")
    under_way, most = set(), []
    gate = bench.server._gate
    answer = gate.answer

    async def counted(request, operation, produce, **options):
        found = re.search(rb'"project":"(p\d\d)"', await request.body())
        if found is None or operation != "MirrorRuns":
            return await answer(request, operation, produce, **options)
        under_way.add(found[1])
        most.append(len(under_way))
        # The first ones stay until there are more of them than there may be, or none came for long enough.
        for _ in range(40 if len(most) <= PROJECTS_AT_ONCE else 0):
            if max(most) > PROJECTS_AT_ONCE:
                break
            await asyncio.sleep(0.05)
        try:
            return await answer(request, operation, produce, **options)
        finally:
            under_way.discard(found[1])

    monkeypatch.setattr(gate, "answer", counted)
    with bench.daemon():
        bench.until(lambda: bench.sql("select count(*) from runs") == [(12,)])
        done = bench.here("sync")
        assert done.exit_code == 0
        assert len(done.stderr.splitlines()) == 12
    assert PROJECTS_AT_ONCE - 1 <= max(most) <= PROJECTS_AT_ONCE


def test_a_live_project_is_followed_while_others_are_filled(bench):
    run = add(bench, "live", project="live", state="running")
    bench.mirror("sync", "team/live")
    for index in range(6):
        add(bench, f"slow{index}", project=f"big{index}")
    bench.server.faults.add("latency", times=None, operation="MirrorHistory", seconds=600, about='"slow')
    live = 'projects = ["team/*"]\n[server]\ntimeout = "10m"\n[sync]\ninterval = "1h"\nlive_interval = "300ms"\n'
    bench.configure(text=f'{live}[publish]\nmin_interval = "200ms"\n')
    with bench.daemon():
        bench.until(lambda: bench.server.faults.counts["latency"] == PROJECTS_AT_ONCE - 1)
        for step in (3, 4, 5):
            run.log({"loss": 0.1}, step=step)
            bench.until(
                lambda rows=step + 1: bench.sql("select history_rows from runs where run_id = 'live'") == [(rows,)]
            )
        assert bench.server.faults.counts["latency"] == PROJECTS_AT_ONCE - 1


def passes(places, *kinds):
    """The order in which passes of these kinds begin, each of which takes ten turns of the loop; and the most at once."""

    async def go():
        begun, running, most = [], 0, 0

        async def one(number, kind):
            nonlocal running, most
            async with places.slot(backfill=kind == "backfill"):
                begun.append(number)
                running += 1
                most = max(most, running)
                for _ in range(10):
                    await asyncio.sleep(0)
                running -= 1

        await asyncio.gather(*(one(number, kind) for number, kind in enumerate(kinds)))
        return begun, most

    return asyncio.run(go())


def test_backfills_leave_one_place_and_the_others_go_first():
    begun, most = passes(PassSlots(3), *["backfill"] * 4, "live", "live")
    assert begun == [0, 1, 4, 5, 2, 3]
    assert most == 3


def test_without_backfills_all_places_are_used_and_one_place_is_enough_for_both():
    assert passes(PassSlots(3), *["live"] * 5) == ([0, 1, 2, 3, 4], 3)
    assert passes(PassSlots(1), "backfill", "live", "backfill") == ([0, 1, 2], 1)


def test_a_pass_that_is_cancelled_while_it_waits_or_just_began_gives_its_place_back():
    async def go():
        places = PassSlots(1)

        async def one():
            async with places.slot(backfill=False):
                return "done"

        async with places.slot(backfill=True):
            waiting = asyncio.create_task(one())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            called = asyncio.create_task(one())
            await asyncio.sleep(0)
        called.cancel()
        await asyncio.gather(called, return_exceptions=True)
        return await asyncio.wait_for(one(), 1)

    assert asyncio.run(go()) == "done"


@pytest.mark.parametrize(("seconds", "backfill"), [(59.0, False), (61.0, True)])
def test_what_the_last_pass_took_tells_what_the_next_one_is(seconds, backfill):
    assert is_backfill(PassResult("p", seconds=seconds), ProjectCursor(), {}) is backfill
