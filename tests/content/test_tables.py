"""W&B Tables are relations with typed columns: in SQL, in the command line and in Python."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

import mirror
from mirror.content.table_json import BadTable
from mirror.content.table_parquet import convert
from mirror.errors import ArgumentError, CommError, StoreError
from tests.content.rig import ContentRig, content_rig
from tests.sync.test_passes import add

pytestmark = pytest.mark.xdist_group("tables")

NAN = float("nan")

TYPED = {
    "columns": ["id", "p", "ok", "when", "text", "nested", "big", "none", 5],
    "data": [
        [1, 0.5, True, "2024-01-02T03:04:05", "a", {"x": [1, NAN]}, 2**64, None, 1],
        [2, NAN, None, "2024-01-02T03:04:05.5+01:00", "ü", [1, 2], 7, None, "one"],
        [3, 4, False],
    ],
}


def table_file(run, key, step, columns, data, *, kind="table-file", text=None, **more):
    """Have a run log a table, as the official client does."""
    name = f"media/table/{key}_{step}_{len(data)}.table.json"
    run.add_file(name, text if text is not None else json.dumps({"columns": columns, "data": data}))
    value = {"_type": kind, "path": name, "ncols": len(columns), "nrows": len(data), **more}
    run.log({key: value}, step=step)


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with content_rig(tmp_path_factory.mktemp("tables") / "mirror") as made:
        one, two, three = (add(made, name, rows=0) for name in ("one", "two", "three"))
        table_file(one, "typed", 0, TYPED["columns"], TYPED["data"])
        table_file(one, "preds", 0, ["id", "p"], [[1, 0.5]])
        table_file(one, "preds", 1, ["id", "p"], [[1, 0.25], [2, 0.75]])
        table_file(three, "preds", 2, ["id", "p"], [["x", None]])
        table_file(one, "Preds", 2, ["other"], [[True]])
        table_file(one, "broken", 3, ["a"], [[1]], text='{"columns": ["a"], "data": [[1], [2')
        grows = {"kind": "incremental-table-file", "log_mode": "INCREMENTAL"}
        table_file(two, "grows", 0, ["n"], [[0]], increment_num=0, **grows)
        table_file(two, "grows", 1, ["n"], [[1], [2]], increment_num=0, **grows)
        table_file(two, "grows", 2, ["n"], [[3], [4], [5.5]], increment_num=1, **grows)
        table_file(two, "preds", 5, ["id", "step", "p"], [[3, 9, 1]])
        one.log({"in_artifact": {"_type": "joined-table", "artifact_path": "wandb-client-artifact://x/j.json"}}, step=4)
        one.log({"list": [{"_type": "table-file", "path": "media/table/preds_0_1.table.json", "nrows": 1}]}, step=5)
        one.log(
            {"lost": {"_type": "table-file", "path": "media/table/lost.table.json", "ncols": 2, "nrows": 9}}, step=6
        )
        outcome = made.pull()
        assert (outcome.failed, outcome.error, outcome.tables) == ({}, None, 9)
        yield made


@pytest.fixture
def home(rig, monkeypatch):
    """The mirror is that of this process, and its server refuses everything."""
    monkeypatch.setenv("MIRROR_HOME", str(rig.home.data))
    monkeypatch.setenv("WANDB_API_KEY", rig.sandbox.key)
    monkeypatch.setenv("WANDB_BASE_URL", rig.sandbox.url)


def test_a_logged_table_is_a_row(rig):
    columns = (
        "run_id, key, step, type, columns, rows, logged_rows, path, local_path is not null, parquet_path is not null"
    )
    assert rig.sql(f"select {columns}, error from tables where step is not null order by run_id, key, step") == [
        ("one", "Preds", 2, "table-file", '["other"]', 1, 1, "media/table/Preds_2_1.table.json", True, True, None),
        ("one", "broken", 3, "table-file", None, 1, 1, "media/table/broken_3_1.table.json", True, False, BROKEN),
        ("one", "in_artifact", 4, "joined-table", None, None, None, "wandb-client-artifact://x/j.json", *NOT_HERE),
        ("one", "list", 5, "table-file", '["id", "p"]', 1, 1, "media/table/preds_0_1.table.json", True, True, None),
        ("one", "lost", 6, "table-file", None, 9, 9, "media/table/lost.table.json", *NOT_HERE),
        ("one", "preds", 0, "table-file", '["id", "p"]', 1, 1, "media/table/preds_0_1.table.json", True, True, None),
        ("one", "preds", 1, "table-file", '["id", "p"]', 2, 2, "media/table/preds_1_2.table.json", True, True, None),
        ("one", "typed", 0, "table-file", LABELS, 3, 3, "media/table/typed_0_3.table.json", True, True, None),
        ("three", "preds", 2, "table-file", '["id", "p"]', 1, 1, "media/table/preds_2_1.table.json", True, True, None),
        ("two", "grows", 0, INCREMENT, '["n"]', 1, 1, "media/table/grows_0_1.table.json", True, True, None),
        ("two", "grows", 1, INCREMENT, '["n"]', 2, 2, "media/table/grows_1_2.table.json", True, True, None),
        ("two", "grows", 2, INCREMENT, '["n"]', 3, 3, "media/table/grows_2_3.table.json", True, True, None),
        (
            "two",
            "preds",
            5,
            "table-file",
            '["id", "step", "p"]',
            1,
            1,
            "media/table/preds_5_1.table.json",
            True,
            True,
            None,
        ),
    ]


BROKEN = "not a table: its JSON ends in the middle, after 35 characters"
NOT_HERE = (False, False, None)
INCREMENT = "incremental-table-file"
LABELS = '["id", "p", "ok", "when", "text", "nested", "big", "none", "5"]'


def test_a_table_of_the_summary_is_the_newest_without_a_step(rig):
    shown = "run_id, key, type, columns, rows, logged_rows, path, digest, local_path, parquet_path, error"
    newest = f"select {shown} from tables where step is not null qualify row_number() over (partition by run_id, key order by step desc) = 1"
    assert sorted(map(repr, rig.sql(f"select {shown} from tables where step is null"))) == sorted(
        map(repr, rig.sql(newest))
    )


def test_columns_have_the_type_that_their_values_share(rig):
    ((path,),) = rig.sql("select parquet_path from tables where key = 'typed' and step = 0")
    described = rig.sql(f"select column_name, column_type from (describe select * from read_parquet('{path}'))")
    assert described == [
        ("id", "BIGINT"),
        ("p", "DOUBLE"),
        ("ok", "BOOLEAN"),
        ("when", "TIMESTAMP"),
        ("text", "VARCHAR"),
        ("nested", "VARCHAR"),
        ("big", "DECIMAL(38,0)"),
        ("none", "VARCHAR"),
        ("5", "VARCHAR"),
    ]
    assert repr(rig.sql(f"select * from read_parquet('{path}')")) == repr(
        [
            (1, 0.5, True, datetime(2024, 1, 2, 3, 4, 5), "a", '{"x":[1,NaN]}', Decimal(2**64), None, "1"),
            (2, NAN, None, datetime(2024, 1, 2, 2, 4, 5, 500_000), "ü", "[1,2]", Decimal(7), None, "one"),
            (3, 4.0, False, *[None] * 6),
        ]
    )


def test_the_newest_table_of_every_run_is_one_relation(rig):
    """Types are those of all runs together; the column `step` of a table makes way for that of the run."""
    assert rig.sql('select * from "team/p/tables/preds" order by run_id, id') == [
        ("team", "p", "one", 1, "1", 0.25, None, "team/p/one"),
        ("team", "p", "one", 1, "2", 0.75, None, "team/p/one"),
        ("team", "p", "three", 2, "x", None, None, "team/p/three"),
        ("team", "p", "two", 5, "3", 1.0, 9, "team/p/two"),
    ]
    described = rig.sql('select column_name, column_type from (describe "team/p/tables/preds")')
    assert described[3:7] == [("step", "BIGINT"), ("id", "VARCHAR"), ("p", "DOUBLE"), ("step_2", "BIGINT")]


def test_keys_that_differ_in_case_have_relations_of_their_own(rig, home, cli):
    """The one that most runs have has the plain name; the other name is refused where it would read that."""
    names = rig.sql("select view_name from duckdb_views() where view_name like '%/tables/%' order by 1")
    assert names == [("team/p/tables/Preds_2",), *((f"team/p/tables/{key}",) for key in ("grows", "preds", "typed"))]
    assert rig.sql('select run_id, step, other from "team/p/tables/Preds_2"') == [("one", 2, True)]
    refused = cli("query", 'select * from "team/p/tables/Preds"')
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert 'the relation of the tables under this key is "team/p/tables/Preds_2"' in refused.stderr


def test_an_incremental_table_is_all_of_its_pieces(rig, home):
    """Since its first one: a new table under the same key begins again."""
    assert rig.sql('select step, n from "team/p/tables/grows" order by n') == [
        (2, 1.0),
        (2, 2.0),
        (2, 3.0),
        (2, 4.0),
        (2, 5.5),
    ]
    run = mirror.Api().run("team/p/two")
    assert list(run.table("grows")["n"]) == [1, 2, 3, 4, 5.5]
    assert list(run.table("grows", 1)["n"]) == [1, 2]
    assert list(run.table("grows", 0)["n"]) == [0]


def test_a_run_returns_its_tables_as_frames(rig, home):
    """The newest by default."""
    run = mirror.Api().run("team/p/one")
    assert run.table("preds", format="dicts") == [{"id": 1, "p": 0.25}, {"id": 2, "p": 0.75}]
    assert run.table("preds", 0, format="dicts") == [{"id": 1, "p": 0.5}]
    frame = run.table("typed")
    assert list(frame.columns) == ["id", "p", "ok", "when", "text", "nested", "big", "none", "5"]
    assert [str(kind) for kind in frame.dtypes[:4]] == ["int64", "float64", "boolean", "datetime64[us]"]
    assert run.table("typed", format="arrow").num_rows == 3
    assert run.table("typed", format="polars").shape == (3, 9)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["pred"], ArgumentError, "team/p/one logged no table under pred; did you mean preds or typed or Preds?"),
        (["preds", 7], ArgumentError, "team/p/one logged no table preds at step 7; it did at 0, 1"),
        (["lost"], CommError, "the table lost of team/p/one is not mirrored, nor on the server: "),
        (["in_artifact"], CommError, "is in an artifact (wandb-client-artifact://x/j.json), which is not mirrored"),
        (["broken"], StoreError, "(media/table/broken_3_1.table.json) is not a table: its JSON ends in the middle"),
    ],
)
def test_a_table_that_cannot_be_returned_says_why(rig, home, arguments, error, message):
    run = mirror.Api().run("team/p/one")
    with pytest.raises(error) as caught:
        run.table(*arguments)
    assert message in str(caught.value)


def test_a_table_that_only_the_server_has_is_converted_when_it_is_read(tmp_path, monkeypatch):
    with content_rig(tmp_path / "mirror") as rig:
        table_file(add(rig, "one", rows=0), "preds", 0, ["id"], [[1], [2]])
        rig.sync()
        for name, value in (("MIRROR_HOME", str(rig.home.data)), ("WANDB_API_KEY", rig.sandbox.key)):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("WANDB_BASE_URL", rig.sandbox.url)
        assert rig.sql("select key, rows, local_path, parquet_path from tables where step = 0") == [
            ("preds", 2, None, None)
        ]
        assert list(mirror.Api().run("team/p/one").table("preds")["id"]) == [1, 2]


def test_the_command_lists_and_prints_tables(home, cli):
    listed = json.loads(cli("logged-table", "team/p/one", "--json").stdout)
    assert [(one["key"], one["step"], one["columns"]) for one in listed if one["key"] == "preds"] == [
        ("preds", 0, ["id", "p"]),
        ("preds", 1, ["id", "p"]),
        ("preds", None, ["id", "p"]),
    ]
    assert cli("logged-table", "team/p/one", "preds", "--csv").stdout == "id,p\n1,0.25\n2,0.75\n"
    assert cli("logged-table", "team/p/one", "preds", "--step", "0", "--json").stdout == '[\n{"id":1,"p":0.5}\n]\n'
    for arguments, code, message in (
        (("team/p/one", "lost"), 1, 'is not mirrored: set sync.files = ["media/table/*"]'),
        (("team/p/one", "broken"), 1, f"cannot be read: {BROKEN}"),
        (("team/p/one", "--step", "1"), 2, "--step is for one table: name its KEY"),
    ):
        done = cli("logged-table", *arguments)
        assert (done.exit_code, done.stdout) == (code, "")
        assert message in done.stderr


def test_tables_are_exported_by_name(home, cli, tmp_path):
    for relation in ("tables", "team/p/tables/preds"):
        done = cli("export", "team/p", "-o", str(tmp_path / "one.csv"), "--relation", relation)
        assert done.exit_code == 0, done.stderr
    assert (tmp_path / "one.csv").read_text().splitlines()[0] == "entity,project,run_id,step,id,p,step_2,run_path"


def test_status_names_a_file_that_is_not_a_table(home, cli):
    (failed,) = json.loads(cli("status", "--json").stdout)["files"]["failed"]
    assert (failed["run"], failed["file"], failed["error"]) == (
        "team/p/one",
        "media/table/broken_3_1.table.json",
        BROKEN,
    )


def test_parquet_that_was_lost_is_made_again_and_goes_with_its_table(tmp_path):
    with content_rig(tmp_path / "mirror") as rig:
        run = add(rig, "one", rows=0)
        table_file(run, "preds", 0, ["id"], [[1]])
        assert rig.pull().tables == 1
        ((path,),) = rig.sql("select parquet_path from tables where step = 0")
        Path(path).unlink()
        assert rig.pull().tables == 1
        assert rig.sql('select id from "team/p/tables/preds"') == [(1,)]
        assert rig.pull().tables == 0
        del run.files["media/table/preds_0_1.table.json"]
        run.edit(notes="changed")
        rig.pull()
        assert rig.collect(dry_run=True).deleted == 2
        assert rig.collect().deleted == 2
        assert (rig.blobs(), rig.sql("select count(*) from duckdb_views() where view_name like '%/tables/%'")) == (
            [],
            [(0,)],
        )


def test_a_mirror_that_was_moved_reads_its_tables_in_the_new_place(rig, tmp_path):
    shutil.copytree(rig.home.data, tmp_path / "moved")
    moved = ContentRig(tmp_path / "moved", rig.sandbox)
    with moved.store() as store:
        store.publish()
    places = moved.sql("select sql from duckdb_views() where view_name like '%/tables/%'")
    assert len(places) == 4
    assert all(str(moved.home.blobs) in text and str(rig.home.blobs) not in text for (text,) in places)
    shown = 'select * from "team/p/tables/preds" order by run_id, id'
    assert moved.sql(shown) == rig.sql(shown)


def converted(tmp_path, text):
    source = tmp_path / "table.json"
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    return convert(source, tmp_path / "table.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is not a JSON object"),
        ("[1]", "it is not a JSON object"),
        ("{}", "it has no columns"),
        ('{"columns": [], "data": []}', "it has no columns"),
        ('{"columns": 7, "data": []}', "it has no list of columns"),
        ('{"data": [[1]]}', "it has no list of columns"),
        ('{"columns": ["a"]}', "it has no rows: the member `data` is missing"),
        ('{"columns": ["a"], "data": {"a": 1}}', "its rows, the member `data`, are not a list"),
        ('{"columns": ["a"], "data": [{"a": 1}]}', "row 0 is not a list"),
        ('{"columns": ["a"], "data": [[1], [1, 2, 3]]}', "row 1 has 3 values for 1 columns"),
        ('{"columns": ["a"], "data": [[1], [tru', "its JSON ends in the middle, after 37 characters"),
        ('{"columns": ["a"], "data": [[x' + "1" * 99 + "]]}", "its JSON is broken at character 29"),
        (b'{"columns": ["\xff"], "data": []}', "it is not UTF-8 text, after character 0"),
        ('{"columns": ["a"], "data": [' + "[" * 100_000, "a value at character 28 is nested too deep"),
    ],
)
def test_a_file_that_is_not_a_table_says_where_and_why(tmp_path, text, message):
    with pytest.raises(BadTable) as caught:
        converted(tmp_path, text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("columns", "data", "names", "types"),
    [
        (["a", "A", "a", ""], [[1, "x", 2.5, None]], ["a", "A_2", "a_3", "_"], ["BIGINT", "VARCHAR", "DOUBLE", "NULL"]),
        ([0, 1], [], ["0", "1"], ["NULL", "NULL"]),
        (["a"], [[2**63 - 1], [-(2**63)]], ["a"], ["BIGINT"]),
        (["a"], [[2**63], [1]], ["a"], ["DECIMAL(38,0)"]),
        (["a"], [[10**38], [1]], ["a"], ["VARCHAR"]),
        (["a"], [[1], [True]], ["a"], ["VARCHAR"]),
        (["a"], [[10**400], [0.5]], ["a"], ["DOUBLE"]),
        (["a"], [["2024-01-01"], ["2024-01-02"]], ["a"], ["VARCHAR"]),
        (["a"], [["2024-13-01T00:00:00"]], ["a"], ["VARCHAR"]),
        (["a"], [["\ud800"]], ["a"], ["VARCHAR"]),
    ],
    ids=["names", "no rows", "64 bits", "more", "too many", "mixed", "infinite", "dates", "no time", "surrogate"],
)
def test_names_and_types_of_columns(tmp_path, columns, data, names, types):
    found = converted(tmp_path, json.dumps({"columns": columns, "data": data}))
    assert (found.names, found.types, found.rows) == (names, types, len(data))


def test_a_table_of_an_artifact_declares_its_times_and_may_name_its_rows_first(tmp_path):
    declared = {
        "wb_type": "typedDict",
        "params": {"type_map": {"t": {"wb_type": "timestamp"}, "n": {"wb_type": "number"}}},
    }
    found = converted(
        tmp_path,
        json.dumps({"data": [[1704164645000, 1704164645000]], "columns": ["t", "n"], "column_types": declared}),
    )
    assert (found.types, found.rows) == (["TIMESTAMP", "BIGINT"], 1)


def test_a_type_that_only_a_late_row_needs(tmp_path, monkeypatch):
    """Rows are read in windows and written in batches, whatever their sizes."""
    monkeypatch.setattr("mirror.content.table_json.WINDOW", 7)
    monkeypatch.setattr("mirror.content.table_json.BATCH_ROWS", 2)
    rows = [[n, f"], [{n}\n" * n] for n in range(9)] + [[0.5, None], [12345678, "é" * 40]]
    found = converted(tmp_path, json.dumps({"columns": ["n", "text"], "data": rows, "nrows": 11}, ensure_ascii=False))
    assert (found.types, found.rows) == (["DOUBLE", "VARCHAR"], 11)
    from pyarrow import parquet

    assert [list(row.values()) for row in parquet.read_table(tmp_path / "table.parquet").to_pylist()] == rows


CONVERT = """
import re, sys
from pathlib import Path
from mirror.content.table_parquet import convert
found = convert(Path(sys.argv[1]), Path(sys.argv[2]))
# The most memory since this program began; that of getrusage has the parent's, too.
peak = re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]
print(found.rows, found.types, int(peak) // 1024)
"""


@pytest.mark.soak
def test_a_table_of_a_million_rows_takes_little_memory(tmp_path):
    """100 MB of JSON: most of this is the interpreter with Arrow."""
    with (tmp_path / "big.json").open("w") as file:
        file.write('{"columns": ["id", "p", "text", "ok"], "data": [')
        for number in range(1_000_000):
            row = [number, number / 7, f"row {number} with a text of some words, and ], [ in it", number % 2 == 0]
            file.write(f"{', ' * (number > 0)}{json.dumps(row)}")
        file.write("]}")
    assert (tmp_path / "big.json").stat().st_size > 90e6
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, str(tmp_path / "big.json"), str(tmp_path / "big.parquet")],
        capture_output=True,
        text=True,
        check=True,
    )
    counted, memory = done.stdout.rsplit(" ", 1)
    assert counted == "1000000 ['BIGINT', 'DOUBLE', 'VARCHAR', 'BOOLEAN']"
    assert int(memory) < 300
