"""One wide relation a project, kept current run by run."""

from __future__ import annotations

import math

import duckdb
import pytest

from mirror.query.status import mirror_status
from mirror.store import projects, wide, wide_marks
from mirror.store.records import ProjectKey
from tests.store.kit import NOW, PROJECT, curve, opened, read, run, write

LEAVES = (
    "select column_name, data_type from information_schema.columns where table_schema = 'main' "
    "and table_name = 'team/vision' and ordinal_position > 24 order by ordinal_position"
)


def test_a_wide_row_holds_the_run_and_its_leaves(store):
    config = {"lr": 0.5, "deep": {"on": True, "list": [1]}, "none": None, "empty": {}}
    write(store, run(config=config, summary={"val/acc": math.inf}), history=[curve("a1", range(3))])
    assert read(store, LEAVES) == [
        ("config.deep.list", "VARCHAR"),
        ("config.deep.on", "BOOLEAN"),
        ("config.empty", "VARCHAR"),
        ("config.lr", "DOUBLE"),
        ("config.none", "VARCHAR"),
        ("summary.val/acc", "DOUBLE"),
    ]
    (row,) = read(store, 'from "team/vision"')
    assert row[:24] == read(store, "from runs")[0]
    assert row[24:] == ("[1]", True, "{}", 0.5, None, math.inf)
    write(store, history=[curve("a1", range(3, 5))])
    assert read(store, 'select history_rows from "team/vision"') == [(5,)]


def test_a_column_has_the_type_that_all_its_values_share(store):
    write(
        store,
        run(config={"number": 1, "null or number": None, "bool": True, "mixed": 1}),
        run("b2", config={"number": 2.5, "null or number": 3, "bool": False, "mixed": "x"}),
    )
    assert dict(read(store, LEAVES)) == {
        "config.bool": "BOOLEAN",
        "config.mixed": "VARCHAR",
        "config.null or number": "BIGINT",
        "config.number": "DOUBLE",
    }
    write(store, run("b2", config={"number": "two", "null or number": 3, "bool": False, "mixed": 2}))
    assert dict(read(store, LEAVES)) == {
        "config.bool": "BOOLEAN",
        "config.mixed": "BIGINT",
        "config.null or number": "BIGINT",
        "config.number": "VARCHAR",
    }
    assert read(store, 'select run_id, "config.number", "config.mixed" from "team/vision" order by 1') == [
        ("a1", "1", 1),
        ("b2", "two", 2),
    ]


def test_whole_numbers_keep_all_their_digits_until_a_fraction_arrives(store):
    """A number written with a point or an exponent is a fraction, and so is one that does not fit into 64 bits."""
    config = {"seed": 2**63 - 2048, "negative": -(2**62) - 1, "batch": 128, "float": 1.0, "large": 1e15, "past": 2**63}
    write(store, run(config=config), run("b2", config={**config, "seed": 7}))
    kinds = dict(read(store, LEAVES))
    assert {name.removeprefix("config."): kind for name, kind in kinds.items()} == {
        "seed": "BIGINT",
        "negative": "BIGINT",
        "batch": "BIGINT",
        "float": "DOUBLE",
        "large": "DOUBLE",
        "past": "DOUBLE",
    }
    row = 'select "config.seed", "config.negative", "config.batch" from "team/vision" order by run_id'
    assert read(store, row) == [(2**63 - 2048, -(2**62) - 1, 128), (7, -(2**62) - 1, 128)]
    write(store, run("b2", config={**config, "batch": 64.5}))
    assert dict(read(store, LEAVES))["config.batch"] == "DOUBLE"
    assert read(store, 'select "config.batch" from "team/vision" order by run_id') == [(128.0,), (64.5,)]
    write(store, run("b2", config={**config, "batch": 64}))
    assert read(store, 'select "config.batch" from "team/vision" order by run_id') == [(128,), (64,)]
    assert dict(read(store, LEAVES))["config.batch"] == "BIGINT"


def test_keys_that_differ_only_in_case_have_columns_of_their_own(store):
    """A key that differs from all others has its own name, whatever number another one gets."""
    write(store, run(config={"LR": 1, "lr": 2, "lr_2": 3}), run("b2", config={"lr": 4}))
    assert read(store, 'select "config.lr", "config.lr_2", "config.LR_3" from "team/vision" order by run_id') == [
        (2.0, 3.0, 1.0),
        (4.0, None, None),
    ]


def test_the_spelling_that_most_runs_have_has_the_plain_name(store):
    """Also when it was the rare one before; of as many runs it is the one that had it."""
    write(store, run(config={"LR": 1}))
    assert read(store, LEAVES) == [("config.LR", "BIGINT")]
    write(store, run("b2", config={"lr": 2}))
    assert sorted(read(store, LEAVES)) == [("config.LR", "BIGINT"), ("config.lr_2", "BIGINT")]
    assert read(store, 'select "config.LR", "config.lr_2" from "team/vision" order by run_id') == [
        (1.0, None),
        (None, 2.0),
    ]
    write(store, run("c3", config={"lr": 3}))
    assert sorted(read(store, LEAVES)) == [("config.LR_2", "BIGINT"), ("config.lr", "BIGINT")]
    assert read(store, 'select "config.lr", "config.LR_2" from "team/vision" order by run_id') == [
        (None, 1.0),
        (2.0, None),
        (3.0, None),
    ]
    write(store, run(), run("b2", config={"LR": 2}))
    assert sorted(read(store, LEAVES)) == [("config.LR_2", "BIGINT"), ("config.lr", "BIGINT")]
    write(store, run("b2"))
    assert read(store, LEAVES) == [("config.lr", "BIGINT")]


# Pairs that Python or Unicode take for two spellings of one word, and one that everybody does.
SPELLINGS = ["É", "é", "ß", "ss", "ẞ", "\u212a", "k", "İ", "i", "Σ", "\u03c3", "ς", "\uff21", "\uff41", "e\u0301", "K"]


def test_only_letters_that_duckdb_folds_share_a_name(store):
    """Each other key has its own name, and every column holds its own key's values."""
    write(store, run(config={key: place for place, key in enumerate(SPELLINGS)}), run("b2", config={"k": 6}))
    names = {key: f"config.{key}" for key in SPELLINGS} | {"K": "config.K_2"}
    assert sorted(name for name, _ in read(store, LEAVES)) == sorted(names.values())
    selected = ", ".join(f'"{names[key]}"' for key in SPELLINGS)
    assert read(store, f"select {selected} from \"team/vision\" where run_id = 'a1'") == [
        tuple(float(place) for place in range(len(SPELLINGS)))
    ]


def test_projects_that_differ_only_in_case_have_relations_of_their_own(store):
    upper = ProjectKey("team", "Vision")
    write(store, run(name="lower"))
    write(store, run(project=upper, name="upper"), project=upper)
    assert read(store, 'select name from "team/vision"') == [("lower",)]
    assert read(store, 'select name from "team/Vision_2"') == [("upper",)]


def test_a_project_whose_own_name_a_relation_had_gets_it(store):
    """What had it is found under the next number."""
    upper, numbered = ProjectKey("team", "Vision"), ProjectKey("team", "vision_2")
    write(store, run(name="lower"))
    write(store, run(project=upper, name="upper"), project=upper)
    store.publish()
    write(store, run(project=numbered, name="numbered"), project=numbered)
    relations = "select view_name from duckdb_views() where view_name like 'team/%' order by 1"
    assert read(store, relations) == [("team/Vision_3",), ("team/vision",), ("team/vision_2",)]
    assert [read(store, f'select name from "{name}"') for (name,) in read(store, relations)] == [
        [("upper",)],
        [("lower",)],
        [("numbered",)],
    ]


def test_only_changed_runs_are_written_while_the_columns_stay(store, monkeypatch):
    written = []
    fill = wide._fill
    monkeypatch.setattr(
        wide, "_fill", lambda db, table, columns, rids: (written.append(rids), fill(db, table, columns, rids))
    )
    write(store, *(run(f"r{number}", config={"a": number}) for number in range(5)))
    store.publish()
    write(store, run("r3", config={"a": 30}))
    store.publish()
    write(store, run("r4", config={"a": 40, "b": True}))
    store.publish()
    write(store, run("r4", config={"b": True}))
    store.publish()
    assert written == [[1, 2, 3, 4, 5], [4], [5], [5]]
    assert read(store, 'select run_id, "config.a", "config.b" from "team/vision" order by 1') == [
        ("r0", 0.0, None),
        ("r1", 1.0, None),
        ("r2", 2.0, None),
        ("r3", 30.0, None),
        ("r4", None, True),
    ]
    write(store, run("r4", config={"a": 4}))
    assert read(store, LEAVES) == [("config.a", "BIGINT")]


def test_the_most_common_keys_have_columns(store, monkeypatch):
    monkeypatch.setattr(wide, "MOST_COLUMNS", 3)
    write(
        store,
        run("r1", config={"everywhere": 1, "twice": 1, "once": 1}),
        run("r2", config={"everywhere": 2, "twice": 2}),
        run("r3", config={"everywhere": 3}, summary={"rare": 1}),
    )
    assert [name for name, _ in read(store, LEAVES)] == ["config.everywhere", "config.twice", "config.once"]
    write(store, run("r4", summary={"rare": 4}), run("r5", summary={"rare": 5}))
    assert [name for name, _ in read(store, LEAVES)] == ["config.everywhere", "summary.rare", "config.twice"]
    assert read(store, 'select run_id, "summary.rare" from "team/vision" where "summary.rare" > 0 order by 1') == [
        ("r3", 1.0),
        ("r4", 4.0),
        ("r5", 5.0),
    ]


def test_an_empty_project_has_its_relation(store):
    with store.transaction() as tx:
        projects.add(tx, ProjectKey("team", "empty"))
        projects.record_success(tx, PROJECT, NOW)
    assert read(store, 'from "team/empty"') == []
    assert read(store, 'from "team/vision"') == []


def test_many_columns_and_runs_are_filled_in_parts(store, monkeypatch):
    monkeypatch.setattr(wide, "_CELLS", 1000)
    write(store, *(run(f"r{n:02}", config={f"k{k}": n * k for k in range(n, 400)}) for n in range(20)))
    columns = [name for name, _ in read(store, LEAVES)]
    assert len(columns) == 400
    for n, row in enumerate(read(store, 'select * from "team/vision" order by run_id')):
        expected = {f"config.k{k}": float(n * k) if k >= n else None for k in range(400)}
        assert dict(zip(columns, row[24:], strict=True)) == expected


def test_what_a_killed_process_did_not_refresh_is_refreshed_later(tmp_path):
    with opened(tmp_path) as store:
        write(store, run(config={"a": 1}))
        store.publish()
        write(store, run(config={"a": 2}), run("b2", config={"b": 1}))
    with opened(tmp_path) as store:
        assert store.changed
        assert read(store, 'select run_id, "config.a", "config.b" from "team/vision" order by 1') == [
            ("a1", 2.0, None),
            ("b2", None, 1.0),
        ]


def faults(store):
    store.publish()
    return mirror_status(store.home.published)["wide_faults"]


def test_a_key_with_a_nul_character_has_no_column_and_stops_no_other(store):
    other = ProjectKey("team", "audio")
    write(store, run(config={"a\0b": 1, "ok": 2}, summary={"\0": 1}))
    write(store, run(project=other, config={"x": 1}), project=other)
    assert read(store, 'select "config.ok" from "team/vision"') == [(2.0,)]
    assert read(store, 'select "config.x" from "team/audio"') == [(1.0,)]
    assert read(store, "select key, number from config_values where project = 'vision' order by 1") == [
        ("a\0b", 1.0),
        ("ok", 2.0),
    ]
    fault = "2 keys with a NUL character have no column, such as config.a\\0b"
    assert faults(store) == [{"project": "team/vision", "fault": fault}]
    write(store, run(config={"ok": 3}))
    assert faults(store) == []
    assert read(store, 'select "config.ok" from "team/vision"') == [(3.0,)]


HOSTILE = [
    "",
    ".",
    "x" * 10_000,
    "q\"uo'te",
    "a\nb",
    "a;b",
    "\x7f",
    "İ",
    "ß",
    "run_id",
    "rid",
    "revision",
    "%s",
    "?",
]


def test_odd_keys_have_columns(store):
    write(store, run(config={key: place for place, key in enumerate(HOSTILE)}))
    columns = [name for name, _ in read(store, LEAVES)]
    assert sorted(columns) == sorted(f"config.{key}" for key in HOSTILE)
    values = dict(zip(columns, read(store, 'from "team/vision"')[0][24:], strict=True))
    assert values == {f"config.{key}": float(place) for place, key in enumerate(HOSTILE)}
    assert faults(store) == []


@pytest.mark.parametrize("error", [duckdb.BinderException("no such thing"), ValueError("odd"), MemoryError()])
def test_a_wide_relation_that_cannot_be_made_is_left_out_and_reported(store, monkeypatch, error):
    other = ProjectKey("team", "audio")
    write(store, run(config={"lr": 1}))
    write(store, run(project=other, config={"x": 1}), project=other)
    store.publish()
    keep_view = wide._keep_view

    def fail(db, project, *more):
        if project == PROJECT:
            raise error
        keep_view(db, project, *more)

    monkeypatch.setattr(wide, "_keep_view", fail)
    write(store, run(config={"lr": 2}))
    write(store, run(project=other, config={"x": 2}), project=other)
    assert read(store, 'select "config.x" from "team/audio"') == [(2.0,)]
    assert read(store, "select config from runs where project = 'vision'") == [('{"lr":2}',)]
    with pytest.raises(duckdb.CatalogException, match="team/vision"):
        read(store, 'from "team/vision"')
    [reported] = faults(store)
    assert reported["fault"].startswith("it could not be built (")
    monkeypatch.undo()
    write(store, run(config={"lr": 3}))
    assert read(store, 'select "config.lr" from "team/vision"') == [(3.0,)]
    assert faults(store) == []


def test_a_wide_relation_over_which_duckdb_gives_up_is_left_out_until_the_store_is_opened_again(tmp_path, monkeypatch):
    other = ProjectKey("team", "audio")
    fill = wide._fill

    def fail(db, table, columns, rids):
        if any(column.key == "bad" for column in columns):
            raise duckdb.InternalException("INTERNAL Error: broken")
        fill(db, table, columns, rids)

    monkeypatch.setattr(wide, "_fill", fail)
    with opened(tmp_path / "mirror") as store:
        write(store, run(config={"bad": 1}))
        write(store, run(project=other, config={"x": 1}), project=other)
        assert read(store, 'select "config.x" from "team/audio"') == [(1.0,)]
        assert read(store, "select run_id from runs order by project") == [("a1",), ("a1",)]
        fault = "it could not be built (INTERNAL Error: broken)"
        assert faults(store) == [{"project": "team/vision", "fault": fault}]
    monkeypatch.undo()
    with opened(tmp_path / "mirror") as store:
        write(store, run(config={"bad": 2}))
        assert read(store, 'select "config.bad" from "team/vision"') == [(2.0,)]
        assert faults(store) == []


@pytest.fixture
def refreshed(monkeypatch) -> list[ProjectKey]:
    """The projects whose relation is brought up to date from now on."""
    found: list[ProjectKey] = []
    refresh = wide._refresh

    def noted(db, project, *more):
        found.append(project)
        refresh(db, project, *more)

    monkeypatch.setattr(wide, "_refresh", noted)
    return found


def test_a_start_looks_only_at_relations_that_changed_and_were_not_published(tmp_path, refreshed):
    """With 1,000 projects, looking at each of them takes 20 seconds."""
    other = ProjectKey("team", "audio")
    with opened(tmp_path / "mirror") as store:
        write(store, run(config={"lr": 1}))
        write(store, run(project=other, config={"x": 1}), project=other)
        store.publish()
        write(store, run(config={"lr": 2}))
    refreshed.clear()
    with opened(tmp_path / "mirror") as store:
        assert read(store, 'select "config.lr" from "team/vision"') == [(2,)]
        assert read(store, 'select "config.x" from "team/audio"') == [(1,)]
    assert refreshed == [PROJECT]
    with opened(tmp_path / "mirror") as store:
        store._changed = True
        store.publish()
    assert refreshed == [PROJECT]


def test_another_version_makes_every_relation_again(tmp_path, refreshed, monkeypatch):
    with opened(tmp_path / "mirror") as store:
        write(store, run(config={"lr": 1}))
        store.publish()
    refreshed.clear()
    monkeypatch.setattr(wide_marks, "VERSION", "another")
    with opened(tmp_path / "mirror") as store:
        store._changed = True
        store.publish()
    assert refreshed == [PROJECT]


def test_a_relation_whose_table_is_gone_is_made_again(tmp_path):
    with opened(tmp_path / "mirror") as store:
        write(store, run(config={"lr": 1}))
        store.publish()
        with store.transaction() as tx:
            wide.forget(tx.db, 1)
    with opened(tmp_path / "mirror") as store:
        assert read(store, 'select "config.lr" from "team/vision"') == [(1,)]
