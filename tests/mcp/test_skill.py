"""The skill for coding agents names only what exists, and its commands run."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import yaml
from typer.main import get_command

from mirror.cli.app import app
from mirror.mcp import skill
from mirror.mcp.tools import TOOLS, answer
from mirror.snapshot.connection import connected

pytestmark = pytest.mark.xdist_group("mcp")

TEXT = skill.text()
FRONT, BODY = TEXT.removeprefix("---\n").split("\n---\n", 1)
COMMANDS = re.findall(r"^(mirror .*?)(?:\s+#.*)?$", BODY, re.MULTILINE)


def test_the_front_matter_says_when_to_use_it():
    front = yaml.safe_load(FRONT)
    assert list(front) == ["name", "description"]
    assert front["name"] == skill.NAME
    assert len(front["description"]) < 1024


def test_it_is_short():
    assert len(TEXT) < 5000


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_exists_with_its_options(line):
    words = shlex.split(line)[1:]
    command = get_command(app).get_command(None, words[0])
    assert command, line
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


OF_THE_MIRROR = {
    "team/vision": "team/seeds",
    "RUN RUN": "a0 b0",
    "RUN": "a0",
    "val/acc": "acc",
    "loss,acc": "loss,epoch",
}


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith("mirror sync")])
def test_each_command_runs(line, cli, mirrored, monkeypatch):
    monkeypatch.setenv("MIRROR_HOME", str(mirrored.data))
    for name, real in OF_THE_MIRROR.items():
        line = line.replace(name, real)
    done = cli(*shlex.split(line)[1:])
    assert (done.exit_code, done.stderr) == (0, "")


def test_each_relation_has_the_columns_that_it_names(mirrored):
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", BODY, re.MULTILINE)
    assert len(rows) > 6
    with connected(mirrored) as connection:
        for names, meaning in rows:
            columns = ", ".join(name for name in re.findall(r"`(\w+)`", meaning))
            for relation in re.findall(r"`(\w+)`", names):
                connection.execute(f"SELECT {columns or '*'} FROM {relation} LIMIT 0")


def test_relations_but_two_have_the_columns_of_a_run(mirrored):
    rows = re.findall(r"^\| (`.*?) \| .* \|$", BODY, re.MULTILINE)
    with connected(mirrored) as connection:
        for relation in {name for names in rows for name in re.findall(r"`(\w+)`", names)} - {"projects", "sweeps"}:
            connection.execute(f"SELECT entity, project, run_id FROM {relation} LIMIT 0")
        connection.execute('SELECT "config.lr", "summary.acc" FROM "team/seeds" LIMIT 0')


def test_nan_is_greater_than_all_other_numbers(mirrored):
    with connected(mirrored) as connection:
        sql = (
            "SELECT max(value), max(value) FILTER (isfinite(value)) FROM history WHERE run_id = 'oom' AND key = 'loss'"
        )
        assert [str(value) for value in connection.execute(sql).fetchone()] == ["nan", "1.0"]


def test_the_filters_that_the_resource_shows_are_filters(mirrored):
    from mirror.mcp.resources import filters

    page = filters()
    shown = re.findall(r"^`([^`]*)`$", page, re.MULTILINE)
    assert len(shown) == 2
    operators = re.search(r"^Operators: `(.*)`", page, re.MULTILINE)[1].split()
    values = {
        "$in": [1],
        "$nin": [1],
        "$all": [1],
        "$exists": True,
        "$regex": "x",
        "$not": {"$gt": 1},
        "$type": "string",
    }
    values |= {
        "$size": 1,
        "$elemMatch": {"$gt": 1},
        "$and": [{"state": "x"}],
        "$or": [{"state": "x"}],
        "$nor": [{"state": "x"}],
    }
    groups = ("$and", "$or", "$nor")
    filters_ = [{op: values[op]} if op in groups else {"config.x": {op: values.get(op, 1)}} for op in operators]
    with connected(mirrored) as connection:
        for one in [*shown, *map(json.dumps, filters_)]:
            assert " match" in answer(connection, "find_runs", {"filter": one, "limit": 0}), one


def test_it_is_written_once_and_again_after_an_update(cli, tmp_path):
    path = tmp_path / "skills" / "wandb-mirror" / "SKILL.md"
    done = cli("skill", "install", str(tmp_path / "skills"))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"wrote {path}\n")
    assert path.read_text().startswith(TEXT)
    older = TEXT.replace("mirror projects", "mirror list")
    path.write_text(skill._marked(older))
    assert cli("skill", "install", str(tmp_path / "skills")).exit_code == 0
    assert path.read_text() == skill._marked(TEXT)


def test_a_file_that_somebody_edited_is_kept(cli, tmp_path):
    path = tmp_path / "wandb-mirror" / "SKILL.md"
    path.parent.mkdir()
    path.write_text("my own notes\n")
    done = cli("skill", "install", str(tmp_path))
    assert (done.exit_code, path.read_text()) == (2, "my own notes\n")
    assert done.stderr == (
        f"error: {path} was written or edited by others: move it away, or add --force to replace it\n"
    )
    assert cli("skill", "install", str(tmp_path), "--force").exit_code == 0
    assert path.read_text() == skill._marked(TEXT)


def test_a_folder_that_cannot_be_written_is_named(cli, tmp_path):
    (tmp_path / "file").write_text("")
    done = cli("skill", "install", str(tmp_path / "file"))
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: cannot write {tmp_path}/file/wandb-mirror/SKILL.md: ")


def test_it_is_printed(cli):
    assert cli("skill", "install", "--print").stdout == TEXT


def test_the_tools_that_it_names_exist():
    assert set(re.findall(r"^mirror mcp (\w+) ", BODY, re.MULTILINE)) <= set(TOOLS)
