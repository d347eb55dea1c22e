"""The commands to look around: projects, runs, show, keys, diff, status of a project, and the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mirror.cli import log, status
from mirror.query.run_page import brief
from mirror.settings.home import Home


def rows(outcome: Any) -> list[dict[str, Any]]:
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(outcome.stdout)
    return found


def lines(outcome: Any) -> list[str]:
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    return [line.rstrip() for line in outcome.stdout.splitlines()]


def test_projects_are_listed(look: Any) -> None:
    """All, or those that are named."""
    found = rows(look("projects", "--json"))
    assert all(project.pop("lag_s") > 0 for project in found)
    shared = {"last_success_at": "2026-02-01 00:00:00", "last_error": None}
    assert found == [
        {"project": "team/audio", "runs": 1, "running": 0, "history_rows": 1, **shared},
        {"project": "team/vision", "runs": 6, "running": 1, "history_rows": 10, **shared},
    ]
    assert [one["project"] for one in rows(look("projects", "vision", "--json"))] == ["team/vision"]
    wrong = look("projects", "visio")
    assert (wrong.exit_code, wrong.stdout, wrong.stderr.count("\n")) == (1, "", 1)


def test_runs_are_shown_with_the_keys_in_which_they_differ(look: Any) -> None:
    """`optimizer.name` and `layers` are the same in all of them."""
    assert lines(look("runs", "team/vision", "state!=finished", "--format", "table")) == [
        "name   run_id  state    created_at           config.seed  summary.acc",
        "─────  ──────  ───────  ───────────────────  ───────────  ───────────",
        "twice  ccc     failed   2026-01-01 02:00:00            2          0.7",
        "deep   bbb     running  2026-01-01 01:00:00            1         0.75",
    ]
    several = lines(look("runs", "team/*", "config.lr=0.3", "--format", "markdown"))
    assert several[0] == "| entity | project | name | run_id | state | created_at | config.lr |"


def test_terms_order_limit_and_columns_choose_what_is_shown(look: Any) -> None:
    """As in `mirror query`."""

    def names(*arguments: str) -> list[str]:
        return [row["name"] for row in rows(look("runs", "team/vision", "--json", *arguments))]

    assert names("state=finished", "config.lr>0.1", "config.lr<=0.2") == ["twice"]
    assert names("--order", "-summary.acc", "created_at<2026-01-01T02:30:00Z") == ["deep", "twice", "baseline"]
    assert names("--filter", '{"state": "finished"}', "tags=base") == ["baseline"]
    assert names("name~^deep", "--deleted") == ["deep", "deep"]
    assert look("runs", "vision", "--count", "state=failed").stdout == "1\n"
    assert (
        look("runs", "vision", "name=deep", "--select", "run_id,config.lr", "--csv").stdout
        == "run_id,config.lr\nbbb,0.2\n"
    )
    assert list(rows(look("runs", "vision", "name=deep", "--json"))[0])[:4] == ["entity", "project", "run_id", "name"]
    explained = look("runs", "vision", "state=failed", "--explain").stdout.splitlines()
    assert (explained[0], explained[-1]) == ('-- filter: {"state": "failed"}', "all clauses together     1")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["runs"], 2, "Missing argument 'PATH'"),
        (["runs", "state=finished"], 2, "which project? give it before the terms, as in `mirror runs team/vision 'state=finished'`"),
        (["runs", "vision", "finished"], 2, "'finished' is not a term; did you mean state=finished?"),
        (["runs", "vision", "lr<1"], 2, "the term 'lr<1': unknown field 'lr'; did you mean 'config.lr' or "),
        (["runs", "team/vision/aaa"], 1, "team/vision/aaa names a run; give its project, team/vision"),
        (["show", "team/vision"], 1, "team/vision is a project, not a run; `mirror runs team/vision` lists its runs"),
        (["show", "twice"], 1, "2 runs are called twice: "),
        (["keys", "vision", "los"], 1, "no key los; did you mean loss?"),
        (["keys", "nope"], 1, "no project nope in the mirror; mirrored: team/audio, team/vision"),
        (["diff", "aaa"], 2, "give at least two different runs to compare"),
        (["diff", "aaa", "nope"], 1, "no run nope in the mirror"),
        (["status", "nope"], 1, "no project nope in the mirror"),
        (["status", "--watch", "--json"], 2, "--watch shows the page on a terminal"),
        (["log"], 1, "there is no log yet ("),
        (["shell", "--builtin"], 2, "the prompt needs a terminal; `mirror query -` reads a statement from a pipe"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_one_line(look: Any, arguments: list[str], code: int, message: str) -> None:
    """With what to do instead."""
    outcome = look(*arguments)
    assert (outcome.exit_code, outcome.stdout, outcome.stderr.count("\n")) == (code, "", 1)
    assert message in outcome.stderr


def test_a_run_that_logged_no_system_metrics_is_complete_without(look: Any) -> None:
    """Which is not the same as one whose system metrics are not mirrored."""
    shown = [line.split(maxsplit=2) for line in lines(look("show", "song"))]
    assert ["system", "metrics", "none"] in shown
    found = json.loads(look("show", "song", "--json").stdout)
    assert found["complete"]["system_metric_lines"] == 0
    found = json.loads(look("show", "baseline", "--json").stdout)
    assert found["complete"]["system_metric_lines"] is None


def test_a_run_is_shown_on_one_page(look: Any) -> None:
    """By its name, too; the page says how complete it is."""
    assert lines(look("show", "baseline")) == [
        "team/vision/aaa",
        "",
        "  name          baseline",
        "  state         finished",
        "  url           https://wandb.ai/team/vision/runs/aaa",
        "  created_at    2026-01-01 00:00:00",
        "  heartbeat_at  2026-01-01 00:30:00",
        "  updated_at    2026-01-01 00:30:00",
        "  duration_s    1800.0",
        "  username      ada",
        "  tags          base",
        "  history_rows  8",
        "  synced_at     2026-02-01 00:00:00",
        "",
        "complete",
        "  history         8 rows, last step 7",
        "  console         not mirrored",
        "  system metrics  not mirrored",
        "  files           not mirrored",
        "  last sync       2026-02-01 00:00:00",
        "",
        "config (4)",
        "  lr              0.1",
        "  optimizer.name  adam",
        "  layers          [1,2]",
        "  seed            0",
        "",
        "summary (2)",
        "  acc       0.5",
        "  val/loss  1.5",
        "",
        "history (2 keys), last rows",
        "  step      loss  note",
        "  ────  ────────  ────",
        "     3      0.25     ∅",
        "     4       0.2     ∅",
        "     5  0.166667     ∅",
        "     6  0.142857     ∅",
        "     7     0.125     ∅",
    ]
    found = json.loads(look("show", "team/vision/bbb", "--json").stdout)
    assert found["config"] == {"lr": 0.2, "optimizer": {"name": "adam"}, "layers": [1, 2], "seed": 1}
    assert found["history"] == {
        "keys": [{"key": "loss", "rows": 2, "last_step": 2, "min": 3.0, "max": 3.0, "last": "NaN"}],
        "last_rows": [{"step": 0, "loss": 3.0}, {"step": 2, "loss": "NaN"}],
    }
    assert "deleted         on the server, seen 2026-02-01 00:00" in look("show", "old").stdout


def test_keys_have_a_type_a_range_and_a_last_time(look: Any) -> None:
    """Of a project or of one run; globs choose some."""
    assert lines(look("keys", "team/vision", "--csv")) == [
        "key,type,runs,min,max,distinct,last_seen",
        "config.layers,list,6,,,1,2026-01-01 05:30:00",
        "config.lr,number,6,0.1,0.5,3,2026-01-01 05:30:00",
        "config.optimizer.name,string,6,,,1,2026-01-01 05:30:00",
        "config.seed,number,6,0,5,6,2026-01-01 05:30:00",
        "summary.acc,number,6,0.1,0.75,5,2026-01-01 05:30:00",
        "summary.val/loss,number,2,1.5,1.5,1,2026-01-01 01:30:00",
        "loss,number,2,0.125,3,,2026-01-01 01:30:00",
        "note,other,1,,,,2026-01-01 00:30:00",
    ]
    assert lines(look("keys", "team/vision/aaa", "*.lr", "note", "--csv"))[1:] == [
        "config.lr,number,1,0.1,0.1,1,2026-01-01 00:30:00",
        "note,other,1,,,,2026-01-01 00:30:00",
    ]


def test_a_diff_shows_what_differs(look: Any) -> None:
    """One column per run; a value that one lacks is empty."""
    assert lines(look("diff", "baseline", "ccc", "--csv")) == [
        "key,aaa,ccc",
        "name,baseline,twice",
        "state,finished,failed",
        "created_at,2026-01-01 00:00:00,2026-01-01 02:00:00",
        'tags,base,""',
        "history_rows,8,0",
        "config.lr,0.1,0.2",
        "config.seed,0,2",
        "summary.acc,0.5,0.7",
        "summary.val/loss,1.5,",
    ]
    everything = lines(look("diff", "aaa", "bbb", "song", "--all", "--csv"))
    assert everything[0] == "key,aaa,bbb,ggg"
    assert 'config.layers,"[1,2]","[1,2]",' in everything
    assert "config.only_audio,,,true" in everything


def test_the_status_of_one_project(look: Any) -> None:
    """In every form that has projects."""
    assert [one["project"] for one in json.loads(look("status", "vision", "--json").stdout)["projects"]] == [
        "team/vision"
    ]
    assert "team/audio" not in look("status", "vision").stdout
    checked = look("status", "team/audio", "--check")
    assert (checked.exit_code, [line.split()[0] for line in checked.stdout.splitlines()]) == (4, ["team/audio"])


def test_the_status_is_watched_until_ctrl_c(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page over the former one."""
    waits = iter([None])

    def wait() -> None:
        if next(waits, "over") == "over":
            raise KeyboardInterrupt

    monkeypatch.setattr(status, "_wait", wait)
    watched = look("status", "vision", "--watch")
    assert (watched.exit_code, watched.stderr) == (130, "interrupted\n")
    assert watched.stdout.count("\x1b[H") == watched.stdout.count("\x1b[J") == 2
    assert watched.stdout.count("team/vision") == 2


def entry(number: int, level: str = "info") -> str:
    return (
        json.dumps({"time": f"2026-01-01T00:00:{number:02}.123Z", "level": level, "message": f"pass {number}"}) + "\n"
    )


def test_the_log_is_readable(cli: Any, home: Home) -> None:
    """The last lines; a line of another form stays as it is."""
    home.data.mkdir(parents=True)
    home.log.write_text("".join(entry(n) for n in range(30)) + "Fatal Python error\n" + entry(30, "warning"))
    assert lines(cli("log", "-n", "3")) == [
        "2026-01-01 00:00:29 pass 29",
        "Fatal Python error",
        "2026-01-01 00:00:30 warning: pass 30",
    ]
    assert cli("log", "-n", "1", "--json").stdout == entry(30, "warning")
    assert len(lines(cli("log"))) == 20


def test_the_log_is_followed_through_a_rotation(cli: Any, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """From before it exists; a line is shown once it is complete."""
    home.data.mkdir(parents=True)

    def rotate() -> None:
        append(entry(4))
        home.log.rename(Path(f"{home.log}.1"))
        home.log.write_text(entry(5))

    def append(text: str) -> None:
        with home.log.open("a") as file:
            file.write(text)

    def stop() -> None:
        raise KeyboardInterrupt

    steps = iter(
        [
            lambda: home.log.write_text(entry(1) + entry(2)[:10]),
            lambda: append(entry(2)[10:]),
            lambda: append(entry(3)),
            rotate,
            lambda: None,
            stop,
        ]
    )
    monkeypatch.setattr(log, "_wait", lambda: next(steps)())  # noqa: PLW0108
    followed = cli("log", "-f")
    assert (followed.exit_code, followed.stderr) == (130, "interrupted\n")
    assert followed.stdout == "".join(f"2026-01-01 00:00:0{n} pass {n}\n" for n in (1, 2, 3, 4, 5))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.123456789, 0.123457), (2.0, 2), (1795878394.961156, 1795878395), (1e300, 1e300), (-2.5e-9, -2.5e-9)],
)
def test_a_number_in_a_table_keeps_what_stands_before_its_point(value: float, shown: float) -> None:
    assert brief(value) == shown
