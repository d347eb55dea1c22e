"""Files that only look like those of runs, and values that no reader accepts: reported by name, and the rest is read."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from tests.local.kit import framed, now, pb, run_file


def errors(done):
    found = json.loads(done.stdout)
    names = {result["path"].rpartition("/")[2]: result["error"] for result in found["results"] if result["error"]}
    return found["history_rows"], names


def test_only_regular_files_are_read(home, cli, sql, tmp_path, monkeypatch):
    """A FIFO never ends, as a device; links may lead in circles, nowhere, or to one of these."""
    run_file(tmp_path).lines(0, 3).exit()
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo.wandb")
    links = {"to-fifo": "fifo.wandb", "device": "/dev/zero", "circle": "circle.wandb", "broken": "nowhere", "here": "."}
    for name, target in links.items():
        Path(f"{name}.wandb").symlink_to(target)
    run_file(tmp_path / "folder.wandb" / "wandb", "r2").lines(0, 2).exit()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.wandb")
        done = cli("ingest", ".", "--json")
    assert done.exit_code == 1
    assert errors(done) == (
        5,
        {
            "fifo.wandb": "it is not a regular file",
            "zero": "it is not a regular file",
            "circle.wandb": "Too many levels of symbolic links",
            "nowhere": "No such file or directory",
            "socket.wandb": "it is not a regular file",
        },
    )
    assert cli("ingest", "fifo.wandb").exit_code == 1
    assert sql("select run_id, state, history_rows from runs order by 1") == [
        ("r1", "finished", 3),
        ("r2", "finished", 2),
    ]


def test_a_fifo_in_the_place_of_a_known_file_or_of_its_log_is_not_waited_for(home, cli, sql, tmp_path):
    file = run_file(tmp_path, start=now()).lines(0, 3)
    (file.path.parent / "logs").mkdir()
    os.mkfifo(file.path.parent / "logs" / "debug.log")
    assert cli("ingest", str(tmp_path)).exit_code == 0
    old = run_file(tmp_path, "old").lines(0, 3)
    (old.path.parent / "logs").mkdir()
    os.mkfifo(old.path.parent / "logs" / "debug.log")
    assert cli("ingest", str(tmp_path)).exit_code == 0
    file.path.unlink()
    os.mkfifo(file.path)
    done = cli("ingest", str(tmp_path), "--json")
    assert (done.exit_code, errors(done)) == (1, (0, {"run-r1.wandb": "it is not a regular file"}))
    assert sql("select run_id, state, history_rows from runs order by 1") == [
        ("old", "crashed", 3),
        ("r1", "running", 3),
    ]


DEEP = "[" * 2000 + "]" * 2000
LONG = "9" * 5000
ODD = {
    "deep": DEEP,
    "deep_object": '{"a":' * 2000 + "1" + "}" * 2000,
    "long": LONG,
    "long_inside": f"[1, {LONG}]",
    "cut": '{"a": [1, 2',
    "cut_long": '{"a": "' + "x" * 1000,
    "word": "nothing",
    "two": "1, 2 3",
}


def test_values_that_no_reader_accepts_are_named_and_all_else_is_mirrored(home, cli, sql, tmp_path):
    for name, text in ODD.items():
        file = run_file(tmp_path, name).config(lr=0.5, **{name: text})
        file.log(0, loss=1).log(1, loss=2, **{name: text}).log(2, loss=3)
        file.stats(1, cpu=1).stats(2, cpu=2, **{name: text}).stats(3, cpu=3)
        file.summary(loss=3, **{name: text}).exit()
    home.config.parent.mkdir(parents=True, exist_ok=True)
    home.config.write_text("[sync]\nsystem_metrics = true\n")
    done = cli("ingest", str(tmp_path), "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    reported = {result["run"].rpartition("/")[2]: len(result["unreadable"]) for result in found["results"]}
    assert reported == dict.fromkeys(ODD, 4)
    assert sql("select distinct config, summary, state from runs") == [('{"lr":0.5}', '{"loss":3}', "finished")]
    assert sql("select run_id, count(*) from history where key = 'loss' group by 1 having count(*) < 2") == []
    assert sql("select run_id from runs where history_rows < 2") == []
    assert (
        sql("select run_id, count(*) from system_metrics where key = 'system.cpu' group by 1 having count(*) <> 2")
        == []
    )
    deep = next(result for result in found["results"] if result["run"] == "local/p/deep")
    assert deep["unreadable"][0] == "config deep: it is nested deeper than 300 levels"
    assert deep["outcome"] == "new"
    assert f"warning: local/p/deep: config deep: it is nested deeper than 300 levels ({deep['path']})" in done.stderr


def test_values_that_are_odd_and_readable_are_mirrored(home, cli, sql, tmp_path):
    """As deep and as long as readers take, NUL and broken UTF-8 in texts and keys."""
    values = {
        "deep": "[" * 290 + "1" + "]" * 290,
        "deep_object": '{"a":' * 290 + "1" + "}" * 290,
        "long": "9" * 4000,
        "text": '"a\\u0000b\\ud800"',
        "_timestamp": "1e300",
    }
    file = run_file(tmp_path).config(**values).log(0, **values, **{"k\0k": "1"}).summary(**values).exit()
    item = b"\x0a\x02k\xff\x82\x01\x041234"
    for number in (2, 5):
        payload = bytes([number << 3 | 2, len(item) + 2, 0x0A, len(item)]) + item
        with file.path.open("ab") as stream:
            stream.write(framed([payload], stream.tell()))
    done = cli("ingest", str(tmp_path))
    assert (done.exit_code, done.stderr.splitlines()[0]) == (0, f"local/p/r1: 2 history rows, finished ({file.path})")
    assert sql("select key, value from history where key in ('k\ufffd', 'k\0k') order by 1") == [
        ("k\0k", 1.0),
        ("k\ufffd", 1234.0),
    ]
    assert sql("select value from config_values where key = 'k\ufffd'") == [("1234",)]
    for relation in ("config_values", "summary_values", "history"):
        present = {key for (key,) in sql(f"select distinct key from {relation}")}
        assert {"long", "text", "_timestamp", "deep"} <= present
    assert sql('select count(*) from "local/p"') == [(1,)]


def test_a_name_that_no_column_can_have_is_reported(home, cli, sql, tmp_path):
    file = run_file(tmp_path).config(a=1, **{"k\0k": 1, "inner": '{"b\\u0000": 1}'})
    file.log(0, loss=1).summary(loss=2, **{"k\0k": 1}).exit()
    run_file(tmp_path, "r2").config(a=2).exit()
    done = cli("ingest", str(tmp_path), "--json")
    assert done.exit_code == 1
    [first, second] = json.loads(done.stdout)["results"]
    assert (first["unreadable"], second["unreadable"]) == (
        [
            "config k?k: its name holds a NUL character",
            "config inner: its name holds a NUL character",
            "summary k?k: its name holds a NUL character",
        ],
        [],
    )
    assert sql("select run_id, config, summary from runs order by 1") == [
        ("r1", '{"a":1}', '{"loss":2}'),
        ("r2", '{"a":2}', "{}"),
    ]


STEPS = {
    "past": str(2**63),
    "far": "1e300",
    "long": LONG,
    "inf": "Infinity",
    "nan": "NaN",
    "negative": "-1",
    "text": '"five"',
}


def test_steps_that_are_none_cost_their_line_alone(home, cli, sql, tmp_path):
    for name, step in STEPS.items():
        file = run_file(tmp_path, name).log(0, loss=1)
        item = [pb.HistoryItem(key="loss", value_json="2"), pb.HistoryItem(key="_step", value_json=step)]
        file.add(history=pb.HistoryRecord(item=item)).log(2, loss=3).exit()
    done = cli("ingest", str(tmp_path), "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)["results"]
    assert {result["run"].rpartition("/")[2]: len(result["unreadable"]) for result in found} == dict.fromkeys(STEPS, 1)
    assert sql("select distinct list(step order by step) from history where key = 'loss' group by run_id") == [
        ([0, 2],)
    ]
    assert found[0]["unreadable"][0].startswith("history step ")


def test_times_that_are_none_are_passed_over(home, cli, sql, tmp_path):
    run_file(tmp_path, "start", start=2**62).log(0, loss=1).exit()
    odd = pb.StatsRecord(item=[pb.StatsItem(key="cpu", value_json="1")])
    odd.timestamp.seconds = -(2**62)
    run_file(tmp_path, "stats").add(stats=odd).log(0, loss=1).exit()
    branch = pb.BranchPoint(run="r1", metric="_step", value=float("inf"))
    run_file(tmp_path, "branch", branch_point=branch).log(0, loss=1).exit()
    home.config.parent.mkdir(parents=True, exist_ok=True)
    home.config.write_text("[sync]\nsystem_metrics = true\n")
    assert cli("ingest", str(tmp_path)).exit_code == 0
    assert sql("select run_id, state, history_rows from runs order by 1") == [
        ("branch", "finished", 1),
        ("start", "finished", 1),
        ("stats", "finished", 1),
    ]
