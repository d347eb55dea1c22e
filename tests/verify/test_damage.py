"""Every kind of damage to the files is found and named, and repaired to what a fresh mirror holds."""

from __future__ import annotations

import json

import pytest

TAIL = "store.history_tail"

DAMAGE = {
    "rows at the start": (
        "delete from store.history_tail where rid = {run} and step < 5",
        [
            (
                "differs: team/p/aaa history rows: mirror has none of them, at the start, "
                "the server has 3 rows between steps 0 and 4 (lost from the file: it was damaged or changed)"
            )
        ],
    ),
    "rows in the middle": (
        "delete from store.history_tail where rid = {run} and step between 6 and 8",
        [
            (
                "differs: team/p/aaa history rows: mirror has none of them, in the middle, "
                "the server has 2 rows between steps 6 and 8 (lost from the file: it was damaged or changed)"
            )
        ],
    ),
    "rows at the end": (
        "delete from store.history_tail where rid = {run} and step > 15",
        [
            (
                "differs: team/p/aaa history rows: mirror has none of them, at the end, "
                "the server has 2 rows between steps 16 and 18 (lost from the file: it was damaged or changed)"
            )
        ],
    ),
    "all rows": (
        "delete from store.history_tail where rid = {run}",
        [
            (
                "differs: team/p/aaa history rows: mirror has none of them, at the start, "
                "the server has 10 rows between steps 0 and 18 (lost from the file: it was damaged or changed)"
            )
        ],
    ),
    "one value": (
        "delete from store.history_tail where rid = {run} and step = 6 and key = 'loss'",
        [
            (
                "differs: team/p/aaa history.loss: mirror has no value at step 6, the server has 0.25 "
                "(lost from the file: it was damaged or changed)"
            )
        ],
    ),
    "a row that was invented": (
        "insert into store.history_tail values ({run}, 7, 'loss', 0.3, NULL)",
        [
            (
                "differs: team/p/aaa history rows: mirror has 1 row at step 7, the server has none of them "
                "(truncated on the server without moving a timestamp, or written into the file)"
            )
        ],
    ),
    "a step twice": (
        "insert into store.history_tail select * from store.history_tail where rid = {run} and step = 4 and key = 'acc'",
        [
            (
                "differs: team/p/aaa history.acc: mirror has 1 value more than steps, the first at step 4, "
                "should be each step once (the same steps were written twice)"
            ),
            (
                "differs: team/p/aaa history.acc: mirror has 11 values, should be 10 values counted in history_keys "
                "(history and history_keys disagree: the file was damaged or changed)"
            ),
        ],
    ),
    "a key": (
        "update store.history_tail set key = 'lost' where rid = {run} and key = 'loss'",
        [
            (
                "differs: team/p/aaa history.loss: mirror has no value at step 0, the first of 10, the server has 1.0 "
                "(lost from the file: it was damaged or changed)"
            ),
            (
                "differs: team/p/aaa history.lost: mirror has 1.0 at step 0, the first of 10, the server has no value "
                "(deleted on the server without a trace, or written into the file)"
            ),
        ],
    ),
    "a counted key": (
        "delete from store.run_keys where rid = {run} and key = 'loss'",
        [
            (
                "differs: team/p/aaa history.loss: mirror has 10 values, should be none counted in history_keys "
                "(history and history_keys disagree: the file was damaged or changed)"
            )
        ],
    ),
    "a key that is only counted": (
        "insert into store.run_keys values ({run}, 'ghost', 3, 0, 2, 0, 1, 1)",
        [
            (
                "differs: team/p/aaa history.ghost: mirror has no values, should be 3 values counted in history_keys "
                "(history and history_keys disagree: the file was damaged or changed)"
            )
        ],
    ),
    "a smallest value": (
        "update store.run_keys set min = -5 where rid = {run} and key = 'loss'",
        [
            (
                "differs: team/p/aaa history.loss.min: mirror has 0.1, should be -5.0 in history_keys "
                "(history and history_keys disagree: the file was damaged or changed)"
            )
        ],
    ),
    "config": (
        """update store.run_records set config = replace(config, '0.1', '0.5') where run_id = 'aaa'""",
        [
            (
                "differs: team/p/aaa config.lr: mirror has 0.1, should be 0.5 in the JSON document "
                "(config_values and the JSON document disagree: the file was damaged or changed)"
            ),
            (
                "differs: team/p/aaa config.lr: mirror has 0.5, the server has 0.1 "
                "(edited on the server without moving a timestamp, or changed in the file)"
            ),
        ],
    ),
    "config that is no JSON": (
        "update store.run_records set config = '{\"lr\": ' where run_id = 'aaa'",
        [
            'differs: team/p/aaa config: mirror has {"lr": , should be a JSON object (the file was damaged or changed)',
            (
                'differs: team/p/aaa config: mirror has {"lr": , the server has '
                '{"lr":0.1,"model":{"depth":3,"name":"net"},"layers":[1,2]} '
                "(edited on the server without moving a timestamp, or changed in the file)"
            ),
        ],
    ),
    "a leaf": (
        "update store.leaf_rows set number = 7, text = '7' where rid = {run} and key = 'model.depth'",
        [
            (
                "differs: team/p/aaa config.model.depth: mirror has 7, should be 3 in the JSON document "
                "(config_values and the JSON document disagree: the file was damaged or changed)"
            ),
            (
                'differs: team/p/aaa "team/p": mirror has a different row, should be the leaves of the run '
                "(the wide relation and the documents disagree: the file was damaged or changed)"
            ),
        ],
    ),
    "tags": (
        "delete from store.tag_positions where rid = {run} and tag = 'x'",
        [
            (
                "differs: team/p/aaa tags: mirror has 'y' in run_tags, should be 'x,y' "
                "(run_tags and the tags of the run disagree: the file was damaged or changed)"
            )
        ],
    ),
    "a run": (
        "delete from store.run_records where run_id = 'aaa'",
        [
            "differs: team/p store.leaf_keys: mirror has 2 runs counted with config.layers, the first of ...",
            "differs: team/p store.leaf_rows: mirror has 13 orphaned rows, should be none (a run's row was lost)",
            "differs: team/p store.tag_positions: mirror has 2 orphaned rows, should be none (a run's row was lost)",
            "differs: team/p store.run_history: mirror has 1 orphaned row, should be none (a run's row was lost)",
            "differs: team/p store.history_tail: mirror has 50 orphaned rows, should be none (a run's row was lost)",
            "differs: team/p store.run_keys: mirror has 5 orphaned rows, should be none (a run's row was lost)",
            "differs: team/p/aaa run: mirror has no such run, the server has finished, 10 rows, created ...",
        ],
    ),
    "a run with all that belongs to it": (
        "".join(
            f"delete from store.{table} where rid = {{run}};"
            for table in ("leaf_rows", "tag_positions", "run_history", "history_tail", "run_keys", "run_records")
        ),
        [
            "differs: team/p store.leaf_keys: mirror has 2 runs counted with config.layers, the first of ...",
            "differs: team/p/aaa run: mirror has no such run, the server has finished, 10 rows, created ...",
        ],
    ),
    "a run twice": (
        "insert into store.run_records select * from store.run_records where run_id = 'aaa'",
        [
            "differs: team/p store.leaf_keys: mirror has 2 runs counted with config.layers, the first of ...",
            "differs: team/p/aaa run: mirror has 2 rows, should be one row (the run is stored more than once)",
        ],
    ),
    "a value": (
        "update store.history_tail set value = 0.3 where rid = {run} and step = 6 and key = 'loss'",
        [
            (
                "differs: team/p/aaa history.loss: mirror has 0.3 at step 6, the server has 0.25 "
                "(changed in the file, or on the server after it was pulled)"
            )
        ],
    ),
    "exact digits": (
        "update store.history_tail set text = '1152921504606846978' where key = 'big' and text is not null",
        [
            (
                "differs: team/p/odd history.big: mirror has 1152921504606846978 at step 0, "
                "the server has 1152921504606846977 (changed in the file, or on the server after it was pulled)"
            )
        ],
    ),
    "a number that was none": (
        "update store.history_tail set value = 0 where key = 'x' and isnan(value)",
        [
            (
                "differs: team/p/odd history.x: mirror has 0.0 at step 0, the server has nan "
                "(changed in the file, or on the server after it was pulled)"
            )
        ],
    ),
    "a step moved to another": (
        "update store.history_tail set step = 7 where rid = {run} and step = 6",
        [
            (
                "differs: team/p/aaa history rows: mirror has none of them, in the middle, the server has 1 row at step 6 (never pulled, or lost from the file with its count)"
            ),
            (
                "differs: team/p/aaa history rows: mirror has 1 row at step 7, the server has none of them "
                "(truncated on the server without moving a timestamp, or written into the file)"
            ),
        ],
    ),
    "rows with their counts": (
        (
            "delete from store.history_tail where rid = {run} and step = 18;"
            "delete from store.run_keys where rid = {run};"
            "insert into store.run_keys select rid, key, count(*), min(step), max(step), min(value), max(value), "
            "arg_max(value, step) from store.history_tail where rid = {run} group by rid, key"
        ),
        [
            (
                "differs: team/p/aaa history rows: mirror has none of them, at the end, the server has 1 row at step 18 (never pulled, or lost from the file with its count)"
            )
        ],
    ),
    "a mark of deletion": (
        "update store.run_records set deleted_at = '2026-01-02' where run_id = 'aaa'",
        [
            (
                "differs: team/p/aaa deleted_at: mirror has 2026-01-02 00:00:00, the server has the run "
                "(marked by mistake, or the run was created again; --repair pulls it again)"
            )
        ],
    ),
    "a cursor that went back": (
        "update store.run_history set last_step = 4 where rid = {run}",
        [
            (
                "differs: team/p/aaa last_step: mirror has 4, should be at least 18 "
                "(the cursor of the history was changed: a pass would pull rows twice or miss some)"
            )
        ],
    ),
    "a cursor that went ahead": (
        "update store.run_history set last_step = 400 where rid = {run}",
        [
            (
                "differs: team/p/aaa last_step: mirror has 400, the server has 18 "
                "(the cursor of the history was changed: a pass would pull rows twice or miss some)"
            )
        ],
    ),
    "a count of rows": (
        "update store.run_history set rows = 12 where rid = {run}",
        [
            (
                "differs: team/p/aaa history_rows: mirror has 12, the server has 10 "
                "(the count of rows was changed in the file, or a pass went wrong)"
            )
        ],
    ),
    "no cursor": (
        "delete from store.run_history where rid = {run}",
        [
            (
                "differs: team/p/aaa history cursor: mirror has no cursors, should be one cursor "
                "(no pass would continue the history of this run)"
            )
        ],
    ),
    "two cursors": (
        "insert into store.run_history select * from store.run_history where rid = {run}",
        [
            (
                'differs: team/p "team/p": mirror has 4 rows, should be 3 rows '
                "(the wide relation and the documents disagree: the file was damaged or changed)"
            ),
            (
                "differs: team/p/aaa history cursor: mirror has 2 cursors, should be one cursor "
                "(no pass would continue the history of this run)"
            ),
        ],
    ),
    "a count of keys": (
        "update store.leaf_keys set runs = 9 where key = 'lr'",
        [
            (
                "differs: team/p store.leaf_keys: mirror has 9 runs counted with config.lr, should be 2 runs "
                "(the wide relation and the documents disagree: the file was damaged or changed)"
            )
        ],
    ),
    "a wide value": (
        'update store.wide_1 set "config.lr" = 5 where rid = {run}',
        [
            (
                'differs: team/p/aaa "team/p": mirror has a different row, should be the leaves of the run '
                "(the wide relation and the documents disagree: the file was damaged or changed)"
            )
        ],
    ),
}


ONLY_DEEP = {"a value", "exact digits", "a number that was none", "a step moved to another"}
"""Damage that leaves every count and every end as it was."""


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_to_the_file_is_named_and_repaired(bench, kind):
    statement, lines = DAMAGE[kind]
    bench.sync()
    bench.damage(statement)
    answer = json.loads(bench.repaired("--json", *(["--deep"] if kind in ONLY_DEEP else [])))
    found = [as_line(one) for one in answer["repair"]["differed"]]
    assert len(found) == len(lines), found
    for line, expected in zip(found, lines, strict=True):
        assert line == expected or (expected.endswith("...") and line.startswith(expected[:-3]))


def as_line(found):
    """A finding as the command prints it."""
    where = f"{found['project']}/{found['run_id']}" if found["run_id"] else found["project"]
    has = "the server has" if found["expected_by"] == "server" else "should be"
    return (
        f"differs: {where} {found['field']}: mirror has {found['mirror']}, {has} {found['expected']} ({found['cause']})"
    )


def test_a_difference_is_one_line_on_stdout(bench):
    bench.sync()
    statement, lines = DAMAGE["config"]
    bench.damage(statement)
    assert bench.verify() == (1, lines)


FIELDS = {
    "storage_id": "'other'",
    "name": "'other'",
    "state": "'failed'",
    "created_at": "'2020-01-01'",
    "heartbeat_at": "'2099-01-01'",
    "updated_at": "'2099-01-01'",
    "duration_s": "99",
    "username": "'other'",
    "group_name": "NULL",
    "job_type": "'other'",
    "sweep": "'other'",
    "notes": "'other'",
    "description": "'other'",
    "tags": "'x'",
    "git_commit": "'other'",
    "host": "'other'",
    "url": "'other'",
    "config_meta": "'{}'",
    "server_rows": "11",
    "server_last_step": "19",
}


def test_every_field_of_a_run_is_compared(bench):
    bench.sync()
    columns = {
        name
        for name, *_ in bench.tables("describe store.run_records")
        if name
        not in {"rid", "entity", "project", "run_id", "deleted_at", "synced_at", "revision", "config", "summary"}
    }
    # How much the server said there was of what is only pulled when asked for; no field of a run that people see.
    columns -= {"server_events", "server_log_lines"}
    # When that was, and what could not be read.
    columns -= {"asked_at", "unread"}
    assert columns == FIELDS.keys()
    bench.damage(
        f"update store.run_records set {', '.join(f'{name} = {value}' for name, value in FIELDS.items())} where run_id = 'aaa'"
    )
    code, project = bench.found()
    found = {one["field"]: one["cause"] for one in project["differences"] if one["expected_by"] == "server"}
    assert (code, found) == (
        1,
        dict.fromkeys(FIELDS, "edited on the server without moving a timestamp, or changed in the file"),
    )
    bench.repaired()


def test_summary_and_config_values_are_named_one_by_one(bench):
    bench.sync()
    leaves = "update store.leaf_rows set text = '4', number = 4 where rid = {run} and key = 'model.depth'"
    text = "update store.run_records set config = replace(config, '\"depth\":3', '\"depth\":4') where run_id = 'aaa'"
    gone = "delete from store.leaf_rows where rid = {run} and key = 'acc'"
    without = "update store.run_records set summary = replace(summary, '\"acc\":0.9,', '') where run_id = 'aaa'"
    bench.damage(leaves, text, gone, without)
    _, project = bench.found()
    found = [
        (one["field"], one["mirror"], one["expected"])
        for one in project["differences"]
        if one["expected_by"] == "server"
    ]
    assert found == [("config.model.depth", "4", "3"), ("summary.acc", "no value", "0.9")]
    bench.repaired()


def test_system_metrics_are_compared_when_they_are_mirrored(bench):
    bench.sync(sync="system_metrics = true")
    assert bench.found("--deep")[0] == 0
    bench.damage("update store.system_values set value = 99 where run_id = 'aaa' and step = 1 and key = 'system.cpu'")
    code, lines = bench.verify("--deep")
    assert (code, lines) == (
        1,
        [
            (
                "differs: team/p/aaa system_metrics.system.cpu: mirror has 3 values, the server has 3 values, "
                "1 of them different (not pulled again after the run continued, or changed in the file)"
            )
        ],
    )
    bench.repaired()


def test_the_console_is_compared_when_it_is_mirrored(bench):
    run = bench.world.run("team", "p", "aaa")
    run.write_console(0, [f"line {number}" for number in range(1203)])
    bench.world.run("team", "p", "bbb").write_console(0, ["only"])
    bench.sync(sync="console = true")
    assert bench.found("--deep")[0] == 0
    bench.damage(
        "update store.console_lines set text = 'other' where rid = {run} and line in (3, 1100)",
        "delete from store.console_lines where rid = {run} and line = 7",
        "insert into store.console_lines (rid, line, logged_at, level, text) select rid, 1203, null, null, 'too many' from store.run_records where run_id = 'aaa'",
    )
    code, lines = bench.verify("--deep")
    assert (code, lines) == (
        1,
        [
            (
                "differs: team/p/aaa console: mirror has 1,203 lines, the server has 1,203 lines, "
                "4 of them different (pulled before the run was resumed or continued, or changed in the file)"
            )
        ],
    )
    bench.repaired()


def test_lines_of_a_console_that_are_gone_on_the_server_are_no_difference(bench):
    run = bench.world.run("team", "p", "aaa")
    run.write_console(0, [f"line {number}" for number in range(40)])
    bench.sync(sync="console = true")
    run.console_kept = 30
    assert bench.found("--deep")[0] == 0


def test_damage_of_several_kinds_in_several_runs_is_repaired_at_once(bench):
    bench.sync()
    bench.damage(
        "delete from store.history_tail where rid = {run} and step > 3",
        "delete from store.tag_positions where tag = 'y'",
        "delete from store.leaf_rows where key = 'big'",
        "update store.run_history set last_step = 1",
        'drop view main."team/p"',
        "delete from store.leaf_keys",
    )
    code, project = bench.found()
    assert code == 1
    assert {one["run_id"] for one in project["differences"]} == {None, "aaa", "bbb", "odd"}
    said = bench.repaired()
    assert 'repaired team/p: rebuilt the wide relation "team/p"' in said
    assert "repaired team/p/aaa: pulled again" in said


def test_a_damaged_published_file_is_published_again(bench):
    bench.sync()
    content = bytearray(bench.home.published.read_bytes())
    content[20_000:-1] = bytes(len(content) - 20_001)
    bench.home.published.chmod(0o644)
    bench.home.published.write_bytes(content)
    done = bench.cli("verify")
    assert done.exit_code == 1
    assert f"cannot read {bench.home.published}" in done.stderr
    assert bench.cli("verify", "--repair").exit_code == 0
    assert bench.content() == bench.fresh()
