from __future__ import annotations

import json
from typing import Any

import pytest

from mirror.settings.home import Home


def test_history_is_wide_and_complete(mirror: Any) -> None:
    """A row a step, a column a key; keys that differ in case only stay what they are."""
    outcome = mirror("history", "alpha", "--csv")
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    assert outcome.stdout == (
        "_step,Loss,loss,note,step,val/acc\n"
        "0,0.0,1.0,,,0.5\n"
        "1,1.0,0.5,début,,\n"
        "2,2.0,0.3333333333333333,,,\n"
        "3,3.0,0.25,,30.0,\n"
        "4,4.0,0.2,,,nan\n"
        "5,5.0,0.16666666666666666,2.5,,\n"
        "6,6.0,0.14285714285714285,,,\n"
        "7,7.0,0.125,,,\n"
        "8,8.0,0.1111111111111111,,,0.75\n"
        "9,9.0,0.1,,,\n"
    )


def test_keys_are_columns_in_the_order_of_their_naming(mirror: Any) -> None:
    """Names and globs; only steps at which one of them was logged."""
    assert mirror("history", "team/vision/alpha", "--keys", "val/acc,note").stdout == (
        "step\tval/acc\tnote\n0\t0.5\t\n1\t\tdébut\n4\tnan\t\n5\t\t2.5\n8\t0.75\t\n"
    )
    assert mirror("history", "alpha", "--keys", "val/*").stdout == "step\tval/acc\n0\t0.5\n4\tnan\n8\t0.75\n"
    assert json.loads(mirror("history", "alpha", "--keys", "Loss,loss", "--json", "--limit", "2").stdout) == [
        {"step": 0, "Loss": 0.0, "loss": 1.0},
        {"step": 1, "Loss": 1.0, "loss": 0.5},
    ]


@pytest.mark.parametrize(
    ("samples", "steps"),
    [(1, [0]), (2, [0, 9]), (3, [0, 5, 9]), (4, [0, 3, 6, 9]), (10, list(range(10))), (99, list(range(10)))],
)
def test_samples_are_evenly_spaced_with_both_ends(mirror: Any, samples: int, steps: list[int]) -> None:
    """The same every time, unlike the server's."""
    lines = mirror("history", "alpha", "--keys", "loss", "--samples", str(samples)).stdout.splitlines()[1:]
    assert [int(line.split("\t")[0]) for line in lines] == steps


def test_another_key_can_be_the_x_axis(mirror: Any) -> None:
    """First column, in its order; its last number at or before the step, steps before the first one are left out."""
    assert mirror("history", "alpha", "--x", "val/acc", "--keys", "note").stdout == (
        "val/acc\tstep\tnote\n0.5\t1\tdébut\n0.5\t5\t2.5\n"
    )
    assert mirror("history", "alpha", "--x", "note", "--keys", "val/acc").stdout == (
        "note\tstep\tval/acc\n2.5\t8\t0.75\ndébut\t4\tnan\n"
    )
    assert mirror("history", "alpha", "--x", "_step", "--keys", "val/acc").stdout.startswith("step\tval/acc\n0\t0.5\n")
    assert mirror("history", "alpha", "--x", "val/acc", "--keys", "loss", "--samples", "2").stdout == (
        "val/acc\tstep\tloss\n0.5\t0\t1.0\n0.75\t9\t0.1\n"
    )


def test_segments_and_tail_answer_alike(
    mirror: Any, published: Home, segmented: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where history lies does not show."""
    whole = mirror("history", "alpha", "--json").stdout
    monkeypatch.setenv("MIRROR_HOME", str(segmented.data))
    assert mirror("history", "alpha", "--json").stdout == whole


def test_a_run_without_history_has_no_rows(mirror: Any) -> None:
    """Not an error."""
    outcome = mirror("history", "beta")
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (0, "step\n", "")


def test_a_run_is_found_by_what_people_write(mirror: Any) -> None:
    """Its path, the address of its page, or its id alone."""
    expected = "step\tloss\n0\t4.0\n1\t5.0\n"
    for path in ("team/nlp/twin", "team/nlp/runs/twin", "nlp/twin", "/team/nlp/twin/"):
        assert mirror("history", path).stdout == expected


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["twin"], 1, "twin is in more than one project: team/nlp/twin, team/vision/twin"),
        (["alpa"], 1, "no run alpa in the mirror; did you mean team/vision/alpha?"),
        (["team/vision/zzz"], 1, "no run team/vision/zzz in the mirror"),
        (["team/visoin/alpha"], 1, "no project team/visoin in the mirror; did you mean team/vision? mirrored: team/nlp, team/vision"),
        (["a/b/c/d/e"], 1, "a/b/c/d/e is not a run path; use entity/project/run_id, or the run's id or name alone"),
        (["alpha", "--keys", "los"], 1, "team/vision/alpha has no key los; did you mean loss"),
        (["alpha", "--keys", "zzz*"], 1, "team/vision/alpha has no key zzz*; there are Loss, loss, note, step, val/acc"),
        (["alpha", "--x", "nope"], 1, "team/vision/alpha has no key nope; "),
        (["beta", "--keys", "loss"], 1, "team/vision/beta has no key loss; there are none"),
        (["alpha", "--samples", "0"], 2, "Invalid value for '--samples'"),
        ([], 2, "which runs? name them, or give --project E/P"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named_with_the_nearest(
    mirror: Any, arguments: list[str], code: int, message: str
) -> None:
    """One line."""
    outcome = mirror("history", *arguments)
    assert (outcome.exit_code, outcome.stdout) == (code, "")
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1
