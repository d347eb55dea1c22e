"""What is taken beside records and history: how a run was started, its console, its system metrics."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from msgspec.structs import replace

from mirror.remote import console
from mirror.sync import console_and_files, plan
from mirror.sync.context import utc_now
from tests.sync.rig import rig as make_rig
from tests.sync.test_passes import add

FILE = {
    "os": "Linux-6.1",
    "host": "node-7",
    "program": "train.py",
    "args": ["--lr", "0.1"],
    "gpu": "H100",
    "gpu_count": 8,
    "cpu_count": 64,
    "memory": {"total": 2**40},
    "git": {"commit": "f00", "remote": "git@host:team/p.git"},
}


def metadata(rig, run_id="one"):
    return {
        key: (value, number, kind)
        for key, value, number, kind in rig.sql(
            "select key, value, number, kind from run_metadata where run_id = ?", run_id
        )
    }


def test_what_the_server_itself_tells_of_a_run_comes_with_its_record(rig):
    add(rig, "one", metadata=FILE)
    add(rig, "two")
    rig.sync()
    assert metadata(rig) == {
        "program": ("train.py", None, "string"),
        "args": ('["--lr","0.1"]', None, "list"),
        "os": ("Linux-6.1", None, "string"),
        "gpu": ("H100", None, "string"),
        "gpu_count": ("8", 8.0, "number"),
        "cpu_count": ("64", 64.0, "number"),
        "git.commit": ("f00", None, "string"),
        "git.remote": ("git@host:team/p.git", None, "string"),
    }
    assert rig.sql("select run_id, git_commit, host from runs order by 1") == [
        ("one", "f00", None),
        ("two", None, None),
    ]
    assert set(rig.sandbox.requests) == {"MirrorRuns", "MirrorHistory"}


def test_the_file_adds_what_the_server_does_not_tell_and_fills_host_and_commit(rig):
    run = add(rig, "one", metadata=FILE)
    add(rig, "two", host="own", commit="abc")
    rig.sync(metadata=True)
    assert metadata(rig)["host"] == ("node-7", None, "string")
    assert metadata(rig)["memory.total"] == (str(2**40), float(2**40), "number")
    filled = [("one", "f00", "node-7"), ("two", "abc", "own")]
    assert rig.sql("select run_id, git_commit, host from runs order by 1") == filled
    run.edit(notes="later")
    rig.sync(metadata=True)
    assert rig.sql("select run_id, git_commit, host from runs order by 1") == filled
    assert metadata(rig)["host"] == ("node-7", None, "string")
    assert rig.sandbox.requests["file"] == 2
    assert rig.sql("select count(*) from run_changes where field <> 'notes'") == [(0,)]


def test_a_file_that_is_not_there_is_asked_for_once_and_again_at_the_end_of_a_live_run(rig):
    add(rig, "done")
    run = add(rig, "live", state="running")
    rig.sync(metadata=True)
    rig.sandbox.reset_counts()
    run.log({"loss": 0.1}, step=3)
    rig.sync(metadata=True)
    assert rig.sandbox.requests["MirrorFiles"] == 0
    run.add_file("wandb-metadata.json", json.dumps(FILE))
    run.finish()
    rig.sync(metadata=True)
    rig.sync(metadata=True)
    assert (rig.sandbox.requests["MirrorFiles"], rig.sandbox.requests["file"]) == (1, 1)
    assert rig.sql("select run_id, host from runs order by 1") == [("done", None), ("live", "node-7")]


@pytest.mark.parametrize("content", ["{", "[1]", "x" * (9 << 20)])
def test_a_file_that_cannot_be_read_is_no_failure_and_keeps_no_other_away(rig, content):
    add(rig, "bad").add_file("wandb-metadata.json", content)
    add(rig, "good", metadata=FILE)
    result = rig.sync(metadata=True)["team/p"]
    assert (result.error, result.failed) == (None, {})
    assert rig.sql("select run_id, host from runs order by 1") == [("bad", None), ("good", "node-7")]
    rig.sandbox.reset_counts()
    rig.sync(metadata=True)
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}
    assert rig.sql("select attempts, next_try_at is not null from store.run_extras where attempts > 0") == [(1, True)]


def test_a_flush_pulls_the_file_again_and_forgets_one_that_is_gone(rig):
    run = add(rig, "one", metadata=FILE)
    rig.sync(metadata=True)
    run.add_file("wandb-metadata.json", json.dumps({**FILE, "host": "node-8"}))
    rig.sync(metadata=True, afresh=True)
    assert metadata(rig)["host"] == ("node-8", None, "string")
    run.files.clear()
    rig.sync(metadata=True, afresh=True)
    assert metadata(rig) == {}


def lines(rig, run_id="one"):
    return rig.sql("select line, text from console where run_id = ? order by line", run_id)


def test_the_console_comes_when_asked_for_with_time_and_level(rig):
    run = add(rig, "one")
    run.write_console(
        0, ["2026-03-01T12:00:00.5Z hello", "ERROR 2026-03-01T12:00:01Z [rank0] no\tgood", "plain \u2713"]
    )
    rig.sync()
    assert rig.sql("select * from console") == []
    rig.sync(console=True)
    assert rig.sql(
        "select entity, project, run_id, line, logged_at::varchar, level, text from console order by line"
    ) == [
        ("team", "p", "one", 0, "2026-03-01 12:00:00.5", None, "hello"),
        ("team", "p", "one", 1, "2026-03-01 12:00:01", "error", "no\tgood"),
        ("team", "p", "one", 2, None, None, "plain \u2713"),
    ]
    rig.sandbox.reset_counts()
    rig.sync(console=True)
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}


def test_a_long_console_comes_in_pages_and_a_live_one_by_its_end(rig, monkeypatch):
    monkeypatch.setattr(console, "PAGE_LINES", 10)
    run = add(rig, "one", state="running")
    run.write_console(0, [f"line {number}" for number in range(35)])
    rig.sync(console=True)
    assert lines(rig) == [(number, f"line {number}") for number in range(35)]
    assert rig.sandbox.requests["MirrorConsole"] == 4
    rig.sandbox.reset_counts()
    # A progress bar wrote over its own line.
    run.write_console(34, ["100%", "done"])
    run.heartbeat()
    rig.sync(console=True)
    assert lines(rig)[33:] == [(33, "line 33"), (34, "100%"), (35, "done")]
    assert rig.sandbox.requests["MirrorConsole"] == 1


def test_a_line_that_was_written_over_before_the_end_arrives_with_the_end(rig):
    run = add(rig, "one", state="running")
    run.write_console(0, ["10%"])
    rig.sync(console=True)
    run.write_console(0, ["100%"])
    run.finish()
    rig.sync(console=True)
    assert lines(rig) == [(0, "100%")]


def test_a_console_that_broke_off_goes_on_and_nothing_is_doubled(rig, monkeypatch):
    monkeypatch.setattr(console, "PAGE_LINES", 10)
    run = add(rig, "one")
    run.write_console(0, [f"line {number}" for number in range(35)])
    real = console.fetch
    asked = []

    async def fails_at_the_third(server, project, places, **options):
        asked.append(places)
        if len(asked) == 3:
            raise console_and_files.CommError("broke off")
        return await real(server, project, places, **options)

    monkeypatch.setattr(console, "fetch", fails_at_the_third)
    result = rig.sync(console=True)["team/p"]
    assert result.failed == {"one": "its console could not be read: broke off"}
    monkeypatch.setattr(plan, "waits", lambda *_: False)
    assert rig.sync(console=True)["team/p"].failed == {}
    assert lines(rig) == [(number, f"line {number}") for number in range(35)]


def test_a_rewound_run_has_its_console_replaced(rig):
    run = add(rig, "one", rows=6)
    run.write_console(0, [f"old {number}" for number in range(5)])
    rig.sync(console=True)
    run.rewind(2)
    run.console.clear()
    run.write_console(0, ["new 0", "new 1"])
    rig.sync(console=True)
    assert lines(rig) == [(0, "new 0"), (1, "new 1")]


def test_an_older_server_that_numbers_no_lines_is_mirrored_too(rig, monkeypatch):
    monkeypatch.setattr("mirror.remote.queries.LINE_FIELDS", "numberOfAnotherServer line")
    monkeypatch.setattr(console, "PAGE_LINES", 2)
    add(rig, "one").write_console(0, ["a", "b", "c", "d", "e"])
    assert rig.sync(console=True)["team/p"].failed == {}
    assert lines(rig) == [(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e")]


def stamped(number, text, second=0):
    return f"2026-03-01T12:{number // 60:02}:{number % 60:02}.{second:06} {text}"


def test_a_page_that_is_cut_by_its_size_is_gone_on_behind(tmp_path):
    """The server says that nothing follows, and counts more lines than it gave."""
    with make_rig(tmp_path / "home", console_bytes=200) as rig:
        add(rig, "one").write_console(0, [f"line {number:3} {'x' * 20}" for number in range(37)])
        add(rig, "two").write_console(0, [f"line {number:3} {'y' * 200}" for number in range(3)])
        rig.sync(console=True)
        assert lines(rig) == [(number, f"line {number:3} {'x' * 20}") for number in range(37)]
        assert lines(rig, "two") == [(number, f"line {number:3} {'y' * 200}") for number in range(3)]
        assert rig.sandbox.requests["MirrorConsole"] == 7
        rig.sandbox.reset_counts()
        rig.sync(console=True)
        assert rig.sandbox.requests["MirrorConsole"] == 0


def test_a_page_that_stays_empty_in_a_shared_request_is_asked_for_alone(rig, monkeypatch):
    """A budget for the request as a whole leaves nothing for its last runs."""
    real = console._ask

    async def shared_budget(server, count, variables, *, heads):
        data = await real(server, count, variables, heads=heads)
        for index in range(1, count):
            data["project"][f"r{index}"]["logLines"] = {
                "edges": [],
                "pageInfo": {"endCursor": None, "hasNextPage": False},
            }
        return data

    monkeypatch.setattr(console, "_ask", shared_budget)
    for name in ("one", "two", "three"):
        add(rig, name).write_console(0, [f"hello {name}"])
    assert rig.sync(console=True)["team/p"].failed == {}
    assert sorted(rig.sql("select run_id, line, text from console")) == [
        (name, 0, f"hello {name}") for name in ("one", "three", "two")
    ]


def test_more_lines_than_the_server_gives_are_no_reason_to_ask_for_ever(rig, monkeypatch):
    real = console._ask

    async def counts_too_many(server, count, variables, *, heads):
        data = await real(server, count, variables, heads=heads)
        data["project"]["r0"]["logLineCount"] += 5
        return data

    monkeypatch.setattr(console, "_ask", counts_too_many)
    run = add(rig, "one")
    run.write_console(0, [f"line {number}" for number in range(35)])
    monkeypatch.setattr(console, "PAGE_LINES", 10)
    assert rig.sync(console=True)["team/p"].failed == {}
    assert lines(rig) == [(number, f"line {number}") for number in range(35)]
    assert rig.sandbox.requests["MirrorConsole"] == 5


@pytest.mark.parametrize("count", [499, 501, 2345])
def test_a_server_before_0_77_gives_the_end_of_a_console_and_that_is_said_once(tmp_path, monkeypatch, caplog, count):
    monkeypatch.setattr(console, "TAIL_LINES", 1000)
    with make_rig(tmp_path / "home", features={"console_pages": False}) as rig:
        run = add(rig, "one", state="running")
        run.write_console(0, [f"line {number}" for number in range(count)])
        add(rig, "two").write_console(0, ["hello"])
        with caplog.at_level("WARNING", "mirror.remote"):
            rig.sync(console=True)
        assert lines(rig) == [(number, f"line {number}") for number in range(max(0, count - 1000), count)]
        assert lines(rig, "two") == [(0, "hello")]
        said = f"{rig.sandbox.url} is older than 0.77 and returns only the end of a console"
        assert [record.message for record in caplog.records] == [f"{said}; longer ones are mirrored in part"]
        run.write_console(count, ["more"])
        run.heartbeat()
        rig.sync(console=True)
        held = [number for number, _ in lines(rig)]
        assert held == list(range(max(0, count - 1000), count + 1))


def test_the_old_way_to_page_is_never_used(rig):
    """It repeats the last 500 lines for ever, which is what a console of 501 lines showed."""
    add(rig, "one").write_console(0, [f"line {number}" for number in range(501)])
    rig.sync(console=True)
    assert lines(rig) == [(number, f"line {number}") for number in range(501)]


def test_a_resumed_run_that_wrote_over_its_console_has_it_pulled_as_a_whole(rig, monkeypatch):
    monkeypatch.setattr(console, "PAGE_LINES", 10)
    run = add(rig, "one")
    run.write_console(0, [stamped(number, f"first {number}") for number in range(35)])
    rig.sync(console=True)
    run.set_state("running")
    run.write_console(0, [stamped(number, f"second {number}", 1) for number in range(36)])
    run.finish()
    rig.sync(console=True)
    assert lines(rig) == [(number, f"second {number}") for number in range(36)]


def test_a_resumed_run_whose_line_numbers_begin_again_keeps_all_lines(rig, monkeypatch):
    monkeypatch.setattr(console, "PAGE_LINES", 10)
    run = add(rig, "one")
    run.write_console(0, [f"first {number}" for number in range(25)])
    rig.sync(console=True)
    run.set_state("running")
    run.resume_console([f"second {number}" for number in range(18)])
    run.finish()
    rig.sync(console=True)
    whole = [f"first {number}" for number in range(25)] + [f"second {number}" for number in range(18)]
    assert lines(rig) == list(enumerate(whole))
    rig.sync("team/p/one", console=True, afresh=True)
    assert lines(rig) == list(enumerate(whole))


def test_lines_far_back_that_are_gone_on_the_server_stay_in_the_mirror(rig, monkeypatch):
    monkeypatch.setattr(console, "PAGE_LINES", 10)
    run = add(rig, "one", state="running")
    run.console_kept = 30
    run.write_console(0, [f"line {number}" for number in range(25)])
    rig.sync(console=True)
    run.write_console(25, [f"line {number}" for number in range(25, 50)])
    run.finish()
    rig.sync(console=True)
    assert lines(rig) == [(number, f"line {number}") for number in range(50)]
    late = add(rig, "late")
    late.console_kept = 30
    late.write_console(0, [f"line {number}" for number in range(50)])
    rig.sync(console=True)
    assert lines(rig, "late") == [(number, f"line {number}") for number in range(20, 50)]
    rig.sync("team/p/one", console=True, afresh=True)
    assert lines(rig) == [(number, f"line {number}") for number in range(50)]


def test_consoles_of_many_runs_share_a_request(rig):
    for index in range(30):
        add(rig, f"run{index:02}", rows=0).write_console(0, [f"hello {index}"])
    rig.sync(console=True)
    assert rig.sandbox.requests["MirrorConsole"] == 3
    assert rig.sql("select count(*), count(distinct run_id) from console") == [(30, 30)]


def test_system_metrics_are_not_pulled_again_while_nothing_was_added(rig):
    run = add(rig, "one", state="running")
    run.log_system({"system.cpu": 1.0})
    rig.sync(system_metrics=True)
    run.log({"loss": 0.0}, step=9)
    rig.sandbox.reset_counts()
    assert rig.sync(system_metrics=True)["team/p"].runs == 1
    assert rig.sandbox.requests["MirrorEvents"] == 0


def test_system_metrics_of_a_live_run_are_pulled_as_they_grow_by_a_twentieth_and_whole_at_its_end(rig):
    run = add(rig, "one", state="running")
    for value in range(100):
        run.log_system({"system.cpu": float(value)})
    counts = []
    for more in (0, 4, 1, 3):
        for _ in range(more):
            run.log_system({"system.cpu": 0.5})
        rig.sync(system_metrics=True)
        counts.append(rig.sql("select count(*) from system_metrics where key = 'system.cpu'")[0][0])
    run.finish()
    rig.sync(system_metrics=True)
    counts.append(rig.sql("select count(*) from system_metrics where key = 'system.cpu'")[0][0])
    assert counts == [100, 100, 105, 105, 108]


def test_system_metrics_that_a_broken_pass_left_out_come_with_the_next(rig):
    """Though nothing changed since in the runs."""
    add(rig, "one").log_system({"system.cpu": 1.0})
    rig.sandbox.faults.add("graphql", times=6, operation="MirrorEvents")
    failed = rig.sync(system_metrics=True)["team/p"].failed
    assert list(failed) == ["one"]
    assert failed["one"].startswith("its system metrics could not be read: ")
    assert rig.sync("team/p/one", system_metrics=True, afresh=True)["team/p"].failed == {}
    assert rig.sql("select run_id, value from system_metrics where key = 'system.cpu'") == [("one", 1.0)]


def test_a_request_holds_as_many_runs_as_their_lines_allow():
    def run(number, lines):
        return console_and_files.RunExtras(number, f"run{number}", "finished", server_events=lines)

    many = [run(number, 3_000) for number in range(7)] + [run(7, 50_000), run(8, 1)]
    batches = list(console_and_files._batches(many, console_and_files._event_lines))
    assert [[one.rid for one in batch] for batch in batches] == [[0, 1, 2], [3, 4, 5], [6], [7], [8]]
    assert [
        len(batch)
        for batch in console_and_files._batches([run(n, 0) for n in range(120)], console_and_files._event_lines)
    ] == [
        50,
        50,
        20,
    ]


def test_what_is_asked_for_later_comes_for_runs_that_are_mirrored_already(tmp_path):
    with make_rig(tmp_path / "home") as rig:
        run = add(rig, "one", metadata=FILE)
        run.log_system({"system.cpu": 1.0})
        run.write_console(0, ["hello"])
        rig.sync()
        rig.sync(system_metrics=True, console=True, metadata=True)
        assert rig.sql("select count(*) from system_metrics where key = 'system.cpu'") == [(1,)]
        assert lines(rig) == [(0, "hello")]
        assert rig.sql("select host from runs") == [("node-7",)]


def listed(rig, what="run_id, name, size, md5, updated_at is not null"):
    return rig.sql(f"select {what} from files group by all order by all")


def test_the_list_of_files_comes_when_asked_for_and_again_when_the_run_changed(rig):
    one, two = add(rig, "one"), add(rig, "two")
    one.add_file("a.txt", "hello")
    one.add_file("media/ü.png", b"1234567")
    rig.sync()
    assert (listed(rig), rig.sandbox.requests["MirrorFileLists"]) == ([], 0)
    rig.sync(files=True)
    hello = "XUFAKrxLKna5cZ2REBfFkg=="
    assert listed(rig)[0] == ("one", "a.txt", 5, hello, True)
    assert listed(rig, "run_id, name") == [("one", "a.txt"), ("one", "media/ü.png")]
    assert rig.sandbox.requests["MirrorFileLists"] == 1
    rig.sync(files=True)
    assert rig.sandbox.requests["MirrorFileLists"] == 1
    del one.files["a.txt"]
    one.add_file("b.txt", "")
    one.touch(heartbeat=False)
    two.add_file("c.txt", "c")
    rig.sync(files=True)
    assert listed(rig, "run_id, name, size") == [("one", "b.txt", 0), ("one", "media/ü.png", 7)]
    rig.sync(files=True, afresh=True)
    assert listed(rig, "run_id, name")[-1] == ("two", "c.txt")


def test_many_files_come_in_pages_and_those_of_live_runs_now_and_then(rig, monkeypatch):
    monkeypatch.setattr("mirror.remote.files.PAGE_FILES", 7)
    runs = [rig.world.add_run("team", "p", run_id=f"run{index}", state="running") for index in range(3)]
    for index, run in enumerate(runs):
        run.log({"loss": 0.5})
        for number in range(index * 10):
            run.add_file(f"{number}.json", "{}")
    rig.sync(files=True)
    assert listed(rig, "run_id, count(*)") == [("run1", 10), ("run2", 20)]
    asked = rig.sandbox.requests["MirrorFileLists"]
    assert asked == 3
    runs[0].log({"loss": 0.25})
    runs[0].add_file("late.txt", "")
    rig.sync(files=True)
    assert rig.sandbox.requests["MirrorFileLists"] == asked
    runs[0].finish()
    rig.sync(files=True)
    assert listed(rig, "run_id, name")[0] == ("run0", "late.txt")
    monkeypatch.setattr(plan, "LIST_AGAIN", timedelta(0))
    runs[1].add_file("x.txt", "")
    runs[1].log({"loss": 0.25})
    rig.sync(files=True)
    assert listed(rig, "run_id, count(*)") == [("run0", 1), ("run1", 11), ("run2", 20)]


def test_a_list_of_files_that_cannot_be_had_is_tried_again_later(rig, monkeypatch):
    add(rig, "one").add_file("a.txt", "hello")
    rig.retry = replace(rig.retry, attempts=1)
    rig.sandbox.faults.add("graphql", times=None, operation="MirrorFileLists")
    result = rig.sync(files=True)["team/p"]
    assert "its list of files could not be read" in result.failed["one"]
    assert listed(rig) == []
    rig.sandbox.faults.clear()
    rig.sync(files=True)
    assert listed(rig) == [], "its turn is in a minute"
    monkeypatch.setattr(console_and_files, "utc_now", lambda: utc_now() + timedelta(hours=1))
    assert rig.sync(files=True)["team/p"].failed == {}
    assert listed(rig, "run_id, name") == [("one", "a.txt")]
