"""Comparisons: what differs, and no more certainty than the repeats allow."""

from __future__ import annotations

import math

import pytest

from mirror.mcp.welch import difference
from mirror.query.group_table import Statistics

pytestmark = pytest.mark.xdist_group("mcp")

METHOD = "note: ci95: Student's 95% interval of the mean; difference: from the baseline, with Welch's 95% interval"
REPEATS = "note: runs that differ only in config.seed are repeats of one configuration"
HEAD = "config.lr\truns\tn\tmean\tsd\tmin\tmax\tci95\tdifference\tci95 of it\tverdict"


def lines(*texts):
    return "\n".join(texts)


def test_three_seeds_on_both_sides_tell_a_difference(tools):
    assert tools("compare_runs", project="team/seeds", metrics=["acc"]) == lines(
        "## acc: value in the summary; higher is better, by the key's name",
        HEAD,
        "0.01\t3\t3\t0.91\t0.01\t0.9\t0.92\t0.885157 to 0.934843\t\t\tbaseline",
        "0.1\t3\t3\t0.81\t0.01\t0.8\t0.82\t0.785157 to 0.834843\t-0.1\t-0.122666 to -0.0773341\tworse",
        METHOD,
        REPEATS,
    )


def test_two_seeds_with_some_spread_do_not_tell_one(tools):
    text = tools(
        "compare_runs", runs=["a0", "a1", "b0", "b1"], metrics=["loss"], value="min", baseline="0.1", goal="min"
    )
    assert text.split("\n\n")[1] == lines(
        "## loss: minimum logged value; lower is better, as given",
        HEAD,
        "0.01\t2\t2\t0.705\t0.00707107\t0.7\t0.71\t0.64147 to 0.76853\t-0.095\t-0.237057 to 0.0470574\tnot distinguishable",
        "0.1\t2\t2\t0.8\t0.0141421\t0.79\t0.81\t0.67294 to 0.92706\t\t\tbaseline",
        METHOD,
        REPEATS,
    )


def test_two_runs_are_compared_value_by_value_and_without_confidence(tools):
    text = tools("compare_runs", runs=["a0", "b0"])
    rows = [line for line in text.splitlines() if not line.startswith("duration_s")]
    assert rows == [
        "runs: a0 = run a0, b0 = run b0",
        "key\ta0\tb0",
        "config.lr\t0.1\t0.01",
        f"git_commit\t{'a' * 40}\t{'b' * 40}",
        "host\tnode-a\tnode-b",
        "summary.acc\t0.8\t0.9",
        "summary.loss\t0.81\t0.71",
        "note: each configuration ran once: how much of a difference is chance cannot be computed",
    ]


def test_commits_are_compared(tools):
    text = tools("compare_runs", project="team/seeds", group_by=["git_commit"], metrics=["acc"], baseline="a" * 40)
    assert [line.split("\t")[:3] + line.split("\t")[-1:] for line in text.splitlines()[2:4]] == [
        ["b" * 40, "3", "3", "better"],
        ["a" * 40, "3", "3", "baseline"],
    ]


def test_a_group_of_one_run_has_no_interval(tools):
    text = tools("compare_runs", project="team/seeds", filter="id!=a1 id!=a2", metrics=["acc"])
    assert text.splitlines()[3] == (
        "0.1\t1\t1\t0.8\t\t0.8\t0.8\t\t-0.11\t\tan interval needs at least 2 runs on both sides"
    )


def test_runs_that_have_not_finished_are_counted(tools):
    text = tools("compare_runs", project="team/trouble", group_by=["state"], metrics=["loss"], value="min")
    assert text.splitlines()[-1] == (
        "note: 1 crashed, 2 failed of 5 runs: their values are not those of a complete run; filter state=finished"
    )


def test_a_nan_is_left_out_and_counted(tools):
    text = tools("compare_runs", project="team/trouble", group_by=["state"], metrics=["loss"])
    assert "(1 run with NaN or infinity left out of n)" in text.splitlines()
    assert "failed\t2\t0" in text.splitlines()


def test_a_metric_without_a_finite_value_is_named(tools):
    text = tools("compare_runs", runs=["oom", "empty"], group_by=["state"], metrics=["loss"])
    assert "## loss: no finite value; NaN or infinite in 1 run" in text.splitlines()


def test_one_group_with_values_has_no_difference(tools):
    text = tools("compare_runs", runs=["oom", "overfitted"], group_by=["state"], metrics=["val/loss"], value="min")
    assert text.split("\n\n")[1] == lines(
        "## val/loss: minimum logged value; lower is better, by the key's name",
        "state\truns\tn\tmean\tsd\tmin\tmax\tci95",
        "finished\t1\t1\t0.4\t\t0.4\t0.4\t",
        "failed\t1\t0",
        "note: ci95: Student's 95% interval of the mean",
        "note: 1 failed of 2 runs: their values are not those of a complete run; filter state=finished",
    )


def test_many_groups_come_with_the_warning_that_some_intervals_miss_by_chance(tools):
    text = tools("compare_runs", project="team/seeds", group_by=["config.seed"], metrics=["acc"])
    assert (
        "note: intervals are not corrected for 2 comparisons: 1 in 20 misses by chance;"
        " the best of several groups is partly luck"
    ) in text.splitlines()
    assert text.count("not distinguishable") == 2


def test_welch_of_different_spreads_and_sizes():
    # Computed by hand: s1^2/n1 = 0.25, s2^2/n2 = 3, freedom 3.25^2 / (0.25^2/3 + 3^2/2) = 2.336, rounded down to 2.
    one, other = Statistics(4, 10.0, None, 1.0), Statistics(3, 7.0, None, 3.0)
    found = difference(one, other)
    assert (found.mean, found.freedom) == (3.0, 2)
    assert found.half == pytest.approx(4.303 * math.sqrt(3.25))


def test_no_spread_gives_no_interval_and_says_why():
    found = difference(Statistics(3, 1.0, None, 0.0), Statistics(3, 2.0, None, 0.0))
    assert (found.mean, found.half, found.why) == (
        -1.0,
        None,
        "no spread on either side: the repeats have equal values",
    )
