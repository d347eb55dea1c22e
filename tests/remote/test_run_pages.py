"""A list that is read from both of its ends has every run once, whatever the server does meanwhile."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from datetime import datetime, timedelta

import pytest

from mirror.errors import CommError
from mirror.remote import page_size, queries
from mirror.remote.client import Server
from mirror.remote.page_size import PageSize
from mirror.remote.run_pages import RunPages
from mirror.sandbox import Sandbox, World, listing
from mirror.sandbox.errors import Refused
from mirror.store.records import ProjectKey
from tests.sync.rig import HASTY

START = datetime(2026, 3, 1)
PROJECT = ProjectKey("team", "p")
UNCOUNTED = {"name": {"$ne": "another"}}
"""Matches every run, but the server counts only those of the scope."""


class FixedSize(PageSize):
    """Pages of so many runs."""

    def learn(self, runs: int, size: int) -> None:
        """Learn nothing."""


class Listed:
    """Reads the list of a world; `between` is called after each answer with the number of answers so far."""

    def __init__(self, world, size=5, between=None, filters=None, fields=queries.HEAD_FIELDS, fault=None):
        self.requests = []
        self.answers = 0
        self.pages = []
        with Sandbox(world) as sandbox:
            asyncio.run(self._read(sandbox, size, between, filters or {}, fields, fault))

    async def _read(self, sandbox, size, between, filters, fields, fault):
        async with Server(sandbox.url, sandbox.key, retry=HASTY) as server:
            send = server.graphql

            async def noted(operation, document, variables, **options):
                self.requests.append((variables["order"], variables["first"]))
                data = await send(operation, document, variables, **options)
                self.answers += 1
                if between is not None:
                    between(self.answers)
                if fault is not None and self.answers == 1:
                    sandbox.faults.add(**fault)
                return data

            server.graphql = noted
            pages = RunPages(
                server,
                PROJECT,
                fields,
                scope={},
                filters=filters,
                size=size if isinstance(size, PageSize) else FixedSize(size),
            )
            async with aclosing(pages.read()) as found:
                async for page in found:
                    self.pages.append([node["name"] for node in page.nodes])

    @property
    def names(self):
        return [name for page in self.pages for name in page]

    @property
    def newest_first(self):
        """The number of requests for the newest runs."""
        return sum(order.startswith("-") for order, _ in self.requests)


def add(world, number, at):
    world.add_run("team", "p", run_id=f"r{number:03}", state="finished", created_at=at)


def world_of(times):
    world = World()
    world.add_project("team", "p")
    for number, at in enumerate(times):
        add(world, number, START + timedelta(seconds=at))
    return world


def everything(count):
    return [f"r{number:03}" for number in range(count)]


def test_a_long_list_is_read_from_both_ends_with_hardly_more_requests():
    found = Listed(world_of(range(100)), size=10)
    assert sorted(found.names) == everything(100)
    assert len(found.requests) <= 12
    assert 2 <= found.newest_first <= 8
    assert all(page == sorted(page) for page in found.pages)


def test_what_the_other_end_receives_makes_no_page_smaller(monkeypatch):
    monkeypatch.setattr(page_size, "PAGE_BYTES", 10_000)
    monkeypatch.setattr(page_size, "GROWTH", 2)
    found = Listed(world_of(range(900)), PageSize(10))
    assert sorted(found.names) == everything(900)
    largest = max(first for _, first in found.requests)
    assert [first for _, first in found.requests[4:-2] if first < largest * 0.8] == []


@pytest.mark.parametrize(("count", "size"), [(15, 5), (16, 5), (20, 5), (21, 5), (100, 7), (101, 50)])
def test_ends_that_meet_between_two_pages_cost_one_small_request(count, size):
    found = Listed(world_of(range(count)), size)
    assert sorted(found.names) == everything(count)
    assert len(found.requests) <= -(-count // size) + 2


@pytest.mark.parametrize("count", [0, 1, 5, 6, 10])
def test_a_list_of_two_pages_is_read_from_one_end(count):
    found = Listed(world_of(range(count)))
    assert found.names == everything(count)
    assert found.newest_first == 0
    assert len(found.requests) == (1 if count <= 5 else 2)


@pytest.mark.parametrize("filters", [None, UNCOUNTED], ids=["counted", "uncounted"])
@pytest.mark.parametrize("seed", range(12))
def test_runs_that_were_created_at_the_same_time_are_all_read(seed, filters):
    draw = random.Random(seed)
    count, size = draw.randint(11, 80), draw.randint(1, 9)
    times = sorted(draw.choice([draw.random() * 3, float(draw.randint(0, 3)), 2.0]) for _ in range(count))
    found = Listed(world_of(times), size, filters=filters)
    assert sorted(found.names) == everything(count)


def test_runs_that_were_all_created_at_the_same_time_are_read_from_one_end_to_the_other():
    found = Listed(world_of([0] * 60))
    assert sorted(found.names) == everything(60)
    assert len(found.requests) < 24

    a_thousand = Listed(world_of([0] * 1000), 100)
    assert sorted(a_thousand.names) == everything(1000)
    assert len(a_thousand.requests) < 21


@pytest.mark.parametrize("how", ["oldest first", "newest first", "anyhow", "as it was added"])
@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("filters", [None, UNCOUNTED], ids=["counted", "uncounted"])
def test_a_server_that_does_not_order_them_is_read_to_the_end(monkeypatch, how, size, filters):
    ordered = listing.ordered

    def otherwise(runs, order):
        if how == "anyhow":
            return random.Random(order).sample(runs, len(runs))
        return ordered(runs, {"oldest first": "+created_at", "newest first": "-created_at"}.get(how, "+name"))

    monkeypatch.setattr(listing, "ordered", otherwise)
    assert sorted(Listed(world_of(range(37)), size, filters=filters).names) == everything(37)


def test_a_server_that_cannot_sort_the_other_way_is_read_from_one_end(monkeypatch):
    ordered = listing.ordered

    def one_way(runs, order):
        if order.startswith("-"):
            raise Refused("invalid order", 400)
        return ordered(runs, order)

    monkeypatch.setattr(listing, "ordered", one_way)
    found = Listed(world_of(range(37)))
    assert found.names == everything(37)
    assert found.newest_first == 1


def test_an_error_at_the_older_end_is_raised(monkeypatch):
    ordered = listing.ordered

    def other_way(runs, order):
        if order.startswith("+"):
            raise Refused("invalid order", 400)
        return ordered(runs, order)

    monkeypatch.setattr(listing, "ordered", other_way)
    with pytest.raises(CommError, match="invalid order"):
        Listed(world_of(range(37)))


@pytest.mark.parametrize("answers", range(1, 9))
def test_runs_that_are_created_meanwhile_hide_no_others(answers):
    world = world_of(range(60))

    def create(number):
        if number == answers:
            for index in range(60, 67):
                add(world, index, START + timedelta(seconds=index))

    found = Listed(world, between=create)
    assert set(everything(60)) <= set(found.names) <= set(everything(67))
    assert len(found.names) == len(set(found.names))


@pytest.mark.parametrize("answers", range(2, 7))
def test_a_run_that_is_created_meanwhile_with_an_earlier_time_is_found(answers):
    """As one that is uploaded later, where the older end has not been yet."""
    world = world_of(range(60))

    def create(number):
        if number == answers:
            add(world, 60, START + timedelta(seconds=57.5))

    assert sorted(Listed(world, between=create).names) == everything(61)


@pytest.mark.parametrize("answers", range(2, 9))
def test_a_new_run_that_is_deleted_meanwhile_hides_no_other(answers):
    world = world_of(range(60))

    def delete(number):
        if number == answers:
            world.delete_run("team", "p", "r059")

    found = Listed(world, between=delete)
    assert set(everything(59)) <= set(found.names)
    assert len(found.names) == len(set(found.names))


@pytest.mark.parametrize("filters", [None, UNCOUNTED], ids=["counted", "uncounted"])
def test_a_cursor_that_leads_nowhere_at_the_newer_end_hides_no_run(monkeypatch, filters):
    connection = listing.connection

    def stuck(items, after, first):
        answer = connection(items, after, first)
        if after and len(items) > 1 and items[0].created_at > items[-1].created_at:
            answer["pageInfo"]["endCursor"] = after
        return answer

    monkeypatch.setattr(listing, "connection", stuck)
    assert sorted(Listed(world_of(range(60)), filters=filters).names) == everything(60)


@pytest.mark.parametrize("wrong", [0, 20, 1000])
def test_a_server_that_miscounts_hides_no_run(monkeypatch, wrong):
    monkeypatch.setattr(listing.Listing, "count", lambda *_: wrong)
    found = Listed(world_of(range(60)))
    assert sorted(found.names) == everything(60)
    assert len(found.requests) < 30


def test_a_list_of_some_of_the_runs_in_the_scope():
    world = world_of(range(90))
    wanted = everything(90)[::3]
    found = Listed(world, 4, filters={"name": {"$in": wanted}})
    assert sorted(found.names) == wanted
    assert found.newest_first > 0


def test_without_times_of_creation_it_is_read_from_one_end():
    found = Listed(world_of(range(60)), fields=queries.KEYS_FIELDS)
    assert found.names == everything(60)
    assert found.newest_first == 0


def test_times_that_are_sent_in_whole_seconds_hide_no_run(monkeypatch):
    """Some servers order by parts of a second and send none."""
    world = world_of([number / 7 for number in range(60)])
    monkeypatch.setattr("mirror.sandbox.instants.text", lambda at: at and at.replace(microsecond=0).isoformat() + "Z")
    assert sorted(Listed(world, filters=UNCOUNTED).names) == everything(60)


@pytest.mark.parametrize("order", ["+created_at", "-created_at"])
def test_where_an_answer_fails_one_end_goes_on_alone(order):
    """Else a run that cannot be answered would be requested from both sides, in pages of each size."""
    fault = {"kind": "500", "times": 3, "operation": "MirrorRuns", "about": f'"order":"{order}"'}
    found = Listed(world_of(range(60)), fault=fault)
    assert sorted(found.names) == everything(60)
    assert len(found.requests) < 25
