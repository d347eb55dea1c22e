"""Texts of answers: no control characters, six digits, groups that keep all digits, and what the config leaves out."""

from __future__ import annotations

import pytest

from mirror.mcp import freshness, grouping
from mirror.mcp.answers import clean, number, table
from mirror.mcp.ask import Ask, Run, deletions
from mirror.snapshot.connection import connected
from mirror.snapshot.paths import Project

pytestmark = pytest.mark.xdist_group("mcp")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain text, é 日本", "plain text, é 日本"),
        ("\x1b[31mred\x1b[0m and \x1b]0;title\x07rest", "red and rest"),
        ("  0%|   |\r 50%|## |\r100%|####|\r", "100%|####|"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("bell\x07 and \u202eturned", "bell and turned"),
    ],
)
def test_control_characters_are_left_out(text, cleaned):
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.1 + 0.2, "0.3"), (1e-9, "1e-09"), (1234567.8, "1234568"), (5.0, "5"), (float("nan"), "nan"), (None, "")],
)
def test_numbers_have_six_digits(value, shown):
    assert number(value) == shown


def test_a_table_escapes_what_would_break_its_lines():
    made = table(["a\tb", "c"], [["x\ty", "two\nlines"], [None, True], [2**60, 0.5]], 1000)
    assert made.text == "a\\tb\tc\nx\\ty\ttwo\\nlines\n\ttrue\n1152921504606846976\t0.5\n"
    assert (made.shown, made.cut_cells) == (3, 0)


def test_a_table_shows_at_least_one_row():
    assert table(["a"], [["x" * 100], ["y"]], 10).shown == 1


def groups_of(mirrored, by, values):
    """How runs with these config values are grouped; each value is its text and its number."""

    class Rows:
        def execute(self, sql, params):
            self.found = list(enumerate(values)) if "v.key = ?" in sql else []
            return self

        def fetchall(self):
            return [(rid, *value) for rid, value in self.found]

    with connected(mirrored) as connection:
        (run, *_) = Ask(connection, {}).named(["a0"])
    runs = [type(run)(rid, run.project, f"r{rid}", "") for rid in range(len(values))]
    made = grouping.grouped(Rows(), runs, [by])
    return {group.values[0]: len(group.runs) for group in made.groups}


def test_equal_numbers_are_one_group_and_close_ones_are_not(mirrored):
    assert groups_of(mirrored, "config.x", [("1", 1.0), ("1.0", 1.0), ("2", 2.0)]) == {"1": 2, "2": 1}
    close = [("0.12345671", 0.12345671), ("0.12345672", 0.12345672)]
    assert groups_of(mirrored, "config.x", close) == {"0.12345671": 1, "0.12345672": 1}
    long = [("9007199254740993", 9007199254740992.0), ("9007199254740992", 9007199254740992.0)]
    assert groups_of(mirrored, "config.x", long) == {"9007199254740992": 1, "9007199254740993": 1}


def test_a_number_with_many_values_is_cut_into_ranges_beside_texts(mirrored):
    values = [(f"{n / 10}", n / 10) for n in range(20)] + [("auto", None)]
    assert groups_of(mirrored, "config.x", values) == {
        "0 to 0.3": 4,
        "0.4 to 0.7": 4,
        "0.8 to 1.1": 4,
        "1.2 to 1.5": 4,
        "1.6 to 1.9": 4,
        "auto": 1,
    }


def test_what_the_config_leaves_out_is_said(mirrored, monkeypatch):
    limits = {Project("team", "seeds"): ('{"state": "finished"}', '["loss"]')}
    monkeypatch.setattr(freshness.projects_of, "limits", lambda _: limits)
    with connected(mirrored) as connection:
        line = freshness.line(connection, [Project("team", "seeds")])
    assert line.endswith(
        '; the config mirrors only runs that match {"state": "finished"}; the config mirrors only history keys ["loss"]; '
        "otherwise complete]"
    )


def test_failed_passes_and_runs_are_problems():
    assert freshness.problem({"last_error": "HTTP 500\nfrom the server", "set_aside": 2}) == (
        "last pass failed: HTTP 500 from the server; 2 runs could not be pulled, will be retried"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (7200, "2 h ago"), (200_000, "2 d ago")],
)
def test_ages(seconds, text):
    assert freshness.age(seconds) == text


def test_an_unknown_age_is_said():
    assert freshness.age(None) == "age unknown, a clock was set back"


def test_runs_that_were_deleted_on_the_server_are_named():
    project = Project("team", "seeds")
    runs = [Run(1, project, "here", "here"), Run(2, project, "gone", "gone", deleted=True)]
    assert deletions(runs) == ["deleted on the server: gone"]
    assert deletions(runs[:1]) == []
