"""A key that no run has is a warning that names the nearest one, and an error where nothing is left to show."""

from __future__ import annotations

from typing import Any

import pytest

import mirror

VISION = ("--project", "team/vision")


@pytest.mark.parametrize(
    ("arguments", "warning"),
    [
        (["query", *VISION, "--select", "name,config.lrr"], "config key 'lrr' is in no run; did you mean 'lr'?"),
        (
            ["query", *VISION, "--select", "name,config.optimiser.name"],
            "config key 'optimiser.name' is in no run; did you mean 'optimizer.name'?",
        ),
        (
            ["query", *VISION, "--select", "name,config.only_audio"],
            "config key 'only_audio' is in none of these runs",
        ),
        (["query", *VISION, "--order", "-summary.ac"], "summary key 'ac' is in no run; did you mean 'acc'?"),
        (["query", *VISION, "--where", "config.lrr!=1"], "config key 'lrr' is in no run; did you mean 'lr'?"),
        (["history", "aaa", "--keys", "loss,los"], "team/vision/aaa has no key los; did you mean loss?"),
        (["plot", "aaa", "--keys", "loss,los"], "none of the runs logged numbers under los; did you mean loss?"),
        (
            ["plot", *VISION, "--group-by", "config.optimiser.name"],
            "config key 'optimiser.name' is in no run; did you mean 'optimizer.name'?",
        ),
        (["plot", *VISION, "--where", "config.lrr!=1"], "config key 'lrr' is in no run; did you mean 'lr'?"),
    ],
)
def test_the_rest_is_shown_with_a_warning(look: Any, arguments: list[str], warning: str) -> None:
    """One line that names the nearest key."""
    outcome = look(*arguments)
    assert (outcome.exit_code, outcome.stderr) == (0, f"warning: {warning}\n")
    assert outcome.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", *VISION, "--select", "config.lrr"], "nothing to show: config key 'lrr' is in no run; did you mean 'lr'?"),
        (["history", "aaa", "--keys", "los"], "team/vision/aaa has no key los; did you mean loss?"),
        (["history", "aaa", "--x", "los"], "team/vision/aaa has no key los; did you mean loss?"),
        (["plot", "aaa", "--keys", "los"], "none of the runs logged numbers under los; did you mean loss?"),
        (["plot", "aaa", "--x", "los"], "none of the runs logged numbers under los, the x axis; did you mean loss?"),
    ],
)  # fmt: skip
def test_nothing_left_to_show_is_an_error(look: Any, arguments: list[str], message: str) -> None:
    """Also one line."""
    outcome = look(*arguments)
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (1, "", f"error: {message}\n")


def test_python_warns_too(look: Any) -> None:
    """Where the official client returns what there is, and says nothing."""
    api = mirror.Api()
    with pytest.warns(UserWarning, match="summary key 'ac' is in no run; did you mean 'acc'"):
        assert len(api.runs("team/vision", order="-summary_metrics.ac")) == 6
    with pytest.warns(UserWarning, match="config key 'lrr' is in no run; did you mean 'lr'"):
        assert len(api.runs("team/vision", {"config.lrr": {"$ne": 1}})) == 6
    run = api.run("team/vision/aaa")
    for call in (
        lambda: list(run.scan_history(keys=["los"])),
        lambda: run.history(keys=["los"], pandas=False),
        lambda: api.runs("team/vision", order="+created_at").histories(keys=["los"]),
    ):
        with pytest.warns(UserWarning, match="team/vision/aaa has no key 'los'; did you mean loss"):
            assert call() == []
