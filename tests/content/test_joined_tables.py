"""Joined and partitioned tables have the rows of their pieces, or say which piece is not here."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode
from pathlib import Path

import pytest

import mirror
from mirror.content.table_compose import compose, opened
from mirror.content.table_json import BadTable
from mirror.content.table_parquet import convert
from mirror.content.table_pieces import Join, Leaf
from mirror.errors import CommError, StoreError
from mirror.settings.values import artifacts
from mirror.store import forget
from mirror.store.contents import Selection
from mirror.store.records import ProjectKey
from mirror.sync.context import Scope
from tests.content.rig import content_rig
from tests.sync.test_passes import add

pytestmark = pytest.mark.xdist_group("joined tables")


def table(columns, *rows):
    return json.dumps({"columns": columns, "data": rows})


def joined(first, second, key="id"):
    return json.dumps({"table1": first, "table2": second, "join_key": key})


def parts(folder):
    return json.dumps({"parts_path": folder})


LEFT = table(["id", "p", "P"], [1, 0.5, "x"], [2, 0.75, "y"], [2, 0.25, "z"], [None, 9, "w"])
RIGHT = table(["key", "p"], ["2", "b"], ["3", "c"], [None, "d"])
FILES = {
    "left.table.json": LEFT,
    "right.table.json": RIGHT,
    "one.joined-table.json": joined("left.table.json", "right", ["id", "key"]),
    "same.joined-table.json": joined("left.table.json", "left.table.json"),
    "parts/0.table.json": table(["a", "b", "a"], [1, 2, 3], [4, 5, 6]),
    "parts/1.table.json": table(["a", "b", "a"], [7, 8, 9]),
    "parts/2.table.json": table(["b", "c"], [0.5, "x"]),
    "parts/notes.txt": "not a table",
    "parts/3.table.json": table(["A"]),
    "all.partitioned-table.json": parts("parts/"),
    "over.joined-table.json": joined("all.partitioned-table.json", "left.table.json", ["b", "id"]),
    "ring/self.partitioned-table.json": parts("ring"),
    "circle.joined-table.json": joined("left.table.json", "circle.joined-table.json"),
    "empty.partitioned-table.json": parts("nothing"),
    "text.joined-table.json": '{"table1": "left.table.json", ',
    "list.joined-table.json": "[1]",
    "keyless.joined-table.json": json.dumps({"table1": "left.table.json", "table2": "right.table.json"}),
    "nameless.partitioned-table.json": "{}",
    "absent.joined-table.json": joined("left.table.json", "gone.table.json"),
    "column.joined-table.json": joined("left.table.json", "right.table.json"),
    "broken.table.json": '{"columns": ["id"], "data": [[1',
    "broken.joined-table.json": joined("left.table.json", "broken.table.json"),
    "deep.joined-table.json": "[" * 100_000,
    "large.joined-table.json": "{}" + " " * (1 << 20),
    "far.joined-table.json": joined("left.table.json", "wandb-artifact://ffff/t.table.json"),
    "outside.joined-table.json": joined("left.table.json", "s3.table.json"),
}


def address(artifact, name):
    """The address that the official client gives to a file of an artifact."""
    return f"wandb-artifact://{b64decode(artifact.storage_id).hex()}/{name}"


def chosen(*patterns):
    return Selection(("*",), artifacts=artifacts(list(patterns)).patterns)


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with content_rig(tmp_path_factory.mktemp("joined") / "mirror") as made:
        made.lists = Scope(files=True, artifacts=True)
        run = add(made, "one", rows=0)
        made.world.add_artifact("team", "p", "other", "here", {"t.table.json": table(["id", "q"], [1, "q"])})
        other = made.world.artifact("team", "p", "here:v0")
        references = {
            "s3.table.json": "s3://bucket/s3.table.json",
            "ref.table.json": address(other, "t.table.json"),
        }
        more = {"later.joined-table.json": joined("ref.table.json", "left.table.json")}
        made.world.add_artifact("team", "p", "dataset", "whole", FILES | more, references=references, by=run)
        whole = made.world.artifact("team", "p", "whole:v0")
        for name in FILES | more:
            if not name.endswith(("joined-table.json", "partitioned-table.json")):
                continue
            key, kind, _ = Path(name).name.split(".")
            run.log({key: {"_type": kind, "artifact_path": address(whole, name)}}, step=0)
        twin = {
            "left.table.json": table(["id"], [5]),
            "right.table.json": table(["key"], [5]),
            "one.joined-table.json": FILES["one.joined-table.json"],
        }
        made.world.add_artifact("team", "p", "dataset", "twin", twin, by=run)
        at = address(made.world.artifact("team", "p", "twin:v0"), "one.joined-table.json")
        run.log({"twin": {"_type": "joined-table", "artifact_path": at}}, step=0)
        run.add_file("media/a.table.json", table(["n"], [1]))
        run.add_file("media/b.joined-table.json", joined("media/a.table.json", "media/a.table.json", "n"))
        run.log({"file": {"_type": "joined-table", "path": "media/b.joined-table.json"}}, step=1)
        run.log({"unnamed": {"_type": "joined-table", "artifact_path": "wandb-client-artifact://x/j.json"}}, step=1)
        outcome = made.pull(chosen("dataset:*"))
        assert (outcome.failed, outcome.error) == ({}, None)
        yield made


@pytest.fixture
def home(rig, monkeypatch):
    """The mirror is that of this process."""
    monkeypatch.setenv("MIRROR_HOME", str(rig.home.data))
    monkeypatch.setenv("WANDB_API_KEY", rig.sandbox.key)
    monkeypatch.setenv("WANDB_BASE_URL", rig.sandbox.url)


@pytest.fixture
def run(home):
    """The run, read by the Python API."""
    return mirror.Api().run("team/p/one")


def values(run, key):
    found = run.table(key, format="arrow")
    return found.column_names, [
        tuple(row) for row in zip(*(column.to_pylist() for column in found.columns), strict=True)
    ]


def test_keys_of_two_names_stay_two_columns(run):
    """The rows of the first table in their order, with all that match, then those of the second that matched none."""
    assert values(run, "one") == (
        ["id", "p", "P_2", "key", "p_3"],
        [
            (1, 0.5, "x", None, None),
            (2, 0.75, "y", "2", "b"),
            (2, 0.25, "z", "2", "b"),
            (None, 9.0, "w", None, None),
            (None, None, None, "3", "c"),
            (None, None, None, None, "d"),
        ],
    )


def test_a_key_of_one_name_is_one_column(run):
    names, rows = values(run, "same")
    assert names == ["id", "p", "P_2", "p_3", "P_4"]
    assert [row[0] for row in rows] == [1, 2, 2, 2, 2, None, None]


def test_parts_are_united_by_the_names_of_columns(run):
    assert values(run, "all") == (
        ["a", "b", "a_2", "c", "A_3"],
        [
            (1, 2.0, 3, None, None),
            (4, 5.0, 6, None, None),
            (7, 8.0, 9, None, None),
            (None, 0.5, None, "x", None),
        ],
    )


def test_a_joined_table_may_have_a_partitioned_one(run):
    names, rows = values(run, "over")
    assert names == ["a", "b", "a_2", "c", "A_3", "id", "p", "P_2"]
    assert [(row[1], row[5]) for row in rows] == [
        (2.0, 2),
        (2.0, 2),
        (5.0, None),
        (8.0, None),
        (0.5, None),
        (None, 1),
        (None, None),
    ]


def test_an_equal_file_in_another_artifact_names_the_tables_there(rig, run):
    assert values(run, "twin") == (["id", "key"], [(5, 5)])
    ((digests,),) = rig.sql("select count(distinct digest) from tables where key in ('one', 'twin')")
    assert digests == 1


def test_tables_in_files_of_runs(run):
    assert values(run, "file") == (["n"], [(1,)])


WHOLE = "team/p/whole:v0"
NOT_A_TABLE = "not a table: its JSON ends in the middle, after 31 characters"


ERRORS = [
    ("self", "it is a piece of itself: ring/self.partitioned-table.json names ring/self.partitioned-table.json"),
    ("circle", "it is a piece of itself: circle.joined-table.json names circle.joined-table.json"),
    ("empty", f"its folder 'nothing' of {WHOLE} has no tables"),
    ("text", "text.joined-table.json is not a joined table: its JSON is broken at character 30"),
    ("list", "list.joined-table.json is not a joined table: it is not a JSON object"),
    (
        "keyless",
        "keyless.joined-table.json is not a joined table: its member `join_key` is neither a text nor a list of two",
    ),
    (
        "nameless",
        "nameless.partitioned-table.json is not a partitioned table: its member `parts_path` is not a text",
    ),
    ("absent", f"its piece gone.table.json is not a file of {WHOLE}"),
    ("column", "column.joined-table.json joins by the column id, which its `table2` lacks; that has key, p"),
    (
        "broken",
        f"its piece broken.table.json of {WHOLE} is not a table: its JSON ends in the middle, after 31 characters",
    ),
    ("deep", "deep.joined-table.json is not a joined table: it is nested too deep"),
    ("large", "large.joined-table.json is not a joined table: it has 1,048,578 bytes"),
    ("outside", "its piece s3://bucket/s3.table.json is outside of W&B, and references are not downloaded"),
    (
        "far",
        (
            "its piece wandb-artifact://ffff/t.table.json is in an artifact that is not mirrored: name that in "
            "sync.artifacts, and its project in projects, and run `mirror sync`"
        ),
    ),
    (
        "later",
        (
            'its piece t.table.json of team/p/here:v0 is not mirrored: set sync.artifacts = ["other/here:v0"] and run '
            "`mirror sync`"
        ),
    ),
]


@pytest.mark.parametrize(("key", "message"), ERRORS)
def test_a_table_without_a_piece_says_which(rig, run, key, message):
    described = f"select columns, rows, parquet_path, error from tables where key = '{key}' and step = 0"
    assert rig.sql(described) == [(None, None, None, message)]
    with pytest.raises(StoreError) as caught:
        run.table(key)
    assert str(caught.value).endswith(f" cannot be read: {message}")


def test_the_command_prints_a_joined_table_or_says_what_it_lacks(home, cli):
    done = cli("logged-table", "team/p/one", "twin", "--csv")
    assert (done.exit_code, done.stdout) == (0, "id,key\n5,5\n")
    lacking = cli("logged-table", "team/p/one", "later")
    assert (lacking.exit_code, lacking.stdout) == (1, "")
    assert dict(ERRORS)["later"] in " ".join(lacking.stderr.split())


def test_one_whose_own_file_is_not_here_names_the_setting(run):
    with pytest.raises(CommError, match=r"which is not mirrored: name it in sync\.artifacts"):
        run.table("unnamed")


def test_status_names_tables_that_cannot_be_read(home, cli):
    failed = json.loads(cli("status", "--json").stdout)["files"]["failed"]
    assert {(one["run"], one["artifact"]) for one in failed} == {(None, WHOLE)}
    assert sorted(one["error"] for one in failed) == sorted([message for _, message in ERRORS] + [NOT_A_TABLE])


def test_storage_counts_every_content_once(rig):
    (sizes,) = rig.sql(
        "select (select sum(stored_bytes) from storage where kind <> 'history'), "
        "(select sum(size) from store.contents where unnamed_at is null)"
    )
    assert sizes[0] == sizes[1]


def test_a_round_without_changes_makes_none_again(rig):
    assert rig.pull(chosen("dataset:*")).tables == 0


def test_a_table_is_made_when_its_piece_arrives_or_changes_or_was_lost_and_goes_with_it(tmp_path):
    with content_rig(tmp_path / "mirror") as rig:
        rig.lists = Scope(files=True, artifacts=True)
        run = add(rig, "one", rows=0)
        rig.world.add_artifact("team", "p", "other", "here", {"t.table.json": table(["id", "q"], [1, "q"])})
        address_of_piece = address(rig.world.artifact("team", "p", "here:v0"), "t.table.json")
        run.add_file("media/a.table.json", table(["id"], [1]))
        run.add_file("media/b.joined-table.json", joined("media/a.table.json", address_of_piece))
        run.log({"b": {"_type": "joined-table", "path": "media/b.joined-table.json"}}, step=0)
        shown = 'select id, q from "team/p/tables/b" order by id'

        assert rig.pull(Selection(("*",))).tables == 1
        ((error,),) = rig.sql("select error from tables where step = 0")
        (named,) = json.loads(error.partition("sync.artifacts = ")[2].partition(" and run")[0])
        assert rig.pull(chosen(named)).tables == 2
        assert rig.sql(shown) == [(1, "q")]

        run.add_file("media/a.table.json", table(["id"], [2]))
        run.edit(notes="changed")
        assert rig.pull(chosen("other:*")).tables == 2
        assert rig.sql(shown) == [(1, "q"), (2, None)]

        ((path,),) = rig.sql("select parquet_path from tables where step = 0")
        Path(path).unlink()
        assert rig.pull(chosen("other:*")).tables == 1
        assert rig.sql(shown) == [(1, "q"), (2, None)]
        assert rig.pull(chosen("other:*")).tables == 0

        rig.collect()
        before = len(rig.blobs())
        del run.files["media/b.joined-table.json"]
        run.edit(notes="again")
        rig.pull(chosen("other:*"))
        assert rig.collect(dry_run=True).deleted == 2
        assert rig.collect().deleted == 2
        assert len(rig.blobs()) == before - 2
        assert rig.sql("select view_name from duckdb_views() where view_name like '%/tables/%'") == []


def test_tables_in_artifacts_of_a_mirror_without_history(rig_of_nothing):
    rig_of_nothing.world.add_artifact("team", "p", "run_table", "t", {"t.table.json": table(["id"], [1])})
    outcome = rig_of_nothing.pull(chosen("*:*"))
    assert (outcome.tables, outcome.error) == (1, None)


@pytest.fixture
def rig_of_nothing(tmp_path, empty):
    """A project with a run that logged nothing."""
    shutil.copytree(empty, tmp_path / "mirror")
    with content_rig(tmp_path / "mirror") as made:
        made.lists = Scope(files=True, artifacts=True)
        add(made, "one", rows=0)
        yield made


def test_a_project_that_was_forgotten_leaves_no_table_to_the_next_artifact(tmp_path):
    """Artifacts of the mirror are numbered, and a number may be used again."""
    with content_rig(tmp_path / "mirror") as rig:
        rig.lists = Scope(files=True, artifacts=True)
        run = add(rig, "one", rows=0)
        files = {"t.table.json": table(["id"], [1]), "j.joined-table.json": joined("t.table.json", "t.table.json")}
        rig.world.add_artifact("team", "p", "dataset", "whole", files)
        whole = rig.world.artifact("team", "p", "whole:v0")
        run.log({"j": {"_type": "joined-table", "artifact_path": address(whole, "j.joined-table.json")}}, step=0)
        assert rig.pull(chosen("dataset:*")).tables == 2
        made = "select columns, parquet_path is not null from tables where step = 0"
        assert rig.sql(made) == [('["id"]', True)]
        with rig.store() as store:
            with store.transaction() as tx:
                forget.project(tx, ProjectKey("team", "p"))
            store.publish()
        assert rig.sql("select count(*) from store.converted_tables where contains(source, '/')") == [(0,)]
        assert rig.collect().deleted == 4
        assert rig.blobs() == []
        assert rig.pull(chosen("dataset:*")).tables == 2
        assert rig.sql(made) == [('["id"]', True)]


def test_a_join_by_keys_that_repeat_has_a_limit(tmp_path, monkeypatch):
    (tmp_path / "t.json").write_text(table(["id", "n"], *([7, n] for n in range(5))))
    made = convert(tmp_path / "t.json", tmp_path / "t.parquet")
    leaf = Leaf("t", tuple(made.columns), tuple(made.names), tuple(made.types), "t.parquet")
    node = Join("j", leaf, leaf, ("id", "id"))
    with opened() as connection:
        assert compose(connection, node, tmp_path / "j.parquet", tmp_path.joinpath).rows == 25
        monkeypatch.setattr("mirror.content.table_compose.MOST_ROWS", 24)
        with pytest.raises(BadTable, match="it would have 25 rows, since its join key repeats in both tables; 24 are"):
            compose(connection, node, tmp_path / "j.parquet", tmp_path.joinpath)
