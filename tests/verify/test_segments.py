"""History that lies in Parquet segments: lost, cut and changed files."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mirror.errors import StoreError
from mirror.settings.home import Home
from mirror.store import files

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
    return "a file that was changed since it was written"


@pytest.mark.parametrize("harm", [lose, cut, blot])
def test_a_segment_that_is_lost_or_damaged_is_named_and_its_runs_are_pulled_again(bench, harm):
    path = segments(bench)
    listed, values, size = bench.tables(TABLES)[0]
    problem = harm(path)
    code, lines = bench.verify()
    assert code == 1
    assert lines[0].startswith(f"differs: team/p segment: mirror has {problem}")
    reported = (
        f"should be a Parquet file of {values} values of team/p, {size:,} bytes (history/{listed} is lost or damaged)"
    )
    assert lines[0].endswith(reported)
    where = [line.split(":")[1] for line in lines[1:]]
    assert where == [f" team/p/{run_id} history rows" for run_id in ("aaa", "bbb", "odd")]
    said = bench.repaired()
    assert f"repaired team/p: forgot the segment {listed}" in said


def changed(path, delta=0.001):
    """Write other values of `acc` into the segment."""
    import pyarrow.compute as pc
    from pyarrow import parquet

    table = parquet.read_table(path, partitioning=None)
    values = pc.if_else(pc.equal(table["key"], "acc"), pc.add(table["value"], delta), table["value"])
    parquet.write_table(table.set_column(table.column_names.index("value"), "value", values), path)
    return path.stat().st_size


NEIGHBOURS = ["", "--deep"]


@pytest.mark.parametrize("how", NEIGHBOURS)
def test_a_segment_with_other_values_is_named_and_all_its_runs_are_pulled_again(bench, how):
    path = segments(bench)
    bench.damage(f"update store.segments set bytes = {changed(path)}")
    code, lines = bench.verify(*filter(None, [how]))
    assert code == 1
    assert lines[0].startswith(
        "differs: team/p segment: mirror has a file that was changed since it was written, should be a Parquet file"
    )
    said = bench.repaired("team/p")
    assert [f"repaired team/p/{run_id}: pulled again" in said for run_id in ("aaa", "bbb", "odd")] == [True] * 3
    # What is damaged is not what the mirror lists any more, and still there to be looked at.
    assert path.exists()


def test_a_segment_of_before_there_were_digests_is_compared_value_by_value_and_gets_one(bench):
    path = segments(bench)
    bench.damage(f"update store.segments set digest = null, bytes = {changed(path)}")
    code, lines = bench.verify("--deep")
    assert code == 1
    assert lines[0] == (
        "differs: team/p/aaa history.acc: mirror has 0.001 at step 0, the first of 10, the server has 0.0 "
        "(changed in the file, or on the server after it was pulled)"
    )
    bench.repaired()
    found = bench.tables("select digest from store.segments where retired_at is null")
    assert found
    bench.damage("update store.segments set digest = null")
    bench.cli("sync")
    again = bench.tables("select digest from store.segments where retired_at is null")
    assert [len(digest) for (digest,) in again] == [64] * len(again)


def test_flipped_bytes_anywhere_in_a_segment_are_found_by_a_plain_verify(bench):
    path = segments(bench)
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        code, lines = bench.verify()
        assert (code, lines[0].split(",")[0]) == (
            1,
            "differs: team/p segment: mirror has a file that was changed since it was written",
        )
    bench.repaired()


def test_a_lost_segment_of_another_project_is_reported_too(bench):
    path = segments(bench)
    bench.sync("team/q")
    path.unlink()
    code, lines = bench.verify("team/q")
    assert code == 1
    assert lines[0].startswith("differs: team/q segment: mirror has no file, should be a Parquet file of ")


def test_segments_of_projects_that_are_not_in_the_config_are_read_through_when_no_path_is_given(bench):
    path = segments(bench)
    bench.sync("team/q")
    bench.home.config.write_text(bench.home.config.read_text().replace("team/p", "team/q"))
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    code, lines = bench.verify()
    assert (code, [line.split(",")[0] for line in lines]) == (
        1,
        ["differs: team/p segment: mirror has a file that was changed since it was written"],
    )
    assert bench.verify("team/q") == (0, [])
    done = bench.cli("verify", "--repair")
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    assert [f"repaired team/p/{run_id}: pulled again" in done.stderr for run_id in ("aaa", "bbb", "odd")] == [True] * 3
    assert bench.verify("team/p", "--deep") == (0, [])


LOST = (
    "warning: the history of team/p/aaa was in a damaged segment, and the server does not have it: what could be read is "
    "kept, but values may be missing"
)


def test_of_a_deleted_run_everything_that_can_be_read_of_a_damaged_segment_is_kept(own):
    path = segments(own)
    before = own.tables("select * from history where run_id = 'aaa' order by all")
    own.world.delete_run("team", "p", "aaa")
    own.sync()
    # A byte behind the pages, which no value is made of.
    whole = path.read_bytes()
    place = whole.index(b"DuckDB") if b"DuckDB" in whole else whole.index(b"parquet-cpp")
    path.write_bytes(whole[:place] + b"X" + whole[place + 1 :])
    done = own.cli("verify", "--repair")
    assert done.exit_code == 0
    assert "repaired team/p: kept 50 of 50 values of aaa in it, which only the mirror has" in done.stderr
    assert LOST in done.stderr
    assert own.tables("select * from history where run_id = 'aaa' order by all") == before
    assert own.tables("select history_rows from runs where run_id = 'aaa'") == [(10,)]
    assert own.cli("verify", "--deep").exit_code == 0
    assert own.cli("sync").exit_code == 0
    assert own.tables("select * from history where run_id = 'aaa' order by all") == before


def test_what_cannot_be_right_of_a_damaged_segment_is_left_out(own):
    path = segments(own)
    own.world.delete_run("team", "p", "aaa")
    own.sync()
    changed(path, 0.85)  # 0.0 to 0.9 become 0.85 to 1.75
    done = own.cli("verify", "--repair")
    assert done.exit_code == 0
    assert "kept 41 of 50 values of aaa in it" in done.stderr
    assert own.tables("select value from history where run_id = 'aaa' and key = 'acc'") == [(0.85,)]


def test_a_segment_or_a_file_that_may_not_be_read_now_is_not_given_up(own, monkeypatch):
    """It is whole once the permission is back, and the server may have its runs no more."""
    own.world.run("team", "p", "aaa").add_file("notes.txt", "only here")
    own.sync(tail=10, sync='files = "content"')
    (path,) = own.home.history.rglob("*.parquet")
    own.world.delete_run("team", "p", "aaa")
    own.sync()
    held = "select local_path from files where run_id = 'aaa' and name = 'notes.txt'"
    blob = Path(own.tables(held)[0][0])
    digest = files.digest

    def forbidden(which):
        def refused(asked):
            if asked == which:
                raise PermissionError(errno.EACCES, "Permission denied", str(asked))
            return digest(asked)

        return refused

    for which in (path, blob):
        monkeypatch.setattr(files, "digest", forbidden(which))
        done = own.cli("verify", "--repair", "--deep")
        reported = f"error: {which} cannot be read (Permission denied), but may be whole, so it is not repaired; check "
        assert (done.exit_code, done.stderr.splitlines()[-1]) == (1, f"{reported}who owns it, and its disk")
    monkeypatch.setattr(files, "digest", digest)
    assert own.verify("--deep") == (0, [])
    assert own.tables("select count(*) from history where run_id = 'aaa'") == [(50,)]
    assert own.tables(held) == [(str(blob),)]


def test_a_damaged_segment_is_not_merged(bench, caplog):
    from mirror.store import segments as store
    from mirror.store.store import Store

    path = segments(bench)
    changed(path)
    opened = Store.open(bench.home)
    try:
        opened._db.run("update store.segment_runs set replaced = run_id = 'bbb'")
        assert store.REPLACED_SHARE <= 0.3
        with pytest.raises(StoreError) as refused:
            opened.tend()
        assert str(refused.value) == f"{path} is damaged and is not copied; run `mirror verify --repair`"
    finally:
        opened.close()


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
    assert "repaired team/p: kept 0 of 50 values of aaa in it, which only the mirror has" in done.stderr
    assert "repaired team/p: counted the history of aaa again, which only the mirror has" in done.stderr
    assert LOST in done.stderr
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
