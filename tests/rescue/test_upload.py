"""`mirror verify --local --upload`: what the server lost is sent where it takes it, once, and nothing else changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta

import pytest

from tests.local.kit import damaged, now, run_file
from tests.local.test_client import SCRIPT, until, upload, write
from tests.rescue.conftest import Pair, curve
from tests.rescue.test_compare import EQUAL, reported

NOTHING = [EQUAL, "nothing to send"]


def written(server):
    """How often the server was written to."""
    return {name: server.requests[name] for name in ("file_stream", "UpsertBucket")}


def test_a_lost_tail_is_sent_once(verify, pair, server):
    sent = list(pair.run.history.lines)
    pair.lose_behind(6)
    code, lines, errors = verify("--upload", "--dry-run")
    assert (code, len(lines), errors[0], errors[-1]) == (
        1,
        1,
        "would send team/p/r1: 3 rows between steps 7 and 9",
        "dry run: nothing was sent; 1 run would get what is listed above",
    )
    assert written(server) == {"file_stream": 0, "UpsertBucket": 0}
    before = pair.run.summary_text
    assert verify("--upload") == (
        0,
        [],
        ["sent team/p/r1: 3 rows", EQUAL, "1 difference before the upload, 0 after it"],
    )
    assert [json.loads(line) for line in pair.run.history.lines] == [json.loads(line) for line in sent]
    assert (pair.run.state, pair.run.exitcode, pair.run.summary_text) == ("finished", 0, before)
    assert written(server) == {"file_stream": 1, "UpsertBucket": 0}
    assert verify("--upload") == (0, [], NOTHING)
    assert written(server) == {"file_stream": 1, "UpsertBucket": 0}


@pytest.mark.parametrize(
    ("code", "state", "exitcode"), [(0, "finished", 0), (3, "failed", 3), (0, "crashed", 1), (9, "killed", 9)]
)
def test_the_state_is_afterwards_what_it_was(verify, tmp_path, server, code, state, exitcode):
    pair = Pair(tmp_path / "wandb", server.world).lines(0, 4).ended(code, state)
    pair.lose_behind(1)
    found, lines, errors = verify("--upload")
    assert (found, [line for line in lines if not line.startswith("note")], errors[0]) == (
        0,
        [],
        "sent team/p/r1: 2 rows",
    )
    assert (pair.run.state, pair.run.exitcode, pair.losses()) == (state, exitcode, curve(0, 1, 2, 3))


def test_rows_go_as_the_client_sends_them(verify, tmp_path, server):
    """Nested, with NaN and integers of any size; a key with a dot is no nested one."""
    pair = Pair(tmp_path / "wandb", server.world).log(0, a=1)
    image = {"_type": "image-file", "path": "media/a.png", "size": 5}
    pair.log(
        3, n={"a": {"b": 1}, "c.d": 2}, nan=float("nan"), big=2**62 + 1, image=image, text="ä\n", list=[{"x": [1]}]
    )
    pair.ended()
    sent = list(pair.run.history.lines)
    pair.lose_behind(0)
    assert verify("--upload")[:2] == (0, [])
    [_, line] = pair.run.history.lines
    plain = [json.dumps(json.loads(text), sort_keys=True) for text in (line, sent[1])]
    assert plain[0] == plain[1]


def test_a_gap_is_not_filled_and_said_so(verify, pair, server):
    """The rows behind it are sent all the same; only the gap is left, and the exit code says that."""
    pair.lose_behind(6)
    pair.lose(3, 4)
    code, lines, errors = verify("--upload")
    gap = "history rows: the file has 2 rows between steps 3 and 4, the server has none of them, in the middle"
    cause = "lost there; they cannot be sent, since it only accepts rows after its last step, 9"
    assert (code, reported(lines)) == (1, [f"{gap} ({cause})"])
    assert errors[0] == "sent team/p/r1: 3 rows"
    assert errors[-1] == "2 differences before the upload, 1 after it"
    assert pair.losses() == curve(0, 1, 2, 5, 6, 7, 8, 9)
    assert verify("--upload")[2][-1] == "1 difference; none of them can be sent"
    assert written(server) == {"file_stream": 1, "UpsertBucket": 0}


def test_a_lost_summary_is_sent_without_a_sign_of_life(verify, pair, server):
    whole, heartbeat = dict(pair.run.summary), pair.run.heartbeat_at
    pair.run.set_summary({})
    assert verify("--upload") == (
        0,
        [],
        ["sent team/p/r1: 4 summary values", EQUAL, "1 difference before the upload, 0 after it"],
    )
    assert (pair.run.summary, pair.run.heartbeat_at, pair.run.state) == (whole, heartbeat, "finished")
    assert written(server) == {"file_stream": 0, "UpsertBucket": 1}
    assert verify("--upload") == (0, [], NOTHING)


def test_an_older_summary_is_brought_up_to_date_and_a_persons_values_stay(verify, pair, server):
    """A person wrote a value and a tag after the process was heard of last, so only what was logged is replaced."""
    pair.lose_behind(6)
    own = {"_step": 6, "_timestamp": 1_700_000_006}
    pair.run.set_summary({**own, "loss": 1 / 7, "acc": 0.99, "mine": "x"})
    pair.run.updated_at = pair.run.heartbeat_at + timedelta(minutes=5)
    code, lines, errors = verify("--upload")
    assert (code, reported(lines)) == (
        1,
        [
            "summary.acc: the file has 9, the server has 0.99 (there it is as new as in the file, newer or edited; it is left unchanged)",
            'summary.mine: the file has no value, the server has "x" (not in the file)',
        ],
    )
    assert errors[0] == "sent team/p/r1: 3 rows and 3 summary values"
    assert pair.run.summary == {"_step": 9, "_timestamp": 1_700_000_009, "loss": 0.1, "acc": 0.99, "mine": "x"}
    assert verify("--upload")[2][-1] == "2 differences; none of them can be sent"


def test_what_may_have_been_deleted_on_the_server_is_not_sent_again(verify, pair):
    """Its summary is as new as the file's, and somebody edited the run since."""
    pair.run.set_summary({key: value for key, value in pair.run.summary.items() if key != "acc"})
    pair.run.updated_at = pair.run.heartbeat_at + timedelta(minutes=5)
    code, lines, errors = verify("--upload")
    cause = "lost or deleted there, where the run was edited since; it is not sent"
    assert (code, reported(lines)) == (1, [f"summary.acc: the file has 9, the server has no value ({cause})"])
    assert errors[-1] == "1 difference; none of them can be sent"
    pair.run.updated_at = pair.run.heartbeat_at
    assert verify("--upload")[:2] == (0, [])


def test_rows_that_no_server_takes_are_left_out_and_counted(verify, tmp_path, server):
    pair = Pair(tmp_path / "wandb", server.world).lines(0, 2)
    pair.log(2, text="x" * (11 << 20)).lines(3, 4).ended()
    pair.lose_behind(0)
    code, lines, errors = verify("--upload")
    gap = "lost there; they cannot be sent, since it only accepts rows after its last step, 3"
    assert (code, reported(lines)) == (
        1,
        [f"history rows: the file has 1 row at step 2, the server has none of them, in the middle ({gap})"],
    )
    assert errors[:2] == [
        "sent team/p/r1: 2 rows",
        "warning: not completely sent: team/p/r1: 1 rows exceed 10 MiB or are not JSON, and were not sent",
    ]


def refused(verify, pair, server):
    """Nothing is sent; the reason that is reported."""
    before = list(pair.run.history.lines)
    code, lines, errors = verify("--upload")
    assert (code, errors[-1].partition("; ")[2]) == (1, "none of them can be sent")
    assert (pair.run.history.lines, written(server)) == (before, {"file_stream": 0, "UpsertBucket": 0})
    return next(line.partition("(lost there; not sent: ")[2] for line in lines if "not sent: " in line)[:-1]


@pytest.mark.parametrize("state", ["running", "pending", "preempting", "preempted"])
def test_nothing_is_sent_of_a_run_that_has_not_ended(verify, pair, server, state):
    pair.lose_behind(6)
    pair.run.set_state(state)
    assert refused(verify, pair, server) == f"the run is {state} on the server"


def test_nothing_is_sent_of_a_run_whose_process_may_still_send(verify, tmp_path, server):
    """The server gave it up after minutes without a network; its own process sends the rows when there is one again."""
    pair = Pair(tmp_path / "wandb", server.world, start=now()).lines(0, 4)
    pair.lose_behind(1)
    pair.run.set_state("crashed")
    assert refused(verify, pair, server) == (
        "its own process may still send: it runs here, or its file was written less than five minutes ago"
    )


def test_nothing_is_sent_where_the_server_has_other_rows(verify, pair, server):
    pair.lose_behind(6)
    lines = pair.run.history.lines
    pair.run.history.rebuild([*lines[:4], lines[4].replace("1700000004", "1700099999"), *lines[5:]])
    assert refused(verify, pair, server) == "rows that both have differ, so they may be from two runs"


def test_nothing_is_sent_where_the_file_lacks_rows_of_the_server(verify, pair, server):
    pair.lose_behind(6)
    with damaged(pair.file.path) as raw:
        raw[raw.index(b"0.16666")] ^= 0xFF
    assert refused(verify, pair, server) == (
        "the server has rows between the file's, so another process may have written them"
    )


@pytest.mark.parametrize("count", [5, 9])
def test_nothing_is_sent_where_the_server_miscounts(verify, pair, server, count):
    """Its count says where rows go, so a wrong one would overwrite some."""
    pair.lose_behind(6)
    pair.run.spoilt = {"historyLineCount": count}
    assert refused(verify, pair, server) == (
        f"the server counts {count} rows and returns 7, so it is uncertain where to add more of them; try again later"
    )


def test_a_run_that_changed_meanwhile_is_not_written(verify, pair, server, monkeypatch):
    from mirror.rescue import upload as module

    pair.lose_behind(6)
    send = module.send

    async def late(server, look):
        pair.run.heartbeat_at += timedelta(minutes=1)
        return await send(server, look)

    monkeypatch.setattr(module, "send", late)
    code, _, errors = verify("--upload")
    assert (code, errors[0]) == (
        3,
        "warning: not sent: team/p/r1: it changed on the server since it was compared; run the command again",
    )
    assert written(server)["file_stream"] == 0


def test_rows_of_several_starts_are_sent_with_the_steps_that_they_count_on_to(verify, tmp_path, server):
    pair = Pair(tmp_path / "wandb", server.world).lines(0, 4)
    pair.file.exit(1)
    pair.run.finish()
    run_file(tmp_path / "wandb", stamp="20260102_000000", start=1_700_100_000, entity="team", resume=True).lines(
        0, 3
    ).exit()
    pair.lose_behind(2)
    code, lines, errors = verify("--upload")
    assert (code, lines, errors[0]) == (0, [], "sent team/p/r1: 4 rows and 3 summary values")
    assert pair.losses() == [*curve(0, 1, 2, 3), (4, 1.0), (5, 1 / 2), (6, 1 / 3)]


def test_rows_that_a_rewound_start_took_away_are_not_sent(verify, tmp_path, server):
    pair = Pair(tmp_path / "wandb", server.world).lines(0, 6)
    pair.file.exit(1)
    pair.run.finish()
    later = run_file(tmp_path / "wandb", stamp="20260102_000000", start=1_700_100_000, entity="team")
    branch = {"run": "r1", "metric": "_step", "value": 2}
    from tests.local.kit import pb

    record = pb.RunRecord(run_id="r1", entity="team", project="p", branch_point=pb.BranchPoint(**branch))
    record.start_time.seconds = 1_700_200_000
    later.add(run=record)
    later.log(3, loss=30).log(4, loss=40).exit()
    pair.lose_behind(1)
    verify("--upload")
    assert pair.losses() == [*curve(0, 1, 2), (3, 30), (4, 40)]


def test_a_server_that_refuses(verify, pair, server):
    pair.lose_behind(6)
    server.faults.add("403", operation="file_stream", times=None)
    code, lines, errors = verify("--upload")
    assert (code, len(lines), errors[0].partition(": team/p/r1: ")[0]) == (3, 1, "warning: not sent")
    server.faults.clear()
    assert verify("--upload")[:2] == (0, [])


def test_an_answer_that_is_lost_is_asked_for_again(verify, pair, server, monkeypatch):
    """The same lines go to the same places, so nothing is there twice."""
    monkeypatch.setattr("mirror.remote.retry_policy.RetryPolicy.wait", lambda *_: 0.0)
    pair.lose_behind(6)
    server.faults.add("reset", operation="file_stream")
    server.faults.add("502", operation="file_stream")
    assert verify("--upload")[:2] == (0, [])
    assert pair.losses() == curve(*range(10))


def test_killed_in_the_middle_it_goes_on_where_it_was(verify, tmp_path, server):
    """Rows of half a megabyte, so that they take several requests; SIGKILL while the second one is under way."""
    pair = Pair(tmp_path / "wandb", server.world).log(0, text="x")
    for step in range(1, 13):
        pair.log(step, text=f"{step}" + "x" * 500_000)
    pair.ended(0, "crashed")
    sent = list(pair.run.history.lines)
    pair.lose_behind(0)
    server.faults.add("latency", operation="file_stream", seconds=60, about='"offset":9')
    command = [sys.executable, "-m", "mirror.cli", "verify", "--local", str(tmp_path / "wandb"), "--upload"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        until(lambda: server.faults.counts["latency"])
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
    server.faults.clear()
    assert (len(pair.run.history), pair.run.state) == (9, "failed")
    code, _, errors = verify("--upload")
    assert (code, errors[0]) == (0, "sent team/p/r1: 4 rows")
    assert [json.loads(line) for line in pair.run.history.lines] == [json.loads(line) for line in sent]
    assert verify("--upload")[2][-1] == "nothing to send"


def test_json_tells_what_was_sent(cli, pair, tmp_path):
    pair.lose_behind(6)
    pair.run.set_summary({})
    difference = {"project": "team/p", "run_id": "r1"}
    dry = json.loads(cli("verify", "--local", str(tmp_path / "wandb"), "--upload", "--dry-run", "--json").stdout)
    assert dry["upload"]["would_send"] == [{"path": "team/p/r1", "rows": 3, "summary": 4}]
    done = cli("verify", "--local", str(tmp_path / "wandb"), "--upload", "--json")
    answer = json.loads(done.stdout)
    assert (done.exit_code, answer["equal"], answer["projects"][0]["differences"]) == (0, True, [])
    upload = answer["upload"]
    assert [{key: found[key] for key in difference} for found in upload["differed"]] == [difference, difference]
    assert [upload["sent"], upload["would_send"]] == [
        [{"path": "team/p/r1", "rows": 3, "summary": 4, "before": "finished", "state": "finished", "error": None}],
        [],
    ]


def test_the_official_clients_own_file(verify, tmp_path, server, monkeypatch):
    """An offline run that `wandb sync` uploaded is equal, media and all; what is lost of it comes back to the letter."""
    monkeypatch.setenv("WANDB_ENTITY", "team")
    folder = write(tmp_path / "wandb", SCRIPT.replace("CODE", "0"))
    (tmp_path / "upload").mkdir()
    upload(server, tmp_path / "upload", folder)
    assert verify()[:2] == (0, [])
    run = server.world.run("team", "p", "r1")
    rows, summary = list(run.history.lines), dict(run.summary)
    run.history.truncate(110)
    run.set_summary({})
    code, lines, errors = verify("--upload")
    assert (code, lines, errors[0]) == (0, [], f"sent team/p/r1: 13 rows and {len(summary)} summary values")
    texts = [[json.dumps(json.loads(line), sort_keys=True) for line in lines] for lines in (run.history.lines, rows)]
    assert texts[0] == texts[1]
    assert json.dumps(run.summary, sort_keys=True) == json.dumps(summary, sort_keys=True)
