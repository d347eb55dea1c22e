"""`mirror table`: what stands in a cell is what the runs hold, and n says of how many."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

VISION = ("table", "team/vision")
LR = (*VISION, "--group-by", "config.lr", "--select", "summary.acc,summary.val/loss")
HALF = 4.303 * statistics.stdev([0.75, 0.7, 0.6]) / math.sqrt(3)


def test_a_table_for_people_has_mean_and_interval_in_one_cell(look: Any) -> None:
    """With n where it is not that of the group; an interval needs two runs."""
    done = look(*LR, "--format", "table")
    assert (done.exit_code, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()[2:]] == [
        ["0.1", "1", "0.50", "1.500"],
        ["0.2", "3", "0.68", "±", "0.19", "1.500", "(n=1)"],
        ["0.5", "2", "0.10", "±", "0.00", "∅"],
    ]


def test_markdown_and_latex(look: Any) -> None:
    """LaTeX with the rules of booktabs, special characters escaped, numbers in math mode."""
    arguments = (
        *VISION,
        "state=finished",
        "--group-by",
        "config.lr,state",
        "--select",
        "summary.val/loss",
        "--agg",
        "mean,max",
    )
    assert look(*arguments, "--format", "markdown").stdout == (
        "| config.lr | state | runs | summary.val/loss | max summary.val/loss |\n"
        "| ---: | --- | ---: | ---: | ---: |\n"
        "| 0.1 | finished | 1 | 1.500 | 1.500 |\n"
        "| 0.2 | finished | 1 |  |  |\n"
        "| 0.5 | finished | 2 |  |  |\n"
    )
    assert look(*LR, "--format", "latex", "--decimals", "3").stdout == (
        "\\begin{tabular}{rrrr}\n\\toprule\n"
        "config.lr & runs & summary.acc & summary.val/loss \\\\\n\\midrule\n"
        "$0.1$ & $1$ & $0.500$ & $1.500$ \\\\\n"
        "$0.2$ & $3$ & $0.683 \\pm 0.190$ & $1.500$ (n=1) \\\\\n"
        "$0.5$ & $2$ & $0.100 \\pm 0.000$ & -- \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def test_programs_get_one_number_per_column(look: Any, tmp_path: Path) -> None:
    """In full precision; empty where there are too few runs."""
    rows = json.loads(look(*LR, "--agg", "mean,ci,std,min,max,median", "--json").stdout)
    low, high = rows[1].pop("ci95_low(summary.acc)"), rows[1].pop("ci95_high(summary.acc)")
    assert (low, high) == (pytest.approx(2.05 / 3 - HALF, abs=1e-4), pytest.approx(2.05 / 3 + HALF, abs=1e-4))
    loss = {"n(summary.val/loss)": 1, "mean(summary.val/loss)": 1.5, "ci95_low(summary.val/loss)": None,
            "ci95_high(summary.val/loss)": None, "std(summary.val/loss)": None, "min(summary.val/loss)": 1.5,
            "max(summary.val/loss)": 1.5, "median(summary.val/loss)": 1.5}  # fmt: skip
    assert rows[1] == {
        "config.lr": 0.2, "runs": 3, "n(summary.acc)": 3, "mean(summary.acc)": pytest.approx(2.05 / 3),
        "std(summary.acc)": pytest.approx(statistics.stdev([0.75, 0.7, 0.6])), "min(summary.acc)": 0.6,
        "max(summary.acc)": 0.75, "median(summary.acc)": 0.7, **loss,
    }  # fmt: skip
    assert rows[2]["n(summary.val/loss)"] == 0
    csv = look(*LR, "--agg", "mean", "--csv").stdout.splitlines()
    assert csv[0] == "config.lr,runs,n(summary.acc),mean(summary.acc),n(summary.val/loss),mean(summary.val/loss)"
    assert csv[3] == "0.5,2,2,0.1,0,"
    file = tmp_path / "t.parquet"
    assert look(*LR, "-o", str(file)).exit_code == 0
    assert parquet.read_table(file).column("runs").to_pylist() == [1, 3, 2]
    assert (
        look(*LR, "--csv").stdout == look(*LR, "-o", str(tmp_path / "t.csv")).stdout + (tmp_path / "t.csv").read_text()
    )


def test_groups_of_other_columns_and_of_all_runs(look: Any) -> None:
    """Fields, several keys, runs without a value last, and one row without --group-by."""
    assert look(*VISION, "--select", "config.seed", "--agg", "min,max", "--csv").stdout == (
        "runs,n(config.seed),min(config.seed),max(config.seed)\n6,6,0,5\n"
    )
    audio = look(
        "table", "team/*", "--group-by", "config.only_audio,state", "--select", "config.lr", "--agg", "mean", "--csv"
    )
    assert audio.stdout.splitlines()[1:] == [
        "true,finished,1,1,0.3",
        ",failed,1,1,0.2",
        ",finished,4,4,0.325",
        ",running,1,1,0.2",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--group-by", "lr", "--select", "summary.acc"], 2, "--group-by lr: runs have no such field; did you mean config.lr?"),
        (["--group-by", "optimizer_name", "--select", "summary.acc"], 2, "--group-by optimizer_name: runs have no such field; did you mean config.optimizer.name?"),
        (["--group-by", "groups", "--select", "summary.acc"], 2, "--group-by groups: runs have no such field; did you mean group?"),
        (["--select", "acc"], 2, "--select acc: runs have no such field; did you mean summary.acc?"),
        (["--select", "name"], 1, "none of the 6 runs has a number in name"),
        ([], 2, "--select is missing: name the columns, such as summary.acc; `mirror keys PATH` lists keys"),
        (["--select", "summary.acc", "--agg", "avg"], 2, "--agg avg: did you mean mean?"),
        (["--select", "summary.acc", "--agg", "p90"], 2, "--agg p90: known: mean, ci, std, min, max, median"),
        (["--select", "summary.acc", "--where", "state=killed"], 1, "no run matches"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_one_line(look: Any, arguments: list[str], code: int, message: str) -> None:
    """That names the nearest."""
    done = look(*VISION, *arguments)
    assert (done.exit_code, done.stdout, done.stderr.splitlines()[-1]) == (code, "", f"error: {message}")


def test_plot_answers_a_bare_key_with_the_one_of_the_config(look: Any) -> None:
    """As tables do."""
    done = look("plot", "--project", "team/vision", "--group-by", "lr")
    assert (done.exit_code, done.stderr) == (
        2, "error: --group-by lr: runs have no such field; did you mean config.lr?\n",
    )  # fmt: skip
