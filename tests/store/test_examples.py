"""The example queries run, and say what their first lines promise."""

from __future__ import annotations

from datetime import datetime, timedelta

from mirror.store import console, projects, sqlfiles, sweeps
from mirror.store import history as history_store
from mirror.store import runs as runs_store
from mirror.store.records import ConsolePage, SweepRecord
from tests.store.kit import NOW, PROJECT, curve, page, read, run, write

HERE = ("team", "vision")


def example(store, name):
    text = sqlfiles.read("examples")[name]
    assert text.startswith("-- ")
    return read(store, text)


def test_each_example_has_a_test():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(sqlfiles.read("examples")) <= tested


ANALYST = """
best_run_per_sweep last_tenth_means gpu_hours_by_user diverged_runs time_to_value compare_configs learning_rate_effect
failures_by_host metric_at_step duplicate_configs longest_idle_gap edits_after_the_end
"""


def test_an_analysts_questions_are_short():
    for name in ANALYST.split():
        comment, *sql = sqlfiles.read("examples")[name].splitlines()
        assert comment.startswith("-- ")
        assert len(sql) <= 8, name


def test_no_example_shows_a_deleted_run(store):
    config = {"lr": 0.1, "optimizer.name": "adam", "seed": 1}
    points = [(0, "loss", 0.5, None), (1, "loss", 0.7, None), (0, "_runtime", 1.0, None), (1, "_runtime", 2.0, None)]
    points += [(0, "_timestamp", 1.0, None), (1, "_timestamp", 9.0, None)]
    summary = {"val/acc": 0.9, "loss": 0.7}
    runs = [
        run("a", config={**config, "lr": 0.2}, summary=summary, sweep="s", info={"gpu": "H100", "gpu_count": 2}),
        run("b", config=config, summary=summary, sweep="s"),
        run("c", config=config, sweep="s", state="failed"),
        run("d", config=config, state="running", heartbeat_at=NOW - timedelta(hours=1)),
    ]
    names = [record.run_id for record in runs]
    write(store, *runs, history=[page(name, points) for name in names])
    write(
        store, run("a", config={**config, "lr": 0.3}, summary=summary, sweep="s", info={"gpu": "H100", "gpu_count": 2})
    )
    with store.transaction() as tx:
        console.put_console(tx, PROJECT, [ConsolePage("c", 0, [(0, None, None, "line")], last=True)])
        projects.record_success(tx, PROJECT, NOW)
        sweeps.keep(tx, PROJECT, [SweepRecord("s", "{}", metric="loss", goal="minimize")])
    assert [name for name in sqlfiles.read("examples") if not example(store, name)] == []
    with store.transaction() as tx:
        runs_store.mark_deleted(tx, PROJECT, names, at=NOW)
    assert [name for name in sqlfiles.read("examples") if example(store, name)] == []


def losses(store, **curves):
    """Runs with these losses, one a step, from runs made by `run`."""
    pages = [
        page(run_id, [(step, "loss", value, None) for step, value in enumerate(values)])
        for run_id, values in curves.items()
    ]
    with store.transaction() as tx:
        history_store.append(tx, PROJECT, pages)


def test_best_run_per_sweep(store):
    nan = float("nan")
    runs = {"a": ("s1", 3.0), "b": ("s1", 1.0), "c": ("s2", nan), "d": ("s2", 5.0), "e": ("s2", 4.0), "f": ("s3", 1.0)}
    write(store, *(run(run_id, sweep=sweep, summary={"loss": loss}) for run_id, (sweep, loss) in runs.items()))
    kept = [
        SweepRecord("s1", "{}", metric="loss", goal="minimize"),
        SweepRecord("s2", "{}", metric="loss", goal="maximize"),
        SweepRecord("s3", "{}", metric="loss", goal="minimize", deleted_at=NOW),
        SweepRecord("s4", "{}", metric="loss", goal="minimize"),
    ]
    with store.transaction() as tx:
        sweeps.keep(tx, PROJECT, kept)
    assert example(store, "best_run_per_sweep") == [
        (*HERE, "s1", "loss", "b", "brave-sun-1", 1.0, 2),
        (*HERE, "s2", "loss", "d", "brave-sun-1", 5.0, 3),
    ]


def test_last_tenth_means(store):
    adam, sgd = {"optimizer.name": "adam"}, {"optimizer.name": "sgd"}
    write(store, run("a", config=adam), run("b", config=adam), run("c", config=sgd), run("none"))
    losses(store, a=[9.0] * 18 + [1.0, 3.0], b=[9.0] * 9 + [6.0], c=[7.0], none=[0.0])
    assert example(store, "last_tenth_means") == [(*HERE, "adam", 2, 4.0), (*HERE, "sgd", 1, 7.0)]


def test_diverged_runs(store):
    write(store, run("good"), run("nan"), run("worse"), run("inf"))
    nan, inf = float("nan"), float("inf")
    losses(store, good=[3.0, 2.0], nan=[3.0, nan, 1.0], worse=[1.0, 2.0], inf=[1.0, 0.5, inf])
    rows = [(*row[2:3], *row[5:]) for row in example(store, "diverged_runs")]
    assert rows == [("inf", 2, 1.0, inf), ("nan", 1, 3.0, 1.0), ("worse", None, 1.0, 2.0)]


def test_time_to_value(store):
    losses = {"fast": [1.0, 0.4, 0.3], "slow": [1.0, 0.9, 0.5], "never": [1.0]}
    pages = [
        page(
            name,
            [
                (step, key, v, None)
                for step, loss in enumerate(values)
                for key, v in (("loss", loss), ("_runtime", 10.0 * step))
            ],
        )
        for name, values in losses.items()
    ]
    write(store, *(run(name) for name in losses), history=pages)
    assert example(store, "time_to_value") == [
        (*HERE, "fast", "brave-sun-1", 1, 10.0),
        (*HERE, "slow", "brave-sun-1", 2, 20.0),
    ]


def test_compare_configs(store):
    write(
        store,
        run("old", config={"lr": 9}, created_at=NOW - timedelta(days=3)),
        run("one", config={"lr": 1, "depth": 2, "seed": 5, "only": True}, created_at=NOW - timedelta(days=2)),
        run("two", config={"lr": 2, "depth": 2, "list": [1]}, created_at=NOW - timedelta(days=1)),
        run("live", config={"lr": 7}, created_at=NOW, state="running"),
    )
    assert example(store, "compare_configs") == [
        (*HERE, "lr", "1", "2"),
        (*HERE, "only", "true", None),
        (*HERE, "seed", "5", None),
    ]


def test_learning_rate_effect(store):
    rates = {"a": 1e-4, "b": 5e-4, "c": 9.9e-4, "d": 0.1, "zero": 0}
    write(store, *(run(name, config={"lr": rate}) for name, rate in rates.items()))
    losses(store, a=[3.0, 9.0], b=[2.0], c=[7.0], d=[1.0], zero=[0.0])
    assert example(store, "learning_rate_effect") == [(*HERE, -4, 3, 2.0, 3.0), (*HERE, -1, 1, 1.0, 1.0)]


def test_failures_by_host(store):
    write(
        store,
        run("a", host="n1"),
        run("b", host="n1", state="failed", created_at=NOW - timedelta(hours=1)),
        run("c", host="n1", state="crashed", created_at=NOW),
        run("d", host="n2"),
        run("e", host="n2", state="running"),
    )
    assert example(store, "failures_by_host") == [("n1", 3, 2, 66.7, NOW), ("n2", 1, 0, 0.0, None)]


def test_metric_at_step(store):
    write(store, run("long"), run("short"))
    points = {"long": [(49, 3.0), (50, 2.0), (51, 1.0)], "short": [(10, 1.5)]}
    with store.transaction() as tx:
        history_store.append(
            tx, PROJECT, [page(name, [(step, "loss", v, None) for step, v in rows]) for name, rows in points.items()]
        )
    assert example(store, "metric_at_step") == [
        (*HERE, "short", "brave-sun-1", 10, 1.5),
        (*HERE, "long", "brave-sun-1", 50, 2.0),
    ]


def test_duplicate_configs(store):
    write(
        store,
        run("b", config={"lr": 1, "model": {"depth": 2}, "seed": 2}, created_at=NOW),
        run("a", config={"model": {"depth": 2}, "lr": 1, "seed": 1}),
        run("c", config={"lr": 1, "model": {"depth": 3}}),
    )
    assert example(store, "duplicate_configs") == [(*HERE, 2, "a, b", "lr=1, model.depth=2")]


def test_longest_idle_gap(store):
    write(store, run("a"), run("b"), run("single"))
    times = {"a": [0, 5, 6], "b": [0, 1, 100], "single": [3]}
    with store.transaction() as tx:
        history_store.append(
            tx,
            PROJECT,
            [
                page(name, [(step, "_timestamp", float(at), None) for step, at in enumerate(rows)])
                for name, rows in times.items()
            ],
        )
    assert example(store, "longest_idle_gap") == [
        (*HERE, "b", "brave-sun-1", 99.0, 2),
        (*HERE, "a", "brave-sun-1", 5.0, 1),
    ]


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
    adam, sgd = {"optimizer": {"name": "adam"}}, {"optimizer": {"name": "sgd"}}
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
        (*HERE, "s1", 1, "b", "brave-sun-1", "finished", "loss", 2.0, None),
        (*HERE, "s1", 2, "a", "brave-sun-1", "finished", "loss", 3.0, "lr=0.1, opt=adam"),
    ]


def test_run_states_by_day(store):
    write(store, run("a"), run("b", state="failed"), run("c"), run("d", created_at=datetime(2026, 11, 21, 23, 59)))
    assert example(store, "run_states_by_day") == [
        (*HERE, datetime(2026, 11, 21), "finished", 1),
        (*HERE, datetime(2026, 11, 22), "failed", 1),
        (*HERE, datetime(2026, 11, 22), "finished", 2),
    ]


def test_gpu_hours_by_user(store):
    write(
        store,
        run("a", duration_s=7200.0, info={"gpu_count": 2}),
        run("b", duration_s=3600.0),
        run("c", username="bob", duration_s=None, info={"gpu_count": 8}),
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
