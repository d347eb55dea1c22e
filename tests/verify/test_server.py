"""What changed on the server: what a pass would bring is behind, what no pass would notice is a difference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mirror.sandbox.run import TELEMETRY, wrapped
from mirror.store.store import Store
from mirror.verify import history
from tests.sync.rig import silence, spoil

SILENT = "edited on the server without moving a timestamp, or changed in the file"


def run_of(own, run_id="aaa"):
    return own.world.run("team", "p", run_id)


def reported(project, level="differences"):
    """What each finding says, but for its cause."""
    return [(one["run_id"], one["field"], one["mirror"], one["expected"]) for one in project[level]]


def equal(own, *arguments):
    """Nothing differs."""
    code, project = own.found(*arguments)
    assert (code, project["differences"], project["notes"], project["error"]) == (0, [], [], None)
    return project


def test_a_clean_mirror_is_equal_and_says_what_was_compared(own):
    own.sync()
    done = own.cli("verify")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith(
        "team/p: 3 runs, 18 history rows, 18 keys and 92 values equal the server's counts and records (1 request, "
    )
    own.server.reset_counts()
    done = own.cli("verify", "--deep", "team/p")
    assert done.stderr.startswith(
        "team/p: 3 runs, 18 history rows, 18 keys and 92 values equal the server's, value by value (2 requests, "
    )
    assert dict(own.server.requests) == {"MirrorRuns": 1, "MirrorHistory": 1}


def test_silent_edits_are_reported_value_by_value(own):
    own.sync()
    run = run_of(own)
    run.set_config({**wrapped({"lr": 0.2, "model": {"depth": 3, "name": "net"}, "new": None}), "_wandb": {"value": {}}})
    run.labels.notes = "other"
    run.tags = ["z"]
    code, project = own.found()
    assert code == 1
    assert reported(project) == [
        ("aaa", "notes", "hello", "other"),
        ("aaa", "tags", "x,y", "z"),
        ("aaa", "config.lr", "0.1", "0.2"),
        ("aaa", "config.layers", "[1,2]", "no value"),
        ("aaa", "config.new", "no value", "null"),
        ("aaa", "config_meta", json.dumps(TELEMETRY, separators=(",", ":")), "{}"),
    ]
    assert {one["cause"] for one in project["differences"]} == {SILENT}
    own.repaired()


def test_a_run_that_went_on_is_behind_and_what_is_mirrored_of_it_is_still_compared(own):
    own.sync()
    run = run_of(own)
    run.log({"loss": 0.01}, step=40)
    project = equal(own, "--deep")
    assert [(one["run_id"], one["cause"]) for one in project["behind"]] == [
        ("aaa", "the run continued after the last pass; run `mirror sync`")
    ]
    own.damage("update store.history_tail set value = 7 where rid = {run} and step = 4 and key = 'acc'")
    code, project = own.found("--deep")
    assert (code, reported(project)) == (1, [("aaa", "history.acc", "7.0 at step 4", "0.2")])
    own.repaired()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda run: run.edit(notes="new"), "the run was edited after the last pass; run `mirror sync`"),
        (lambda run: run.rewind(7), "the run was rewound after the last pass; run `mirror sync`"),
    ],
)
def test_what_the_next_pass_brings_is_behind(own, change, cause):
    own.sync()
    change(run_of(own))
    done = own.cli("verify", "--deep")
    assert done.exit_code == 0
    (line,) = done.stdout.splitlines()
    assert line.startswith("behind: team/p/aaa run: mirror has finished, 10 rows, heartbeat ")
    assert line.endswith(f"({cause})")
    assert "; 1 run changed since the last pass (" in done.stderr
    own.sync()
    assert equal(own, "--deep")["behind"] == []


def test_a_new_run_and_one_that_crashed_are_behind(own):
    live = own.world.add_run("team", "p", run_id="live", state="running")
    live.log({"loss": 1.0})
    own.sync()
    live.set_state("crashed")
    own.world.add_run("team", "p", run_id="new", state="running")
    project = equal(own, "--deep")
    assert [(one["run_id"], one["cause"]) for one in project["behind"]] == [
        ("live", "the run ended after the last pass; run `mirror sync`"),
        ("new", "new on the server after the last pass; run `mirror sync`"),
    ]
    own.sync()
    assert equal(own)["behind"] == []


def test_what_a_live_run_writes_between_two_heartbeats_is_behind(own):
    live, other = (own.world.add_run("team", "p", run_id=name, state="running") for name in ("live", "other"))
    live.log({"loss": 1.0})
    other.log({"loss": 1.0})
    own.sync()
    live.set_summary({**live.summary, "loss": 0.5})
    other.history.append({"_step": 1, "loss": 0.5})
    project = equal(own, "--deep")
    assert reported(project, "behind")[0] == ("live", "summary.loss", "1.0", "0.5")
    assert [(one["run_id"], one["cause"]) for one in project["behind"]] == [
        ("live", "a live run keeps writing it; the pass after its next heartbeat pulls it"),
        ("other", "the run continued after the last pass; run `mirror sync`"),
    ]
    live.set_config(wrapped({"lr": 3}))
    assert own.fields() == [("live", "config.lr")]


def test_a_flush_that_no_pass_followed_is_behind(own):
    own.sync()
    own.cli("flush", "team/p/aaa", "--no-wait")
    project = equal(own, "--deep")
    assert [(one["run_id"], one["cause"]) for one in project["behind"]] == [
        ("aaa", "the pass that pulls its history has not ended; run `mirror sync`")
    ]


def test_a_run_that_is_gone_on_the_server_is_reported_and_marked(own):
    own.sync()
    own.world.delete_run("team", "p", "aaa")
    code, project = own.found()
    assert (code, reported(project)) == (1, [("aaa", "run", "a finished run", "no such run")])
    assert (
        project["differences"][0]["cause"] == "deleted on the server; `mirror sync` marks it at the next full listing"
    )
    assert own.cli("verify", "--repair").exit_code == 0
    assert own.tables("select run_id from runs where deleted_at is not null") == [("aaa",)]
    assert equal(own, "--deep")["runs"] == 2


def test_history_that_was_cut_without_a_trace(own):
    own.sync()
    run = run_of(own)
    run.history.truncate(9)
    code, project = own.found()
    assert code == 1
    assert reported(project) == [
        ("aaa", "server_rows", "10", "5"),
        ("aaa", "history rows", "5 rows between steps 10 and 18", "none of them"),
    ]
    run.set_summary({**run.summary, "_step": 8})
    own.repaired()


def test_history_that_grew_or_changed_without_a_trace(own):
    own.sync()
    run, other = run_of(own), run_of(own, "bbb")
    run.history.append({"_step": 50, "loss": 0.5})
    other.history.lines[2] = (
        other.history.lines[2].replace('"acc":0.2', '"acc":0.75').replace('"acc": 0.2', '"acc": 0.75')
    )
    code, project = own.found("--deep")
    assert code == 1
    assert reported(project) == [
        ("aaa", "server_rows", "10", "11"),
        ("aaa", "server_last_step", "18", "50"),
        ("aaa", "history rows", "none of them, at the end", "1 row at step 50"),
        ("bbb", "history.acc", "0.2 at step 4", "0.75"),
    ]
    own.repaired()


def test_many_runs_that_cannot_be_read_do_not_hold_up_the_others(own, monkeypatch):
    for index in range(6):
        bad = own.world.add_run("team", "p", run_id=f"bad{index}", state="running")
        bad.log({"loss": 0.5})
        bad.finish()
    own.world.add_run("team", "p", run_id="zzz", state="running").log({"loss": 0.5})
    run_of(own, "zzz").finish()
    own.sync()
    run_of(own, "zzz").history.lines[0] = run_of(own, "zzz").history.lines[0].replace("0.5", "0.75")
    silence(monkeypatch, "bad")
    code, project = own.found("--deep")
    assert code == 1
    differing = {run_id: field for run_id, field, *_ in reported(project)}
    assert sorted(differing) == [*(f"bad{index}" for index in range(6)), "zzz"]
    assert differing["zzz"] == "history.loss"


def test_counts_of_the_server_that_its_own_rows_do_not_bear_out_are_a_note(own):
    own.sync()
    run_of(own).history.keys["loss"].counts["number"] = 99
    code, project = own.found()
    assert (code, project["differences"]) == (0, [])
    assert reported(project, "notes") == [
        ("aaa", "history", "10 rows, each equal to the server's", "the server counts 99 values of loss")
    ]


def test_a_run_that_cannot_be_read_is_a_difference_that_remains(own):
    spoil(run_of(own))
    own.configure()
    assert own.cli("sync").exit_code == 1
    code, project = own.found()
    assert code == 1
    (found,) = project["differences"]
    assert (found["run_id"], found["field"], found["mirror"]) == ("aaa", "history", "0 rows")
    assert found["cause"].startswith(
        "failed, will be retried: the server sent a history line of aaa that cannot be read"
    )
    done = own.cli("verify", "--repair")
    assert done.exit_code == 1
    assert done.stdout.startswith("differs: team/p/aaa history: ")
    assert "warning: not repaired: team/p/aaa: the server sent a history line of aaa" in done.stderr
    assert "1 difference before the repair, 1 after it" in done.stderr


def test_the_scope_of_the_config_is_honoured(own):
    own.sync(sync='filters = {"display_name" = "name of aaa"}\nhistory = ["l*"]')
    project = equal(own, "--deep")
    assert (project["runs"], project["history_rows"], project["keys"], project["values_compared"]) == (1, 10, 1, 10)
    own.configure(sync='filters = {"display_name" = "name of bbb"}\nhistory = ["l*"]')
    code, project = own.found("--deep")
    assert (code, project["differences"], [one["run_id"] for one in project["behind"]]) == (0, [], ["bbb"])
    assert reported(project, "notes") == [("aaa", "run", "the run", "the run, outside of sync.filters")]
    own.configure(sync='filters = {"display_name" = "name of aaa"}\nhistory = ["l*", "acc"]')
    code, project = own.found()
    assert code == 1
    assert reported(project) == [("aaa", "history.acc", "no value at step 0, the first of 10", "0.0")]
    own.configure(sync='filters = {"display_name" = "name of aaa"}\nhistory = []')
    assert equal(own, "--deep")["values_compared"] == 0


def test_one_run_alone(own):
    own.sync()
    own.damage("delete from store.history_tail where rid = {run} and step > 9")
    done = own.cli("verify", "team/p/bbb")
    assert done.exit_code == 0
    assert done.stderr.startswith("team/p: 1 run, 6 history rows, 5 keys and 30 values equal ")
    assert own.cli("verify", "team/p/aaa").exit_code == 1
    none = own.cli("verify", "team/p/none")
    assert none.exit_code == 1
    assert "no run none in team/p, neither in the mirror nor on http" in none.stderr


def test_json_is_as_documented(own):
    own.sync()
    run_of(own).labels.notes = "other"
    done = own.cli("verify", "--json", "--repair")
    answer = json.loads(done.stdout)
    seconds = answer["projects"][0].pop("seconds")
    assert seconds > 0
    assert answer == {
        "equal": True,
        "deep": False,
        "projects": [
            {
                "project": "team/p",
                "equal": True,
                "runs": 3,
                "history_rows": 18,
                "keys": 18,
                "values": 92,
                "values_compared": 0,
                "requests": 1,
                "differences": [],
                "behind": [],
                "notes": [],
                "error": None,
                "exit_code": 0,
            }
        ],
        "files": None,
        "repair": {
            "differed": [
                {
                    "project": "team/p",
                    "run_id": "aaa",
                    "field": "notes",
                    "mirror": "hello",
                    "expected": "other",
                    "expected_by": "server",
                    "cause": SILENT,
                }
            ],
            "mended": {},
            "pulled": ["team/p/aaa"],
            "failed": [],
            "lost": [],
        },
    }


def test_what_cannot_be_verified_is_one_line_and_an_exit_code(own, monkeypatch):
    def fails(*arguments):
        done = own.cli("verify", *arguments)
        lines = done.stderr.splitlines()
        assert len(lines) == 1, lines
        return done.exit_code, lines[0]

    code, line = fails()
    assert (code, "mirror init" in line) == (2, True)
    code, line = fails("team/p")
    assert (code, line) == (
        1,
        f"error: nothing mirrored yet ({own.home.published} does not exist): run `mirror sync`",
    )
    own.sync("team/q")
    assert own.cli("verify", "team/p").stdout.splitlines() == [
        "differs: team/p project: mirror has nothing, the server has 3 runs (it was never mirrored; run `mirror sync`)"
    ]
    code, line = fails("team/none")
    assert code == 1
    assert line.startswith("error: team/none is not on http")
    assert fails("nothing")[0] == 2
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    code, line = fails("team/q")
    assert code == 3
    assert "does not accept the API key" in line


def test_faults_of_the_network_do_not_look_like_differences(own):
    own.sync()
    for kind in ("500", "reset", "truncated", "429"):
        own.server.faults.add(kind, times=1)
        equal(own, "--deep")


def test_a_run_that_is_cut_back_while_it_is_compared_is_looked_at_once_more(own, monkeypatch):
    own.sync()
    compare = history.compare

    async def meanwhile(*arguments):
        monkeypatch.setattr(history, "compare", compare)
        run_of(own).rewind(7)
        return await compare(*arguments)

    monkeypatch.setattr(history, "compare", meanwhile)
    project = equal(own, "--deep")
    assert [(one["run_id"], one["cause"]) for one in project["behind"]] == [
        ("aaa", "the run was rewound after the last pass; run `mirror sync`")
    ]
    assert (project["runs"], project["history_rows"]) == (3, 18)


def test_while_another_process_syncs_what_was_published_is_verified(own):
    own.sync()
    store = Store.open(own.home)
    try:
        done = own.cli("verify", "team/p")
        assert done.exit_code == 0
        assert done.stderr.startswith(
            "another process is syncing; the file that it published last is verified, its state is not checked\n"
            "team/p: 3 runs, "
        )
        run_of(own).labels.notes = "other"
        done = own.cli("verify", "team/p", "--repair")
        assert done.exit_code == 2
        assert " is held by " in done.stderr
    finally:
        store.close()


def test_a_project_that_is_gone_is_reported_where_a_pattern_of_the_config_selects_it(own):
    own.sync("team/p", "team/q")
    del own.world.projects["team", "q"]
    code, lines = own.verify("team/*")
    assert (code, lines) == (
        1,
        [
            (
                "differs: team/q project: mirror has a project, the server has no such project (deleted or renamed on the "
                "server, or the key may no longer read it; what is mirrored stays)"
            )
        ],
    )


def test_a_run_from_a_local_file_is_no_difference_until_the_server_has_it(own, tmp_path):
    own.sync()
    file = tmp_path / "wandb" / "offline-run-20260101_000000-g9dvvkua" / "run-g9dvvkua.wandb"
    file.parent.mkdir(parents=True)
    shutil.copy(Path(__file__).parents[1] / "local" / "offline-run-g9dvvkua.wandb", file)
    assert own.cli("ingest", str(tmp_path / "wandb")).exit_code == 0
    ((entity, name),) = own.tables("select entity, project from runs where run_id = 'g9dvvkua'")
    own.world.add_project(entity, name)
    done = own.cli("verify", "--deep", f"{entity}/{name}")
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    own.world.add_run(entity, name, run_id="g9dvvkua", state="running")
    done = own.cli("verify", "--deep", f"{entity}/{name}")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"behind: {entity}/{name}/g9dvvkua run: mirror has the file's run, the server has ")


def test_steps_of_a_clock_are_compared_value_by_value(own):
    """As many requests as for counted steps, and what differs is reported."""
    own.world.add_run("team", "p", run_id="clock").log_many(
        [{"_step": 1_764_000_000_000_000_000 + 1_000_000_007 * number, "loss": float(number)} for number in range(50)]
    )
    run_of(own, "clock").finish()
    own.sync()
    own.server.reset_counts()
    equal(own, "--deep")
    assert own.server.requests["MirrorHistory"] <= 2
    run = run_of(own, "clock").history
    run.lines[7] = run.lines[7].replace('"loss":7.0', '"loss":8.0')
    _, project = own.found("--deep")
    assert reported(project) == [("clock", "history.loss", f"7.0 at step {run.steps[7]}", "8.0")]
