"""One run that no parser takes stops nothing else: it is set aside by name, and the others are mirrored."""

from __future__ import annotations

import json
from datetime import timedelta
from math import isnan

import pytest

import mirror
from mirror import nested
from mirror.query import status
from mirror.query.run_page import page
from mirror.remote import answers, errors
from mirror.sandbox.run import wrapped
from mirror.snapshot.snapshot import Snapshot
from mirror.sync import console_and_files
from mirror.sync import project as passes
from mirror.sync.context import utc_now
from tests.sync.rig import HASTY

DEEP = "[" * 1500 + "]" * 1500
DIGITS = "9" * 5000

DOCUMENTS = {
    "cut JSON": '{"lr": {"value": 0.1',
    "lists in lists": f'{{"a": {DEEP}}}',
    "objects in objects": '{"a":' * 1500 + "1" + "}" * 1500,
    "a long integer": f'{{"a": {DIGITS}}}',
    "no text": 7,
    "a list": ["x"],
}
FIELDS = {
    **{f"config: {name}": ("config", value) for name, value in DOCUMENTS.items()},
    **{f"summary: {name}": ("summaryMetrics", value) for name, value in DOCUMENTS.items()},
    "historyKeys: no text of JSON": ("historyKeys", '{"keys"'),
    "historyKeys: a last step past 64 bits": ("historyKeys", {"keys": {}, "lastStep": 2**64}),
    "historyKeys: an infinite last step": ("historyKeys", '{"lastStep": Infinity}'),
    "historyLineCount": ("historyLineCount", -1),
    "historyLineCount: past 64 bits": ("historyLineCount", 2**70),
    "historyLineCount: text": ("historyLineCount", "many"),
    "tags: a text": ("tags", "best"),
    "tags: numbers": ("tags", [1, 2]),
    "displayName": ("displayName", {"a": 1}),
    "notes": ("notes", 5),
    "group": ("group", ["g"]),
    "state": ("state", 3),
    "computeSeconds": ("computeSeconds", "long"),
    "eventsLineCount": ("eventsLineCount", 2.5),
}
DATES = ("0001-01-01T00:00:00+23:00", "99999-01-01", "yesterday", 5, {"a": 1})

LINES = {
    "cut JSON": '{"_step": 0, "loss"',
    "a step past 64 bits": '{"_step": 18446744073709551616, "loss": 1}',
    "a step of 64 bits unsigned": '{"_step": 9223372036854775808, "loss": 1}',
    "an infinite step": '{"_step": Infinity, "loss": 1}',
    "a step that is not a number": '{"_step": NaN, "loss": 1}',
    "a step that is text": '{"_step": "x", "loss": 1}',
    "no step": '{"loss": 1}',
    "no object": "[1]",
    "a long integer": f'{{"_step": 0, "loss": {DIGITS}}}',
    "lists in lists": f'{{"_step": 0, "loss": {DEEP}}}',
    "lists in lists, and NaN": f'{{"_step": 0, "x": NaN, "loss": {DEEP}}}',
    "objects in objects": '{"_step": 0, "loss": ' + '{"a":' * 1500 + "1" + "}" * 1501,
}


def add(rig, run_id, rows=3, **fields):
    run = rig.world.add_run("team", "p", run_id=run_id, state="running", **fields)
    run.log_many([{"loss": 1.0 / (step + 1)} for step in range(rows)])
    run.finish()
    return run


def later(monkeypatch, days=1):
    """Let the time of every run have come that is set aside."""
    monkeypatch.setattr(passes, "utc_now", lambda: utc_now() + timedelta(days=days))


def others(rig):
    return rig.sql("select run_id, history_rows from runs where run_id <> 'bad' order by 1")


@pytest.fixture
def three(rig):
    for name in ("aaa", "bad", "zzz"):
        add(rig, name, config={"lr": 0.1}, tags=["x"])
    return rig


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_record_of_which_a_part_cannot_be_read_is_named_and_retried_later(rig, monkeypatch, mirrored):
    """What was mirrored of that part stays; once it can be read it is mirrored."""
    for name in ("aaa", "zzz", *FIELDS):
        add(rig, name, config={"lr": 0.1}, tags=["x"])
    if mirrored:
        rig.sync()
    bad = sorted(FIELDS)
    for name, (field, value) in FIELDS.items():
        run = rig.world.run("team", "p", name)
        run.edit(notes="edited")
        run.spoilt = {field: value}
    result = rig.sync()["team/p"]
    assert (result.error, sorted(result.failed)) == (None, bad)
    assert all(FIELDS[name][0] in result.failed[name] for name in bad)
    good = rig.sql("select run_id, history_rows from runs where run_id in ('aaa', 'zzz') order by 1")
    assert good == [("aaa", 3), ("zzz", 3)]
    reported = status.runs_set_aside(rig.home.published)
    assert sorted((one["run"], one["error"], one["attempts"]) for one in reported) == [
        (f"team/p/{name}", result.failed[name], 1) for name in bad
    ]
    snapshot = Snapshot(rig.home)
    shown = {
        name: page(snapshot, snapshot.address(f"team/p/{name}", None, deleted=False))["complete"]["error"]
        for name in ("aaa", *bad)
    }
    assert shown == {"aaa": None, **result.failed}
    if mirrored:
        kept = rig.sql("select run_id, config, tags, name, state, history_rows from runs order by 1")
        assert kept == [(name, '{"lr":0.1}', "x", name, "finished", 3) for name in sorted(["aaa", "zzz", *bad])]
    # They are named, and asked for again when their time has come.
    rig.sandbox.reset_counts()
    assert sorted(rig.sync()["team/p"].failed) == bad
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}
    with monkeypatch.context() as patch:
        later(patch)
        assert sorted(rig.sync()["team/p"].failed) == bad
    attempts = rig.sql("select distinct attempts from store.run_history where error is not null")
    assert attempts == [(2,)]
    for name in bad:
        rig.world.run("team", "p", name).spoilt = {}
    with monkeypatch.context() as patch:
        later(patch, days=2)
        assert rig.sync()["team/p"].failed == {}
    assert rig.sql("select distinct config, tags, notes, history_rows from runs where notes is not null") == [
        ('{"lr":0.1}', "x", "edited", 3)
    ]
    assert status.runs_set_aside(rig.home.published) == []


def test_a_date_that_is_none_is_no_date(rig):
    for number, date in enumerate(DATES):
        add(rig, f"run{number}").spoilt = {"createdAt": date, "heartbeatAt": date}
    result = rig.sync()["team/p"]
    assert (result.error, result.failed) == (None, {})
    assert rig.sql("select distinct created_at, heartbeat_at, history_rows from runs") == [(None, None, 3)]


@pytest.mark.parametrize("rows", [3, 80])
def test_a_run_with_a_history_line_that_cannot_be_read_is_retried_later(rig, rows):
    for name in ("aaa", "zzz", *LINES):
        add(rig, name, rows)
    for name, line in LINES.items():
        rig.world.run("team", "p", name).history.lines[1] = line
    result = rig.sync()["team/p"]
    assert (result.error, sorted(result.failed)) == (None, sorted(LINES))
    assert rig.sql("select run_id, history_rows from runs where history_rows > 0 order by 1") == [
        ("aaa", rows),
        ("zzz", rows),
    ]
    assert len(status.runs_set_aside(rig.home.published)) == len(LINES)


def test_a_run_with_a_system_metric_that_cannot_be_read_is_retried_later(rig):
    bad = {name: line for name, line in LINES.items() if "step" not in name and name != "no object"}
    for name in ("aaa", "zzz", *bad):
        add(rig, name).log_system({"system.cpu": 1.0})
    for name, line in bad.items():
        rig.world.run("team", "p", name).events.lines[0] = line
    result = rig.sync(system_metrics=True)["team/p"]
    assert (result.error, sorted(result.failed)) == (None, sorted(bad))
    assert rig.sql("select run_id, value from system_metrics where key = 'system.cpu' order by 1") == [
        ("aaa", 1.0),
        ("zzz", 1.0),
    ]


def test_a_metadata_file_that_cannot_be_read_keeps_no_other_away(rig):
    bad = {name: text for name, text in DOCUMENTS.items() if isinstance(text, str)} | {"no object": "[]"}
    for name in ("aaa", "zzz", *bad):
        add(rig, name).add_file("wandb-metadata.json", bad.get(name, json.dumps({"host": name})))
    assert rig.sync(metadata=True)["team/p"].error is None
    assert rig.sql("select run_id, value from run_metadata where key = 'host' order by 1") == [
        ("aaa", "aaa"),
        ("zzz", "zzz"),
    ]


@pytest.mark.parametrize("what", ["lines", "number"])
def test_a_run_with_a_console_that_cannot_be_read_is_retried_later(three, monkeypatch, what):
    for name in ("aaa", "bad", "zzz"):
        three.world.run("team", "p", name).write_console(0, ["hello"])
    fetch = console_and_files.console.fetch

    async def broken(server, project, places, **more):
        found = await fetch(server, project, places, **more)
        if what == "lines" and any(place.run_id == "bad" for place in found):
            raise KeyError("node")
        for place, answer in found.items():
            if place.run_id == "bad":
                answer.page.lines[:] = [(2**70, None, None, "x")]
        return found

    monkeypatch.setattr(console_and_files.console, "fetch", broken)
    result = three.sync(console=True)["team/p"]
    assert (result.error, list(result.failed)) == (None, ["bad"])
    assert three.sql("select run_id, text from console order by 1") == [("aaa", "hello"), ("zzz", "hello")]


ODD = ["\0", "a\0b", "\ud800", "\udfff\ud800", "\x01\x1f", "\U0001f600", "é" * 1000]


def test_odd_texts_are_mirrored_wherever_they_are(rig):
    for number, text in enumerate(ODD):
        config = {"text": text, "list": [text], "a": {"b": text}}
        run = rig.world.add_run("team", "p", run_id=f"run{number}", config=config)
        run.edit(notes=text, tags=[text], display_name=text, group=text)
        run.log({"word": text})
        run.finish()
    result = rig.sync()["team/p"]
    assert (result.error, result.failed) == (None, {})
    assert rig.sql("select count(*), sum(history_rows)::int from runs where config <> '{}'") == [(len(ODD), len(ODD))]


def test_a_run_of_which_the_server_returns_no_record_is_retried_later(three, monkeypatch):
    """As one whose record is too much for it, or spoils every answer that it is in."""
    three.retry = type(HASTY)(attempts=2, seconds=20, first_wait=0.01, longest_wait=0.02)
    read = answers.Reader.read

    def fails(self, operation, answer, raw, **more):
        if b"summaryMetrics" in raw and b'"bad"' in raw:
            raise answers.Retry(errors.TooMuch("502"))
        return read(self, operation, answer, raw, **more)

    with monkeypatch.context() as patch:
        patch.setattr(answers.Reader, "read", fails)
        result = three.sync()["team/p"]
        assert (result.error, list(result.failed)) == (None, ["bad"])
        assert others(three) == [("aaa", 3), ("zzz", 3)]
        assert three.sql("select state, history_rows from runs where run_id = 'bad'") == [("finished", 0)]
    later(monkeypatch)
    assert three.sync()["team/p"].failed == {}
    assert three.sql("select config, history_rows from runs where run_id = 'bad'") == [('{"lr":0.1}', 3)]
    assert (
        three.sql("select field from run_changes where run_id = 'bad' and field in ('created_at', 'storage_id')") == []
    )


def test_an_error_that_nobody_thought_of_ends_its_own_project_only(rig, monkeypatch):
    add(rig, "aaa")
    for name in ("q", "r"):
        run = rig.world.add_run("team", name, run_id="one")
        run.log({"loss": 1.0})

    async def fails(self, *, afresh):
        if str(self.project) == "team/q":
            raise ZeroDivisionError("division by zero")
        return await kept(self, afresh=afresh)

    kept = passes._Pass.pull_changed
    monkeypatch.setattr(passes._Pass, "pull_changed", fails)
    results = rig.sync("team/p", "team/q", "team/r")
    assert {name: (result.error, result.exit_code) for name, result in results.items()} == {
        "team/p": (None, 0),
        "team/q": (
            "team/q: an unexpected error ended the pass (ZeroDivisionError: division by zero); see the log",
            1,
        ),
        "team/r": (None, 0),
    }
    assert rig.sql("select project, history_rows from runs order by 1") == [("p", 3), ("r", 1)]


def nest(levels, kind):
    value = 1.5
    for _ in range(levels):
        value = {"a": value} if kind == "objects" else [value]
    return value


def depth(value):
    levels = 0
    while isinstance(value, dict | list):
        value = value["a"] if isinstance(value, dict) else value[0]
        levels += 1
    return levels, value


def test_what_is_nested_900_levels_is_mirrored_and_read_everywhere(rig, monkeypatch, tmp_path, cli):
    """Deeper than most parsers go by themselves."""
    for kind in ("lists", "objects"):
        run = rig.world.add_run("team", "p", run_id=kind, config={})
        deep = nest(900, kind)
        run.spoilt = {
            "config": nested.text_of(wrapped({"deep": deep, "odd": float("nan")})),
            "summaryMetrics": nested.text_of({"deep": deep, "odd": "NaN", "_step": 0}),
        }
        run.history.append({"_step": 0, "loss": 1.0})
        run.history.lines[0] = nested.text_of({"_step": 0, "loss": 1.0, "odd": float("nan"), "deep": deep})
        run.set_state("finished")
    result = rig.sync()["team/p"]
    assert (result.error, result.failed) == (None, {})
    for name, value in {
        "MIRROR_HOME": str(rig.home.data),
        "WANDB_BASE_URL": rig.sandbox.url,
        "WANDB_API_KEY": rig.sandbox.key,
    }.items():
        monkeypatch.setenv(name, value)
    for command in (
        ["query", "select config, summary from runs", "--json"],
        ["history", "team/p/lists", "--json"],
        ["history", "team/p/objects", "--json"],
        ["verify", "team/p", "--deep"],
        ["export", "team/p", "--output", str(tmp_path / "out")],
        ["status"],
    ):
        done = cli(*command)
        assert (done.exit_code, "error" in done.stderr) == (0, False), (command, done.stderr)
    api = mirror.Api()
    for kind in ("lists", "objects"):
        run = api.run(f"team/p/{kind}")
        assert [depth(run.config["deep"]), depth(run.summary["deep"])] == [(900, 1.5)] * 2
        assert isnan(run.config["odd"])
        [row] = run.history(pandas=False)
        if kind == "lists":
            assert depth(row["deep"]) == (900, 1.5)
        else:
            assert row[".".join(["deep", *["a"] * 900])] == 1.5
