"""`mirror query --compare` names each run that the server and the mirror disagree on, and why."""

from __future__ import annotations

import json

import pytest

from mirror.sandbox import Sandbox, World

FILTER = '{"config.lr": {"$gt": 0.05}}'


@pytest.fixture
def sandbox(home, monkeypatch):
    with Sandbox(World()) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", server.key)
        home.config.parent.mkdir(parents=True)
        home.config.write_text('projects = ["team/p"]\n')
        for number in range(4):
            server.world.add_run("team", "p", run_id=f"r{number}", config={"lr": number / 10}, state="finished")
        yield server


@pytest.fixture
def synced(sandbox, cli):
    assert cli("sync").exit_code == 0
    return sandbox.world


def compare(cli, filter_text, *more):
    outcome = cli("query", "--filter", filter_text, "--compare", "--json", *more)
    rows = json.loads(outcome.stdout) if outcome.stdout else []
    return outcome.exit_code, [(row["run"], row["found_by"], row["why"]) for row in rows], outcome.stderr


def test_a_mirror_that_agrees_says_so(synced, cli):
    assert compare(cli, FILTER) == (0, [], "the server and the mirror find the same runs: 3\n")


def test_runs_that_came_went_or_changed_since_the_last_pass_are_reported_as_such(synced, cli):
    synced.add_run("team", "p", run_id="fresh", config={"lr": 1.0}, state="finished")
    synced.delete_run("team", "p", "r3")
    synced.run("team", "p", "r0").edit(config={"lr": 0.5})
    synced.run("team", "p", "r1").edit(config={"lr": 0.01})
    code, rows, stderr = compare(cli, FILTER)
    assert code == 1
    changed = "changed on the server since it was mirrored at "
    assert [(run, by, changed if why.startswith(changed) else why) for run, by, why in rows] == [
        ("team/p/fresh", "server", "not yet mirrored; run `mirror sync`"),
        ("team/p/r0", "server", changed),
        ("team/p/r1", "mirror", changed),
        ("team/p/r3", "mirror", "deleted on the server since it was mirrored; run `mirror sync`"),
    ]
    assert stderr == "found by both: 1; by only one: 4\n"
    assert cli("sync").exit_code == 0
    assert compare(cli, FILTER)[0] == 0


def test_both_sides_get_the_same_moment_for_a_relative_time(synced, cli):
    """The server itself knows no relative times."""
    found = cli("query", "--where", "created_at>7d", "--where", "config.lr>0.05", "--compare")
    assert (found.exit_code, found.stderr) == (0, "the server and the mirror find the same runs: 3\n")


def test_a_clause_that_the_two_sides_read_differently_is_named(synced, cli):
    """A key that holds a dot is found by the mirror, and not by W&B's servers."""
    synced.add_run("team", "p", run_id="dotted", config={"opt.lr": 0.3, "lr": 0.3}, state="finished")
    assert cli("sync").exit_code == 0
    code, rows, _ = compare(cli, '{"config.lr": {"$gt": 0.1}, "config.opt.lr": 0.3}')
    assert (code, rows) == (
        1,
        [("team/p/dotted", "mirror", 'semantics: the server does not match it with {"config.opt.lr": 0.3}')],
    )
    code, rows, _ = compare(cli, '{"$and": [{"config.opt.lr": {"$exists": false}}, {"config.lr": {"$gt": 0.2}}]}')
    assert (code, rows) == (
        1,
        [
            (
                "team/p/dotted",
                "server",
                'semantics: the mirror does not match it with {"config.opt.lr": {"$exists": false}}',
            )
        ],
    )


def test_what_the_config_leaves_out_is_no_gap(sandbox, cli, home):
    home.config.write_text('projects = ["team/p"]\n[sync]\nfilters = { "config.lr" = { "$lt" = 0.25 } }\n')
    assert cli("sync").exit_code == 0
    assert compare(cli, FILTER)[:2] == (1, [("team/p/r3", "server", "outside of sync.filters")])


def test_a_filter_that_the_server_refuses_is_reported_in_its_words(synced, cli):
    code, rows, stderr = compare(cli, '{"config.lr": {"$mod": [2, 0]}}')
    assert (code, rows) == (3, [])
    assert stderr.startswith("error: there is nothing to compare with: http://")
    assert "$mod" in stderr
    assert stderr.count("\n") == 1


def test_a_filter_that_means_nothing_is_not_sent(synced, cli):
    sent = "--filter", '{"Name": "x"}', "--compare"
    outcome = cli("query", *sent)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("error: unknown field 'Name'; did you mean 'name'?")


@pytest.mark.parametrize("other", [("--limit", "3"), ("--count",), ("--select", "name"), ("--order", "name")])
def test_options_that_narrow_the_answer_do_not_go_with_it(synced, cli, other):
    outcome = cli("query", "--filter", FILTER, "--compare", *other)
    assert outcome.exit_code == 2
    assert outcome.stderr == f"error: --compare covers every run that the filter finds: leave {other[0]} out\n"
