"""The copy for a reader of one project has everything of this project, and nothing of another one, in any table."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import duckdb
import pytest

from mirror import serve
from mirror.serve import app as sdk
from mirror.settings.home import Home
from mirror.settings.tokens import Tokens
from mirror.settings.values import ArtifactPattern
from mirror.snapshot import scoped
from mirror.snapshot.connection import open_restricted
from mirror.store.contents import Selection
from mirror.web.listener import Neighbour
from tests.content.rig import content_rig
from tests.web.door import opened

ALL_OF_IT = Selection(("*",), artifacts=(ArtifactPattern("*", "*", "*"),))
EVERYTHING = dict.fromkeys(("system_metrics", "metadata", "console", "files", "artifacts", "reports"), True)
EMPTY = {"metric_definitions", "local_runs", "histograms", "run_changes"}
"""What this world does not fill."""


def fill(world, project):
    """Everything that a project can have, under names that contain that of the project."""
    sweep = world.add_sweep("team", project, {"method": "grid", "parameters": {project: {"values": [1]}}})
    for index in range(2):
        run = world.add_run(
            *("team", project),
            run_id=f"{project}{index}",
            name=f"run of {project}",
            config={f"of_{project}": index, "text": project},
            tags=[project],
            notes=f"notes of {project}",
            host=f"{project}.example",
            sweep=sweep.name,
        )
        for step in range(5):
            run.log({"loss": 1.0 / (step + 1), project: float(step), "text": project}, step=step)
        table = {"columns": ["id", project], "data": [[index, project]]}
        run.add_file("media/table/t.table.json", json.dumps(table))
        run.log({"table": {"_type": "table-file", "path": "media/table/t.table.json", "ncols": 2, "nrows": 1}}, step=5)
        run.set_summary({f"{project}_acc": 0.5, "table": {"_type": "table-file", "path": "media/table/t.table.json"}})
        run.add_file(f"{project}.txt", project)
        run.add_file("same.txt", "the same in every project")
        run.log_system({"system.cpu": 1.0})
        run.write_console(0, [f"a line of {project}"])
        run.finish()
    files = {f"{project}.bin": project, "same.bin": "the same in every project"}
    world.add_artifact("team", project, "model", f"model-{project}", files, by=run, aliases=[project])
    world.add_report("team", project, f"report of {project}", {"blocks": [{"text": project}]})
    world.add_report("team", project, f"view of {project}", {"text": project}, kind="project-view")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two projects that have the same of everything; half of the history is in segments."""
    with content_rig(tmp_path_factory.mktemp("scoped") / "mirror") as rig:
        for project in ("shown", "walled"):
            fill(rig.world, project)
        rig.tail_values = 20
        results = rig.sync("team/shown", "team/walled", **EVERYTHING)
        assert [result.error for result in results.values()] == [None, None]
        assert not rig.pull(ALL_OF_IT, listed=False).failed
        with rig.store() as store:
            store.seal()
            store.publish()
        assert len(list(rig.home.history.rglob("*.parquet"))) == 2
        yield rig.home


@pytest.fixture(scope="module")
def copy(home, tmp_path_factory):
    scope = Home(home.data, home.config, tmp_path_factory.mktemp("scope"))
    scoped.make(scope, ["team/shown"])
    return scope


def tables(connection):
    return [
        name
        for (name,) in connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'store' ORDER BY ALL"
        ).fetchall()
    ]


def test_no_table_of_the_copy_has_anything_of_the_other_project(copy):
    with duckdb.connect(str(copy.published), read_only=True) as connection:
        for table in tables(connection):
            query = f"SELECT t FROM store.{table} AS t WHERE contains(CAST(t AS VARCHAR), 'walled')"
            assert connection.execute(query).fetchall() == [], table
        named = "SELECT sql FROM duckdb_views() WHERE contains(sql, 'walled')"
        assert connection.execute(named).fetchall() == []


def test_every_relation_has_the_same_rows_of_the_project_as_the_mirror(home, copy):
    with (
        open_restricted(home.published, home.history) as whole,
        open_restricted(copy.published, copy.history, limited=True) as part,
    ):
        named = "SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal ORDER BY ALL"
        relations = [name for (name,) in part.execute(named).fetchall()]
        everything = [name for (name,) in whole.execute(named).fetchall()]
        assert relations == [name for name in everything if "walled" not in name]
        assert {"team/shown", "team/shown/tables/table"} <= set(relations)
        for relation in relations:
            rows = f"SELECT * EXCLUDE (entity) FROM \"{relation}\" WHERE project = 'shown' ORDER BY ALL"
            if relation == "projects":
                rows = rows.replace("(entity)", "(entity, lag_s)")
            if relation == "storage":
                # Of content that both projects have, only one counts as stored.
                rows = rows.replace("(entity)", "(entity, stored_bytes)")
            found = part.execute(rows).fetchall()
            assert found == whole.execute(rows).fetchall(), relation
            assert found or relation in EMPTY, f"{relation} shows nothing, so this test does not either"
            comments = f"SELECT column_name, comment FROM duckdb_columns() WHERE table_name = '{relation}' ORDER BY ALL"
            assert part.execute(comments).fetchall() == whole.execute(comments).fetchall()


def test_content_is_read_if_the_project_has_it(home, copy):
    with (
        open_restricted(home.published, home.history) as whole,
        open_restricted(copy.published, copy.history, limited=True) as part,
    ):
        paths = "SELECT project, name, local_path FROM files WHERE local_path IS NOT NULL ORDER BY ALL"
        for project, name, path in whole.execute(paths).fetchall():
            read = f"SELECT count(*) FROM read_blob('{path}')"
            if project == "shown" or name == "same.txt":
                assert part.execute(read).fetchall() == [(1,)], name
            else:
                with pytest.raises(duckdb.PermissionException):
                    part.execute(read).fetchall()


def test_files_are_downloaded_by_token_and_by_an_address_that_was_signed_for_it(home):
    def endpoint(access):
        return sdk.application(
            access.page, lambda: "b" * 40, lambda: sdk.Policy("http://127.0.0.1:9"), lambda _: None, access
        )

    with opened(home, neighbour=Neighbour(serve.PATHS, endpoint)) as door:
        secret = Tokens(home.tokens).add("ada", ["team/shown"], None)

        def files(project):
            listed = (
                f'run(name: "{project}0") {{ files(names: ["{project}.txt"]) {{ edges {{ node {{ directUrl }} }} }} }}'
            )
            text = f'{{ project(name: "{project}", entityName: "team") {{ {listed} }} }}'
            asked = {"query": text, "variables": {}}
            return door.ask("POST", "/graphql", "", auth=("api", secret), json=asked).json()

        (file,) = files("shown")["data"]["project"]["run"]["files"]["edges"]
        address = urlsplit(file["node"]["directUrl"])
        elsewhere = {"Host": "mirror.example.com"}
        signed = door.ask("GET", f"{address.path}?{address.query}", "", elsewhere)
        assert (signed.status_code, signed.text) == (200, "shown")
        assert door.ask("GET", address.path, "", elsewhere).status_code == 421
        assert door.ask("GET", address.path, "", auth=("api", secret)).text == "shown"
        other = address.path.replace("shown", "walled")
        assert door.ask("GET", f"{other}?{address.query}", "").status_code == 401
        assert door.ask("GET", other, "", auth=("api", secret)).status_code == 400
        assert files("walled")["data"] is None
