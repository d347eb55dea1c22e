"""What failed is tried again after a while, and at once if its time was set by a clock that was wrong."""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb
import pytest

from mirror.store import retries

NOW = datetime(2026, 3, 1, 12)


@pytest.mark.parametrize(
    ("in_seconds", "waits"),
    [(None, False), (-1, False), (0, False), (1, True), (6 * 3600, True), (6 * 3600 + 1, False), (10**9, False)],
)
def test_a_try_far_in_the_future_is_due(in_seconds, waits):
    at = None if in_seconds is None else NOW + timedelta(seconds=in_seconds)
    assert retries.waits(at, NOW) is waits
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT {retries.due('t')} FROM (SELECT ?::TIMESTAMP AS t)", [NOW, at]).fetchall()
    assert found == [(not waits,)]


@pytest.mark.parametrize(
    ("attempts", "after", "minutes"),
    [
        (0, None, 1),
        (1, None, 4),
        (4, None, 256),
        (5, None, 360),
        (99, None, 360),
        (0, 600, 10),
        (3, 600, 64),
        (0, 1e300, 360),
    ],
)
def test_waits_grow_to_the_longest_and_a_server_may_make_them_longer_until_there(attempts, after, minutes):
    assert retries.retry_at(attempts, NOW, after) - NOW == timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("done", "changed", "again"),
    [
        (None, 0, True),
        (-10, -5, True),
        (-5, -10, False),
        # The clock was set back: the change came after it, or before.
        (100, -5, True),
        (100, 90, False),
        (-5, 90, True),
    ],
)
def test_what_was_done_in_the_future_is_done_again_for_a_change_that_comes_now(done, changed, again):
    at = [None if one is None else NOW + timedelta(seconds=one) for one in (done, changed)]
    asked = f"SELECT {retries.outdated('d', 'c', '$now')} FROM (SELECT $d::TIMESTAMP AS d, $c::TIMESTAMP AS c)"
    with duckdb.connect() as connection:
        found = connection.execute(asked, {"now": NOW, "d": at[0], "c": at[1]}).fetchall()
    assert found == [(again,)]
