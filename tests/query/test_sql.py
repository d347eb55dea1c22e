from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mirror.settings.home import Home

ALLOWED = "is refused, the mirror is read-only: use SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE and EXPLAIN"


def refused(mirror: Any, sql: str) -> str:
    """The one line on stderr, after nothing on stdout and exit code 1."""
    outcome = mirror("query", sql)
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert outcome.stderr.startswith("error: ")
    assert outcome.stderr.count("\n") == 1
    return outcome.stderr.removeprefix("error: ").rstrip("\n")


def test_sql_in_a_file(mirror: Any, tmp_path: Path) -> None:
    script = tmp_path / "one.sql"
    script.write_text("-- One.\nselect 1 as a;\n")
    assert mirror("query", "-f", str(script)).stdout == "a\n1\n"
    assert mirror("query", "--file", "-", stdin="select 2 as a").stdout == "a\n2\n"
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for arguments, message in (
        (["-f", str(tmp_path / "none.sql")], f"{tmp_path}/none.sql cannot be read: No such file or directory"),
        (["-f", str(binary)], f"{binary} is not text in UTF-8, so it is not SQL"),
        (["-f", str(script), "select 1"], "give SQL or --file, not both"),
        (["-f", str(script), "--filter", "{}"], "--filter is for run filters: put it into the SQL instead"),
    ):
        outcome = mirror("query", *arguments)
        assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (2, "", f"error: {message}\n")
    assert mirror("query", "--counts").stderr.startswith("error: No such option: --counts ")


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("select run_id from runs where project = 'vision' order by created_at", "run_id\nalpha\nbeta\ngamma\ngone\ntwin\n"),
        ("with r as (select * from runs) select count(*) as n from r", "n\n6\n"),
        ("from run_tags select tag order by tag", "tag\nbase\né\n"),
        ("values (1, 'a'), (2, 'b')", "col0\tcol1\n1\ta\n2\tb\n"),
        ("(select 1 as a)", "a\n1\n"),
        ("select 1 as a; -- done", "a\n1\n"),
        ("/* a;b */ select ';' as a -- c;d", "a\n;\n"),
        ("-- The answer.\nselect 1 as a;\n", "a\n1\n"),
        ("--count of nothing\nselect 1 as a", "a\n1\n"),
        ("select 1 as a union all select 2 order by a desc", "a\n2\n1\n"),
        ("select timestamptz '2026-01-01 12:00:00+02' as t", "t\n2026-01-01 10:00:00+00\n"),
        ("describe select 1 as a", "column_name\tcolumn_type\tnull\tkey\tdefault\textra\na\tINTEGER\tYES\t\t\t\n"),
        ("select key, value from history where run_id = 'alpha' and step = 4 order by key", "key\tvalue\nLoss\t4.0\nloss\t0.2\nval/acc\tnan\n"),
    ],
)  # fmt: skip
def test_statements_that_read_are_answered(mirror: Any, sql: str, answer: str) -> None:
    """In the order that was asked for."""
    outcome = mirror("query", sql)
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (0, answer, "")


def test_sql_can_come_from_stdin(mirror: Any) -> None:
    """For long statements, and for those that begin with a comment."""
    assert mirror("query", "-", stdin="-- how many\nselect count(*) as n from runs\n").stdout == "n\n6\n"


def test_show_summarize_and_explain_answer(mirror: Any) -> None:
    """What people explore a database with."""
    assert "run_changes" in mirror("query", "show tables").stdout.split()
    assert mirror("query", "summarize select 1 as a").stdout.splitlines()[1].startswith("a\tINTEGER\t1\t1\t1\t")
    for statement in ("explain select 1", "explain analyze select count(*) from runs", "/* x */ EXPLAIN select 1;"):
        plan = mirror("query", statement)
        assert (plan.exit_code, plan.stdout.startswith("plan\n")) == (0, True)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", 'Parser Error: syntax error at or near "selec" (line 1, column 1)'),
        ("select 1 +\n  nosuch from runs", "(line 2, column 3)"),
        ("select run_idd from run_tags", "(line 1, column 8)"),
        (
            "from leave",
            "Catalog Error: Table with name leave does not exist! SHOW TABLES lists the relations (line 1, column 6)",
        ),
        (
            "from wide_1",
            "Catalog Error: Table with name wide_1 does not exist! SHOW TABLES lists the relations (line 1, column 6)",
        ),
        (
            "from run_tag",
            'Catalog Error: Table with name run_tag does not exist! Did you mean "run_tags"? (line 1, column 6)',
        ),
        (
            "from tags",
            'Catalog Error: Table with name tags does not exist! Did you mean "run_tags"? (line 1, column 6)',
        ),
        ("from nosuch", "Catalog Error: Table with name nosuch does not exist!"),
        ("select cast('x' as int)", "Conversion Error: Could not convert string 'x' to INT32"),
        (f"select {', '.join(f'{n} as column_number_{n}' for n in range(30))}, nosuch", "(line 1, at `nosuch`)"),
        ("select ?", "Invalid Input Error: Values were not provided for the following"),
        ("", "there is no SQL to run"),
        (" ; ", "there is no SQL to run"),
        ("select 1; select 2", "one statement at a time, not 2"),
        ("select 1; drop table runs", "one statement at a time, not 2"),
        ("select 1) union all (select 2", 'Parser Error: syntax error at or near ")" (line 1, column 9)'),
        (
            "pivot runs on state using count(*)",
            "PIVOT needs its columns: use PIVOT ... ON key IN ('a', 'b') USING ...",
        ),
    ],
)
def test_an_error_is_one_line_with_its_place(mirror: Any, sql: str, message: str) -> None:
    """Counted in the text as it was written."""
    assert message in refused(mirror, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "insert into runs values (1)",
        "update store.run_records set name = 'x'",
        "delete from store.run_records",
        "truncate store.run_records",
        "merge into store.run_records using (select 1) on false when not matched then insert",
        "create table t (a int)",
        "create temp table t (a int)",
        "create view v as select 1",
        "create macro m() as 1",
        "alter table store.run_records add column a int",
        "comment on table store.run_records is 'x'",
        "drop view runs",
        "copy runs to '/tmp/runs.csv'",
        "export database '/tmp/exported'",
        "attach ':memory:' as other",
        "attach '/tmp/other.duckdb' as other",
        "detach mirror",
        "use main",
        "set threads = 1",
        "set enable_external_access = true",
        "reset threads",
        "set variable x = 1",
        "pragma threads = 1",
        "pragma database_list",
        "call pragma_version()",
        "load json",
        "install httpfs",
        "checkpoint",
        "vacuum",
        "analyze",
        "begin",
        "prepare p as select 1",
        "explain copy runs to '/tmp/runs.csv'",
        "explain analyze create temp table t (a int)",
    ],
)  # fmt: skip
def test_what_could_write_is_refused(mirror: Any, sql: str) -> None:
    """Before it runs, with what is allowed instead."""
    word = "EXPLAIN of anything but a query" if sql.startswith("explain") else sql.split(maxsplit=1)[0].upper()
    message = refused(mirror, sql)
    # DuckDB 1.5 rewrites some pragmas to queries before anybody can see what they were.
    assert message == f"{word} {ALLOWED}" or sql == "pragma database_list"


@pytest.mark.parametrize(
    "sql",
    [
        "with x as (copy (select 1) to '{target}') from x",
        "with x as (copy (select 1) to '{target}') select 1",
        "explain analyze with x as (copy (select 1) to '{target}') from x",
        "explain analyze copy (select 1) to '{target}'",
        "describe (with x as (copy (select 1) to '{target}') from x)",
        "from query('copy (select 1) to ''{target}''')",
        "with x as (insert into store.run_records (rid) values (99) returning rid) from x",
        "with x as (delete from store.run_records returning rid) from x",
    ],
)
def test_no_query_writes_behind_a_cte(mirror: Any, segmented: Home, monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    """DuckDB 2.0 takes COPY in a CTE for a SELECT, and the folder of segments is one that queries may read."""
    monkeypatch.setenv("MIRROR_HOME", str(segmented.data))
    before = sorted(segmented.data.rglob("*"))
    refused(mirror, sql.format(target=segmented.history / "evil.parquet"))
    assert sorted(segmented.data.rglob("*")) == before


@pytest.mark.parametrize(
    "sql",
    [
        "from read_csv('/etc/passwd')",
        "from '/etc/passwd'",
        "from read_text('{home}/config.toml')",
        "from read_text('{home}/history/../config.toml')",
        "from read_blob('{home}/state.duckdb')",
        "from glob('{home}/*')",
        "from glob('/etc/*')",
        "from sniff_csv('/etc/passwd')",
        "from parquet_metadata('/etc/passwd')",
        "from 'https://example.com/x.parquet'",
        "from read_json('http://127.0.0.1:9/x.json')",
        "from read_parquet('s3://bucket/x.parquet')",
        "select getenv('HOME')",
        "from leak",
    ],
)
def test_other_files_the_network_and_this_process_are_out_of_reach(mirror: Any, published: Home, sql: str) -> None:
    """Only the mirror and its segments can be read."""
    leak = duckdb.sql("select 'a variable of this process' as text")
    (published.data / "config.toml").write_text("projects = []", encoding="utf-8")
    assert leak is not None
    refused(mirror, sql.format(home=published.data))


def test_history_in_segments_is_read(mirror: Any, segmented: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the view, and as files by whoever wants that."""
    monkeypatch.setenv("MIRROR_HOME", str(segmented.data))
    assert (
        mirror("query", "select count(*) as n, sum(value) as s from history where key = 'Loss'").stdout
        == "n\ts\n10\t45.0\n"
    )
    glob = f"{segmented.history}/**/*.parquet"
    assert int(mirror("query", f"select count(*) from read_parquet('{glob}')", "--csv").stdout.split()[1]) > 0


def test_before_the_first_sync_the_way_there_is_shown(cli: Any, home: Home) -> None:
    """Nothing is made by asking."""
    outcome = cli("query", "select 1")
    assert (outcome.exit_code, outcome.stderr) == (
        1,
        f"error: nothing mirrored yet ({home.published} does not exist): run `mirror sync`\n",
    )
    assert not home.data.exists()


@pytest.mark.parametrize("content", [b"", b"not a database", b"\0" * 20000])
def test_a_damaged_file_is_named(cli: Any, home: Home, content: bytes) -> None:
    """One line, and how to get a good one."""
    home.data.mkdir()
    home.published.write_bytes(content)
    outcome = cli("query", "select * from runs")
    assert outcome.exit_code == 1
    assert outcome.stderr.count("\n") == 1
    if content:
        assert outcome.stderr.startswith(f"error: cannot read {home.published} (")
        assert outcome.stderr.endswith("; `mirror sync` publishes it again\n")


def test_what_memory_cannot_hold_goes_beside_the_mirror_and_away(
    mirror: Any, published: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two readers never share such a folder."""
    setting = mirror("query", "select current_setting('temp_directory') as folder").stdout.splitlines()[1]
    assert setting == f"{published.published}.tmp-{os.getpid()}"
    assert not Path(setting).exists()


def test_a_query_leaves_the_published_file_as_it_is(mirror: Any, published: Home) -> None:
    """Byte for byte, with its permissions and no journal."""
    before = published.published.read_bytes()
    assert mirror("query", "select * from runs order by all", "--json").exit_code == 0
    assert published.published.read_bytes() == before
    assert stat.S_IMODE(published.published.stat().st_mode) == 0o444
    assert not published.published.with_name("mirror.duckdb.wal").exists()
