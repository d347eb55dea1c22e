"""What a run's summary is: the later record wins, however it spells a key."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.local.protobuf_items import items
from mirror.local.tree import Tree
from tests.local.kit import ingest, pb, real_run, run_file


def item(key, value, *, nested):
    names = {"nested_key": [key]} if nested else {"key": key}
    return pb.SummaryItem(value_json=json.dumps(value), **names)


def record(*entries):
    return pb.SummaryRecord(update=[item(key, value, nested=nested) for key, value, nested in entries])


def test_the_later_record_wins_however_its_key_is_spelled(home, sql, tmp_path):
    """As `log m=1; summary m=2; log m=3; summary m=4; log m=5` writes them."""
    file = run_file(tmp_path)
    for value in range(1, 6):
        file.add(summary=record(("m", value, value % 2 == 1), ("other", value, True)))
    ingest(home, tmp_path)
    assert sql("select summary from runs") == [('{"m":5,"other":5}',)]


def test_the_later_item_of_one_record_wins(home, sql, tmp_path):
    file = run_file(tmp_path)
    file.add(summary=record(("m", 1, False), ("m", 2, True), ("m", 3, False)))
    names = [{"key": "m"}, {"nested_key": ["m"]}, {"key": "m"}]
    file.add(history=pb.HistoryRecord(item=[pb.HistoryItem(value_json=str(n), **name) for n, name in enumerate(names)]))
    config = [pb.ConfigItem(value_json=str(number), **name) for number, name in enumerate(names)]
    file.add(config=pb.ConfigRecord(update=config))
    ingest(home, tmp_path)
    assert sql("select summary, config from runs") == [('{"m":3}', '{"m":2}')]
    assert sql("select value from history where key = 'm'") == [(2.0,)]


def test_a_real_run_whose_client_spells_a_key_in_two_ways(home, sql):
    ingest(home, real_run("tfsxw9tj"))
    assert sql(
        "select key, value from summary_values where key in ('_runtime', '_step', 'generation') order by key"
    ) == [
        ("_runtime", "0"),
        ("_step", "49"),
        ("generation", "50"),
    ]
    assert sql("select history_rows from runs") == [(50,)]


KEYS = st.lists(st.sampled_from("abc"), min_size=1, max_size=2)
RECORDS = st.lists(st.lists(st.tuples(KEYS, st.booleans(), st.integers(0, 9)), max_size=4), max_size=12)


@given(RECORDS)
@settings(max_examples=200, deadline=None)
def test_records_add_up_to_what_their_items_one_by_one_add_up_to(records):
    """Every spelling, keys above and below each other, the same key twice in a record."""
    together, one_by_one = Tree(), Tree()
    for entries in records:
        update = []
        for names, nested, value in entries:
            spelled = {"nested_key": names} if nested or len(names) > 1 else {"key": names[0]}
            update.append(pb.SummaryItem(value_json=str(value), **spelled))
            one_by_one.set(tuple(names), str(value).encode())
        together.update(items(pb.SummaryRecord(update=update).SerializeToString()))
    assert together.leaves == one_by_one.leaves
    assert together.document() == one_by_one.document()


def test_a_run_without_a_summary_record_has_the_last_value_of_each_key(home, sql, tmp_path):
    """As the clients of 2022 leave it when they are killed, and whatever the run's end."""
    for name, code in (("killed", None), ("failed", 255)):
        file = run_file(tmp_path, name)
        file.log(0, loss=3, **{"n/a": 1, "img/_type": '"image-file"', "img/path": '"a.png"', "nothing": "{}"})
        file.log(1, loss=2, text='"x"').log(2, **{"n/b": 4})
        if code is not None:
            file.exit(code)
    ingest(home, tmp_path)
    summary = {"loss": 2, "n": {"a": 1, "b": 4}, "img": {"_type": "image-file", "path": "a.png"}, "text": "x"}
    expected = summary | {"_step": 2, "_timestamp": 1_700_000_002}
    assert [json.loads(text) for (text,) in sql("select summary from runs")] == [expected] * 2


def test_a_killed_run_has_what_its_summary_records_lack(home, sql, tmp_path):
    """What is defined to have no summary has none, nor has what was removed; an ended run has what its records say."""
    file = run_file(tmp_path, "killed")
    file.add(metric=pb.MetricRecord(name="none", summary=pb.MetricSummary(none=True)))
    file.add(metric=pb.MetricRecord(glob_name="val/*", summary=pb.MetricSummary(none=True)))
    file.log(0, loss=3, best=1, none=1, gone=1, **{"val/a": 1}).summary(best=5).summary("gone").log(1, loss=2)
    ended = run_file(tmp_path, "ended")
    ended.log(0, loss=3, other=1).summary(loss=7).exit()
    ingest(home, tmp_path)
    assert sql("select run_id, key, value from summary_values where key not like '\\_%' escape '\\' order by all") == [
        ("ended", "loss", "7"),
        ("killed", "best", "5"),
        ("killed", "loss", "2"),
        ("killed", "val.a", "1"),
    ]


@pytest.mark.parametrize(("name", "state", "rows"), [("1om2wnio", "crashed", 103), ("35ivz1mj", "failed", 3)])
def test_real_runs_without_a_summary_record(home, sql, name, state, rows):
    ingest(home, real_run(name))
    assert sql("select state, history_rows from runs") == [(state, rows)]
    last = "select key, last from history_keys where last is not null order by key"
    found = sql(
        "select key, number from summary_values where number is not null and key not like 'gradients%' order by key"
    )
    assert [row for row in found if row[0] != "_step"] == sql(last)
    assert dict(found)["_step"] == rows - 1


def test_the_summary_of_a_killed_run_is_the_same_however_it_is_read(home, sql, tmp_path):
    file = run_file(tmp_path)
    for step in range(4):
        file.log(step, loss=step, **{f"k{step}": step}).summary(other=step)
        ingest(home, tmp_path)
    [(grown,)] = sql("select summary from runs")
    file.path.rename(file.path.with_name("run-r1x.wandb"))
    home.published.unlink()
    (home.data / "state.duckdb").unlink()
    ingest(home, tmp_path)
    [(once,)] = sql("select summary from runs")
    assert json.loads(once) == json.loads(grown)
