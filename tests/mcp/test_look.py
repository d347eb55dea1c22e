"""Projects, runs and SQL as agents get them: short tables, what was cut, and how fresh it is."""

from __future__ import annotations

import json
import re

import pytest

from mirror.mcp.tools import TOOLS

pytestmark = pytest.mark.xdist_group("mcp")


def lines(*texts):
    return "\n".join(texts)


def test_projects_are_listed_with_their_sizes_and_age(tools):
    text = re.sub(r"\d+ s ago", "N s ago", tools("list_projects"))
    assert text == lines(
        "project\truns\trunning\thistory_rows\tlast_success\tproblem",
        "team/seeds\t6\t0\t240\tN s ago\t",
        "team/trouble\t5\t0\t188\tN s ago\t",
    )


def test_the_last_line_says_how_old_and_complete_the_data_is(tools):
    last = tools.whole("describe_project", project="team/seeds").splitlines()[-1]
    assert re.fullmatch(r"\[mirror: as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, \d+ (s|min) ago; complete\]", last)


def test_several_projects_are_as_old_as_the_oldest(tools):
    last = tools.whole("list_projects").splitlines()[-1]
    assert last.endswith(" ago, the oldest of 2 projects; complete]")


def test_a_project_is_described_by_its_keys(tools):
    text = re.sub(r"_(runtime|timestamp).*\n", "", tools("describe_project", project="team/seeds"))
    text = re.sub(r"created [^;]*;", "created;", text)
    assert text == lines(
        "team/seeds: runs by state: finished 6; created; 240 history rows",
        "user: ada 6",
        "key\ttype\truns\tvalues",
        "config.lr\tnumber\t6\t0.01 (3), 0.1 (3)",
        "config.opt.name\tstring\t6\tadam",
        "config.seed\tnumber\t6\t0 (2), 1 (2), 2 (2)",
        "summary.acc\tnumber\t6\t0.8 (1), 0.81 (1), 0.82 (1), 0.9 (1), 0.91 (1), 0.92 (1)",
        "summary.loss\tnumber\t6\t0.69 (1), 0.7 (1), 0.71 (1), 0.79 (1), 0.8 (1), 0.81 (1)",
        "epoch\tnumber\t6\t0 to 3",
        "loss\tnumber\t6\t0.69 to 1.2",
    )


def test_only_some_keys_are_described(tools):
    text = tools("describe_project", project="seeds", keys=["config.*"], max_chars=500)
    assert [line.split("\t")[0] for line in text.splitlines()] == ["key", "config.lr", "config.opt.name", "config.seed"]


def test_runs_are_found_in_order_with_the_columns_that_are_asked_for(tools):
    text = tools(
        "find_runs",
        project="team/seeds",
        filter="summary.acc>0.8",
        order="-summary.acc",
        select=["summary.acc"],
        limit=2,
    )
    assert text == lines(
        "5 runs match",
        "run_id\tsummary.acc",
        "b2\t0.92",
        "b1\t0.91",
        "(runs 1 to 2 of 5; for the rest: offset=2, or a narrower filter)",
    )


def test_the_rest_comes_with_the_offset_that_the_answer_names(tools):
    text = tools(
        "find_runs", project="team/seeds", filter="summary.acc>0.8", order="-summary.acc", select=["name"], offset=4
    )
    assert text == lines("5 runs match", "run_id\tname", "a2\trun a2", "(runs 5 to 5 of 5)")


def test_a_filter_in_json_and_terms_find_the_same_runs(tools):
    asked = {"project": "team/seeds", "order": "+name", "select": ["run_id"]}
    by_json = tools("find_runs", filter={"$and": [{"config.lr": {"$lt": 0.05}}, {"state": "finished"}]}, **asked)
    assert by_json == tools("find_runs", filter="config.lr<0.05 state=finished", **asked)
    assert by_json == lines("3 runs match", "run_id", "b0", "b1", "b2")


def test_runs_come_with_the_keys_in_which_they_differ_but_for_seeds(tools):
    head = tools("find_runs", project="team/seeds").splitlines()[1]
    assert head == "run_id\tname\tstate\tcreated_at\tconfig.lr\tsummary.acc\tsummary.loss"


def test_a_limit_of_zero_counts(tools):
    assert tools("find_runs", project="team/seeds", filter="config.lr=0.1", limit=0) == "3 runs match"


def test_a_filter_without_a_run_says_what_each_part_matches_alone(tools):
    assert tools("find_runs", filter="state=failed config.lr<0.01") == lines(
        "0 runs match",
        'note: alone, state "failed" matches 2 runs',
        'note: alone, config.lr {"$lt": 0.01} matches 0 runs',
    )


def test_a_key_that_no_run_has_names_the_nearest_one(tools):
    text = tools("find_runs", project="team/seeds", filter="config.lrr<1", select=["summary.accu", "name"])
    assert text == lines(
        "0 runs match",
        "note: config key 'lrr' is in none of these runs; did you mean 'lr'?",
        "note: summary key 'accu' is in no run; did you mean 'acc'?",
    ) or text == lines(
        "0 runs match",
        "note: config key 'lrr' is in no run; did you mean 'lr'?",
        "note: summary key 'accu' is in no run; did you mean 'acc'?",
    )


def test_sql_returns_all_digits_and_says_what_is_cut(tools):
    text = tools("query", sql="SELECT run_id, 2/3 AS x FROM runs ORDER BY run_id", limit=2)
    assert text == lines(
        "run_id\tx",
        "a0\t0.6666666666666666",
        "a1\t0.6666666666666666",
        "note: 2 of 11 rows shown: raise limit or max_chars, or aggregate; "
        "LIMIT and OFFSET in the statement page through them",
    )


def test_a_long_answer_stays_within_its_budget(tools):
    text = tools("query", sql="SELECT range AS n, repeat('x', 50) AS t FROM range(1000)", limit=1000, max_chars=500)
    table, note = text.split("\nnote: ")
    assert len(table) <= 500
    assert note.startswith(f"{len(table.splitlines()) - 1} of 1,000 rows shown")


def test_a_long_value_is_cut_and_the_way_to_the_rest_named(tools):
    text = tools("query", sql="SELECT repeat('x', 1000) AS t")
    assert text == lines(
        "t",
        f"{'x' * 500}… (+500)",
        "note: long values are cut: select a part, as with substr(x, 1, 2000), or one field of JSON with ->>",
    )


def test_the_tools_cost_few_tokens():
    listed = [{"name": name, "description": one.purpose, "inputSchema": one.schema()} for name, one in TOOLS.items()]
    assert len(json.dumps(listed)) < 7000


def test_every_argument_is_described():
    for name, tool in TOOLS.items():
        for argument, schema in tool.schema()["properties"].items():
            assert schema["description"], (name, argument)
