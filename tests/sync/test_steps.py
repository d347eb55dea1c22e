"""Steps of any kind: counted, of a clock, far apart. What they cost follows the rows and not how far apart they are."""

from __future__ import annotations

import pytest

from mirror.remote import errors, history
from mirror.sync import plan, request_windows
from tests.sync.rig import rig as make_rig

pytestmark = pytest.mark.xdist_group("steps")

ROWS = 50
EPOCH = 1_764_000_000

PATTERNS = {
    "counted": lambda i: i,
    "from 61010": lambda i: 61_010 + i,
    "frames": lambda i: 4096 * i,
    "milliseconds": lambda i: EPOCH * 10**3 + 1_001 * i,
    "microseconds": lambda i: EPOCH * 10**6 + 1_000_003 * i,
    "nanoseconds": lambda i: EPOCH * 10**9 + 1_000_000_007 * i,
    "nanoseconds, days apart": lambda i: EPOCH * 10**9 + 86_400 * 10**9 * i,
    "two clusters": lambda i: i if i % 2 else 10**15 + i,
    "doubling": lambda i: 2**i,
    "one far off": lambda i: i or 2**62,
}


def steps(pattern, rows):
    return sorted(PATTERNS[pattern](i) for i in range(rows))


def add(rig, run_id, at, *, text="", state="finished"):
    run = rig.world.add_run("team", "p", run_id=run_id)
    note = {"note": text} if text else {}
    run.log_many([{"_step": step, "loss": float(number), **note} for number, step in enumerate(at)])
    if state != "running":
        run.finish()
    return run


def cost(rig, **options):
    rig.sandbox.reset_counts()
    result = rig.sync(**options)["team/p"]
    assert (result.error, result.failed) == (None, {})
    return sum(rig.sandbox.requests.values())


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """What rows with steps 0, 1, 2, ... cost: few rows, and many that make several answers."""
    costs = {}
    for rows in (ROWS, 3000):
        with make_rig(tmp_path_factory.mktemp("counted")) as rig:
            add(rig, "run", range(rows), text="x" * 8000 if rows > ROWS else "")
            costs[rows] = cost(rig)
    return costs


@pytest.mark.parametrize("pattern", PATTERNS)
def test_few_rows_cost_as_much_whatever_their_steps(rig, counted, pattern):
    at = steps(pattern, ROWS)
    run = add(rig, "run", at, state="running")
    assert cost(rig) <= counted[ROWS] + 1
    assert rig.history("run") == [(step, float(number)) for number, step in enumerate(at)]
    # What follows comes in a request, as in every pass over a live run.
    run.log({"loss": 7.0}, step=at[-1] + max(at[-1] - at[-2], 1))
    assert cost(rig) <= 3
    assert rig.history("run")[ROWS:] == [(run.history.last_step, 7.0)]
    run.finish()
    assert cost(rig) <= 3


@pytest.mark.parametrize("pattern", [name for name in PATTERNS if name not in ("doubling", "one far off")])
def test_many_rows_cost_at_most_twice_as_much_and_a_little(rig, counted, pattern):
    at = steps(pattern, 3000)
    add(rig, "run", at, text="x" * 8000)
    assert cost(rig) <= 2 * counted[3000] + 8
    assert rig.history("run") == [(step, float(number)) for number, step in enumerate(at)]


def test_many_runs_of_a_clocks_steps_share_requests(rig):
    for index in range(60):
        add(rig, f"run{index:02}", steps("nanoseconds", 20))
    assert cost(rig) <= 6
    assert rig.sql("select count(*), count(distinct run_id) from history where key = 'loss'") == [(1200, 60)]


def test_a_server_that_does_not_tell_the_last_step_is_read_to_the_end_of_a_clocks_steps(rig, monkeypatch):
    monkeypatch.setattr("mirror.remote.run_records._last_step", lambda *_: None)
    at = steps("nanoseconds", ROWS)
    run = add(rig, "run", at, state="running")
    assert cost(rig) <= 3
    run.log({"loss": 50.0}, step=at[-1] + 10**9)
    assert cost(rig) <= 3
    assert rig.history("run") == [(step, float(number)) for number, step in enumerate([*at, at[-1] + 10**9])]


def test_a_count_that_is_too_low_loses_no_row(rig, monkeypatch):
    """An answer that reaches the samples that it was asked for is asked for again in parts."""
    monkeypatch.setattr(request_windows, "FEWEST_SAMPLES", 4)
    described = "mirror.sandbox.history.Lines.__len__"
    at = steps("nanoseconds", ROWS)
    run = add(rig, "run", at, state="running")
    monkeypatch.setattr(described, lambda self: 3)
    rig.sync()
    assert rig.history("run") == [(step, float(number)) for number, step in enumerate(at)]
    assert run.history.last_step == at[-1]


def test_an_answer_that_is_too_much_is_asked_for_in_parts(rig, monkeypatch):
    """Not in pieces of the steps, most of which would hold no row."""
    ask = history.fetch
    asked = []

    async def fetch(server, project, windows):
        asked.append(sum(window.samples for window in windows))
        if asked[-1] > 60:
            raise errors.TooMuch("too much for one answer")
        return await ask(server, project, windows)

    monkeypatch.setattr(history, "fetch", fetch)
    at = steps("nanoseconds", ROWS)
    add(rig, "run", at)
    assert rig.sync()["team/p"].failed == {}
    assert rig.history("run") == [(step, float(number)) for number, step in enumerate(at)]
    assert len(asked) <= 20


def test_live_runs_go_on_beside_a_run_of_a_clocks_steps(rig):
    add(rig, "clock", steps("nanoseconds", ROWS))
    run = add(rig, "live", range(3), state="running")
    rig.sync()
    run.log({"loss": 3.0}, step=3)
    rig.world.run("team", "p", "clock").edit(notes="x")
    assert cost(rig) <= 3
    assert rig.history("live")[-1] == (3, 3.0)


def test_exports_are_used_before_lines_where_lines_did_not_add_up(rig, monkeypatch):
    """Whatever the count of the rows."""
    at = steps("nanoseconds", ROWS)
    run = add(rig, "run", at)
    run.export_history()
    page = "mirror.sandbox.history.Lines.page"
    with monkeypatch.context() as patch:
        patch.setattr(page, lambda self, *bounds: self.ordered()[1][::2])
        assert list(rig.sync()["team/p"].failed) == ["run"]
        patch.setattr(plan, "waits", lambda *_: False)
        rig.sync()
    assert rig.sandbox.requests["parquet"] == 1
    assert rig.sql("select history_rows from runs") == [(ROWS,)]
