"""`mirror plot`: what is drawn is what was logged."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror.plot import figure, groups, look, terminal
from mirror.plot.groups import Chart, Curve
from mirror.sandbox import sample
from mirror.snapshot.group_means import group_mean
from tests.api.conftest import Bench, bench
from tests.conftest import InProcess

pytestmark = pytest.mark.xdist_group("plot")


@pytest.fixture(scope="module")
def mirrored() -> Iterator[Bench]:
    """The small sample, and a sweep: two learning rates with three seeds each, losses that differ by one."""
    world = sample.small()
    for rate in (0.1, 0.01):
        for seed in range(3):
            run = world.add_run(
                *("my-team", "sweep"),
                run_id=f"r{rate}-{seed}",
                name=f"{rate}/{seed}",
                config={"lr": rate, "opt": "sgd" if seed else None},
            )
            run.log_many({"loss": 10 * rate + seed + step, "epoch": step // 2} for step in range(5))
            run.finish()
    defined = {"m": [{"1": "epoch", "6": [3]}, {"2": "val/*", "5": 1, "6": [1, 3]}]}
    run = world.add_run("my-team", "axes", run_id="r1", name="r1", config={}, wandb_config=defined)
    run.log_many({"epoch": step // 10} if step % 10 == 0 else {"val/acc": step / 100} for step in range(30))
    run.finish()
    with bench(world) as made:
        yield made


@pytest.fixture
def cli(mirrored: Bench) -> InProcess:
    return InProcess()


def test_a_curve_is_drawn_in_the_terminal(cli: Any) -> None:
    """With round labels; the letter at its end stands in the legend."""
    done = cli("plot", "my-team/sweep/r0.1-0")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].strip() == "loss"
    labels = [float(line.split("|")[0]) for line in lines[1:] if "|" in line and line.strip()[0].isdigit()]
    assert labels == sorted(labels, reverse=True)
    assert labels[-1] == 1.0
    assert lines[-1].split() == ["a", "0.1/0"]
    assert "\x1b" not in done.stdout
    assert sum("a" in line for line in lines) == 2


def test_the_axis_is_the_one_that_define_metric_gave(cli: Any) -> None:
    """Unless another one is asked for."""
    defined = cli("plot", "my-team/axes/r1", "--keys", "val/acc")
    assert (defined.exit_code, defined.stderr) == (0, "")
    assert "epoch" in defined.stdout
    assert cli("plot", "my-team/axes/r1", "--keys", "val/acc", "--x", "epoch").stdout == defined.stdout
    steps = cli("plot", "my-team/axes/r1", "--keys", "val/acc", "--x", "_step").stdout
    assert "_step" in steps
    assert steps != defined.stdout


def test_groups_are_means_with_a_band(cli: Any, mirrored: Bench) -> None:
    """Of the seeds of each value."""
    done = cli("plot", "--project", "my-team/sweep", "--group-by", "config.lr")
    assert [line.strip() for line in done.stdout.splitlines()[-2:]] == [
        "a  lr=0.01  (mean of 3 runs, 95% confidence)",
        "b  lr=0.1  (mean of 3 runs, 95% confidence)",
    ]
    several = cli("plot", "--project", "my-team/sweep", "--filter", '{"config.lr": 0.1}', "--keys", "loss,epoch")
    assert [line.strip() for line in several.stdout.splitlines() if line.strip() in ("loss", "epoch")] == [
        "loss", "epoch",
    ]  # fmt: skip


def test_groups_of_several_keys(cli: Any, tmp_path: Path) -> None:
    """One curve per combination of values, in the order of the first key, then of the next."""
    by = ["--project", "my-team/sweep", "--group-by", "config.lr, config.opt"]
    names = [
        ("lr=0.01, opt=sgd", "mean of 2 runs, 95% confidence"),
        ("lr=0.01, opt not set", ""),
        ("lr=0.1, opt=sgd", "mean of 2 runs, 95% confidence"),
        ("lr=0.1, opt not set", ""),
    ]
    legend = [f"{name}  ({note})" if note else name for name, note in names]
    drawn = cli("plot", *by)
    assert [line.strip() for line in drawn.stdout.splitlines()[-4:]] == [
        f"{letter}  {text}" for letter, text in zip("abcd", legend, strict=True)
    ]
    assert drawn.stderr == ""
    page = tmp_path / "plot.html"
    assert cli("plot", *by, "-o", str(page)).exit_code == 0
    [chart] = json.loads(page.read_text().partition('id="charts">')[2].partition("</script>")[0])
    assert [line["name"] for line in chart["data"] if line.get("name")] == [
        f"{name} ({note})" if note else name for name, note in names
    ]
    picture = tmp_path / "plot.svg"
    assert cli("plot", *by, "-o", str(picture)).exit_code == 0
    assert "lr=0.01, opt not set" in picture.read_text()
    one = cli("plot", *by[:-1], "config.lr,config.optt")
    assert one.stderr == "warning: config key 'optt' is in no run; did you mean 'opt'?\n"


def test_the_mean_and_its_interval() -> None:
    """Student's t over the runs that were logged at each place."""
    members = [[(float(x), float(x + seed)) for x in range(3 + seed)] for seed in range(3)]
    made = group_mean(members)
    assert (made.runs, made.x, made.n) == (3, [0.0, 1.0, 2.0, 3.0, 4.0], [3, 3, 3, 2, 1])
    assert made.mean == [1.0, 2.0, 3.0, 4.5, 6.0]
    half = 4.303 * statistics.stdev([0, 1, 2]) / math.sqrt(3)
    assert made.high[0] - made.mean[0] == pytest.approx(half)
    assert made.mean[3] - made.low[3] == pytest.approx(12.706 * statistics.stdev([4, 5]) / math.sqrt(2))
    assert (made.low[4], made.high[4]) == (6.0, 6.0)
    assert groups.mean("one", [[(0.0, 1.0)], []]) == Curve("one", 1, [0.0], [1.0])


def test_a_mean_ends_where_fewer_than_half_of_the_runs_have_values() -> None:
    """So that it does not jump, and go on as the curve of the last run; a gap interrupts it."""
    members = [[(float(x), 10.0) for x in range(4)]] * 3 + [[(float(x), 0.0) for x in range(8)]] * 2
    made = groups.mean("g", members)
    assert (made.x, made.n, made.y[-1]) == ([0.0, 1.0, 2.0, 3.0], [5, 5, 5, 5], 6.0)
    assert (made.ends_early, made.note) == (
        True,
        "mean of 5 runs, 95% confidence, ends where fewer than half have values",
    )
    longer = groups.mean("g", [*members, [(float(x), 0.0) for x in range(6)]])
    assert (longer.x[-1], longer.n) == (5.0, [6, 6, 6, 6, 3, 3])
    assert longer.note == "mean of 3 to 6 of 6 runs, 95% confidence, ends where fewer than half have values"
    never = groups.mean("g", [[(0.0, 1.0)], [(1.0, 1.0)]])
    assert (never.x, never.note) == ([], "2 runs, not drawn: too few of them have values at the same x")


def test_runs_are_read_between_their_points() -> None:
    """By straight lines, and nowhere outside of them."""
    made = groups.mean("g", [[(0.0, 0.0), (4.0, 8.0)], [(2.0, 0.0), (6.0, 4.0)]])
    assert (made.x, made.y) == ([2.0, 4.0], [2.0, 5.0])
    halves = [[(0.0, 1.0), (1.0, 1.0)]] * 2 + [[(3.0, 2.0), (4.0, 2.0)]] * 2
    made = groups.mean("g", halves)
    assert made.x == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert str(made.y) == "[1.0, 1.0, nan, 2.0, 2.0]"
    drawn = terminal.draw(Chart("k", "_step", [made]), 60, 12, colours=False)
    assert "a  g  (mean of 2 of 4 runs, 95% confidence)" in drawn


def test_smoothing_starts_at_the_first_value() -> None:
    """Without leaning to zero."""
    points = [(0.0, 2.0), (1.0, 4.0), (2.0, 4.0)]
    assert groups.smoothed(points, 0.0) == points
    assert [round(y, 6) for _, y in groups.smoothed(points, 0.5)] == [2.0, 3.333333, 3.714286]


def test_pictures(cli: Any, tmp_path: Path) -> None:
    """PNG, SVG, PDF and a page that needs nothing beside it; the same bytes each time."""
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".html": b"<!doctype html>"}
    for ending, start in starts.items():
        file = tmp_path / f"plot{ending}"
        done = cli("plot", "--project", "my-team/sweep", "--group-by", "config.lr", "--x", "epoch", "-o", str(file))
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"drawn to {file}\n")
        assert file.read_bytes().startswith(start)
    page = (tmp_path / "plot.html").read_text()
    assert "default-src 'none'" in page
    assert re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=", page) == []
    [chart] = json.loads(page.partition('id="charts">')[2].partition("</script>")[0])
    assert [line["name"] for line in chart["data"] if line.get("name")] == [
        "lr=0.01 (mean of 3 runs, 95% confidence)",
        "lr=0.1 (mean of 3 runs, 95% confidence)",
    ]
    assert chart["data"][2]["customdata"][0][2] == 3
    first = (tmp_path / "plot.svg").read_bytes()
    cli(
        "plot",
        "--project",
        "my-team/sweep",
        "--group-by",
        "config.lr",
        "--x",
        "epoch",
        "-o",
        str(tmp_path / "plot.svg"),
    )
    assert (tmp_path / "plot.svg").read_bytes() == first


def test_odd_values_do_not_stop_a_plot(cli: Any) -> None:
    """NaN and infinities are left out, one point and level lines are drawn."""
    assert cli("plot", "my-team/oddities/numbers1", "--keys", "x,diverges,tiny").exit_code == 0
    level = terminal.draw(Chart("k", "_step", [Curve("c", 1, [0.0, 1.0], [3.0, 3.0])]), 60, 12, colours=False)
    assert "a  c" in level
    coloured = terminal.draw(Chart("k", "_step", [Curve("c", 1, [0.0, 1.0], [1e-9, 3e9])]), 60, 12, colours=True)
    assert "\x1b[38;5;75m" in coloured


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["vision00", "--keys", "los"], 1, "none of the runs logged numbers under los; did you mean loss?"),
        (["vision00", "--keys", ","], 2, "--keys is empty"),
        (["vision00", "--smooth", "1"], 2, "--smooth 1: must be at least 0 (as logged) and below 1"),
        (["vision00", "--group-by", "lr"], 2, "--group-by lr: runs have no such field; did you mean config.lr?"),
        (
            ["vision00", "--group-by", "config.lr,lr"],
            2,
            "--group-by lr: runs have no such field; did you mean config.lr?",
        ),
        (["vision00", "--group-by", ","], 2, "--group-by is empty: name config.KEY, summary.KEY, group, ..."),
        (["vision00", "-o", "plot.gif"], 2, "plot.gif has no known extension: use .png"),
        (["vision00", "--size", "wide"], 2, "--size wide: must be WIDTHxHEIGHT, such as 6x4 (inches)"),
        (["vision00", "--size", "6x4"], 2, "--size 6x4: in the terminal it is columns and rows, at least 40x10"),
        (["vision00", "-o", "x.png", "--size", "1200x800"], 2, "from 0.5 to 60 inches; 1200x800px is pixels"),
        (["vision00", "--xlim", "5"], 2, "--xlim 5: must be LOW,HIGH, such as 0,100"),
        (["vision00", "--ylim", "5,1"], 2, "--ylim 5,1: the first limit must be lower"),
        (["vision00", "--log", "z"], 2, "--log z: must be x, y or xy"),
        (["vision00", "--log", "y", "--ylim", "0,1"], 2, "--ylim: the limits of a logarithmic axis must be above zero"),
        (["vision00", "--xlim", "1e9,"], 2, "nothing of loss is left to draw within the limits"),
        ([], 2, "which runs?"),
        (["--filter", "{}"], 2, "which runs?"),
        (["--project", "my-team/vision", "--filter", '{"state": "x"}'], 2, "no run matches"),
        (["nope"], 1, "no run nope in the mirror"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(cli: Any, arguments: list[str], code: int, message: str) -> None:
    """And what to do instead."""
    done = cli("plot", *arguments)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert message in done.stderr


def test_without_matplotlib_files_are_refused(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal does without."""
    import sys

    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    done = cli("plot", "vision00", "-o", str(tmp_path / "a.png"))
    assert (done.exit_code, done.stderr) == (
        1, "error: drawing pictures needs matplotlib: `pip install 'wandb-mirror[plot]'`; -o FILE.html does not\n",
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    assert cli("plot", "vision00").exit_code == 0


def test_limits_and_logarithms() -> None:
    """Lines are cut at the limits of x, between points too; a logarithmic axis shows what is above zero."""
    curve = Curve("c", 2, [0.0, 2.0, 4.0], [0.0, 2.0, 4.0], [-1.0, 1.0, 3.0], [1.0, 3.0, 5.0], [2, 2, 2])
    chart = Chart("k", "_step", [curve])
    [made] = look.cut(chart, look.given(None, None, "1,3", None, None, file=False)).curves
    assert (made.x, made.y, made.low, made.high, made.n) == (
        [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [0.0, 1.0, 2.0], [2.0, 3.0, 4.0], [2, 2, 2],
    )  # fmt: skip
    [made] = look.cut(chart, look.given(None, None, None, None, "y", file=False)).curves
    assert (made.x, made.low) == ([2.0, 4.0], [1.0, 3.0])
    assert look.given(None, "16x10cm", None, None, None, file=True).size == pytest.approx((16 / 2.54, 10 / 2.54))
    drawn = terminal.draw(chart, 60, 12, colours=False, look=look.given(None, None, "1,", "0,3", None, file=False))
    assert "4 |" not in drawn


def test_more_curves_than_letters(cli: Any, tmp_path: Path) -> None:
    """Files draw them, each in a colour of its own; the terminal says so."""
    file = tmp_path / "many.html"
    runs = ["my-team/sweep/" + f"r{rate}-{seed}" for rate in (0.1, 0.01) for seed in range(3)]
    assert cli("plot", *runs, "-o", str(file), "--title", "<b> & co", "--log", "xy", "--size", "8x3").exit_code == 0
    assert "<h1>&lt;b&gt; &amp; co</h1>" in file.read_text()
    assert len(set(look.palette(120))) == 120
    many = [Curve(f"run {index}", 1, [0.0, 1.0], [0.0, float(index)]) for index in range(60)]
    assert figure.render([Chart("k", "_step", many)], ".png", "many").startswith(b"\x89PNG")
