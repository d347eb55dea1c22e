from __future__ import annotations

import pytest

from mirror.query.table import columns, lay_out

HEADER = ["id", "name", "notes", "loss"]
ROWS = [("alpha", "a long name of a run", "x" * 200, "0.5"), ("b", None, "", "-12.25")]
NUMERIC = [False, False, False, True]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 1000])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Cut cells end in an ellipsis; columns that do not fit are left out and named."""
    table = lay_out(HEADER, ROWS, NUMERIC, width)
    assert max(columns(line) for line in table.lines) <= width
    assert [*table.lines[0].split(), *table.left_out] == HEADER


def test_the_widest_column_gives_way_first() -> None:
    """Short ones stay whole."""
    assert lay_out(HEADER, ROWS, NUMERIC, 50).lines == [
        "id     name               notes               loss",
        "─────  ─────────────────  ────────────────  ──────",
        "alpha  a long name of a…  xxxxxxxxxxxxxxx…     0.5",
        "b      ∅                                    -12.25",
    ]


def test_columns_that_would_be_too_narrow_are_left_out_from_the_right() -> None:
    """The first columns tell what a row is."""
    header = [f"column_{number:02}" for number in range(20)]
    table = lay_out(header, [tuple(header)] * 2, [False] * 20, 80)
    assert table.lines[0] == "column_00  column_01  column_02  column_03  column_04  column_05  column_06"
    assert table.left_out == header[7:]


def test_wide_and_combining_characters_are_measured_as_they_are_shown() -> None:
    """Columns stay aligned."""
    assert [columns(text) for text in ("abc", "日本", "e\u0301", "🚀", "")] == [3, 4, 1, 2, 0]
    assert lay_out(["a", "b"], [("日本", "1"), ("e\u0301", "2")], [False, True], 80).lines == [
        "a     b",
        "────  ─",
        "日本  1",
        "e\u0301     2",
    ]
    assert lay_out(["a"], [("日本日本",)], [False], 6).lines[2] == "日本…"


def test_no_value_steers_the_terminal() -> None:
    """Escape sequences, line breaks and marks that turn the direction of text are shown, not sent."""
    table = lay_out(["\x1b[2Ja"], [("\x1b]0;title\x07\x9b31m",), ("a\r\nb\tc",), ("\u202eabc",)], [False])
    assert table.lines[0] == "\\x1b[2Ja"
    assert table.lines[2:] == ["\\x1b]0;title\\x07\\x9b31m", "a\\r\\nb\\tc", "\\u202eabc"]
