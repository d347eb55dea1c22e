"""The limiter keeps to what the server allows, uses all of it, and serves projects fairly; in virtual time."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from mirror.remote.limits import Limiter, asking_for, retry_after


class _Instant(selectors.SelectSelector):
    """Nothing to wait for but time, which passes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout=None):
        found = super().select(0)
        if not found and timeout:
            self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next thing that is due."""

    def __init__(self) -> None:
        self.instant = _Instant()
        super().__init__(self.instant)

    def time(self):
        return self.instant.now


def run(work):
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


class Upstream:
    """A server with a quota of so many requests a window, which tells what is left of it by a scale, or does not."""

    def __init__(self, budget: int, window: float, *, tells: bool = True, scale: float = 1000.0) -> None:
        self.budget, self.window, self.tells, self.scale = budget, window, tells, scale
        self.used: Counter[int] = Counter()
        self.refused = 0
        self.log: list[tuple[float, str]] = []

    async def ask(self, limiter: Limiter, project: str, *, bulk: bool = False, seconds: float = 0.05) -> None:
        """One request, tried again until it is answered."""
        asking_for.set(project)
        while True:
            async with limiter.slot(bulk=bulk):
                now = asyncio.get_running_loop().time()
                window = int(now // self.window)
                await asyncio.sleep(seconds)
                if self.used[window] < self.budget:
                    self.used[window] += 1
                    self.log.append((now, project))
                    headers = {}
                    if self.tells:
                        left = (self.budget - self.used[window]) / self.budget * self.scale
                        headers = {
                            "ratelimit-remaining": str(left),
                            "ratelimit-reset": str((window + 1) * self.window - now),
                        }
                    limiter.learn(headers)
                    return
                self.refused += 1
                limiter.refused(None)


async def backfill(upstream: Upstream, limiter: Limiter, project: str, requests: int) -> None:
    await asyncio.gather(*(upstream.ask(limiter, project, bulk=True) for _ in range(requests)))


def test_a_server_without_limits_is_never_waited_for():
    async def work():
        upstream, limiter = Upstream(10**9, 60, tells=False), Limiter(8)
        await backfill(upstream, limiter, "big", 800)
        return asyncio.get_running_loop().time() - 1000, limiter.snapshot()

    seconds, budget = run(work())
    # One place of the eight is kept for questions.
    assert seconds == pytest.approx(math.ceil(800 / 7) * 0.05)
    assert (budget.last_hour, budget.left, budget.waiting) == (800, None, {})


@pytest.mark.parametrize("scale", [1000.0, 50.0, 7.0])
def test_a_reported_quota_is_used_up_and_never_overdrawn_whatever_its_units(scale):
    async def work():
        upstream, limiter = Upstream(50, 60, scale=scale), Limiter(8)
        await backfill(upstream, limiter, "big", 200)
        return upstream, asyncio.get_running_loop().time() - 1000

    upstream, seconds = run(work())
    assert upstream.refused <= 1
    # From 1000 to the end of the first window are 20 s; 200 requests need four windows.
    assert seconds < 20 + 3 * 60
    assert sorted(upstream.used.values())[1:] >= [45] * (len(upstream.used) - 1)


@pytest.mark.parametrize(("budget", "cost"), [(50, 20.0), (200, 5.0), (4000, 0.25)])
def test_what_a_request_takes_of_the_quota_is_learned(budget, cost):
    async def work():
        upstream, limiter = Upstream(budget, 600), Limiter(8)
        await backfill(upstream, limiter, "big", 30)
        return limiter.snapshot()

    found = run(work())
    assert found.cost == pytest.approx(cost, rel=0.01)
    assert found.left == pytest.approx(1000 - 30 * cost, rel=0.01)


def test_a_quota_of_few_requests_is_no_count_of_a_thousand():
    """Each request takes a tenth of it: taken for a thousand requests, most would be refused."""

    async def work():
        upstream, limiter = Upstream(10, 60), Limiter(8)
        await backfill(upstream, limiter, "big", 40)
        return upstream

    assert run(work()).refused <= 8


def test_answers_that_tell_nothing_count_as_requests_too():
    async def work():
        limiter = Limiter(1)
        for left in (1000, None, None, 970):
            limiter.learn({} if left is None else {"ratelimit-remaining": str(left), "ratelimit-reset": "30"})
        return limiter.snapshot().cost

    assert run(work()) == 10


def test_a_live_project_does_not_wait_for_the_backfill_of_another():
    async def work():
        upstream, limiter = Upstream(60, 60), Limiter(4)
        asyncio.get_running_loop()
        filling = asyncio.create_task(backfill(upstream, limiter, "big", 300))
        waits = []
        for _ in range(15):
            await asyncio.sleep(15)
            begun = asyncio.get_running_loop().time()
            await upstream.ask(limiter, "live")
            waits.append(asyncio.get_running_loop().time() - begun)
        await filling
        return upstream, waits

    upstream, waits = run(work())
    assert max(waits) < 5
    assert upstream.refused <= 2
    assert sum(project == "big" for _, project in upstream.log) == 300


def test_projects_that_wait_take_turns():
    async def work():
        upstream, limiter = Upstream(10**9, 60), Limiter(1)
        await asyncio.gather(*(backfill(upstream, limiter, name, 20) for name in ("a", "b", "c")))
        return "".join(project for _, project in upstream.log)

    order = run(work())
    assert order[3:57] in ("abc" * 18, "bca" * 18, "cab" * 18)


def test_the_pace_of_a_server_that_tells_nothing_is_found_by_trying_and_recovers():
    async def work():
        upstream, limiter = Upstream(20, 10, tells=False), Limiter(8)
        await backfill(upstream, limiter, "big", 200)
        refused = upstream.refused
        upstream.budget = 10**9
        await backfill(upstream, limiter, "big", 300)
        begun = asyncio.get_running_loop().time()
        await backfill(upstream, limiter, "big", 80)
        return refused, upstream.refused, asyncio.get_running_loop().time() - begun

    refused, later, seconds = run(work())
    assert 0 < refused < 100
    assert later == refused
    assert seconds < 2


def test_a_pause_holds_back_questions_but_no_files():
    async def work():
        limiter = Limiter(2)
        limiter.pause(30)
        at = {}

        async def one(name, **kind):
            async with limiter.slot(**kind):
                at[name] = asyncio.get_running_loop().time() - 1000

        asking_for.set("p")
        tasks = [asyncio.create_task(one("question")), asyncio.create_task(one("file", file=True))]
        await asyncio.sleep(1)
        waiting = limiter.snapshot()
        await asyncio.gather(*tasks)
        return at, waiting

    at, waiting = run(work())
    assert at == {"file": pytest.approx(0, abs=0.01), "question": pytest.approx(30, abs=0.01)}
    assert (waiting.waiting, waiting.paused_for_s) == ({"p": 1}, pytest.approx(29, abs=0.01))


@pytest.mark.parametrize("kind", [{"file": True}, {"bulk": True}])
def test_long_downloads_and_pages_leave_a_place_to_a_question(kind):
    async def work():
        limiter = Limiter(4)

        async def long():
            async with limiter.slot(**kind):
                await asyncio.sleep(100)

        tasks = [asyncio.create_task(long()) for _ in range(9)]
        await asyncio.sleep(1)
        begun = asyncio.get_running_loop().time()
        async with limiter.slot():
            waited = asyncio.get_running_loop().time() - begun
        await asyncio.gather(*tasks)
        return waited, asyncio.get_running_loop().time() - 1000

    assert run(work()) == (0, 300)


def test_storage_has_slots_of_its_own_given_out_project_by_project():
    async def work():
        limiter = Limiter(1)
        limiter.pause(1000)
        log = []

        async def file(project):
            asking_for.set(project)
            async with limiter.storage_slot():
                await asyncio.sleep(10)
                log.append((asyncio.get_running_loop().time() - 1000, project))

        tasks = [asyncio.create_task(file(name)) for name in ["big"] * 100 + ["small"] * 2]
        await asyncio.sleep(1)
        waiting = limiter.snapshot().waiting
        tasks[50].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return waiting, log

    waiting, log = run(work())
    assert waiting == {"big": 68, "small": 2}
    assert [sum(at == pytest.approx(end) for at, _ in log) for end in (10, 20, 30, 40)] == [32, 32, 32, 5]
    assert [at for at, project in log if project == "small"] == [pytest.approx(20)] * 2


def test_questions_without_end_leave_turns_to_pages():
    async def work():
        limiter = Limiter(2)
        log = []

        async def one(name, **kind):
            async with limiter.slot(**kind):
                await asyncio.sleep(1)
                log.append(name)

        await asyncio.gather(*(one("question") for _ in range(60)), *(one("page", bulk=True) for _ in range(10)))
        return log

    log = run(work())
    assert len(log) == 70
    assert log[:55].count("page") == 10


def test_a_request_that_is_given_up_while_it_waits_frees_its_place():
    async def work():
        limiter = Limiter(1)
        async with limiter.slot():
            waiting = asyncio.create_task(limiter.slot().__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with limiter.slot():
            return limiter.snapshot().waiting

    assert run(work()) == {}


def test_a_date_to_come_back_at_is_read_by_the_servers_own_clock():
    """This machine's clock may be an hour off."""
    server = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    headers = {
        "retry-after": format_datetime(server + timedelta(seconds=7), usegmt=True),
        "date": format_datetime(server, usegmt=True),
    }
    assert retry_after(headers) == 7
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize("date", ["Mon Nov 23 12:00:07 2026", "Mon, 23 Nov 2026 12:00:07 -0000"])
def test_a_date_without_a_zone_is_in_utc(date):
    assert retry_after({"retry-after": date, "date": "Mon, 23 Nov 2026 12:00:00 GMT"}) == 7


@pytest.mark.parametrize(("left", "reset"), [("nan", "1"), ("5", "inf"), ("0", "1763900000"), ("many", "1")])
def test_headers_that_make_no_sense_hold_nothing_back(left, reset):
    async def work():
        limiter = Limiter(1)
        limiter.learn({"ratelimit-remaining": left, "ratelimit-reset": reset})
        async with limiter.slot():
            return asyncio.get_running_loop().time() - 1000, limiter.snapshot().left

    assert run(work()) == (0, None)


def test_a_burst_that_is_refused_slows_down_once():
    async def work():
        limiter = Limiter(8)
        for _ in range(8):
            limiter.refused(None)
        return limiter.snapshot().paused_for_s

    assert run(work()) < 0.5
