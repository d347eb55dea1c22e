"""Several files of one run: starts that go on or begin again, and copies of which the longest holds."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from tests.local.kit import ingest, pb, real_run, run_file

LATER = 1_700_100_000


def start(root, number, **fields):
    """The file of a run's start, the first one being number 0."""
    return run_file(root, stamp=f"2026010{number + 1}_000000", start=1_700_000_000 + number * 100_000, **fields)


def losses(sql):
    return sql("select step, value from history where key = 'loss' order by step")


def curve(*steps):
    return [(step, 1 / (n + 1)) for step, n in steps]


def by_file(results):
    return [(result.outcome, result.rows) for result in results]


def test_a_start_that_resumes_goes_on_behind_the_former_steps(home, sql, tmp_path):
    """Offline the client counts from 0 again, also in the summary."""
    start(tmp_path, 0).config(a=1).lines(0, 4).summary(_step=3, loss=0.25, best=1).exit(1)
    # Its summary record comes before the history line, or behind it.
    start(tmp_path, 1, resume=True).config(b=2).summary(_step=0, loss=1).lines(0, 3).summary(_step=2, loss=1 / 3).exit()
    results = ingest(home, tmp_path)
    assert [(result.rows, result.note) for result in results] == [(4, None), (3, None)]
    assert losses(sql) == curve(*((step, step) for step in range(4)), (4, 0), (5, 1), (6, 2))
    [(state, rows, config, summary)] = sql("select state, history_rows, config, summary from runs")
    assert (state, rows, config) == ("finished", 7, '{"a":1,"b":2}')
    assert json.loads(summary) == {"_step": 6, "loss": 1 / 3, "best": 1}


def test_a_start_whose_steps_begin_again_replaces_the_former(home, cli, sql, tmp_path):
    first = start(tmp_path, 0).config(a=1).lines(0, 9).stats(1, cpu=1).summary(loss=9, old=1).exit(1)
    second = start(tmp_path, 1).config(b=2).lines(0, 3).stats(2, cpu=2).summary(loss=1 / 3)
    (home.config.parent).mkdir(parents=True, exist_ok=True)
    home.config.write_text("[sync]\nsystem_metrics = true\n")
    done = cli("ingest", str(tmp_path))
    assert done.exit_code == 0
    again = (
        "its steps start at 0 again and it does not say that it resumes, so it replaces the run's earlier "
        f"start (9 history rows of {first.path})"
    )
    assert done.stderr.splitlines()[:3] == [
        f"local/p/r1: 9 history rows, failed ({first.path})",
        f"local/p/r1: 3 history rows, crashed ({second.path})",
        f"warning: {second.path}: {again}",
    ]
    assert losses(sql) == curve((0, 0), (1, 1), (2, 2))
    assert sql("select state, history_rows, config, summary from runs") == [
        ("crashed", 3, '{"b":2}', '{"loss":0.3333333333333333,"_step":2,"_timestamp":1700100002}')
    ]
    assert sql("select step, value from system_metrics where key = 'system.cpu'") == [(0, 2.0)]
    assert sql("select path from local_runs") == [(str(second.path),)]
    found = json.loads(cli("ingest", str(tmp_path), "--json").stdout)
    assert [result["outcome"] for result in found["results"]] == ["replaced", "nothing new"]
    first.lines(9, 12)
    second.lines(3, 4)
    assert by_file(ingest(home, tmp_path)) == [("replaced", 0), ("read", 1)]
    assert losses(sql) == curve((0, 0), (1, 1), (2, 2), (3, 3))


def test_a_start_without_a_mode_is_judged_by_its_steps_and_that_is_reported(home, sql, tmp_path):
    start(tmp_path, 0).lines(0, 4)
    start(tmp_path, 1).lines(10, 12)
    start(tmp_path, 2).lines(11, 13)
    first, second, third = ingest(home, tmp_path)
    assert first.note is None
    assert second.note == "it continues the run's earlier start, since its steps do, from 10"
    assert third.note == "it continues the run's earlier start from step 11; that start's later steps are dropped"
    assert [step for step, _ in losses(sql)] == [0, 1, 2, 3, 10, 11, 12]
    assert sql("select history_rows from runs") == [(7,)]


def test_processes_that_share_a_run_and_count_no_steps_are_one_run(home, sql, tmp_path):
    for number in range(2):
        start(tmp_path, number).log(loss=number).log(loss=number + 2)
    assert by_file(ingest(home, tmp_path)) == [("new", 2), ("new", 2)]
    assert losses(sql) == [(0, 0.0), (1, 2.0), (2, 1.0), (3, 3.0)]


def test_three_real_starts_of_one_id(home, sql):
    results = ingest(home, real_run("rwfihjum"))
    assert [(result.outcome, result.rows) for result in results] == [("new", 20), ("new", 2), ("new", 2)]
    assert sql("select step, key, value from history where key in ('loss', 'accuracy') order by step") == [
        (0, "loss", 2.3092343515396117),
        (1, "accuracy", 0.1029),
    ]
    assert sql("select run_id, history_rows from runs") == [("rwfihjum", 2)]


@pytest.mark.parametrize("resume", [True, False])
def test_starts_that_are_found_in_any_order_add_up_to_the_same(home, sql, tmp_path, resume):
    start(tmp_path / "a", 1, resume=resume).config(b=2).lines(0, 3).exit()
    ingest(home, tmp_path)
    start(tmp_path / "b", 0).config(a=1).lines(0, 4).exit(1)
    ingest(home, tmp_path)
    both = [(step, step) for step in range(4)] + [(4, 0), (5, 1), (6, 2)]
    assert losses(sql) == curve(*(both if resume else [(0, 0), (1, 1), (2, 2)]))
    assert sql("select state, config from runs") == [("finished", '{"a":1,"b":2}' if resume else '{"b":2}')]


def test_an_earlier_start_that_goes_on_late_is_put_where_it_belongs(home, sql, tmp_path):
    """As when its file is still being copied."""
    first = start(tmp_path, 0).lines(0, 2)
    second = start(tmp_path, 1, resume=True).lines(0, 2)
    ingest(home, tmp_path)
    first.lines(2, 4)
    ingest(home, tmp_path)
    assert losses(sql) == curve((0, 0), (1, 1), (2, 2), (3, 3), (4, 0), (5, 1))
    shutil.rmtree(second.path.parent)
    first.lines(4, 5)
    results = ingest(home, tmp_path)
    assert [(result.outcome, result.note is not None) for result in results] == [("replaced", True)]
    assert losses(sql) == curve((0, 0), (1, 1), (2, 2), (3, 3), (4, 0), (5, 1))


@pytest.mark.parametrize("seed", range(4))
def test_growth_in_any_steps_gives_the_same_as_one_look(home, sql, tmp_path, seed):
    """Three starts whose files grow by any number of bytes, seen after each."""
    rng = random.Random(seed)
    names = [{}, {"resume": rng.random() < 0.5}, {"resume": rng.random() < 0.5}]
    whole = {}
    for number, fields in enumerate(names):
        file = start(tmp_path / "source", number, **fields).config(**{f"c{number}": number})
        first = rng.choice([0, 0, 3, 30])
        for step in range(first, first + rng.randint(1, 9)):
            file.summary(_step=step, loss=step).log(step, **{"loss": step + number / 10, f"k{number}": step})
        file.exit(number)
        whole[file.path] = file.path.read_bytes()
    relations = (
        "select state, history_rows, config, summary from runs",
        "select step, key, value from history order by all",
        "select key, rows, first_step, last_step, last from history_keys order by all",
    )
    ingest(home, tmp_path / "source")
    expected = [sql(query) for query in relations]
    lengths = dict.fromkeys(whole, 0)
    other = type(home)(data=tmp_path / "other", config=tmp_path / "other" / "config.toml")
    while any(length < len(whole[path]) for path, length in lengths.items()):
        # Mostly in order, as they are written; sometimes a copy brings a later one first.
        path = next(path for path in sorted(whole) if lengths[path] < len(whole[path]) or rng.random() < 0.1)
        if rng.random() < 0.2:
            path = rng.choice(list(whole))
        lengths[path] = min(len(whole[path]), lengths[path] + rng.randint(1, 1200))
        target = tmp_path / "growing" / path.relative_to(tmp_path / "source")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(whole[path][: lengths[path]])
        assert [result.error for result in ingest(other, tmp_path / "growing")] == [None] * sum(
            map(bool, lengths.values())
        )
    home.published.unlink()
    shutil.copy(other.published, home.published)
    assert [sql(query) for query in relations] == expected


def cut(file, size, folder):
    """A copy of the start of a file."""
    path = folder / file.path.parent.name / file.path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.path.read_bytes()[:size])
    return path


@pytest.mark.parametrize("name", ["a", "z"])
@pytest.mark.parametrize("together", [True, False])
def test_of_several_copies_the_longest_is_the_runs(home, sql, tmp_path, name, together):
    """Whichever is seen first."""
    file = run_file(tmp_path / "m").lines(0, 90).exit()
    size = file.path.stat().st_size
    for length in (60, size // 2):
        cut(file, length, tmp_path / name / str(length))
    if not together:
        ingest(home, tmp_path / name)
    results = ingest(home, tmp_path)
    assert sorted({Path(result.path).parents[1].name: result.outcome for result in results}.items()) != []
    assert sql("select state, history_rows from runs") == [("finished", 90)]
    assert sql("select path, read_to from local_runs") == [(str(file.path), size)]
    assert sorted(outcome for outcome, _ in by_file(ingest(home, tmp_path))) == ["copy", "copy", "nothing new"]


def test_a_copy_that_outgrows_its_file_takes_over_and_one_that_is_all_that_is_left(home, sql, tmp_path):
    file = run_file(tmp_path / "a").lines(0, 9)
    copy = cut(file, file.path.stat().st_size, tmp_path / "b")
    ingest(home, tmp_path)
    file.path, original = copy, file.path
    file.lines(9, 12)
    ingest(home, tmp_path)
    assert sql("select history_rows, path from runs join local_runs using (run_id)") == [(12, str(copy))]
    shutil.copy(copy, original)
    ingest(home, tmp_path)
    copy.unlink()
    file.path = original
    file.lines(12, 14)
    ingest(home, tmp_path)
    assert sql("select history_rows, path from runs join local_runs using (run_id)") == [(14, str(original))]


def test_a_file_that_is_cut_off_or_copied_again_loses_nothing(home, sql, tmp_path):
    file = run_file(tmp_path).lines(0, 60).exit()
    ingest(home, tmp_path)
    whole = file.path.read_bytes()
    for size in (len(whole) // 2, len(whole) // 3, 100, 7, 0):
        file.path.write_bytes(whole[:size])
        [result] = ingest(home, tmp_path)
        assert (result.outcome, result.note) == (
            "nothing new",
            "it is shorter than what was read from it before, which stays mirrored",
        )
        assert sql("select state, history_rows from runs") == [("finished", 60)]
    file.path.write_bytes(whole)
    file.lines(60, 62)
    assert by_file(ingest(home, tmp_path)) == [("read", 2)]
    assert sql("select history_rows from runs") == [(62,)]


def test_a_damaged_cut_copy_gives_way_to_the_whole_file(home, sql, tmp_path):
    file = run_file(tmp_path / "z").lines(0, 90).exit()
    copy = cut(file, 6000, tmp_path / "a")
    content = bytearray(copy.read_bytes())
    content[5000] ^= 1
    copy.write_bytes(content)
    ingest(home, tmp_path / "a")
    assert sql("select damaged from local_runs") == [(1,)]
    ingest(home, tmp_path)
    assert sql("select history_rows, damaged from runs join local_runs using (run_id)") == [(90, 0)]


def test_a_run_record_of_an_update_is_no_new_start(home, sql, tmp_path):
    file = start(tmp_path, 0).lines(0, 2)
    again = pb.RunRecord(run_id="r1", project="p", notes="later")
    again.start_time.seconds = file.start
    file.add(run=again).lines(2, 4)
    ingest(home, tmp_path)
    assert sql("select history_rows, notes from runs") == [(4, "later")]


def test_values_of_a_damaged_segment_are_not_copied_when_a_start_goes_on_from_an_earlier_step(home, cli, sql, tmp_path):
    start(tmp_path, 0).lines(0, 40).exit(1)
    home.config.parent.mkdir(parents=True, exist_ok=True)
    home.config.write_text("[store]\ntail_values = 10\n")
    assert cli("ingest", str(tmp_path)).exit_code == 0
    (segment,) = home.history.rglob("*.parquet")
    whole = segment.read_bytes()
    segment.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    start(tmp_path, 1).lines(20, 30).exit()
    done = cli("ingest", str(tmp_path))
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (
        1,
        f"error: {segment} is damaged and is not copied; run `mirror verify --repair`",
    )
    segment.write_bytes(whole)
    assert cli("ingest", str(tmp_path)).exit_code == 0
    assert losses(sql) == curve(*((step, step) for step in range(30)))
