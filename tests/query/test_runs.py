from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from mirror.settings.home import Home
from mirror.store import projects, runs
from mirror.store.store import Store
from tests.query.conftest import NLP, SYNCED, VISION, run


def rows(mirror: Any, *arguments: str) -> list[dict[str, Any]]:
    outcome = mirror("query", *arguments, "--json")
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(outcome.stdout)
    return found


def names(mirror: Any, *arguments: str) -> list[str]:
    return ["/".join(row.values()) for row in rows(mirror, "--select", "project,run_id", *arguments)]


def test_a_filter_finds_runs_newest_first_without_deleted_ones(mirror: Any) -> None:
    """As the official API orders and answers."""
    assert names(mirror, "--filter", "{}") == ["nlp/twin", "vision/twin", "vision/gamma", "vision/beta", "vision/alpha"]
    assert names(mirror, "--filter", '{"config.lr": {"$gte": 0.5}}') == ["nlp/twin", "vision/twin"]
    assert names(mirror, "--filter", '{"$or": [{"state": "running"}, {"tags": "base"}]}') == [
        "vision/gamma",
        "vision/alpha",
    ]


def test_terms_find_what_the_json_filter_finds(mirror: Any) -> None:
    """Alone, several, and together with a filter; --explain shows the JSON that they are."""
    assert names(mirror, "--where", "config.lr>=0.5") == ["nlp/twin", "vision/twin"]
    assert names(mirror, "--where", "config.lr>=0.5", "--where", "username=bob") == ["nlp/twin"]
    assert names(mirror, "--filter", '{"username": "bob"}', "--where", "config.lr>=0.5") == ["nlp/twin"]
    assert names(mirror, "--where", "name~2$") == ["vision/gamma"]
    assert names(mirror, "--where", "created_at>7d") == []
    explained = mirror("query", "--where", "name~2$", "--where", "config.lr<1", "--explain")
    assert explained.stdout.splitlines()[0] == (
        '-- filter: {"display_name": {"$regex": "2$"}, "config.lr": {"$lt": 1}}'
    )
    swapped = mirror("query", "--filter", "config.lr<1")
    assert (swapped.exit_code, swapped.stdout, swapped.stderr) == (
        2,
        "",
        "error: --filter takes JSON; give each term to --where, as in --where 'config.lr<1'\n",
    )
    wrong = mirror("query", "--where", "lr<1")
    assert (wrong.exit_code, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    assert wrong.stderr.startswith("error: the term 'lr<1': unknown field 'lr'; did you mean 'config.lr' or ")


def test_order_limit_project_and_deleted_narrow_and_turn(mirror: Any) -> None:
    """Each by its own option; the filter may be left out."""
    assert names(mirror, "--order", "+config.lr", "--project", "team/vision") == [
        "vision/gamma", "vision/beta", "vision/alpha", "vision/twin",
    ]  # fmt: skip
    assert names(mirror, "--project", "team/*", "--order", "+created_at")[0] == "vision/alpha"
    assert names(mirror, "--project", "nlp") == ["nlp/twin"]
    assert names(mirror, "--project", "nlp", "--project", "team/vision", "--filter", '{"run_id": "twin"}') == [
        "nlp/twin", "vision/twin",
    ]  # fmt: skip
    assert names(mirror, "--deleted", "--project", "vision")[1] == "vision/gone"
    cut = mirror("query", "--filter", "{}", "--limit", "2", "--select", "run_id")
    assert (cut.stdout, cut.stderr) == (
        "run_id\ntwin\ntwin\n",
        "2 of 5 rows; --limit N shows more, -o FILE keeps them all\n",
    )


def test_data_formats_hold_every_column_and_documents_as_json(mirror: Any) -> None:
    """One line of JSON is the whole run."""
    assert rows(mirror, "--filter", '{"run_id": "beta"}') == [
        {
            "entity": "team",
            "project": "vision",
            "run_id": "beta",
            "name": "run 1",
            "state": "finished",
            "created_at": "2026-01-01 01:00:00",
            "heartbeat_at": "2026-01-01 01:30:00",
            "updated_at": "2026-01-01 01:30:00",
            "duration_s": 1800.0,
            "username": "ada",
            "group_name": None,
            "job_type": None,
            "sweep": None,
            "notes": None,
            "tags": "",
            "git_commit": None,
            "host": None,
            "config": {"lr": 0.05, "layers": 1, "mixed": "x", "flag": True},
            "summary": {"acc": "NaN"},
            "history_rows": 0,
            "url": "https://wandb.ai/team/vision/runs/beta",
            "deleted_at": None,
            "synced_at": "2026-02-01 00:00:00",
            "run_path": "team/vision/beta",
        }
    ]


def test_keys_of_documents_are_columns_with_the_type_they_have(mirror: Any, tmp_path: Path) -> None:
    """Numbers where there are only numbers, whole where they are whole; text where kinds are mixed."""
    select = "run_id,config.lr,config.layers,config.flag,config.mixed,config.model,config.model.depth,summary.acc,summary_metrics.val/loss,config.nowhere"
    outcome = mirror("query", "--project", "vision", "--order", "+created_at", "--select", select, "--json")
    assert (outcome.exit_code, outcome.stderr) == (0, "warning: config key 'nowhere' is in no run\n")
    found = json.loads(outcome.stdout)
    assert found[:3] == [
        {
            "run_id": "alpha",
            "config.lr": 0.1,
            "config.layers": 0,
            "config.flag": None,
            "config.mixed": None,
            "config.model": {"depth": 2, "kind": "vit"},
            "config.model.depth": 2,
            "summary.acc": 0.0,
            "summary_metrics.val/loss": 1.5,
            "config.nowhere": None,
        },
        {
            "run_id": "beta",
            "config.lr": 0.05,
            "config.layers": 1,
            "config.flag": True,
            "config.mixed": "x",
            "config.model": None,
            "config.model.depth": None,
            "summary.acc": "NaN",
            "summary_metrics.val/loss": None,
            "config.nowhere": None,
        },
        {
            "run_id": "gamma",
            "config.lr": 0.02,
            "config.layers": 2,
            "config.flag": False,
            "config.mixed": "3",
            "config.model": None,
            "config.model.depth": None,
            "summary.acc": 0.5,
            "summary_metrics.val/loss": 1.5,
            "config.nowhere": None,
        },
    ]
    assert found[3]["config.layers"] == 9007199254740993
    file = tmp_path / "runs.parquet"
    assert mirror("query", "--filter", "{}", "--select", select, "-o", str(file)).exit_code == 0
    schema = parquet.read_schema(file)
    assert [str(schema.field(name).type) for name in ("config.lr", "config.layers", "config.flag", "config.mixed")] == [
        "double", "int64", "bool", "string",
    ]  # fmt: skip
    assert pa.types.is_string(schema.field("config.model").type)


def test_a_table_shows_what_tells_runs_apart_and_the_keys_of_the_filter(mirror: Any) -> None:
    """The project only where there are several."""
    shown = mirror("query", "--filter", '{"config.lr": {"$lt": 0.1}}', "--project", "vision", "--format", "table")
    assert shown.stdout == (
        "run_id  name   state     created_at           duration_s  tags  history_rows  config.lr\n"
        "──────  ─────  ────────  ───────────────────  ──────────  ────  ────────────  ─────────\n"
        "gamma   run 2  running   2026-01-01 02:00:00      1800.0                   0       0.02\n"
        "beta    run 1  finished  2026-01-01 01:00:00      1800.0                   0       0.05\n"
    )
    header = mirror("query", "--filter", "{}", "--format", "markdown").stdout.splitlines()[0]
    assert header == "| entity | project | run_id | name | state | created_at | duration_s | tags | history_rows |"


def test_count_counts_what_the_filter_finds(mirror: Any) -> None:
    """Deleted runs only when they are asked for."""
    assert mirror("query", "--count").stdout == "5\n"
    assert mirror("query", "--count", "--deleted").stdout == "6\n"
    assert mirror("query", "--filter", '{"state": "running"}', "--count", "--csv").stdout == "count\n1\n"


def test_explain_shows_sql_over_the_relations_and_each_clause(mirror: Any) -> None:
    """The clause that empties the answer is seen at once."""
    arguments = ["query", "--filter", '{"state": "finished", "config.lr": {"$gt": 2}}', "--explain"]
    text = mirror(*arguments).stdout
    sql = (
        "SELECT r.entity, r.project, r.run_id, r.name\n"
        "FROM runs AS r\n"
        "WHERE r.deleted_at IS NULL\n"
        "  AND (coalesce(r.state = 'finished', FALSE) AND (r.run_path IN (SELECT l.run_path FROM config_values AS l"
        " WHERE l.key = 'lr' AND (l.number > 2 AND l.number <= CAST('infinity' AS DOUBLE)))))\n"
        "ORDER BY r.created_at DESC NULLS LAST, r.run_path ASC"
    )
    assert text == (
        f'-- filter: {{"state": "finished", "config.lr": {{"$gt": 2}}}}\n{sql};\n\n'
        "clause                runs\n"
        "────────────────────  ────\n"
        'state "finished"         4\n'
        'config.lr {"$gt": 2}     0\n'
        "all clauses together     0\n"
    )
    found = json.loads(mirror(*arguments, "--json").stdout)
    assert found["filter"] == {"state": "finished", "config.lr": {"$gt": 2}}
    assert found["clauses"] == [['state "finished"', 4], ['config.lr {"$gt": 2}', 0]]
    assert (found["runs"], found["sql"], found["params"]) == (0, sql, [])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--where", "state=finished", "--order", "-config.lr"],
        ["--where", "config.lr<0.30000000000000004", "--project", "team/vision"],
        ["--where", "config.lr!=null", "--where", "name!=o'neil?", "--deleted"],
        ["--where", "tags=base", "--where", "created_at>3650d"],
        ["--filter", '{"tags.0": {"$in": ["é", "base"]}, "config.layers": {"$exists": true}}'],
    ],
)
def test_the_sql_of_explain_finds_the_same_runs(mirror: Any, arguments: list[str]) -> None:
    """As it is printed, comments and all. The tests of filters compare the SQL of every kind of filter."""
    explained = mirror("query", *arguments, "--explain").stdout.split("\n\n")[0]
    assert "store." not in explained
    columns = ["--select", "entity,project,run_id,name"]
    found = mirror("query", *arguments, *columns, "--csv").stdout
    assert found.count("\n") > 1
    assert mirror("query", explained, "--csv").stdout == found


def test_explain_without_sql_says_why(mirror: Any) -> None:
    """A field that no relation has."""
    arguments = ["query", "--where", "description=x", "--explain"]
    assert mirror(*arguments).stdout.splitlines()[:2] == [
        '-- filter: {"description": "x"}',
        "-- no SQL over the relations: no relation has the field description",
    ]
    found = json.loads(mirror(*arguments, "--json").stdout)
    assert (found["sql"], found["no_sql"]) == (None, "no relation has the field description")


def test_a_key_that_no_run_has_is_warned_of(mirror: Any) -> None:
    """Zero rows and a reason."""
    outcome = mirror("query", "--filter", '{"config.layer": 2}', "--count")
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (
        0,
        "0\n",
        "warning: config key 'layer' is in no run; did you mean 'layers'?\n",
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["--filter", '{"state": "x"'],
            2,
            "the filter is not valid JSON, at line 1 column 14: Expecting ',' delimiter",
        ),
        (["--filter", '["state"]'], 2, 'a filter is an object, not ["state"]'),
        (["--filter", '{"statee": 1}'], 2, "did you mean 'state'?"),
        (["--filter", '{"state": {"$foo": 1}}'], 2, "$foo"),
        (["--filter", '{"state": 1, "state": 2}'], 2, "twice"),
        (["--filter", "{}", "--order", "-created"], 2, "unknown field 'created'; did you mean 'createdAt'?"),
        (
            ["--project", "team/visoin"],
            1,
            "no project team/visoin in the mirror; did you mean team/vision? mirrored: team/nlp, team/vision",
        ),
        (["--project", "other/*"], 1, "no project other/* in the mirror; "),
        (["--filter", "{}", "--select", "statee"], 2, "--select: runs have no column statee; did you mean state?"),
        (
            ["--filter", "{}", "--select", "lr"],
            2,
            "--select: runs have no column lr; did you mean config.lr or summary.lr?",
        ),
        (
            ["--filter", "{}", "--select", "config.layer"],
            1,
            "nothing to show: config key 'layer' is in no run; did you mean 'layers'?",
        ),
        (
            ["--project", "team/vision", "--select", "config.text"],
            1,
            "nothing to show: config key 'text' is in none of these runs",
        ),
        (
            [],
            2,
            "nothing to query: give SQL, --where TERM or --filter JSON ('{}' is every run); see `mirror query --help`",
        ),
        (["select 1", "--filter", "{}"], 2, "--filter is for run filters: put it into the SQL instead"),
        (["select 1", "--order", "x"], 2, "--order is for run filters: put it into the SQL instead"),
        (["select 1", "--deleted"], 2, "--deleted is for run filters: put it into the SQL instead"),
        (["--filter", "{}", "--limit", "-1"], 2, "Invalid value for '--limit'"),
        (["--filter", "{}", "--limitt", "1"], 2, "No such option: --limitt"),
    ],
)
def test_a_question_that_makes_no_sense_is_one_line(mirror: Any, arguments: list[str], code: int, message: str) -> None:
    """With the nearest right one where there is one."""
    outcome = mirror("query", *arguments)
    assert (outcome.exit_code, outcome.stdout) == (code, "")
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_a_selected_key_has_the_type_that_it_has_in_the_projects_asked_for(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever other projects and deleted runs hold, and whichever of the runs a filter finds."""
    home = Home(tmp_path / "typed", tmp_path / "config.toml")
    store = Store.open(home)
    with store.transaction() as tx:
        for project, records in (
            (VISION, [run(VISION, "a", 0, config={"n": 1, "m": 1}, summary={"f": True}), run(VISION, "gone", 1, config={"n": "x"})]),
            (NLP, [run(NLP, "b", 2, config={"n": "one", "m": 0.5}, summary={"f": 2}), run(NLP, "c", 3, config={"n": 2}, summary={})]),
        ):  # fmt: skip
            projects.add(tx, project)
            runs.upsert(tx, records, now=SYNCED)
            projects.record_success(tx, project, SYNCED)
        runs.mark_deleted(tx, VISION, ["gone"], at=SYNCED)
    store.publish()
    store.close()
    monkeypatch.setenv("MIRROR_HOME", str(home.data))

    def found(*arguments: str) -> tuple[list[Any], list[str]]:
        file = tmp_path / "typed.parquet"
        select = ["--select", "config.n,config.m,summary.f", "--order", "+created_at", *arguments]
        assert cli("query", *select, "-o", str(file)).exit_code == 0
        values = [list(row.values()) for row in rows(cli, *select)]
        return values, [str(field.type) for field in parquet.read_schema(file)]

    assert found("--project", "team/vision") == ([[1, 1, True]], ["int64", "int64", "bool"])
    text = ["string", "double", "int64"]
    assert found("--project", "team/nlp") == ([["one", 0.5, 2], ["2", None, None]], text)
    assert found("--project", "team/nlp", "--filter", '{"config.n": 2}') == ([["2", None, None]], text)
    both = ["string", "double", "string"]
    assert found() == ([["1", 1.0, "true"], ["one", 0.5, "2"], ["2", None, None]], both)
    with_deleted = [["1", 1, True], ["x", None, None]]
    assert found("--project", "team/vision", "--deleted") == (with_deleted, ["string", "int64", "bool"])


@pytest.mark.parametrize(
    ("conditions", "hint"),
    [
        ('{"state": "finished", "$sort": {"created_at": -1}}', "--order"),
        ('{"$limit": 5}', "--limit"),
        ('{"$project": {"name": 1}}', "--select"),
        ('[{"$match": {"state": "finished"}}, {"$group": {"_id": "$state"}}]', "mirror query"),
    ],
)
def test_what_is_no_filter_in_a_filter_is_answered_with_what_does_it_here(
    mirror: Any, conditions: str, hint: str
) -> None:
    """One line, and nothing else."""
    outcome = mirror("query", "--filter", conditions)
    assert (outcome.exit_code != 0, outcome.stdout, outcome.stderr.count("\n")) == (True, "", 1)
    assert hint in outcome.stderr


def test_runs_without_tags_are_told_how_to_be_found(mirror: Any) -> None:
    """Tags are never null, which somebody who asks so does not know."""
    outcome = mirror("query", "--filter", '{"tags": null}', "--count")
    assert (outcome.exit_code, outcome.stdout) == (0, "0\n")
    assert outcome.stderr == (
        'warning: tags null: tags is always a list, never null; find runs without tags by {"tags": {"$size": 0}}\n'
    )
    without = '{"tags": {"$size": 0}}'
    assert mirror("query", "--filter", without, "--count").stdout == "4\n"
