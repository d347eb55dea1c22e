"""History that lies in Parquet segments: lost, cut and changed files."""

from __future__ import annotations

import pytest

from mirror.home import Home

TABLES = "select path, value_count, bytes from store.segments where retired_at is null"


def segments(bench):
    """A mirror whose history lies in one segment, and the file."""
    bench.sync(tail=10)
    (path,) = bench.home.history.rglob("*.parquet")
    return path


def test_segments_that_are_whole_are_no_difference(bench):
    segments(bench)
    code, project = bench.found("--deep")
    assert (code, project["differences"], project["behind"], project["notes"]) == (0, [], [], [])
    assert (project["values"], project["values_compared"]) == (92, 92)


def lose(path):
    path.unlink()
    return "no file"


def cut(path):
    path.write_bytes(path.read_bytes()[:700])
    return "a file of 700 bytes"


def blot(path):
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    return "no readable file ("


@pytest.mark.parametrize("harm", [lose, cut, blot])
def test_a_segment_that_is_lost_or_damaged_is_named_and_its_runs_are_pulled_again(bench, harm):
    path = segments(bench)
    listed, values, size = bench.tables(TABLES)[0]
    problem = harm(path)
    code, lines = bench.verify()
    assert code == 1
    assert lines[0].startswith(f"differs: team/p segment: mirror has {problem}")
    told = (
        f"should be a Parquet file of {values} values of team/p, {size:,} bytes (history/{listed} is lost or damaged)"
    )
    assert lines[0].endswith(told)
    where = [line.split(":")[1] for line in lines[1:]]
    assert where == [f" team/p/{run_id} history rows" for run_id in ("aaa", "bbb", "odd")]
    said = bench.repaired()
    assert f"repaired team/p: forgot the segment {listed}" in said


def test_a_segment_with_other_values_is_named_and_its_runs_are_pulled_again(bench):
    import pyarrow.compute as pc
    from pyarrow import parquet

    path = segments(bench)
    table = parquet.read_table(path, partitioning=None)
    changed = pc.if_else(pc.equal(table["key"], "acc"), pc.add(table["value"], 0.001), table["value"])
    parquet.write_table(table.set_column(table.column_names.index("value"), "value", changed), path)
    size = path.stat().st_size
    bench.damage(f"update store.segments set bytes = {size}")
    code, lines = bench.verify("--deep")
    assert code == 1
    assert lines[0] == (
        "differs: team/p/aaa history.acc: mirror has 0.001 at step 0, the first of 10, the server has 0.0 "
        "(changed in the file, or on the server after it was taken)"
    )
    bench.repaired()


def test_a_lost_segment_of_another_project_is_told_too(bench):
    path = segments(bench)
    bench.sync("team/q")
    path.unlink()
    code, lines = bench.verify("team/q")
    assert code == 1
    assert lines[0].startswith("differs: team/q segment: mirror has no file, should be a Parquet file of ")


def test_values_of_a_deleted_run_that_were_lost_remain_lost_and_all_else_is_repaired(own):
    path = segments(own)
    own.world.delete_run("team", "p", "aaa")
    own.sync()
    path.unlink()
    code, project = own.found()
    assert code == 1
    segment = next(one for one in project["differences"] if one["field"] == "segment")
    assert segment["mirror"] == "no file"
    done = own.cli("verify", "--repair")
    assert done.exit_code == 0
    assert "repaired team/p: counted the history of aaa anew, which only the mirror has" in done.stderr
    assert (
        "warning: lost for good: history of team/p/aaa in a damaged segment; the server does not have it" in done.stderr
    )
    assert own.tables("select run_id, count(*) from history group by all order by 1") == [("bbb", 30), ("odd", 12)]
    assert own.tables("select run_id, history_rows, deleted_at is not null from runs order by 1") == [
        ("aaa", 0, True),
        ("bbb", 6, False),
        ("odd", 2, False),
    ]


def test_a_lost_segment_does_not_keep_a_mirror_that_was_moved_from_opening(bench, tmp_path, monkeypatch):
    path = segments(bench)
    path.unlink()
    moved = tmp_path / "moved"
    bench.home.data.rename(moved)
    monkeypatch.setenv("MIRROR_HOME", str(moved))
    bench.home = Home.find({"MIRROR_HOME": str(moved)})
    assert bench.verify()[0] == 1
    bench.repaired()
