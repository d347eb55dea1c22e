"""The history of a run beside the x axes that define_metric gave its keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from mirror.query import run_table
from mirror.settings.home import Home
from mirror.store import history, projects, runs
from mirror.store.store import Store
from tests.query.conftest import SYNCED, VISION, page
from tests.query.conftest import run as record

DEFINED = [
    {"1": "epoch"},
    {"2": "val/*", "5": 1, "6": [2], "7": [1]},
    {"1": "val/by_hour", "4": "hour"},
    {"1": "test", "4": "never"},
    {"1": "note", "4": "word"},
    {"2": "sys\\.*", "4": "clock\\.s"},
    {"1": "own", "4": "step"},
    {"1": "loss"},
]
"""As the official client writes it: 1 name, 2 pattern, 4 and 5 the axis by name and by place, 6 hidden, 7 summary."""

LOGGED: dict[str, dict[int, Any]] = {
    "epoch": {1: 0.0, 4: 1.0, 6: float("nan"), 8: 0.5},
    "hour": {0: 9.0, 7: 10.0},
    "word": {0: "one"},
    "clock.s": {2: 1.5},
    "step": {0: 100.0, 8: 200.0},
    "none": {5: 7.0},
    "loss": {step: 1 / (step + 1) for step in range(10)},
    "val/loss": {0: 9.0, 2: 0.5, 5: 0.25, 6: 0.125, 9: 0.0625},
    "val/by_hour": {6: 1.0, 7: 2.0},
    "test": {9: 0.75},
    "note": {3: "début"},
    "sys.load": {1: 0.1, 3: 0.3},
    "own": {4: 4.0},
}


def publish(data: Path, tail_values: int) -> Home:
    home = Home(data, data / "config.toml")
    store = Store.open(home, tail_values=tail_values)
    with store.transaction() as tx:
        projects.add(tx, VISION)
        runs.upsert(tx, [record(VISION, "axes", 0, config_meta={"m": DEFINED})], now=SYNCED)
        runs.upsert(tx, [record(VISION, "plain", 1)], now=SYNCED)
        history.append(tx, VISION, [page("axes", LOGGED), page("plain", LOGGED)])
        projects.record_success(tx, VISION, SYNCED)
    store.seal()
    store.publish()
    store.close()
    return home


@pytest.fixture(scope="module", params=[10_000, 1], ids=["tail", "segments"])
def axes_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Home:
    return publish(tmp_path_factory.mktemp("axes") / "mirror", request.param)


@pytest.fixture
def shown(axes_home: Home, cli: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `mirror history axes` prints; it must succeed, and say nothing else unless that is asked for."""
    monkeypatch.setenv("MIRROR_HOME", str(axes_home.data))

    def run(*arguments: str, run_id: str = "axes", said: str = "") -> str:
        outcome = cli("history", run_id, *arguments)
        assert (outcome.exit_code, outcome.stderr) == (0, said)
        return str(outcome.stdout)

    return run


def test_a_key_comes_with_the_axis_that_define_metric_gave_it(shown: Any) -> None:
    """Its last finite value at or before the step: none before the first, and it may go back."""
    assert shown("--keys", "val/loss") == (
        "step\tepoch\tval/loss\n0\t\t9.0\n2\t0.0\t0.5\n5\t1.0\t0.25\n6\t1.0\t0.125\n9\t0.5\t0.0625\n"
    )
    assert json.loads(shown("--keys", "val/loss", "--json", "--samples", "2")) == [
        {"step": 0, "epoch": None, "val/loss": 9.0},
        {"step": 9, "epoch": 0.5, "val/loss": 0.0625},
    ]


def test_each_axis_is_one_column_and_keys_without_one_have_none(shown: Any) -> None:
    """Globs and hidden keys, too; an axis stands at every row, whichever key it is of."""
    header, *rows = [line.split("\t") for line in shown("--keys", "val/*,loss").splitlines()]
    assert header == ["step", "hour", "epoch", "val/by_hour", "val/loss", "loss"]
    assert [row[:5] for row in rows] == [
        ["0", "9.0", "", "", "9.0"],
        ["1", "9.0", "0.0", "", ""],
        ["2", "9.0", "0.0", "", "0.5"],
        ["3", "9.0", "0.0", "", ""],
        ["4", "9.0", "1.0", "", ""],
        ["5", "9.0", "1.0", "", "0.25"],
        ["6", "9.0", "1.0", "1.0", "0.125"],
        ["7", "10.0", "1.0", "2.0", ""],
        ["8", "10.0", "0.5", "", ""],
        ["9", "10.0", "0.5", "", "0.0625"],
    ]


def test_nested_keys_have_nested_axes(shown: Any) -> None:
    assert shown("--keys", "sys.*") == "step\tclock.s\tsys.load\n1\t\t0.1\n3\t1.5\t0.3\n"


def test_an_axis_called_step_stands_beside_the_step(shown: Any) -> None:
    assert shown("--keys", "own") == "_step\tstep\town\n4\t100.0\t4.0\n"


def test_an_axis_among_the_keys_is_one_column_that_keeps_what_was_logged(shown: Any) -> None:
    """Only its empty cells are filled. Without an axis of its own it is a key like any other."""
    assert shown("--keys", "val/loss,epoch") == (
        "step\tepoch\tval/loss\n0\t\t9.0\n1\t0.0\t\n2\t0.0\t0.5\n4\t1.0\t\n5\t1.0\t0.25\n"
        "6\tnan\t0.125\n8\t0.5\t\n9\t0.5\t0.0625\n"
    )
    assert shown("--keys", "epoch") == "step\tepoch\n1\t0.0\n4\t1.0\n6\tnan\n8\t0.5\n"


def test_without_keys_everything_is_as_it_was_logged(shown: Any) -> None:
    """Axes come first; no cell is filled, and no key is left out because it is hidden."""
    rows = json.loads(shown("--json"))
    axes = ["step", "clock.s", "hour", "epoch"]
    keys = sorted(LOGGED.keys() - axes)
    assert [list(row) for row in rows] == [["_step", *axes, *keys]] * 10
    assert [row["epoch"] for row in rows] == [None, 0.0, None, None, 1.0, None, "NaN", None, 0.5, None]
    ordered = [{"_step": row["_step"], **{key: row[key] for key in sorted(LOGGED)}} for row in rows]
    assert [list(row.items()) for row in ordered] == [
        list(row.items()) for row in json.loads(shown("--json", run_id="plain"))
    ]


def test_the_step_alone(shown: Any) -> None:
    """`none` is the key of that name where the run logged one."""
    alone = "step\tval/loss\n0\t9.0\n2\t0.5\n5\t0.25\n6\t0.125\n9\t0.0625\n"
    assert shown("--keys", "val/loss", "--x", "_step") == alone
    assert shown("--keys", "val/loss", run_id="plain") == alone
    assert shown("--keys", "val/loss", "--x", "none").startswith("none\tstep\tval/loss\n7.0\t5\t0.25\n")
    assert shown("--keys", "own", "--x", "step").startswith("step\t_step\town\n100.0\t4\t4.0\n")


def test_an_axis_that_was_never_logged_is_named_and_left_out(shown: Any) -> None:
    """One that holds no number is none."""
    said = "warning: team/vision/axes never logged a number under {}, the x axis of {}: only the step is shown\n"
    assert shown("--keys", "test", said=said.format("never", "test")) == "step\ttest\n9\t0.75\n"
    assert shown("--keys", "note", said=said.format("word", "note")) == "step\tnote\n3\tdébut\n"


def test_another_axis_orders_the_rows(shown: Any) -> None:
    """Its last value at or before the step, as in a chart; rows before the first one are left out."""
    assert shown("--keys", "val/loss", "--x", "epoch") == (
        "epoch\tstep\tval/loss\n0.0\t2\t0.5\n0.5\t9\t0.0625\n1.0\t5\t0.25\n1.0\t6\t0.125\n"
    )
    assert shown("--keys", "val/loss", "--x", "epoch", "--samples", "2") == (
        "epoch\tstep\tval/loss\n0.0\t2\t0.5\n0.5\t9\t0.0625\n"
    )
    assert shown("--keys", "val/loss", "--x", "word", "--samples", "1") == "word\tstep\tval/loss\none\t0\t9.0\n"
    assert shown("--keys", "epoch", "--x", "epoch").splitlines()[1:] == ["0.0\t1", "0.5\t8", "1.0\t4", "1.0\t6"]


@pytest.mark.parametrize("arguments", [["--keys", "val/*,own,epoch"], ["--keys", "val/*", "--samples", "3"]], ids=str)
def test_where_the_rows_are_cut_does_not_show(
    shown: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """The value of an axis is carried over every cut."""
    whole = shown(*arguments)
    monkeypatch.setattr(run_table, "CELLS_AT_ONCE", 1)
    assert shown(*arguments) == whole
    monkeypatch.setattr(run_table, "VALUES_AT_ONCE", 1)
    assert shown(*arguments) == whole


def test_axes_are_numbers_in_files(shown: Any, tmp_path: Path) -> None:
    shown("--keys", "val/loss", "-o", str(tmp_path / "a.parquet"))
    table = parquet.read_table(tmp_path / "a.parquet")
    assert [(field.name, str(field.type)) for field in table.schema] == [
        *(("step", "int64"), ("epoch", "double"), ("val/loss", "double")),
    ]


@pytest.mark.parametrize(
    "options",
    [
        ["--keys", "val/*,loss"],
        ["--keys", "val/loss", "--samples", "3"],
        ["--keys", "epoch,val/loss,own"],
        ["--keys", "loss,note", "--x", "hour"],
        ["--keys", "loss,note", "--x", "epoch", "--samples", "4"],
        ["--keys", "loss", "--x", "word"],
        ["--x", "step"],
        [],
    ],
    ids=" ".join,
)
def test_runs_below_each_other_have_the_rows_of_each(shown: Any, options: list[str]) -> None:
    """Read together, with the axes of each run; a column that a run does not have is empty there."""
    both = [json.loads(line) for line in shown("plain", *options, "--format", "jsonl").splitlines()]
    for run in ("axes", "plain"):
        alone = [json.loads(line) for line in shown(*options, "--format", "jsonl", run_id=run).splitlines()]
        rows = [row for row in both if row["run_id"] == run]
        if "_step" in rows[0] and "_step" not in alone[0]:
            # The axis of the other run is a key `step`, which takes the name from the step.
            alone = [{"_step": row.pop("step"), **row} for row in alone]
        assert alone
        assert [{name: row[name] for name in one} for row, one in zip(rows, alone, strict=True)] == alone
        more = {name for row in rows for name, value in row.items() if value is not None} - set(alone[0])
        assert more == {"run_id", "name"}
