from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyarrow import parquet

from mirror.settings.home import Home

FILES = [
    "artifact_files",
    "artifact_usage",
    "artifacts",
    "config_values",
    "console",
    "files",
    "history",
    "history_keys",
    "metric_definitions",
    "projects",
    "reports",
    "run_changes",
    "run_metadata",
    "run_tags",
    "runs",
    "saved_views",
    "summary_values",
    "sweeps",
    "system_metrics",
]


def ask(file: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(file), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_a_project_goes_to_parquet_files(mirror: Any, published: Home, tmp_path: Path) -> None:
    """One file a relation; stdout stays empty."""
    outcome = mirror("export", "team/vision", "-o", str(tmp_path / "out"))
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [f"{name}.parquet" for name in FILES]
    runs = parquet.read_table(tmp_path / "out" / "runs.parquet").to_pylist()
    columns = [name for name, *_ in ask(published.published, "describe runs")]
    assert [list(run) for run in runs] == [columns] * 5
    assert [run["run_id"] for run in runs] == ["alpha", "beta", "gamma", "gone", "twin"]
    assert parquet.read_table(tmp_path / "out" / "history.parquet").num_rows == 27


def test_a_run_goes_to_csv_files(mirror: Any, tmp_path: Path) -> None:
    """A run of the same id in another project stays out."""
    assert mirror("export", "team/nlp/twin", "-o", str(tmp_path), "--format", "csv").exit_code == 0
    with (tmp_path / "history.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["entity", "project", "run_id", "step", "key", "value", "text", "run_path"],
            ["team", "nlp", "twin", "0", "loss", "4.0", "", "team/nlp/twin"],
            ["team", "nlp", "twin", "1", "loss", "5.0", "", "team/nlp/twin"],
        ]
    with (tmp_path / "config_values.csv").open(encoding="utf-8", newline="") as file:
        assert ["team", "nlp", "twin", "text", 'a,b|"c"\t日本', "", "string", "team/nlp/twin"] in list(csv.reader(file))


@pytest.mark.parametrize("source", ["published", "segmented"])
def test_a_database_needs_nothing_beside_it(
    mirror: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    """Plain tables with the names, the columns and the rows of the relations, at any size of the mirror."""
    home: Home = request.getfixturevalue(source)
    monkeypatch.setenv("MIRROR_HOME", str(home.data))
    file = tmp_path / "one.duckdb"
    assert mirror("export", "--duckdb", str(file)).exit_code == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(("one", ".one"))] == ["one.duckdb"]
    with (
        duckdb.connect(str(file), read_only=True) as ours,
        duckdb.connect(str(home.published), read_only=True) as theirs,
    ):
        assert ours.execute("select count(*) from duckdb_views() where not internal").fetchall() == [(0,)]
        for relation in FILES:
            for question in (f"describe {relation}", f"select * from {relation}"):
                reported = [sorted(map(str, side.execute(question).fetchall())) for side in (ours, theirs)]
                # The lag of a project grows from one reading to the next.
                assert reported[0] == reported[1] or question == "select * from projects"
        wide = 'select run_id, "config.lr" from "team/nlp"'
        assert ours.execute(wide).fetchall() == theirs.execute(wide).fetchall() == [("twin", 0.5)]
        assert "v1.4.0" in str(
            ours.execute("select tags from duckdb_databases() where database_name = 'one'").fetchall()
        )


def test_a_database_holds_what_was_asked_for(mirror: Any, tmp_path: Path) -> None:
    """And takes the place of an older one."""
    file = tmp_path / "one.duckdb"
    file.write_text("older", encoding="utf-8")
    assert mirror("export", "team/nlp", "--duckdb", str(file)).exit_code == 0
    assert ask(file, "select distinct entity, project from runs") == [("team", "nlp")]
    assert ask(file, "select table_name from duckdb_tables() where table_name like '%/%'") == [("team/nlp",)]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "no destination: give -o DIR or FILE, --duckdb FILE, --lake DIR, --wandb DIR or --mlflow URI"),
        (["-o", "x", "--format", "xlsx"], 2, 'unknown format "xlsx": known: parquet, csv'),
        (["team/nope", "-o", "x"], 1, "no project team/nope in the mirror; mirrored: team/nlp, team/vision"),
        (["team/vision", "team/nlp/twin", "-o", "x"], 2, "export projects or runs, not both: team/vision and team/nlp/twin"),
        (["--duckdb", "/nowhere/x.duckdb"], 1, "/nowhere"),
        (["-o", "/dev/null/x"], 1, "cannot create /dev/null/x: Not a directory"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_one_line(
    mirror: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    """And leaves nothing behind."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    outcome = mirror("export", *arguments)
    assert (outcome.exit_code, outcome.stdout) == (code, "")
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_one_relation_goes_to_one_file(mirror: Any, tmp_path: Path) -> None:
    """Which names it, unless --relation does; also the wide relation of a project."""
    file = tmp_path / "runs.parquet"
    outcome = mirror("export", "team/vision", "-o", str(file))
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    assert outcome.stderr == f"  runs.parquet: 5 rows\nexported to {file}\n"
    assert parquet.read_table(file).column("run_id").to_pylist() == ["alpha", "beta", "gamma", "gone", "twin"]
    one = tmp_path / "a.csv"
    mirror("export", "team/nlp/twin", "-o", str(one), "--relation", "history_keys")
    assert one.read_text().splitlines()[0].startswith("entity,project,run_id,key,rows")
    assert len(one.read_text().splitlines()) == 2
    mirror("export", "-o", str(one), "--relation", "team/nlp")
    assert "config.lr" in one.read_text().splitlines()[0]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a.csv", "runs.parquet"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x.csv"], "x.csv holds one relation: add --relation NAME, such as runs, history or summary_values"),
        (
            ["-o", "x.csv", "--relation", "histry"],
            "--relation histry: did you mean history or history_keys or histograms?",
        ),
        (["-o", "x", "--relation", "runs"], "--relation goes with -o FILE.parquet or FILE.csv"),
        (["-o", "x.csv", "--format", "parquet"], "x.csv is called .csv, and --format says parquet: give one of them"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_line(
    mirror: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """And nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    outcome = mirror("export", *arguments)
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (2, "", f"error: {message}\n")
    assert not [path for path in tmp_path.iterdir() if path.is_file()]
