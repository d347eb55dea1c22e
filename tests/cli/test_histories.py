"""`mirror history` of several runs: below each other, or side by side."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from mirror.snapshot import series

VISION = ("history", "--project", "team/vision")


def test_runs_stand_below_each_other_with_their_names(look: Any) -> None:
    """The columns are those of all; a key that is text in one run is text in all."""
    done = look("history", "aaa", "deep", "song", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    empty = {"loss": None, "note": None, "wer": None}
    first = {"project": "team/vision", "run_id": "aaa", "name": "baseline"}
    assert rows[1] == {**first, "step": 1, **empty, "loss": 0.5, "note": "début"}
    assert rows[8:] == [
        {"project": "team/vision", "run_id": "bbb", "name": "deep", "step": 0, **empty, "loss": 3.0},
        {"project": "team/vision", "run_id": "bbb", "name": "deep", "step": 2, **empty, "loss": "NaN"},
        {"project": "team/audio", "run_id": "ggg", "name": "song", "step": 0, **empty, "wer": 0.5},
    ]


def test_the_runs_of_a_filter(look: Any) -> None:
    """Those without the keys are counted; a project's single run keeps its columns."""
    done = look(*VISION, "--keys", "lo*", "--samples", "2", "--csv")
    assert (
        done.stdout
        == "run_id,name,step,loss\naaa,baseline,0,1.0\naaa,baseline,7,0.125\nbbb,deep,0,3.0\nbbb,deep,2,nan\n"
    )
    assert done.stderr == "warning: 4 of 6 runs logged none of the keys and are left out\n"
    one = look(*VISION, "--where", "name=baseline", "--keys", "loss", "--limit", "2", "--csv")
    assert one.stdout == "run_id,name,step,loss\naaa,baseline,0,1.0\naaa,baseline,1,0.5\n"
    assert one.stderr == "2 of 8 rows\n"
    over = look("history", "aaa", "bbb", "--x", "loss", "--keys", "note", "--csv")
    assert over.stdout == "run_id,name,loss,step,note\naaa,baseline,0.5,1,début\n"


def test_wide_is_a_column_per_run(look: Any, tmp_path: Path) -> None:
    """One row per step that any of them logged."""
    done = look("history", "aaa", "bbb", "--keys", "loss", "--wide", "--csv")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:4] == ["step,baseline,deep", "0,1.0,3.0", "1,0.5,", f"2,{1 / 3},nan"]
    assert len(lines) == 9
    both = look(*VISION, "--keys", "loss,note", "--wide", "--samples", "3", "--csv")
    assert both.stdout.splitlines()[:2] == ["step,loss of baseline,loss of deep,note of baseline", "0,1.0,3.0,"]
    assert both.stderr == "warning: 4 of 6 runs logged none of the keys and are left out\n"
    file = tmp_path / "wide.parquet"
    look("history", "aaa", "bbb", "--keys", "loss", "--wide", "--limit", "2", "-o", str(file))
    table = parquet.read_table(file)
    assert table.column_names == ["step", "baseline", "deep"]
    assert table.to_pylist() == [{"step": 0, "baseline": 1.0, "deep": 3.0}, {"step": 1, "baseline": 0.5, "deep": None}]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["aaa", "bbb", "--keys", "los"], 1, "none of the runs logged los; did you mean loss?"),
        (["aaa", "bbb", "--keys", "los", "--wide"], 1, "none of the runs logged los; did you mean loss?"),
        (["aaa", "bbb", "--x", "los"], 1, "none of the runs logged los; did you mean loss?"),
        (["ccc", "ddd"], 1, "none of the runs has history"),
        (["aaa", "--wide"], 2, "--wide needs --keys: one column per run is the values of one key, as in --keys loss"),
        (["aaa", "--wide", "--keys", "loss", "--x", "loss"], 2, "--wide has one row per step: leave --x out"),
        ([], 2, "which runs? name them, or give --project E/P, and --where TERM for some of its runs"),
        (["aaa", "--where", "state=x"], 2, "which runs? name them, or give --project E/P, and --where TERM for some of its runs"),
        (["--project", "team/vision", "--where", "state=x"], 2, "no run matches"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_one_line(look: Any, arguments: list[str], code: int, message: str) -> None:
    """And what to do instead."""
    done = look("history", *arguments)
    assert (done.exit_code, done.stdout, done.stderr.splitlines()[-1]) == (code, "", f"error: {message}")


def test_an_unknown_key_beside_known_ones_is_named_once(look: Any) -> None:
    """Not once per run."""
    done = look("history", "aaa", "bbb", "--keys", "loss,los", "--wide", "--csv")
    assert (done.exit_code, done.stderr) == (0, "warning: none of the runs logged los; did you mean loss?\n")
    assert math.isnan(float(done.stdout.splitlines()[3].rpartition(",")[2]))


@pytest.mark.parametrize(
    "options",
    [
        ["--keys", "loss"],
        ["--keys", "loss", "--wide"],
        [],
        ["--keys", "note,loss", "--samples", "3"],
        ["--keys", "note,wer", "--x", "loss"],
        ["--x", "loss", "--samples", "2"],
        ["--x", "note"],
        ["--limit", "9"],
    ],
    ids=" ".join,
)
def test_rows_are_read_piece_by_piece(look: Any, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    """The pieces of one run after the other make the same table as all runs together."""
    runs = ["history", "aaa", "bbb", *([] if "--wide" in options else ["song"]), *options, "--csv"]
    done = look(*runs)
    assert done.exit_code == 0
    whole = done.stdout
    assert whole.count("\n") > 1
    for module in ("run_table", "runs_table"):
        monkeypatch.setattr(f"mirror.query.{module}.VALUES_AT_ONCE", 3)
        monkeypatch.setattr(f"mirror.query.{module}.CELLS_AT_ONCE", 4)
    assert look(*runs).stdout == whole


def test_runs_are_read_together(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One query costs as much for a hundred runs as for one."""
    read = series.read
    asked: list[int] = []

    def counted(source: Any, rids: Any, scope: Any, values: int) -> Any:
        asked.append(len(rids))
        return read(source, rids, scope, values)

    monkeypatch.setattr(series, "read", counted)
    assert look("history", "aaa", "bbb", "song", "--keys", "loss,wer", "--csv").exit_code == 0
    assert look("history", "aaa", "bbb", "song", "--x", "step", "--samples", "3", "--csv").exit_code == 0
    assert asked == [3, 3]
