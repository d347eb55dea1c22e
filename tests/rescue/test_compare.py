"""What `mirror verify --local` says of files and of the server; nothing is written."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.local.kit import damaged, now, run_file
from tests.rescue.conftest import Pair

EQUAL = "team/p: 1 run, 10 history rows, 3 keys and 30 values equal the server's, value by value"
TAIL = "none of them, at the end (lost there; `--upload` sends what is missing)"


def reported(lines):
    """The lines without what all of them say."""
    return [line.removeprefix("differs: team/p/r1 ") for line in lines]


def test_equal_files_are_said_to_be_so(verify, pair, server, home):
    assert verify() == (0, [], [EQUAL])
    assert set(server.requests) == {"MirrorRuns", "MirrorHistory"}
    assert not home.data.exists()


def test_a_file_can_be_named_itself(verify, pair):
    assert verify(folder=pair.file.path) == (0, [], [EQUAL])


def test_rows_that_the_server_lost_are_reported_by_their_place(verify, pair):
    pair.lose_behind(6)
    rows = "history rows: the file has 3 rows between steps 7 and 9, the server has "
    assert verify()[:2] == (1, [f"differs: team/p/r1 {rows}{TAIL}"])
    pair.lose(0, 1, 4)
    code, lines, [summary] = verify()
    never = "lost there; they cannot be sent, since it only accepts rows after its last step, 6"
    assert (code, reported(lines)) == (
        1,
        [
            f"{rows}{TAIL}",
            f"history rows: the file has 1 row at step 4, the server has none of them, in the middle ({never})",
            (
                "history rows: the file has 2 rows between steps 0 and 1, the server has none of them, at the start "
                f"({never})"
            ),
        ],
    )
    assert summary == "team/p: 3 differences in 1 run, 10 history rows, 3 keys and 30 values"


def test_a_server_without_any_row_has_lost_the_tail(verify, pair):
    pair.lose_behind(-1)
    code, lines, _ = verify()
    assert (code, reported(lines)) == (
        1,
        [f"history rows: the file has 10 rows between steps 0 and 9, the server has {TAIL}"],
    )


def test_rows_that_only_the_server_has(verify, tmp_path, server):
    """Before the file, behind it, and in it, as another process or a damaged file leaves them."""
    pair = Pair(tmp_path / "wandb", server.world)
    for step in (5, 6, 8, 9):
        pair.log(step, loss=1)
    for step in (2, 3, 7, 11):
        pair.run.history.append_text(json.dumps({"_step": step, "loss": 2}))
    pair.ended()
    has = "history rows: the file has none of them, "
    code, lines, _ = verify()
    assert (code, reported(lines)) == (
        1,
        [
            (
                f"{has}at the end, the server has 1 row at step 11 (the file ends before them: the run was killed, or "
                "continued elsewhere)"
            ),
            f"{has}in the middle, the server has 1 row at step 7 (damaged in the file, or from another process)",
            (
                f"{has}at the start, the server has 2 rows between steps 2 and 3 (from an earlier start whose file was not "
                "given, or from another process)"
            ),
        ],
    )


def test_rows_that_the_server_has_twice(verify, pair):
    """`wandb sync` of a file that is on the server already puts all of its rows behind those that are there.

    Asked for ten steps, the server draws ten of its fourteen rows, so that some steps seem to be missing.
    """
    pair.run.history.rebuild([*pair.run.history.lines, *pair.run.history.lines[:4]])
    code, lines, _ = verify()
    given = "history rows: the file has 10, the server has "
    count = "its count is wrong, or it has some steps twice, as after `wandb sync` of a file that it already had"
    seems = "not returned by the server, which counts more rows than it returns: some may be duplicates"
    assert (
        code,
        lines[-1].startswith(f"note: team/p/r1 {given}"),
        lines[-1].endswith(f" and counts 14 ({count})"),
    ) == (
        1,
        True,
        True,
    )
    assert {line.rpartition(" (")[2] for line in reported(lines[:-1]) if "middle" in line} <= {f"{seems})"}


def test_an_older_summary_is_one_line(verify, pair):
    pair.run.set_summary(dict.fromkeys(pair.run.summary, 1))
    assert reported(verify()[1]) == [
        (
            "summary: the file has 4 values (loss, acc, _step, ...), the server has older values (older there; `--upload` "
            "sends what is missing)"
        )
    ]


def test_values_are_compared_one_by_one(verify, tmp_path, server):
    """NaN, infinities, integers past 2^53, nested keys, objects whose members stand in another order."""
    pair = Pair(tmp_path / "wandb", server.world)
    odd = {
        "nan": float("nan"),
        "up": float("inf"),
        "big": 2**60 + 1,
        "n": {"a": {"b": 1}, "c.d": 2},
        "t": "text",
        "z": None,
    }
    hist = {"_type": "histogram", "values": [1, 2], "bins": [0.0, 0.5, 1.0]}
    pair.log(0, **odd).log(1, hist=hist, flag=True).log(3, loss=1, acc=2, big=2**60 + 1).ended()
    lines = pair.run.history.lines
    lines[1] = json.dumps({**json.loads(lines[1]), "hist": dict(reversed(hist.items()))})
    pair.run.history.rebuild(lines)
    assert verify()[:2] == (0, [])
    row = json.loads(lines[2])
    del row["acc"]
    pair.run.history.rebuild([*lines[:2], json.dumps({**row, "big": 2**60, "new": 7})])
    code, told_lines, _ = verify()
    assert (code, reported(told_lines)) == (
        1,
        [
            (
                "history.acc: the file has 2.0 at step 3, the server has no value (lost there; nothing can be added to a row "
                "that the server has)"
            ),
            (
                f"history.big: the file has {2**60 + 1} at step 3, the server has {2**60} (changed on the server, or the "
                "rows of two processes)"
            ),
            (
                "history.new: the file has no value at step 3, the server has 7.0 (damaged in the file, or from another "
                "process)"
            ),
        ],
    )


def test_a_lost_summary_is_one_line_and_few_values_are_one_each(verify, pair):
    pair.run.set_summary({key: value for key, value in pair.run.summary.items() if key != "acc"})
    lost = "(lost there; `--upload` sends what is missing)"
    assert reported(verify()[1]) == [f"summary.acc: the file has 9, the server has no value {lost}"]
    pair.run.set_summary({})
    code, lines, _ = verify()
    assert (code, reported(lines)) == (
        1,
        [f"summary: the file has 4 values (loss, acc, _step, ...), the server has none of them {lost}"],
    )


def test_what_was_edited_on_the_server_stays(verify, pair):
    """The server's summary is of the same time as the file's, so that what differs was written later."""
    pair.run.edit(summary={"loss": 0.5, "acc": 9})
    code, lines, _ = verify()
    assert (code, reported(lines)) == (
        1,
        [
            "summary.loss: the file has 0.1, the server has 0.5 (there it is as new as in the file, newer or edited; it is left unchanged)"
        ],
    )


@pytest.mark.parametrize(
    ("folder", "options"), [("offline-run", ""), ("run", "--include-online "), ("synced", "--include-synced ")]
)
def test_a_run_that_the_server_does_not_have(verify, tmp_path, server, folder, options):
    """What the official client takes to upload it is named: it leaves out online runs and those that it has uploaded."""
    server.world.add_project("team", "p")
    file = run_file(tmp_path / "wandb", entity="team").lines(0, 3).exit(1)
    if folder == "run":
        file.path.parent.rename(file.path.parent.with_name("run-20260101_000000-r1"))
    if folder == "synced":
        file.path.with_suffix(".wandb.synced").touch()
    [path] = (tmp_path / "wandb").iterdir()
    assert verify()[:2] == (
        1,
        [
            (
                "differs: team/p/r1 run: the file has a failed run of 3 rows, the server has no such run "
                f"(`wandb sync {options}{path}` uploads it, unless it was deleted there)"
            )
        ],
    )


def test_a_project_that_the_server_does_not_have(verify, tmp_path, server):
    run_file(tmp_path / "wandb", entity="team", project="gone").lines(0, 1).exit()
    code, [line], _ = verify()
    assert (code, line.partition(", the server has ")[2].partition(" (")[0]) == (
        1,
        "no such project, or the key may not read it",
    )


def test_a_run_that_goes_on_is_behind(verify, tmp_path, server):
    """Its process has still to send some rows, and to write others to its file."""
    pair = Pair(tmp_path / "wandb", server.world, start=now()).lines(0, 10)
    pair.lose_behind(7)
    pair.run.set_summary({})
    assert verify() == (
        0,
        [
            (
                "behind: team/p/r1 history rows: the file has 2 rows between steps 8 and 9, the server has none of them, at "
                "the end (the run is live, and has yet to write or send it)"
            ),
            (
                "behind: team/p/r1 summary: the file has 4 values (loss, acc, _step, ...), the server has none of them "
                "(the run is live, and has yet to write or send it)"
            ),
        ],
        [
            "team/p: 1 run, 10 history rows, 3 keys and 30 values equal the server's, value by value, except for 1 run that is still running"
        ],
    )
    pair.lose(3)
    code, lines, _ = verify()
    assert (code, [line.partition(":")[0] for line in lines]) == (1, ["behind", "differs", "behind"])


def test_an_end_that_the_server_did_not_hear_of_is_a_note(verify, pair):
    pair.run.set_state("crashed")
    assert verify()[:2] == (
        0,
        [
            (
                "note: team/p/r1 state: the file has finished, the server has crashed (the server did not receive how it ended; "
                "the state is left unchanged)"
            )
        ],
    )


def test_the_starts_of_one_run_are_joined(verify, tmp_path, server):
    """A start that resumed offline counts from 0 again, and its rows lie behind those of the start before."""
    pair = Pair(tmp_path / "wandb", server.world).lines(0, 4)
    pair.file.exit(1)
    later = run_file(tmp_path / "wandb", stamp="20260102_000000", start=1_700_100_000, entity="team", resume=True)
    for step in range(3):
        later.log(step, loss=step)
        line = {"_step": 4 + step, "loss": step, "_timestamp": later.start + step}
        pair.run.history.append_text(json.dumps(line))
        pair.summary(**line)
    later.exit()
    pair.run.finish()
    assert verify()[:2] == (0, [])
    pair.lose_behind(4)
    assert reported(verify()[1]) == [f"history rows: the file has 2 rows between steps 5 and 6, the server has {TAIL}"]


def test_a_damaged_file_is_reported_and_what_is_left_of_it_compared(verify, pair):
    with damaged(pair.file.path) as raw:
        raw[raw.index(b"0.16666")] ^= 0xFF
    code, lines, errors = verify()
    assert code == 1
    assert errors[0] == f"warning: {pair.file.path}: 1 damaged place was skipped"
    assert reported(lines) == [
        (
            "history rows: the file has none of them, in the middle, the server has 1 row at step 5 (damaged in the file, or "
            "from another process)"
        )
    ]


def test_what_is_no_run_file_is_named(verify, pair, tmp_path):
    (tmp_path / "wandb" / "bad.wandb").write_bytes(b"not one of them")
    code, lines, errors = verify()
    assert (code, lines, errors) == (
        1,
        [],
        [
            f"warning: {tmp_path}/wandb/bad.wandb: cannot be read: it is not a .wandb file, or its version is unknown",
            EQUAL,
        ],
    )


@pytest.mark.parametrize(
    ("project", "run_id"), [("a b", "r 1"), ("päk", "läuf"), ("quo'te\"", "q'\"x"), ("100%", "a+b&c")]
)
def test_odd_names(verify, tmp_path, server, project, run_id):
    pair = Pair(tmp_path / "wandb", server.world, run_id, project=project).lines(0, 4).ended()
    assert verify()[:2] == (0, [])
    pair.lose_behind(1)
    assert verify("--upload")[:2] == (0, [])
    server.world.delete_run("team", project, run_id)
    code, [line], _ = verify()
    assert (code, shlex.split(line.partition("`")[2].rpartition("`")[0])) == (
        1,
        ["wandb", "sync", str(pair.file.path.parent)],
    )


def test_a_file_without_an_entity_is_of_the_keys(verify, tmp_path, server, monkeypatch):
    """As for the official client; WANDB_ENTITY goes first."""
    pair = Pair(tmp_path / "wandb", server.world, entity=server.world.entity).lines(0, 3).ended()
    pair.file.path.unlink()
    plain = run_file(tmp_path / "wandb")
    for step in range(3):
        plain.log(step, loss=1 / (step + 1), acc=step)
    plain.exit()
    assert (*verify()[:2], server.requests["Viewer"]) == (0, [], 1)
    monkeypatch.setenv("WANDB_ENTITY", "nobody")
    code, [line], _ = verify(folder=plain.path)
    assert (code, line.partition(" run:")[0]) == (1, "differs: nobody/p/r1")
    assert server.requests["Viewer"] == 1


def test_bad_use(cli, tmp_path, pair):
    (tmp_path / "none").mkdir()
    some = str(tmp_path / "wandb")
    for arguments, error in {
        ("--local",): "which files? name folders that hold wandb/ or run folders: mirror verify --local DIR...",
        (
            "--local",
            str(tmp_path / "none"),
        ): f"no .wandb file below {tmp_path}/none; name a folder that holds wandb/ or its run folders",
        ("--local", "/nowhere"): "/nowhere does not exist; name a folder that holds wandb/ or its run folders",
        (
            "--local",
            some,
            "--deep",
        ): "--local always compares every value and never changes the mirror: leave out --deep, --repair, --complete",
        ("--local", some, "--repair"): "--local always compares every value and never changes the mirror: leave out "
        "--deep, --repair, --complete",
        ("--local", some, "--dry-run"): "--dry-run needs --upload: it prints what would be sent",
        (some, "--upload"): "--upload and --dry-run need --local: mirror verify --local DIR... --upload",
    }.items():
        done = cli("verify", *arguments)
        assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"error: {error}\n")


def test_a_server_that_is_away(verify, pair, server, monkeypatch):
    monkeypatch.setattr("mirror.remote.retry_policy.RetryPolicy.wait", lambda *_: 0.0)
    server.faults.add("403", times=None)
    code, lines, [error] = verify()
    assert (code, lines) == (3, [])
    assert error.startswith("error: team/p: ")
    server.stop()
    code, lines, errors = verify()
    assert (code, lines) == (3, [])
    assert errors[-1].startswith("error: team/p: cannot reach ")


def test_json(cli, pair, tmp_path):
    pair.lose_behind(6)
    done = cli("verify", "--local", str(tmp_path / "wandb"), "--json")
    answer = json.loads(done.stdout)
    project = answer["projects"][0]
    assert (done.exit_code, done.stderr) == (1, "")
    for cost in ("requests", "seconds"):
        assert project.pop(cost) > 0
    file = {"path": str(pair.file.path), "run": "team/p/r1", "outcome": "new", "state": "finished", "rows": 10}
    none = {"damaged": 0, "unread_bytes": 0, "error": None, "note": None, "unreadable": [], "trouble": None}
    assert answer == {
        "equal": False,
        "files": [{**file, **none}],
        "projects": [
            {
                "project": "team/p",
                "equal": False,
                "runs": 1,
                "history_rows": 10,
                "keys": 3,
                "values": 30,
                "values_compared": 21,
                "differences": [
                    {
                        "project": "team/p",
                        "run_id": "r1",
                        "field": "history rows",
                        "file": "3 rows between steps 7 and 9",
                        "server": "none of them, at the end",
                        "cause": "lost there; `--upload` sends what is missing",
                    }
                ],
                "behind": [],
                "notes": [],
                "error": None,
                "exit_code": 0,
            }
        ],
        "upload": None,
    }


def test_many_runs_and_projects_at_once(verify, tmp_path, server):
    for project in ("p", "q"):
        for number in range(3):
            pair = Pair(tmp_path / "wandb", server.world, f"{project}{number}", project=project).lines(0, 5).ended()
    pair.lose_behind(2)
    code, [line], errors = verify()
    assert (code, line.partition(" history")[0]) == (1, "differs: team/q/q2")
    assert errors == [
        "team/p: 3 runs, 15 history rows, 9 keys and 45 values equal the server's, value by value",
        "team/q: 1 difference in 3 runs, 15 history rows, 9 keys and 45 values",
    ]
    assert server.requests["MirrorHistory"] == 2
