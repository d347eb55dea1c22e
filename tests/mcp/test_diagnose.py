"""Why a run failed, stalled or diverged: numbers and steps, and what was looked for in vain."""

from __future__ import annotations

import re

import pytest

from mirror.mcp.metrics import HIGHER, LOWER
from mirror.mcp.signs import Piece, of_metric
from tests.mcp.conftest import TRACEBACK

pytestmark = pytest.mark.xdist_group("mcp")


def of(tools, run, **more):
    """The answer without its first line and the one about the last row, which hold times."""
    text = tools("diagnose_run", run=run, **more)
    return [line for line in text.splitlines()[1:] if not line.startswith("last row: ")]


def test_nan_and_a_traceback(tools):
    assert of(tools, "oom") == [
        "failed: the script ended with an error or another exit code than 0; exit code 1",
        "of the project's runs that ended, 3 of 5 failed or crashed",
        "- memory: system.gpu.0.memoryAllocated reached 99.5%",
        "- NaN: loss is NaN at step 18 first; 2 of 20 values are not finite; last finite value 0.83 at step 17",
        "checked and not found: gap in steps, standstill, divergence, worse after its best, spike, plateau",
        "console, from its last traceback on:",
        *TRACEBACK,
        "note: lower is taken as better: loss",
    ]


def test_divergence_and_the_last_lines(tools):
    assert of(tools, "diverging", console_lines=2) == [
        "crashed: heartbeats stopped without an exit code: the process was killed, or its machine or network was lost",
        "of the project's runs that ended, 3 of 5 failed or crashed",
        (
            "- divergence: loss ended worse than it began: medians of 5% of its values: first 1.96, best 1.06"
            " (steps 45 to 49), last 3.35"
        ),
        "checked and not found: NaN, gap in steps, standstill, worse after its best, spike, plateau",
        "console, last 2 of 100 lines:",
        "step 98",
        "step 99",
        "note: lower is taken as better: loss",
    ]


def test_overfitting(tools):
    assert "- worse after its best: val/loss: first 1, best 0.4 at step 3, last 0.55" in of(tools, "overfitted")


def test_a_gap_a_pause_a_spike_and_a_plateau(tools):
    assert of(tools, "stalled")[2:6] == [
        "- spike: loss = 20 at step 140, 40 times the median around it",
        "- plateau: loss: its best value, 0.5, is of step 12; none of the last 45 of 60 values is better",
        "- gap in steps: no rows between steps 29 and 130, where 1 is the usual distance (1 gap in all)",
        "- standstill: 2:16:50 without a row after step 29; 10 s is usual (1 such pause in all)",
    ]


def test_a_healthy_run_has_no_signs(tools):
    found = of(tools, "b0", console_lines=0)
    assert [line for line in found if line.startswith("- ")] == []
    assert found[3] == (
        "checked and not found: NaN, gap in steps, standstill, divergence, worse after its best, spike, plateau"
    )


def test_a_run_without_history(tools):
    assert of(tools, "empty") == [
        "failed: the script ended with an error or another exit code than 0; exit code 1",
        "it logged no history: it ended before its first log, or logs nothing",
        "of the project's runs that ended, 3 of 5 failed or crashed",
        "console: nothing of it is mirrored; that needs [sync] console = true in the config",
    ]


def test_the_end_of_a_long_console_is_kept(tools):
    text = tools("diagnose_run", run="diverging", console_lines=100, max_chars=1000)
    assert re.search(r"console, last 100 of 100 lines; \d+ lines before are cut, raise max_chars:", text)
    assert "\nstep 99\n" in text
    assert len(text) <= 1100


def pieces(*medians):
    return [Piece(i, i, m, m, m, 0.0, 1, i, i) for i, m in enumerate(medians)]


def test_a_metric_for_which_higher_is_better_is_judged_the_other_way_round():
    (sign,) = of_metric("acc", pieces(0.1, 0.5, 0.8, 0.9, 0.3, 0.2), lower=False)
    assert (sign.kind, sign.text) == (
        "divergence",
        "acc lost more than half of its improvement: first 0.1, best 0.9 at step 3, last 0.2",
    )
    assert of_metric("acc", pieces(0.1, 0.5, 0.8, 0.9, 0.95, 0.97), lower=False) == []


@pytest.mark.parametrize("key", ["loss", "val/loss", "train_loss", "eval.perplexity", "mse", "total-loss", "bce_loss"])
def test_keys_of_which_lower_is_better(key):
    assert LOWER.search(key)
    assert not HIGHER.search(key)


@pytest.mark.parametrize("key", ["acc", "val/acc", "eval/bleu.de", "episode/reward", "test_accuracy", "top5", "f1"])
def test_keys_of_which_higher_is_better(key):
    assert HIGHER.search(key)
    assert not LOWER.search(key)


@pytest.mark.parametrize("key", ["lr", "epoch", "tokens_seen", "accelerator", "lossless", "mapped"])
def test_keys_without_a_direction(key):
    assert not HIGHER.search(key)
    assert not LOWER.search(key)


def test_the_machine_and_how_its_other_runs_fared(tools):
    found = of(tools, "a0", console_lines=0)
    assert found[1:3] == [
        f"host node-a, commit {'a' * 40}",
        "of the project's runs that ended, 0 of 6 failed or crashed, 0 of 3 on this host",
    ]
