"""What `.wandb` files hold is mirrored as the server would tell it, and once."""

from __future__ import annotations

import json
import math
import os
import shutil
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from mirror.store.store import Store
from tests.local.kit import BLOCK, EARLY, damaged, ingest, now, pb, run_file

OLD = Path(__file__).parent / "offline-run-g9dvvkua.wandb"


def reported(results):
    return [(Path(result.path).name, result.run, result.outcome, result.state, result.rows) for result in results]


def test_values_are_what_the_server_would_tell(home, sql, tmp_path):
    file = run_file(tmp_path / "wandb", entity="team", display_name="a name", notes="n", tags=["x", "y"], host="box")
    big = 2**60 + 1
    file.log(
        0,
        **{"loss": 0.5, "n/a": 1, "n/b/c": "2", "nan": "NaN", "inf": "-Infinity", "big": str(big), "text": '"ü"'},
        **{"img/_type": '"image-file"', "img/path": '"media/a.png"', "list": "[1, 2]", "none": "null", "nothing": "{}"},
    )
    file.log(3, **{"loss": 0.25, "a.b": 7, "deep/img/_type": '"histogram"', "deep/img/bins": "[1]", "deep/x": 1})
    file.exit(0)
    [result] = ingest(home, tmp_path)
    assert (result.outcome, result.state, result.rows, result.trouble()) == ("new", "finished", 2, None)
    rows = sql("select step, key, value, text from history where key not like '\\_%' escape '\\' order by step, key")
    [nan] = [row for row in rows if row[1] == "nan"]
    assert math.isnan(nan[2])
    rows.remove(nan)
    assert rows == [
        (0, "big", float(big), str(big)),
        (0, "img", None, '{"_type":"image-file","path":"media/a.png"}'),
        (0, "inf", -math.inf, None),
        (0, "list", None, "[1,2]"),
        (0, "loss", 0.5, None),
        (0, "n.a", 1.0, None),
        (0, "n.b.c", 2.0, None),
        (0, "none", None, "null"),
        (0, "text", None, '"ü"'),
        (3, "a.b", 7.0, None),
        (3, "deep.img", None, '{"_type":"histogram","bins":[1]}'),
        (3, "deep.x", 1.0, None),
        (3, "loss", 0.25, None),
    ]
    assert sql(
        "select entity, project, run_id, name, state, notes, tags, host, url, history_rows, duration_s from runs"
    ) == [("team", "p", "r1", "a name", "finished", "n", "x,y", "box", None, 2, 12.0)]
    assert sql("select created_at, heartbeat_at, updated_at, deleted_at from runs") == [
        (
            datetime(2023, 11, 14, 22, 13, 20),
            datetime(2023, 11, 14, 22, 13, 23),
            datetime(2023, 11, 14, 22, 13, 23),
            None,
        )
    ]


def test_config_and_summary_follow_their_updates(home, sql, tmp_path):
    file = run_file(tmp_path)
    file.config(lr=0.1, **{"net/depth": 3, "_wandb/m": "[]", "old": '{"a": 1}'})
    file.config(lr=0.2, net='{"width": 5, "empty": {}}')
    file.config("old")
    file.summary(acc=0.5, **{"n/a": 1, "n/b": 2, "gone": 1, "_wandb/runtime": 3})
    file.summary("gone", acc="NaN", n=7)
    file.summary(**{"n/c": 8, "best": '{"x": "Infinity"}', "broken": "{"})
    ingest(home, tmp_path)
    config, summary = sql("select config, summary from runs")[0]
    assert json.loads(config) == {"lr": 0.2, "net": {"depth": 3, "width": 5}}
    assert sql("select key, value from summary_values order by key") == [
        ("_wandb.runtime", "3"),
        ("acc", "NaN"),
        ("best.x", "Infinity"),
        ("n.c", "8"),
    ]
    assert json.loads(summary)["best"] == {"x": math.inf}
    assert sql("select config_meta from store.run_records") == [('{"m":[]}',)]


def test_a_second_call_reads_only_what_is_new(home, sql, tmp_path):
    file = run_file(tmp_path, start=now()).lines(0, 10)
    assert reported(ingest(home, tmp_path)) == [("run-r1.wandb", "local/p/r1", "new", "running", 10)]
    assert reported(ingest(home, tmp_path)) == [("run-r1.wandb", "local/p/r1", "nothing new", "running", 0)]
    file.config(late=1).lines(10, 12).exit(1)
    assert reported(ingest(home, tmp_path)) == [("run-r1.wandb", "local/p/r1", "read", "failed", 2)]
    assert sql("select state, history_rows, config from runs") == [("failed", 12, '{"late":1}')]
    assert sql("select step, value from history where key = 'loss' order by step") == [
        (n, 1 / (n + 1)) for n in range(12)
    ]
    assert sql("select read_to, size, damaged from local_runs") == [(file.path.stat().st_size,) * 2 + (0,)]


def test_a_record_that_is_half_there_is_read_when_the_rest_comes(home, sql, tmp_path):
    file = run_file(tmp_path, start=now()).lines(0, 5)
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:-20])
    [result] = ingest(home, tmp_path)
    assert (result.rows, result.damaged, result.trouble()) == (4, 0, None)
    file.path.write_bytes(whole)
    assert [result.rows for result in ingest(home, tmp_path)] == [1]
    assert sql("select history_rows from runs") == [(5,)]


def test_a_run_without_an_end_is_running_while_it_writes_and_then_crashed(home, sql, tmp_path):
    """The times in the file count: a copy of an old file was modified just now."""
    run_file(tmp_path, "now", start=now()).lines(0, 2)
    run_file(tmp_path, "old", start=now() - 1000).lines(0, 2)
    run_file(tmp_path, "slow", start=now() - 1000).lines(0, 2).stats(990, cpu=1)
    printed = pb.OutputRawRecord(line="epoch 1")
    printed.timestamp.seconds = now() - 10
    run_file(tmp_path, "talks", start=now() - 1000).lines(0, 2).add(output_raw=printed)
    # A clock that is ahead says less than the file's own time.
    ahead = run_file(tmp_path, "ahead", start=now() + 10_000).lines(0, 2)
    ingest(home, tmp_path)
    states = [("ahead", "running"), ("now", "running"), ("old", "crashed"), ("slow", "running"), ("talks", "running")]
    assert sql("select run_id, state from runs order by run_id") == states
    for file in tmp_path.rglob("*.wandb"):
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 3600))
    ingest(home, tmp_path)
    assert sql("select distinct state from runs") == [("crashed",)]
    ahead.exit()
    ingest(home, tmp_path)
    assert sql("select state from runs where run_id = 'ahead'") == [("finished",)]


@pytest.mark.parametrize(("code", "state"), [(None, "preempted"), (1, "preempted"), (0, "finished")])
def test_a_run_that_was_preempted_says_so(home, sql, tmp_path, code, state):
    file = run_file(tmp_path).lines(0, 2).add(preempting=pb.RunPreemptingRecord())
    if code is not None:
        file.exit(code)
    ingest(home, tmp_path)
    assert sql("select state from runs") == [(state,)]


def test_a_run_whose_process_lives_is_running_however_old_its_file(home, sql, tmp_path):
    file = run_file(tmp_path, start=4_000_000_000).lines(0, 2)
    (file.path.parent / "logs").mkdir()
    log = file.path.parent / "logs" / "debug.log"
    log.write_text(f"2026-11-23 20:57:48,908 INFO    MainThread:{os.getpid()} [wandb_setup.py:_flush():81] hello\n")
    os.utime(file.path, (1, 1))
    ingest(home, tmp_path)
    assert sql("select state from runs") == [("running",)]
    log.write_text("2026-11-23 20:57:48,908 INFO    MainThread:99999999 [wandb_setup.py:_flush():81] hello\n")
    ingest(home, tmp_path)
    assert sql("select state from runs") == [("crashed",)]


def test_a_run_resumed_offline_goes_on_behind_its_former_file(home, sql, tmp_path):
    run_file(tmp_path, stamp="20260101_000000").config(a=1).lines(0, 4).exit(1)
    run_file(tmp_path, stamp="20260102_000000", start=1_700_100_000, resume=True).config(b=2).lines(0, 3).exit(0)
    assert [result.rows for result in ingest(home, tmp_path)] == [4, 3]
    assert sql("select state, history_rows, config from runs") == [("finished", 7, '{"a":1,"b":2}')]
    expected = [(0, 1.0), (1, 0.5), (2, 1 / 3), (3, 0.25), (4, 1.0), (5, 0.5), (6, 1 / 3)]
    assert sql("select step, value from history where key = 'loss' order by step") == expected
    assert sql("select created_at from runs") == [(datetime(2023, 11, 14, 22, 13, 20),)]


def test_a_rewound_run_loses_what_lay_in_segments_too(home, sql, tmp_path):
    run_file(tmp_path, stamp="20260101_000000").lines(0, 9)
    ingest(home, tmp_path)
    store = Store.open(home, tail_values=1)
    assert store.seal()
    store.close()
    assert list(home.history.rglob("*.parquet"))
    branch = pb.BranchPoint(run="r1", metric="_step", value=3)
    again = run_file(tmp_path, stamp="20260102_000000", start=1_700_100_000, branch_point=branch)
    again.add(run=pb.RunRecord(run_id="r1", project="p", notes="later", branch_point=branch))
    again.lines(4, 6)
    [_, result] = ingest(home, tmp_path)
    assert result.rows == 2
    assert sql("select step, value from history where key = 'loss' order by step") == [
        (n, 1 / (n + 1)) for n in range(6)
    ]
    assert sql("select rows, last_step from history_keys where key = 'loss'") == [(6, 5)]
    assert sql("select history_rows, notes from runs") == [(6, "later")]


def test_steps_that_go_on_by_themselves_are_kept(home, sql, tmp_path):
    run_file(tmp_path, stamp="20260101_000000").lines(0, 4)
    ingest(home, tmp_path)
    run_file(tmp_path, stamp="20260102_000000", start=1_700_100_000).lines(10, 12)
    ingest(home, tmp_path)
    assert sql("select step from history where key = 'loss' order by step") == [(0,), (1,), (2,), (3,), (10,), (11,)]


def test_links_copies_and_moved_files_are_read_once(home, sql, tmp_path):
    root = tmp_path / "wandb"
    file = run_file(root, start=now()).lines(0, 5)
    (root / "latest-run").symlink_to(file.path.parent)
    shutil.copytree(file.path.parent, tmp_path / "backup" / file.path.parent.name)
    results = ingest(home, root, tmp_path / "backup")
    assert sorted(reported(results)) == [
        ("run-r1.wandb", "local/p/r1", "copy", None, 0),
        ("run-r1.wandb", "local/p/r1", "new", "running", 5),
    ]
    assert sql("select history_rows from runs") == [(5,)]
    shutil.rmtree(tmp_path / "backup")
    shutil.move(root, tmp_path / "moved")
    [result] = ingest(home, tmp_path / "moved")
    assert (result.outcome, result.rows) == ("nothing new", 0)
    assert sql("select history_rows, count(*) over () from runs") == [(5, 1)]


def test_a_file_that_was_replaced_is_read_again(home, sql, tmp_path):
    run_file(tmp_path).config(a=1).lines(0, 9)
    ingest(home, tmp_path)
    run_file(tmp_path, start=1_700_000_777).config(b=1).lines(0, 3)
    [result] = ingest(home, tmp_path)
    assert (result.outcome, result.rows) == ("new", 3)
    assert sql("select run_id, history_rows, config from runs") == [("r1", 3, '{"b":1}')]
    assert sql("select key, rows from history_keys where key = 'loss'") == [("loss", 3)]
    assert sql('select "config.b" from "local/p"') == [(1.0,)]


def test_files_of_an_early_wandb_core_are_read_whole(home, sql, tmp_path):
    """At once, and while one grows over the ends of its blocks."""
    texts = {"text": '"' + "x" * 300 + '"'}
    file = run_file(tmp_path, shift=EARLY).lines(0, 600, **texts).exit()
    whole = file.path.read_bytes()
    assert len(whole) > 7 * BLOCK
    rows = 0
    for cut in (BLOCK - 1, BLOCK + 3, BLOCK + 7, BLOCK + 20, 2 * BLOCK + 9, 5 * BLOCK, len(whole)):
        file.path.write_bytes(whole[:cut])
        [result] = ingest(home, tmp_path)
        rows += result.rows
        assert result.damaged == 0
    assert (rows, result.state, result.trouble()) == (600, "finished", None)
    run_file(tmp_path, "r2", shift=EARLY).lines(0, 600, **texts).exit()
    ingest(home, tmp_path)
    assert sql("select state, history_rows from runs") == [("finished", 600)] * 2
    assert (
        sql("select count(*), sum(value) from history where key = 'loss' group by run_id")
        == [(600, pytest.approx(sum(1 / (step + 1) for step in range(600))))] * 2
    )


def test_damage_is_skipped_and_reported_on_one_line(home, cli, sql, tmp_path):
    file = run_file(tmp_path, start=now()).lines(0, 100).exit()
    with damaged(file.path) as content:
        content[len(content) // 2] ^= 0xFF
        del content[-3:]
    done = cli("ingest", str(tmp_path))
    assert done.exit_code == 0
    assert done.stdout == ""
    first, second, third = done.stderr.splitlines()
    assert first == f"local/p/r1: 99 history rows, running ({file.path})"
    assert second == f"warning: {file.path}: 1 damaged place was skipped"
    assert third.startswith("1 file: 99 history rows (")
    assert sql("select history_rows, damaged from runs join local_runs using (run_id)") == [(99, 1)]
    os.utime(file.path, (1, 1))
    file.path.write_bytes(file.path.read_bytes() + b"\0")
    os.utime(file.path, (1, 1))
    assert "the last 10 bytes are an incomplete record" in cli("ingest", str(tmp_path)).stderr


def test_what_is_no_run_file_is_named_and_the_others_are_mirrored(home, cli, sql, tmp_path):
    good = run_file(tmp_path).lines(0, 2).exit()
    other = tmp_path / "offline-run-1-x"
    other.mkdir()
    (other / "run-x.wandb").write_bytes(b"PK\x03\x04 some other file")
    (other / "run-empty.wandb").write_bytes(b"")
    done = cli("ingest", str(tmp_path), "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert (found["files"], found["runs"], found["history_rows"], found["failed"]) == (3, 1, 2, 1)
    by_name = {Path(result["path"]).name: result for result in found["results"]}
    assert by_name["run-empty.wandb"]["outcome"] == "empty"
    assert by_name["run-x.wandb"]["error"].startswith("it is not a .wandb file")
    assert by_name["run-r1.wandb"] == {
        "path": str(good.path.resolve()),
        "run": "local/p/r1",
        "outcome": "new",
        "state": "finished",
        "rows": 2,
        "damaged": 0,
        "unread_bytes": 0,
        "error": None,
        "note": None,
        "unreadable": [],
        "trouble": None,
    }
    assert sql("select run_id from runs") == [("r1",)]


def test_a_folder_that_is_not_there_and_nothing_to_read_are_usage_errors(home, cli, tmp_path):
    done = cli("ingest", str(tmp_path / "no"))
    assert (done.exit_code, done.stderr) == (
        2,
        f"error: {tmp_path}/no does not exist; name a folder that holds wandb/ or its run folders\n",
    )
    assert cli("ingest").exit_code == 2


def test_the_entity_comes_from_the_file_the_environment_or_the_config(home, cli, sql, tmp_path, monkeypatch):
    run_file(tmp_path / "a", "named", entity="team")
    run_file(tmp_path / "a", "bare", project="")
    home.data.mkdir()
    home.config.write_text(f'[local]\nentity = "mine"\ndirs = ["{tmp_path}/a"]\n')
    assert cli("ingest").exit_code == 0
    run_file(tmp_path / "b", "later")
    monkeypatch.setenv("WANDB_ENTITY", "env")
    assert cli("ingest", str(tmp_path / "b")).exit_code == 0
    assert sql("select entity, project, run_id from runs order by run_id") == [
        ("mine", "uncategorized", "bare"),
        ("env", "p", "later"),
        ("team", "p", "named"),
    ]


def test_history_globs_and_system_metrics_are_as_configured(home, sql, tmp_path):
    file = run_file(tmp_path)
    file.log(0, **{"val/acc": 1, "loss": 2}).stats(1, cpu=5.5, proc='{"a": 1}')
    ingest(home, tmp_path, history=("val.*",), system_metrics=True)
    file.stats(2, cpu=6.5)
    ingest(home, tmp_path, history=("val.*",), system_metrics=True)
    assert sql("select key from history") == [("val.acc",)]
    assert sql("select step, key, value from system_metrics where key like 'system.%' order by step, key") == [
        (0, "system.cpu", 5.5),
        (0, "system.proc.a", 1.0),
        (1, "system.cpu", 6.5),
    ]
    assert sql("select value from system_metrics where key = '_runtime' order by step") == [(1.0,), (2.0,)]


def test_many_files_are_committed_together(home, sql, tmp_path):
    for index in range(250):
        run_file(tmp_path, f"r{index}", project=f"p{index % 3}").lines(0, 2).exit()
    results = ingest(home, tmp_path)
    assert {result.outcome for result in results} == {"new"}
    assert sql("select count(*), sum(history_rows), count(distinct project) from runs") == [(250, 500, 3)]


def test_a_run_that_names_itself_again_changes_what_it_names(home, sql, tmp_path):
    file = run_file(tmp_path, display_name="first", notes="kept", tags=["a"])
    again = pb.RunRecord(run_id="r1", project="p", display_name="second", tags=["a", "b"], run_group="g")
    again.git.commit = "abc"
    file.add(run=again)
    ingest(home, tmp_path)
    assert sql("select name, notes, tags, group_name, git_commit from runs") == [("second", "kept", "a,b", "g", "abc")]


def test_a_file_of_2021_is_read(home, sql, tmp_path):
    shutil.copy(OLD, tmp_path / "run-g9dvvkua.wandb")
    [result] = ingest(home, tmp_path, system_metrics=True)
    assert (result.run, result.outcome, result.state, result.trouble()) == (
        "local/code-toad/g9dvvkua",
        "new",
        "finished",
        None,
    )
    assert sql("select name, host, created_at, config, summary, git_commit from runs") == [
        ("g9dvvkua", "cvp", datetime(2021, 2, 16, 23, 44, 7), "{}", "{}", None)
    ]
    assert sql("select value from system_metrics where key = 'system.cpu'") == [(24.3,)]


def test_random_damage_to_a_real_file_is_never_fatal(home, tmp_path):
    """Every fourth byte of the file of 2021 in turn, a hundred at a time."""
    whole = OLD.read_bytes()
    for at in range(7, len(whole), 80):
        content = bytearray(whole)
        content[at] ^= 0xFF
        name = tmp_path / f"offline-run-20260101_000000-x{at}" / f"run-x{at}.wandb"
        name.parent.mkdir()
        name.write_bytes(content)
    results = ingest(home, tmp_path)
    assert {result.outcome for result in results} <= {"new", "copy", "empty"}
    assert sum(result.damaged + bool(result.unread_bytes) for result in results if result.outcome == "new") > 0


def test_files_that_an_earlier_version_read_are_read_again_once(home, sql, tmp_path):
    """It took some values wrong."""
    kept = run_file(tmp_path, "kept").lines(0, 2).exit()
    run_file(tmp_path, "again").config(a=1).lines(0, 3).exit()
    ingest(home, tmp_path)
    with duckdb.connect(str(home.data / "state.duckdb")) as state:
        state.execute("update store.local_files set beside = null")
        state.execute("update store.history_tail set value = -1")
    kept.path.unlink()
    [result] = ingest(home, tmp_path)
    assert (result.outcome, result.rows) == ("new", 3)
    assert sql("select run_id, sum(value) from history where key = 'loss' group by 1 order by 1") == [
        ("again", pytest.approx(1 + 1 / 2 + 1 / 3)),
        ("kept", -2.0),
    ]
    assert [result.outcome for result in ingest(home, tmp_path)] == ["nothing new"]
