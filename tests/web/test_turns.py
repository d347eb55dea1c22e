"""Who may query next: no token keeps the others waiting, however many queries it sends."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest

from mirror.web import turns
from mirror.web.access import Access, Caller, Reader
from mirror.web.refusal import Refused
from mirror.web.turns import Turns


class Queries:
    """Queries that run until the test ends them; `ran` lists their tokens in the order in which they got a turn."""

    def __init__(self):
        self.turns = Turns()
        self.ran = []
        self._running = {}

    async def send(self, *names):
        tasks = [asyncio.create_task(self._query(name)) for name in names]
        await asyncio.sleep(0)
        return tasks

    async def _query(self, name, seconds=60.0):
        async with self.turns.waiting(name, seconds):
            self.ran.append(name)
            ended = asyncio.Event()
            self._running.setdefault(name, []).append(ended)
            await ended.wait()

    async def end(self, name):
        self._running[name].pop(0).set()
        for _ in range(6):
            await asyncio.sleep(0)


def test_two_queries_of_a_token_leave_a_place_for_those_of_others():
    async def work():
        queries = Queries()
        await queries.send("ada", "ada", "ada", "bob", "bob")
        assert queries.ran == ["ada", "ada", "bob"]
        await queries.send("eve")
        assert queries.ran == ["ada", "ada", "bob", "eve"]
        # A token that has none goes before the second of another, whoever waited first.
        await queries.send("kim")
        await queries.end("ada")
        assert queries.ran[4:] == ["kim"]
        await queries.end("eve")
        assert queries.ran[5:] == []
        await queries.end("kim")
        assert queries.ran[5:] == ["ada"]

    asyncio.run(work())


def test_tokens_take_turns():
    async def work():
        queries = Queries()
        await queries.send(*"abcd", *"aaaa", *"bb", *"ee", "f")
        for name in "abcdefab":
            await queries.end(name)
        assert "".join(queries.ran) == "abcdefabeab"

    asyncio.run(work())


@pytest.mark.parametrize("passed", range(4))
def test_whoever_leaves_while_waiting_takes_no_place(passed):
    async def work():
        queries = Queries()
        await queries.send(*"aabc")
        for left in await queries.send("d", "d"):
            queries._running["c"][0].set() if passed else None
            for _ in range(passed):
                await asyncio.sleep(0)
            left.cancel()
            with suppress(asyncio.CancelledError):
                await left
        for name in "aabc"[: 3 if passed else 4]:
            await queries.end(name)
        await asyncio.sleep(0)
        assert queries.turns._free == turns.AT_ONCE
        assert [one.running for one in queries.turns._uses.values()] == [0] * 4

    asyncio.run(work())


def test_a_turn_that_does_not_come_in_time_is_refused_and_leaves_no_trace():
    async def work():
        queries = Queries()
        await queries.send(*"aab")
        with pytest.raises(Refused, match=r"other queries took all of 0\.01 s"):
            await queries._query("a", 0.01)
        assert not queries.turns._uses["a"].waiting
        await queries.end("a")
        assert queries.ran == ["a", "a", "b"]

    asyncio.run(work())


def test_those_who_wait_for_one_copy_do_not_keep_others_from_theirs(home, monkeypatch):
    goes_on, copied = threading.Event(), []

    def newest(projects):
        copied.append(projects)
        assert projects != ("slow/*",) or goes_on.wait(30)
        return SimpleNamespace(statements=projects[0])

    async def work():
        access = Access(home, "k" * 40, SimpleNamespace())
        monkeypatch.setattr(Reader, "version", lambda _: "1")
        monkeypatch.setattr(
            access, "_scopes", SimpleNamespace(current=lambda _: None, former=lambda _: (None, False), newest=newest)
        )
        slow = [asyncio.create_task(access.reader(Caller("ada", ("slow/*",)))) for _ in range(3)]
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(10):
                assert (await access.reader(Caller("bob", ("other/*",)))).statements == "other/*"
            slow[0].cancel()
        finally:
            goes_on.set()
        assert [(await one).statements for one in slow[1:]] == ["slow/*"] * 2
        assert sorted(copied) == [("other/*",), ("slow/*",)]
        access._copying.shutdown()

    asyncio.run(work())
