from __future__ import annotations

import csv
import io
import json
import math
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyarrow import parquet

GOLDEN = Path(__file__).parent / "golden"
SQL = (GOLDEN / "hard.sql").read_text(encoding="utf-8")
TEXT_FORMATS = ["table", "json", "jsonl", "csv", "tsv", "markdown", "latex"]


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_every_format_writes_every_hard_value_as_it_did(mirror: Any, name: str) -> None:
    """One file a format over one statement. GOLDEN=write renews them, for a person to look at the difference."""
    outcome = mirror("query", SQL, "--format", name)
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    file = GOLDEN / f"hard.{name}"
    if os.environ.get("GOLDEN") == "write":
        file.write_bytes(outcome.data)
    assert outcome.data == file.read_bytes()


def test_table_tsv_and_csv_agree_cell_for_cell(mirror: Any) -> None:
    """One serialiser for all: what differs is the layout alone."""
    rows = list(csv.reader(io.StringIO(mirror("query", SQL, "--csv").stdout, newline="")))
    lines = mirror("query", SQL, "--format", "tsv").stdout.split("\n")[:-1]
    for row, line in zip(rows, lines, strict=True):
        plain = [
            cell.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r") for cell in row
        ]
        assert line.split("\t") == plain
    table = mirror("query", SQL, "--format", "table").stdout.splitlines()[2:]
    cells = [[cell.replace("∅", "") for cell in line.split()] for line in table]
    assert [line[:4] for line in cells] == [row[:4] for row in rows[1:]]


def test_json_loses_nothing_and_is_json(mirror: Any) -> None:
    """Integers keep their digits; NaN and infinities, of which JSON knows nothing, are strings."""

    def strict(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    rows = json.loads(mirror("query", SQL, "--json").stdout, parse_constant=strict)
    assert rows == [
        json.loads(line, parse_constant=strict)
        for line in mirror("query", SQL, "--format", "jsonl").stdout.splitlines()
    ]
    assert [row["big int"] for row in rows[:3]] == [9007199254740993, -9223372036854775808, None]
    assert [row["number"] for row in rows[:4]] == [0.1, "NaN", "Infinity", "-Infinity"]
    assert math.copysign(1, rows[4]["number"]) == -1
    assert [row["text"] for row in rows[1:4]] == ["", None, "NULL"]
    assert rows[9]["text"] == '{"json": [1, NaN, "NaN"]}'
    assert rows[0]["struct"] == {"a": 1, "b": "x"}
    assert rows[3]["struct"] == {"a": 3, "b": "NaN"}


@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_binary_formats_keep_values_and_types(mirror: Any, tmp_path: Path, name: str) -> None:
    """The same table from a file and from a pipe."""
    file = tmp_path / f"out.{name}"
    outcome = mirror("query", SQL, "-o", str(file))
    assert (outcome.exit_code, outcome.data, outcome.stderr) == (0, b"", "")
    piped = mirror("query", SQL, "--format", name).data
    if name == "parquet":
        table, from_pipe = parquet.read_table(file), parquet.read_table(io.BytesIO(piped))
    else:
        table, from_pipe = pa.ipc.open_file(file).read_all(), pa.ipc.open_stream(piped).read_all()
    assert table.schema == from_pipe.schema
    assert str(table.to_pylist()) == str(from_pipe.to_pylist())
    assert dict(zip(table.schema.names, map(str, table.schema.types), strict=True)) == {
        "id": "int32",
        "big int": "int64",
        "number": "double",
        "flag": "bool",
        "text": "string",
        "time": "timestamp[us]",
        "list": f"list<{'element' if name == 'parquet' else 'l'}: int32>",
        "struct": "struct<a: int32, b: string>",
    }
    rows = table.to_pylist()
    assert [row["big int"] for row in rows[:3]] == [9007199254740993, -9223372036854775808, None]
    assert rows[1]["time"] == datetime(2026, 12, 31, 23, 59, 59, 999999)
    assert math.isnan(rows[1]["number"])
    assert rows[6]["text"] == "Zürich 東京 🚀 é"


def test_an_empty_answer_is_empty_in_every_format(mirror: Any) -> None:
    """Headers stay, rows do not."""
    shown = {name: mirror("query", "select 1 as a where false", "--format", name).stdout for name in TEXT_FORMATS}
    assert shown == {
        "table": "a\n─\n",
        "json": "[]\n",
        "jsonl": "",
        "csv": "a\n",
        "tsv": "a\n",
        "markdown": "| a |\n| ---: |\n",
        "latex": "\\begin{tabular}{r}\n\\toprule\na \\\\\n\\midrule\n\\bottomrule\n\\end{tabular}\n",
    }


def test_columns_of_one_name_are_numbered_alike_everywhere(mirror: Any) -> None:
    """A JSON object holds a name once."""
    query = "select 1 as a, 2 as a, 3 as A"
    assert mirror("query", query).stdout == "a\ta_1\tA_2\n1\t2\t3\n"
    assert json.loads(mirror("query", query, "--json").stdout) == [{"a": 1, "a_1": 2, "A_2": 3}]


def test_the_ending_of_the_file_tells_the_format(mirror: Any, tmp_path: Path) -> None:
    """And --format wins over it."""
    for ending, text in {"csv": "a\n1\n", "tsv": "a\n1\n", "json": '[\n{"a":1}\n]\n', "jsonl": '{"a":1}\n'}.items():
        assert mirror("query", "select 1 as a", "-o", str(tmp_path / f"x.{ending}")).exit_code == 0
        assert (tmp_path / f"x.{ending}").read_text(encoding="utf-8") == text
    mirror("query", "select 1 as a", "--json", "-o", str(tmp_path / "x.csv"))
    assert (tmp_path / "x.csv").read_text(encoding="utf-8") == '[\n{"a":1}\n]\n'
    refused = mirror("query", "select 1", "-o", str(tmp_path / "x.out"))
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"error: {tmp_path / 'x.out'} has no known extension: use .json, ")


def test_a_file_is_replaced_whole_or_not_at_all(mirror: Any, tmp_path: Path) -> None:
    """A query that fails half-way leaves the older file and no other."""
    file = tmp_path / "x.csv"
    file.write_text("older", encoding="utf-8")
    failing = "select case when i = 90000 then error('late') else i end as i from range(100000) t(i)"
    outcome = mirror("query", failing, "-o", str(file))
    # DuckDB 1.5 now and then reports how it stopped its other thread, in place of the error.
    causes = ["error: Invalid Input Error: late\n"]
    causes += ["error: INTERRUPT Error: Interrupted!\n"] * (duckdb.__version__ < "2")
    assert outcome.exit_code == 1
    assert outcome.stderr in causes
    assert (file.read_text(encoding="utf-8"), [path.name for path in tmp_path.glob("*x.csv*")]) == ("older", ["x.csv"])
    assert mirror("query", "select 1 as a", "-o", str(file)).exit_code == 0
    assert file.read_text(encoding="utf-8") == "a\n1\n"


def test_a_folder_that_is_not_there_is_named(mirror: Any, tmp_path: Path) -> None:
    """One line, with the file."""
    outcome = mirror("query", "select 1", "-o", str(tmp_path / "no" / "x.csv"))
    assert (outcome.exit_code, outcome.stderr) == (
        1,
        f"error: cannot write {tmp_path / 'no' / 'x.csv'}: No such file or directory\n",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "jason"], 'error: unknown format "jason": did you mean "json"?\n'),
        (["--json", "--csv"], "error: give one format, not json and csv\n"),
    ],
)
def test_a_format_that_cannot_be_is_refused(mirror: Any, options: list[str], message: str) -> None:
    """Before anything is asked."""
    outcome = mirror("query", "select 1", *options)
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (2, "", message)


def test_a_limit_that_cut_the_answer_is_reported_on_stderr(mirror: Any) -> None:
    """How many rows there were; silent when nothing was cut."""
    cut = mirror("query", "select i from range(1234) t(i) order by i", "--limit", "2")
    assert (cut.stdout, cut.stderr) == ("i\n0\n1\n", "2 of 1,234 rows; --limit N shows more, -o FILE keeps them all\n")
    assert mirror("query", "select i from range(2) t(i)", "--limit", "2").stderr == ""
    assert mirror("-q", "query", "select i from range(9) t(i)", "--limit", "2").stderr == ""
    assert mirror("query", "select i from range(9) t(i)", "--limit", "0").stdout == "i\n"
    everything = mirror("query", "select i from range(20000) t(i)")
    assert (everything.stdout.count("\n"), everything.stderr) == (20001, "")


def test_a_count_is_a_bare_number(mirror: Any) -> None:
    """Unless a format is asked for."""
    assert mirror("query", "select i from range(1234) t(i)", "--count").stdout == "1234\n"
    assert mirror("query", "select i from range(1234) t(i)", "--count", "--json").stdout == '[\n{"count":1234}\n]\n'


def test_latex_escapes(mirror: Any) -> None:
    """In any table: what people write into names does not end a table."""
    sql = "select 'a & b_c % $ # { } ~ ^ \\ [x' as \"n_1\", -1.5e-7::double as x, 'inf'::double as y, null as z"
    assert mirror("query", sql, "--format", "latex").stdout.splitlines()[2:5] == [
        "n\\_1 & x & y & z \\\\",
        "\\midrule",
        "a \\& b\\_c \\% \\$ \\# \\{ \\} \\textasciitilde{} \\textasciicircum{} \\textbackslash{} [x & $-1.5 \\times 10^{-7}$ & $\\infty$ & -- \\\\",
    ]
    assert "{[x}" in mirror("query", "select '[x' as a", "--format", "latex").stdout
    assert (
        io.StringIO(mirror("query", "select 1 as a where false", "--format", "latex").stdout).read().count("\\\\") == 1
    )
