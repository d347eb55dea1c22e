"""What agents get wrong is one line that names what is right."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.xdist_group("mcp")


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("find_run", {}, "there is no tool find_run; did you mean find_runs?"),
        ("find_runs", {"filters": {}}, "find_runs has no argument filters; did you mean filter?"),
        ("find_runs", {"limit": -1}, "limit must be a whole number from 0 to 1,000, not -1"),
        ("find_runs", {"limit": "many"}, 'limit must be a whole number from 0 to 1,000, not "many"'),
        ("find_runs", {"select": "summary.acc", "project": 3}, "project must be a text, not 3"),
        ("find_runs", {"filter": 3}, "filter must be a text or an object, not 3"),
        ("find_runs", {"select": [1]}, "select must be a list of texts, not [1]"),
        ("find_runs", {"select": ["acc"]}, "runs have no column acc; did you mean config.acc or summary.acc?"),
        ("describe_project", {}, 'describe_project needs project: "entity/project"'),
        (
            "describe_project",
            {"project": "team/seed"},
            "no project team/seed in the mirror; did you mean team/seeds? mirrored: team/seeds, team/trouble",
        ),
        (
            "describe_project",
            {"project": "team/*"},
            "project must be one project; team/* matches team/seeds, team/trouble",
        ),
        ("describe_project", {"project": "seeds", "keys": ["conf.*"]}, None),
        ("query", {"sql": "DELETE FROM runs"}, None),
        ("query", {"sql": "COPY runs TO '/tmp/stolen.csv'"}, None),
        ("query", {"sql": "SELECT * FROM read_csv('/etc/passwd')"}, None),
        ("query", {"sql": "SELECT nme FROM runs"}, None),
        (
            "get_history",
            {"runs": ["a0"], "keys": ["los"]},
            "none of these runs logged los; did you mean loss?",
        ),
        (
            "get_history",
            {"runs": ["a0"], "keys": ["loss"], "x": "epoc"},
            "none of these runs logged epoc, the x axis; did you mean epoch?",
        ),
        (
            "get_history",
            {"runs": ["diverged"], "keys": ["loss"]},
            "no run diverged in the mirror; did you mean team/trouble/diverging?",
        ),
        (
            "get_history",
            {"runs": [], "keys": ["loss"]},
            'runs is empty: "entity/project/run_id", or a run\'s id or name alone',
        ),
        ("get_history", {"runs": ["a0"]}, "which keys? these runs logged: _runtime, _timestamp, epoch, loss"),
        ("get_history", {"runs": ["empty"], "keys": ["loss"]}, "these runs have no mirrored history"),
        (
            "get_history",
            {"runs": ["overfitted"], "keys": ["note"]},
            "there are no finite numbers under note in these runs; `query` history shows texts",
        ),
        ("compare_runs", {}, "which runs? give runs, or project with filter, not both"),
        ("compare_runs", {"runs": ["a0"]}, "a comparison needs at least two runs; one found"),
        ("compare_runs", {"runs": ["a0", "a1"], "filter": "x=1"}, "filter goes with project, not with runs"),
        (
            "compare_runs",
            {"project": "team/seeds", "group_by": ["config.lrate"]},
            "group_by config.lrate: runs have no such field; did you mean config.lr?",
        ),
        (
            "compare_runs",
            {"project": "team/seeds", "group_by": ["commit"]},
            "group_by commit: runs have no such field; did you mean git_commit?",
        ),
        (
            "compare_runs",
            {"project": "team/seeds", "metrics": ["accuracy"]},
            "none of these runs has a number under accuracy in its summary; did you mean acc?",
        ),
        (
            "compare_runs",
            {"project": "team/seeds", "value": "mean"},
            "value must be one of summary, last, min, max, not mean",
        ),
        (
            "compare_runs",
            {"project": "team/seeds", "baseline": "0.5"},
            "no group 0.5; baseline is one of: config.lr=0.01; config.lr=0.1",
        ),
        (
            "diagnose_run",
            {"run": "team/seeds"},
            "team/seeds is a project, not a run; `mirror runs team/seeds` lists its runs",
        ),
    ],
)
def test_a_wrong_call_is_one_line(tools, tool, arguments, message):
    said = tools.refused(tool, **arguments)
    assert "\n" not in said
    if message is not None:
        assert said == message


def test_arguments_that_are_no_json_are_refused(cli, mirrored, monkeypatch):
    monkeypatch.setenv("MIRROR_HOME", str(mirrored.data))
    done = cli("mcp", "find_runs", "{project: team}")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the arguments are not JSON (")
    assert cli("mcp", "find_runs", "[]").stderr.startswith("error: the arguments must be a JSON object")


def test_a_mirror_without_anything_says_how_to_fill_it(cli):
    done = cli("mcp", "list_projects")
    assert done.exit_code == 1
    assert done.stderr.endswith("run `mirror sync`\n")
