"""Runs with thousands of keys take little memory and time, however they are read."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

import mirror as package
from mirror.query import run_table
from mirror.settings.home import Home
from mirror.snapshot import run_query
from mirror.store import history, projects, runs
from mirror.store.records import HistoryPage
from mirror.store.store import Store
from tests.query.conftest import SYNCED, VISION, run

KEYS, ROWS, MOST_MB = 5_000, 4, 400
LEAVES = 500

# ru_maxrss of the one child, in KB on Linux.
MEASURED = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "mirror.cli", *sys.argv[1:]])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, file=sys.stderr)
sys.exit(done.returncode)
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A run with KEYS keys and a config of LEAVES leaves, and one with half of those."""
    home = Home(tmp_path_factory.mktemp("wide"), Path("config.toml"))
    names = [f"part{key % 10}/key{key}" for key in range(KEYS)]
    table = pa.table(
        {
            "step": pa.array(list(range(ROWS)) * KEYS, pa.int64()),
            "key": pa.array([name for name in names for _ in range(ROWS)]),
            "value": pa.array([key + step / 8 for key in range(KEYS) for step in range(ROWS)], pa.float64()),
            "text": pa.nulls(KEYS * ROWS, pa.string()),
        }
    )
    store = Store.open(home)
    with store.transaction() as tx:
        projects.add(tx, VISION)
        odd: dict[str, Any] = {
            "k0": True,
            "k1": 9007199254740993,
            "k2": [1, {"a": 2}],
            "k3": {"b": {"c": 1}},
            "k4": "x",
        }
        whole = {f"k{place}": place / 2 for place in range(LEAVES)} | odd
        half = {name: value for name, value in whole.items() if int(name[1:]) % 2}
        defined = {"m": [{"1": names[0]}, {"2": "part1/*", "5": 1}, *({"1": name, "5": 1} for name in names[2::10])]}
        runs.upsert(
            tx,
            [run(VISION, "one", 0, config=whole, config_meta=defined), run(VISION, "two", 1, config=half)],
            now=SYNCED,
        )
        history.append(tx, VISION, [HistoryPage("one", table, rows=ROWS, last_step=ROWS - 1)])
        projects.record_success(tx, VISION, SYNCED)
    store.publish()
    store.close()
    return home


def measured(home: Home, *arguments: str) -> tuple[str, int]:
    """What the command wrote, and the most memory that it had, in MB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        env={**os.environ, "MIRROR_HOME": str(home.data)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, int(done.stderr.splitlines()[-1])


@pytest.mark.xdist_group("wide")
def test_a_run_of_thousands_of_keys_is_read_in_a_few_hundred_megabytes(wide: Home) -> None:
    """The same table as Python's `history()`."""
    text, memory = measured(wide, "history", "one", "--csv")
    frame = package.Api(home=wide.data).run("team/vision/one").history(samples=None)
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["step", *sorted(name for name in frame.columns if name != "_step")]
    assert [[float(cell) for cell in row] for row in rows] == frame[["_step", *header[1:]]].to_numpy().tolist()
    assert memory < MOST_MB


@pytest.mark.xdist_group("wide")
def test_thousands_of_keys_over_an_axis_take_no_more(wide: Home) -> None:
    """The axis is one column, however many keys and definitions name it."""
    text, memory = measured(wide, "history", "one", "--keys", "part1/*,part2/*", "--csv")
    header, *rows = csv.reader(io.StringIO(text))
    assert header[:2] == ["step", "part0/key0"]
    assert len(header) == 2 + KEYS // 5
    assert [row[:2] for row in rows] == [[str(step), str(step / 8)] for step in range(ROWS)]
    assert memory < MOST_MB


@pytest.mark.xdist_group("wide")
@pytest.mark.parametrize("arguments", [["--limit", "1", "--csv"], ["--samples", "1", "--csv"]])
def test_one_row_of_many_keys(wide: Home, mirror: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setenv("MIRROR_HOME", str(wide.data))
    header, *rows = csv.reader(io.StringIO(mirror("history", "one", *arguments).stdout))
    assert len(header) == 1 + KEYS
    assert rows == [["0", *(f"{int(name.partition('/key')[2])}.0" for name in header[1:])]]


@pytest.mark.xdist_group("wide")
def test_hundreds_of_selected_keys_are_found_as_few_are(
    wide: Home, mirror: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every type, and runs that lack some, in JSON, CSV and Parquet alike."""
    monkeypatch.setenv("MIRROR_HOME", str(wide.data))
    names = [f"config.k{place}" for place in range(LEAVES)]

    def answers(select: list[str], file: Path) -> tuple[str, str, pa.Table]:
        arguments = ["query", "--project", "team/vision", "--order", "name", "--select", ",".join(["run_id", *select])]
        assert mirror(*arguments, "-o", str(file)).exit_code == 0
        return mirror(*arguments, "--json").stdout, mirror(*arguments, "--csv").stdout, parquet.read_table(file)

    found = answers(names, wide.data / "many.parquet")
    rows = json.loads(found[0])
    plain = [place / 2 for place in range(5, LEAVES)]
    assert rows[0] == {
        "run_id": "one",
        **dict(zip(names, [True, 9007199254740993, [1, {"a": 2}], {"b": {"c": 1}}, "x", *plain], strict=True)),
    }
    assert [rows[1][name] for name in names[:6]] == [None, 9007199254740993, None, {"b": {"c": 1}}, None, 2.5]
    monkeypatch.setattr(run_query, "FEW_LEAVES", LEAVES)
    assert answers(names[:100], wide.data / "few.parquet")[2].equals(found[2].select(["run_id", *names[:100]]))
    _, memory = measured(wide, "query", "--project", "team/vision", "--select", ",".join(names), "--csv")
    assert memory < MOST_MB


@pytest.mark.parametrize("format_name", ["csv", "json", "markdown", "table"])
@pytest.mark.parametrize(
    "arguments",
    [[], ["--limit", "4"], ["--samples", "4"], ["--keys", "note,val/*"], ["--x", "note"], ["--x", "val/acc"]],
    ids=" ".join,
)
def test_where_a_history_is_cut_does_not_show(
    mirror: Any, segmented: Home, monkeypatch: pytest.MonkeyPatch, format_name: str, arguments: list[str]
) -> None:
    """It is read in stretches and written in batches; both of one row give the same as one of all."""
    whole = mirror("history", "alpha", *arguments, "--format", format_name)
    assert whole.exit_code == 0
    monkeypatch.setattr(run_table, "VALUES_AT_ONCE", 1)
    monkeypatch.setattr(run_table, "CELLS_AT_ONCE", 1)
    assert mirror("history", "alpha", *arguments, "--format", format_name) == whole
    monkeypatch.setenv("MIRROR_HOME", str(segmented.data))
    assert mirror("history", "alpha", *arguments, "--format", format_name) == whole


def test_a_history_as_parquet_and_arrow_keeps_numbers_and_texts(mirror: Any, tmp_path: Path) -> None:
    """A key that was always a number is a column of doubles, any other one of texts."""
    for name in ("parquet", "arrow"):
        assert mirror("history", "alpha", "-o", str(tmp_path / f"alpha.{name}")).exit_code == 0
    table = parquet.read_table(tmp_path / "alpha.parquet")
    arrow = pa.ipc.open_file(tmp_path / "alpha.arrow").read_all()
    assert (arrow.schema, str(arrow.to_pylist())) == (table.schema, str(table.to_pylist()))
    assert [(field.name, str(field.type)) for field in table.schema] == [
        *(("_step", "int64"), ("Loss", "double"), ("loss", "double"), ("note", "string")),
        *(("step", "double"), ("val/acc", "double")),
    ]
    assert table["note"].to_pylist() == [None, "début", None, None, None, "2.5", None, None, None, None]
    assert math.isnan(table["val/acc"].to_pylist()[4])


def test_columns_far_beyond_the_terminal_are_named_and_not_laid_out(wide: Home) -> None:
    """The table fits; the rest is reported."""
    from mirror.query.table import lay_out

    header = [f"c{place}" for place in range(KEYS)]
    table = lay_out(header, [tuple("1" for _ in header)], [True] * KEYS, 20)
    assert table.lines == ["c0  c1  c2  c3  c4", "──  ──  ──  ──  ──", " 1   1   1   1   1"]
    assert table.left_out == header[5:]
