"""What lies in `files/` beside a run's file fills what the file lacks."""

from __future__ import annotations

import json
import os
from datetime import datetime

import pytest

from mirror.local import beside
from mirror.local.console import Console
from tests.local.kit import ingest, pb, real_run, run_file

METADATA = {
    "os": "Linux",
    "python": "3.9.7",
    "program": "train.py",
    "args": ["--lr", "0.1"],
    "gpu": "A100",
    "gpu_count": 2,
    "host": "box",
    "git": {"remote": "git@example.org:x.git", "commit": "abc"},
    "disk": {"/": {"total": 1}},
}

YAML = """wandb_version: 1

_wandb:
  desc: null
  value:
    cli_version: 0.12.9
lr:
  desc: null
  value: 0.5
small:
  value: 1e-05
layers:
  desc: null
  value:
  - 1
  - a: null
  - .nan
name:
  value: "no"
"""


def put(file, **contents):
    """Files beside a run's file: by name without its ending."""
    names = {"metadata": beside.METADATA, "config": beside.CONFIG, "summary": beside.SUMMARY, "log": beside.LOG}
    folder = file.path.parent / "files"
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        data = content if isinstance(content, str) else json.dumps(content)
        (folder / names[name]).write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def console(sql):
    return sql("select line, text from console order by line")


def test_metadata_commit_and_host_come_from_the_file_beside(home, sql, tmp_path):
    put(run_file(tmp_path).lines(0, 2), metadata=METADATA)
    put(run_file(tmp_path, "own", host="own-host", git=pb.GitRepoRecord(commit="own")), metadata=METADATA)
    ingest(home, tmp_path)
    assert sql("select run_id, host, git_commit from runs order by 1") == [
        ("own", "own-host", "own"),
        ("r1", "box", "abc"),
    ]
    assert sql("select key, value from run_metadata where run_id = 'r1' and key not like 'args%' order by key") == [
        ("git.commit", "abc"),
        ("git.remote", "git@example.org:x.git"),
        ("gpu", "A100"),
        ("gpu_count", "2"),
        ("os", "Linux"),
        ("program", "train.py"),
        ("python", "3.9.7"),
    ]


def test_all_of_the_metadata_is_mirrored_where_it_is_asked_for(home, sql, tmp_path):
    put(run_file(tmp_path), metadata=METADATA)
    ingest(home, tmp_path, metadata=True)
    assert sql("select value from run_metadata where key = 'disk./.total'") == [("1",)]


def test_the_environment_record_of_newer_files_tells_the_same(home, sql, tmp_path):
    environment = pb.EnvironmentRecord(program="x.py", args=["a"], os="Linux", cpu_count=4, host="box")
    environment.git.commit = "abc"
    run_file(tmp_path).add(environment=environment)
    ingest(home, tmp_path)
    assert sql("select key, value from run_metadata order by key") == [
        ("args", '["a"]'),
        ("cpu_count", "4"),
        ("git.commit", "abc"),
        ("os", "Linux"),
        ("program", "x.py"),
    ]
    assert sql("select host, git_commit from runs") == [("box", "abc")]


def test_config_and_summary_fill_what_is_missing(home, sql, tmp_path):
    file = run_file(tmp_path).config(lr=0.1, net='{"a": 1}').log(0, loss=1).summary(best=1)
    put(file, config=YAML, summary={"best": 2, "loss": 3, "extra": {"x": 1}, "inf": "Infinity"})
    ingest(home, tmp_path)
    [(config, summary, meta)] = sql("select config, summary, config_meta from store.run_records")
    assert config == '{"lr":0.1,"net":{"a":1},"small":1e-05,"layers":[1,{"a":null},NaN],"name":"no"}'
    assert json.loads(meta) == {"cli_version": "0.12.9"}
    found = json.loads(summary)
    assert (found["best"], found["loss"], found["extra"], found["inf"]) == (1, 1, {"x": 1}, float("inf"))


def test_what_comes_beside_a_file_later_is_read_then(home, sql, tmp_path):
    file = run_file(tmp_path).lines(0, 2).exit()
    ingest(home, tmp_path)
    put(file, metadata=METADATA, config=YAML)
    assert [result.outcome for result in ingest(home, tmp_path)] == ["read"]
    assert [result.outcome for result in ingest(home, tmp_path)] == ["nothing new"]
    assert sql("select git_commit, history_rows, config->>'lr' from runs") == [("abc", 2, "0.5")]


def test_documents_that_no_reader_accepts_are_reported_and_the_run_is_mirrored(home, cli, sql, tmp_path):
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghijklm", "bcdefghijklmn", strict=True)
    )
    bad = {
        "cut": {"metadata": '{"a": ', "summary": "[1]", "config": "a: [1"},
        "deep": {"metadata": '{"a": ' + "[" * 5000 + "]" * 5000 + "}", "config": "a: " + "[" * 5000 + "]" * 5000},
        "bomb": {"config": bomb},
        "tag": {"config": "a: !!python/object/apply:os.system [echo]"},
        "bytes": {"metadata": "\x00\x01"},
        "empty": {"metadata": "", "config": "", "summary": ""},
    }
    for name, contents in bad.items():
        put(run_file(tmp_path, name).lines(0, 1), **contents)
    for name in (beside.METADATA, beside.CONFIG, beside.SUMMARY, beside.LOG):
        file = put(run_file(tmp_path, f"fifo-{name}").lines(0, 1))
        os.mkfifo(file.path.parent / "files" / name)
    home.config.parent.mkdir(parents=True, exist_ok=True)
    home.config.write_text("[sync]\nconsole = true\n")
    done = cli("ingest", str(tmp_path), "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    reported = {result["run"].rpartition("/")[2]: len(result["unreadable"]) for result in found["results"]}
    fifos = {f"fifo-{name}": 1 for name in (beside.METADATA, beside.CONFIG, beside.SUMMARY, beside.LOG)}
    assert reported == {"cut": 3, "deep": 2, "bomb": 1, "tag": 1, "bytes": 1, "empty": 0, **fifos}
    assert sql("select sum(history_rows), count(*) from runs") == [(10, 10)]


def raw(text, kind=1, second=0):
    record = pb.OutputRawRecord(line=text, output_type=kind)
    record.timestamp.seconds = 1_700_000_000 + second
    return record


def test_the_console_of_the_file_is_mirrored_as_a_terminal_shows_it(home, sql, tmp_path):
    file = run_file(tmp_path)
    for second, (text, kind) in enumerate(
        [
            ("one\ntw", 1),
            ("oops\n", 0),
            ("o\n", 1),
            ("10%", 0),
            ("\r20%", 0),
            ("\x1b", 1),
            ("[A\rTWO\n\n\n", 1),
            ("end", 1),
        ]
    ):
        file.add(output_raw=raw(text, kind, second))
        ingest(home, tmp_path, console=True)
    file.add(output_logger=pb.OutputLoggerRecord(line="reported\nby the script\n"))
    ingest(home, tmp_path, console=True)
    assert console(sql) == [
        (0, "one"),
        (1, "TWO"),
        (2, "oops"),
        (3, "20%"),
        (4, ""),
        (5, ""),
        (6, "end"),
        (7, "reported"),
        (8, "by the script"),
    ]
    assert sql("select line, logged_at, level from console where line in (1, 2) order by 1") == [
        (1, datetime(2023, 11, 14, 22, 13, 20), None),
        (2, datetime(2023, 11, 14, 22, 13, 21), "error"),
    ]


def test_the_console_is_left_out_unless_it_is_asked_for(home, sql, tmp_path):
    put(run_file(tmp_path).add(output_raw=raw("x\n")), log="x\n")
    ingest(home, tmp_path)
    assert console(sql) == []


def test_what_is_asked_for_later_is_read_then(home, sql, tmp_path):
    file = run_file(tmp_path).log(0, loss=1, acc=2).stats(1, cpu=5).add(output_raw=raw("x\n")).exit()
    put(file, metadata=METADATA)
    ingest(home, tmp_path, history=("loss",))
    wider = {"history": ("*",), "system_metrics": True, "console": True, "metadata": True}
    assert [result.outcome for result in ingest(home, tmp_path, **wider)] == ["new"]
    assert sql("select key from history where key in ('loss', 'acc') order by 1") == [("acc",), ("loss",)]
    assert sql("select value from system_metrics where key = 'system.cpu'") == [(5.0,)]
    assert sql("select value from run_metadata where key = 'disk./.total'") == [("1",)]
    assert console(sql) == [(0, "x")]
    assert [result.outcome for result in ingest(home, tmp_path, **wider)] == ["nothing new"]
    assert [result.rows for result in ingest(home, tmp_path)] == [0]
    assert console(sql) == [(0, "x")]


def test_output_log_is_the_console_of_a_file_without_one(home, sql, tmp_path):
    file = put(run_file(tmp_path).lines(0, 1), log="one\n10%\r20%\nhal")
    ingest(home, tmp_path, console=True)
    assert console(sql) == [(0, "one"), (1, "20%"), (2, "hal")]
    put(file, log="one\n10%\r20%\nhalf\nnext\n")
    ingest(home, tmp_path, console=True)
    assert console(sql) == [(0, "one"), (1, "20%"), (2, "half"), (3, "next")]
    put(file, log="short\n")
    ingest(home, tmp_path, console=True)
    assert console(sql) == [(0, "short")]
    # The file has a console after all.
    file.add(output_raw=raw("own\n"))
    ingest(home, tmp_path, console=True)
    assert console(sql) == [(0, "own")]


def test_the_console_of_a_resumed_start_goes_on(home, sql, tmp_path):
    put(run_file(tmp_path, stamp="20260101_000000").lines(0, 1), log="a\nb")
    put(run_file(tmp_path, stamp="20260102_000000", start=1_700_100_000, resume=True).lines(0, 1), log="c\n")
    last = run_file(tmp_path, stamp="20260103_000000", start=1_700_200_000, resume=True).lines(0, 1)
    last.add(output_raw=raw("d\n"))
    ingest(home, tmp_path, console=True)
    assert console(sql) == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]


@pytest.mark.parametrize(("name", "lines", "errors"), [("oslj8o8c", 41, 28), ("35ivz1mj", 10, 2), ("24jm1z1e", 53, 42)])
def test_every_console_line_of_real_runs(home, sql, name, lines, errors):
    ingest(home, real_run(name), console=True)
    found = sql(
        "select count(*), count(*) filter (level = 'error'), count(distinct text) from console where text <> ''"
    )
    assert found == [(lines, errors, 1)]


def test_a_terminal_forgets_what_scrolled_out_of_it():
    console = Console()
    console.write("".join(f"{n}\n" for n in range(100)), None, None)
    console.write("\x1b[A" * 200 + "top", None, None)
    lines = [line for group in console.take() for line in group]
    assert [line[3] for line in lines] == [*(str(n) for n in range(69)), "top", *(str(n) for n in range(70, 100))]
    assert Console.from_json(json.loads(json.dumps(console.as_json()))) == console
