"""The example queries run, and say what their first lines promise."""

from __future__ import annotations

from datetime import datetime, timedelta

from mirror.store import console, history, projects, sqlfiles
from mirror.store.records import ConsolePage
from tests.store.kit import NOW, PROJECT, curve, page, read, run, write

HERE = ("team", "vision")


def example(store, name):
    text = sqlfiles.read("examples")[name]
    assert text.startswith("-- ")
    return read(store, text)


def test_each_example_has_a_test():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(sqlfiles.read("examples")) <= tested


def test_best_runs(store):
    write(
        store,
        run("good", config={"lr": 0.1}, summary={"val/acc": 0.9}),
        run("better", summary={"val/acc": 0.95}),
        run("diverged", summary={"val/acc": float("nan")}),
        run("live", state="running", summary={"val/acc": 0.99}),
    )
    assert example(store, "best_runs") == [
        (*HERE, "better", "brave-sun-1", 0.95, None),
        (*HERE, "good", "brave-sun-1", 0.9, 0.1),
    ]


def test_loss_curves(store):
    write(store, run(), run("short"), history=[curve("a1", range(1000)), curve("short", [5])])
    rows = example(store, "loss_curves")
    assert len(rows) == 101
    assert rows[0] == (*HERE, "a1", 0, sum(1 / (step + 1) for step in range(10)) / 10)
    assert rows[-1] == (*HERE, "short", 5, 1 / 6)


def test_group_means(store):
    adam, sgd = {"optimizer": "adam"}, {"optimizer": "sgd"}
    pages = [page(run_id, [(0, "loss", value, None)]) for run_id, value in (("a", 1.0), ("b", 3.0), ("c", 7.0))]
    write(store, run("a", config=adam), run("b", config=adam), run("c", config=sgd), history=pages)
    assert example(store, "group_means") == [
        (*HERE, "adam", 2, 2.0, 2**0.5),
        (*HERE, "sgd", 1, 7.0, None),
    ]


def test_metrics_by_step(store):
    points = [(0, "loss", 1.0, None), (0, "_timestamp", 1.5, None), (1, "loss", 0.5, None), (1, "val/acc", 0.9, None)]
    write(store, run(), history=[page("a1", points)])
    assert example(store, "metrics_by_step") == [
        (*HERE, "a1", 0, 1.0, None, datetime(1970, 1, 1, 0, 0, 1, 500_000)),
        (*HERE, "a1", 1, 0.5, 0.9, None),
    ]


def test_edits_after_the_end(store):
    write(store, run(config={"lr": 0.1}, summary={"acc": 0.5}))
    write(store, run(name="renamed", config={"lr": 0.1}, summary={"acc": 0.6}))
    assert example(store, "edits_after_the_end") == [(*HERE, "a1", "renamed", NOW, "summary.acc", "0.5", "0.6")]


def test_runs_by_hardware(store):
    write(
        store,
        run("a", info={"gpu": "H100"}, host="n1", duration_s=3600.0),
        run("b", info={"gpu": "H100"}, host="n2", duration_s=1800.0),
        run("c", info={"gpu": "A100"}, host="n1", duration_s=7200.0),
        run("d", info={"os": "Linux"}),
    )
    assert example(store, "runs_by_hardware") == [(*HERE, "H100", 2, 2, 1.5), (*HERE, "A100", 1, 1, 2.0)]


def test_last_console_lines(store):
    write(store, run("bad", state="failed"), run("good"))
    lines = [(number, None, "error" if number == 4 else None, f"line {number}") for number in range(5)]
    with store.transaction() as tx:
        console.put_console(tx, PROJECT, [ConsolePage(run_id, 0, lines, last=True) for run_id in ("bad", "good")])
    assert example(store, "last_console_lines") == [
        (*HERE, "bad", 2, None, "line 2"),
        (*HERE, "bad", 3, None, "line 3"),
        (*HERE, "bad", 4, "error", "line 4"),
    ]


def test_sweep_leaderboard(store):
    pages = [
        page(run_id, [(0, "loss", 9.0, None), (1, "loss", loss, None)]) for run_id, loss in (("a", 3.0), ("b", 2.0))
    ]
    write(store, run("a", sweep="s1", config={"lr": 0.1, "opt": "adam"}), run("b", sweep="s1"), run("c"), history=pages)
    assert example(store, "sweep_leaderboard") == [
        (*HERE, "s1", 1, "b", "brave-sun-1", "finished", 2.0, None),
        (*HERE, "s1", 2, "a", "brave-sun-1", "finished", 3.0, "lr=0.1, opt=adam"),
    ]


def test_run_states_by_day(store):
    write(store, run("a"), run("b", state="failed"), run("c"), run("d", created_at=datetime(2026, 11, 21, 23, 59)))
    assert example(store, "run_states_by_day") == [
        (*HERE, datetime(2026, 11, 21), "finished", 1),
        (*HERE, datetime(2026, 11, 22), "failed", 1),
        (*HERE, datetime(2026, 11, 22), "finished", 2),
    ]


def test_gpu_hours_by_user(store):
    write(store, run("a", duration_s=7200.0), run("b", duration_s=3600.0), run("c", username="bob", duration_s=None))
    keys = ["system.gpu.0.gpu", "system.gpu.1.gpu", "system.gpu.1.memory", "system.cpu"]
    with store.transaction() as tx:
        history.replace_system_metrics(
            tx, PROJECT, page("a", [(step, key, 50.0, None) for key in keys for step in (0, 1)])
        )
    month = datetime(2026, 11, 1)
    assert example(store, "gpu_hours_by_user") == [("ann", month, 2, 3.0, 4.0), ("bob", month, 1, None, 0.0)]


def test_stale_runs(store):
    long_ago, just_now = NOW - timedelta(minutes=45), NOW - timedelta(minutes=5)
    write(
        store,
        run("lost", state="running", heartbeat_at=long_ago),
        run("live", state="running", heartbeat_at=just_now),
        run("over", heartbeat_at=long_ago),
    )
    with store.transaction() as tx:
        projects.record_success(tx, PROJECT, NOW)
    assert example(store, "stale_runs") == [(*HERE, "lost", "brave-sun-1", "ann", "box", long_ago, 45)]
