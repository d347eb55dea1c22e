"""Beside a running daemon, the Api pulls and writes through it."""

from __future__ import annotations

import pytest

import mirror
from tests.daemon.conftest import Bench, bench

__all__ = ["bench"]


def test_pulls_and_writes_go_through_the_daemon(bench: Bench, monkeypatch) -> None:
    """The state file is the daemon's; the change is there for everybody when `update` returns."""
    there = bench.world.add_run("team", "p", run_id="one", config={"lr": 1})
    there.log_many({"loss": 10 - step} for step in range(10))
    there.finish()
    for name, value in bench.environ.items():
        monkeypatch.setenv(name, value)
    bench.configure(interval="1h")
    with bench.daemon():
        bench.until(lambda: bench.sql("select history_rows from runs") == [(10,)])
        api = mirror.Api(allow_delete=True)
        run = api.run("team/p/one")
        run.config["lr"] = 2
        run.update()
        assert (there.config, bench.sql("select config from runs"), run.config) == (
            {"lr": 2}, [('{"lr":2}',)], {"lr": 2},
        )  # fmt: skip
        bench.world.add_run("team", "p", run_id="two", config={}).finish()
        assert len(api.runs("team/p")) == 1
        api.flush()
        assert [run.id for run in api.runs("team/p")] == ["two", "one"]
        run.append_history([{"loss": -1}])
        assert bench.sql("select max(step) from history") == [(10,)]
        run.delete()
        assert bench.sql("select run_id from runs where deleted_at is null") == [("two",)]
        assert [run.id for run in api.runs("team/p")] == ["two"]


def test_what_the_server_lacks_is_a_comm_error_beside_a_daemon_too(bench: Bench, monkeypatch) -> None:
    """Whether a daemon runs does not decide what a script has to catch."""
    bench.world.add_run("team", "p", run_id="one", config={}).finish()
    for name, value in bench.environ.items():
        monkeypatch.setenv(name, value)
    bench.configure(interval="1h")
    with bench.daemon():
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
        for path in ("team/nope", "team/p/nope"):
            with pytest.raises(mirror.CommError) as caught:
                mirror.Api().flush(path)
            assert "nope" in str(caught.value)
            assert caught.value.exc is not None
